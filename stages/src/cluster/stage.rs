//! Stage kind `cluster.kmeans`: k-means on the components' profiles of causal importance over data.
//!
//! A component's profile is its importance on each of many inputs, scaled to length 1: two components are close when
//! they matter on the same inputs, however much they matter. Components that never matter form no cluster.

use std::marker::PhantomData;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use spdflow_engine::kind::{InputSlot, Kind, KindInfo, ParamIssue, StageContext, StageError, Summary};

use super::kmeans::{Clustering, Options, Points, kmeans, silhouette};
use crate::artifact::json;
use crate::artifact::tables::{self, Column};
use crate::importance::ImportanceSource;
use crate::matrix::Matrix;
use crate::threads::with_threads;

/// Above this many components the silhouette, quadratic in their number, is not computed.
const MOST_FOR_SILHOUETTE: usize = 2000;

/// Groups components by k-means; importances come from `S`.
#[derive(Debug)]
pub struct KMeans<S>(PhantomData<fn() -> S>);

/// Parameters of `cluster.kmeans`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KMeansParams {
    /// The number of clusters wanted; there are fewer if fewer different profiles exist.
    pub n_clusters: usize,
    /// How often to start anew; the clustering of the smallest inertia is kept.
    #[serde(default = "default_n_init")]
    pub n_init: usize,
    /// The limit of iterations of one start.
    #[serde(default = "default_max_iterations")]
    pub max_iterations: usize,
    /// A start has converged when the squared shift of all centres together is at most this times the mean variance of
    /// the profiles.
    #[serde(default = "default_tolerance")]
    pub tolerance: f64,
    /// Of the choice of starting centres.
    #[serde(default)]
    pub seed: u64,
    /// On how many inputs importances are computed.
    #[serde(default = "default_rows")]
    pub rows: usize,
    /// Of the inputs drawn.
    #[serde(default)]
    pub data_seed: u64,
    /// A component is alive, and joins a cluster, when its importance is above this on some input.
    #[serde(default = "default_alive_threshold")]
    pub alive_threshold: f64,
}

fn default_n_init() -> usize {
    10
}

fn default_max_iterations() -> usize {
    300
}

fn default_tolerance() -> f64 {
    1e-4
}

fn default_rows() -> usize {
    4096
}

fn default_alive_threshold() -> f64 {
    0.1
}

/// A component over the data.
struct Component {
    site: String,
    index: usize,
    mean_ci: f32,
    is_alive: bool,
}

/// What `summary.json` says.
#[derive(Serialize)]
struct Report {
    inertia: f64,
    n_alive: usize,
    n_clusters: usize,
    n_clusters_wanted: usize,
    silhouette: Option<f64>,
    clusters: Vec<Vec<MemberReport>>,
}

#[derive(Serialize)]
struct MemberReport {
    site: String,
    component: usize,
}

/// What `history.json` says.
#[derive(Serialize)]
struct History {
    best_restart: usize,
    restarts: Vec<RestartReport>,
}

#[derive(Serialize)]
struct RestartReport {
    converged: bool,
    /// Of the start and after each iteration.
    inertia: Vec<f64>,
}

impl<S: ImportanceSource> Kind for KMeans<S> {
    type Params = KMeansParams;

    const INFO: KindInfo = KindInfo {
        name: "cluster.kmeans",
        version: 1,
        summary: "groups components that matter on the same inputs, by k-means",
        inputs: &[InputSlot {
            name: "decomposition",
            accepts: &["decompose.*"],
            many: false,
            required: true,
            summary: "whose components to group",
        }],
    };

    fn validate(params: &Self::Params) -> Vec<ParamIssue> {
        let mut issues = Vec::new();
        let counts = [
            ("n_clusters", params.n_clusters),
            ("n_init", params.n_init),
            ("max_iterations", params.max_iterations),
            ("rows", params.rows),
        ];
        issues.extend(
            counts
                .iter()
                .filter(|(_, value)| *value == 0)
                .map(|(name, _)| ParamIssue::new(*name, "must be at least 1, found 0")),
        );
        if !(params.tolerance.is_finite() && params.tolerance >= 0.0) {
            issues.push(ParamIssue::new("tolerance", format!("must be at least 0, found {}", params.tolerance)));
        }
        if !(0.0..1.0).contains(&params.alive_threshold) {
            let message = format!("must be in [0, 1), found {}", params.alive_threshold);
            issues.push(ParamIssue::new("alive_threshold", message));
        }
        issues
    }

    fn run(params: &Self::Params, context: &StageContext<'_>) -> Result<Summary, StageError> {
        let importances = S::on_data(context.input("decomposition"), params.rows, params.data_seed)?;
        if context.should_stop() {
            // Clustering takes seconds: nothing is worth saving.
            return Err(StageError::Interrupted);
        }
        let (components, points) = profiles(&importances, params.alive_threshold as f32)?;
        let n_alive = components.iter().filter(|component| component.is_alive).count();
        let options = Options {
            n_clusters: params.n_clusters,
            n_init: params.n_init,
            max_iterations: params.max_iterations,
            tolerance: params.tolerance,
            seed: params.seed,
        };
        let (clustering, score) = with_threads(context.threads, || {
            let Some(points) = &points else { return (None, None) };
            let found = kmeans(points, &options);
            let is_cheap = n_alive <= MOST_FOR_SILHOUETTE;
            let score = if is_cheap { silhouette(points, &found.labels, found.n_clusters) } else { None };
            (Some(found), score)
        })?;
        let found = clustering.unwrap_or(Clustering {
            labels: Vec::new(),
            n_clusters: 0,
            inertia: 0.0,
            restarts: Vec::new(),
            best_restart: 0,
        });
        if found.n_clusters < params.n_clusters {
            context.progress.log(&format!(
                "{} clusters instead of {}: {n_alive} components are alive on {} rows",
                found.n_clusters, params.n_clusters, params.rows
            ));
        }
        write(params, context, &components, found, score)
    }
}

/// Returns all components, and the profiles of those that are alive, scaled to length 1, if there are any.
fn profiles(
    importances: &[(String, Matrix)],
    alive_threshold: f32,
) -> Result<(Vec<Component>, Option<Points>), StageError> {
    let (mut components, mut data, mut dim) = (Vec::new(), Vec::new(), 0);
    for (site, ci) in importances {
        dim = ci.rows();
        let by_component = ci.transposed();
        for index in 0..by_component.rows() {
            let profile = by_component.row(index);
            if let Some(value) = profile.iter().find(|value| !value.is_finite()) {
                return Err(StageError::failed_with_hint(
                    format!(
                        "causal importance of component {index} of site `{site}` is {value}, expected a finite number"
                    ),
                    "the decomposition has diverged: lower its learning rate or clip its gradients",
                ));
            }
            let sum: f64 = profile.iter().map(|value| f64::from(*value)).sum();
            let is_alive = profile.iter().any(|value| *value > alive_threshold);
            if is_alive {
                let length = profile.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt();
                data.extend(profile.iter().map(|value| f64::from(*value) / length));
            }
            components.push(Component {
                site: site.clone(),
                index,
                mean_ci: (sum / profile.len() as f64) as f32,
                is_alive,
            });
        }
    }
    Ok((components, (!data.is_empty()).then(|| Points::new(dim, data))))
}

fn write(
    params: &KMeansParams,
    context: &StageContext<'_>,
    components: &[Component],
    found: Clustering,
    silhouette: Option<f64>,
) -> Result<Summary, StageError> {
    let mut summary = Summary::default();
    let mut labels = found.labels.iter().copied();
    let clusters: Vec<Option<usize>> =
        components.iter().map(|component| if component.is_alive { labels.next() } else { None }).collect();
    let small = |index: usize| i32::try_from(index).expect("fewer than 2^31 components");
    tables::write(
        &context.out_dir.join("clusters.parquet"),
        &[
            ("site", Column::Text(components.iter().map(|component| component.site.clone()).collect())),
            ("component", Column::Int32(components.iter().map(|component| small(component.index)).collect())),
            ("cluster", Column::OptionalInt32(clusters.iter().map(|cluster| cluster.map(small)).collect())),
            ("alive", Column::Bool(components.iter().map(|component| component.is_alive).collect())),
            ("mean_ci", Column::Float32(components.iter().map(|component| component.mean_ci).collect())),
        ],
    )?;
    summary.file("clusters.parquet", "parquet", "the cluster of each component; none for those that never matter");

    let mut members: Vec<Vec<MemberReport>> = (0..found.n_clusters).map(|_| Vec::new()).collect();
    for (component, cluster) in components.iter().zip(&clusters) {
        if let Some(cluster) = cluster {
            members[*cluster].push(MemberReport { site: component.site.clone(), component: component.index });
        }
    }
    let report = Report {
        inertia: found.inertia,
        n_alive: found.labels.len(),
        n_clusters: found.n_clusters,
        n_clusters_wanted: params.n_clusters,
        silhouette,
        clusters: members,
    };
    json::write(&context.out_dir.join("summary.json"), &report)?;
    summary.file("summary.json", "json", "the members of each cluster, inertia and silhouette");

    let restarts =
        found.restarts.into_iter().map(|r| RestartReport { converged: r.converged, inertia: r.inertia }).collect();
    json::write(&context.out_dir.join("history.json"), &History { best_restart: found.best_restart, restarts })?;
    summary.file("history.json", "json", "the inertia of each start and iteration");

    summary.metric("inertia", report.inertia);
    summary.metric("n_clusters", report.n_clusters as f64);
    summary.metric("n_alive", report.n_alive as f64);
    if let Some(silhouette) = silhouette {
        summary.metric("silhouette", silhouette);
    }
    Ok(summary)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use spdflow_engine::kind::{InputArtifact, Kind, StageError};

    use super::{KMeans, KMeansParams};
    use crate::artifact::tables;
    use crate::importance::ImportanceSource;
    use crate::matrix::Matrix;
    use crate::testing::{artifact, run_kind};

    /// Three groups of inputs; component c of either site matters on group c mod 4, and group 3 does not exist.
    struct ThreeGroups;

    impl ImportanceSource for ThreeGroups {
        fn on_data(_: &InputArtifact, rows: usize, _: u64) -> Result<Vec<(String, Matrix)>, StageError> {
            let ci = |strength: f32| {
                Matrix::from_fn(
                    rows,
                    8,
                    |row, c| if row % 3 == c % 4 { strength / (1.0 + (c % 2) as f32) } else { 0.01 },
                )
            };
            Ok(vec![("linear1".to_owned(), ci(1.0)), ("linear2".to_owned(), ci(0.6))])
        }
    }

    struct Diverged;

    impl ImportanceSource for Diverged {
        fn on_data(_: &InputArtifact, rows: usize, _: u64) -> Result<Vec<(String, Matrix)>, StageError> {
            Ok(vec![("linear1".to_owned(), Matrix::from_fn(rows, 2, |_, c| if c == 1 { f32::NAN } else { 0.0 }))])
        }
    }

    fn params(n_clusters: usize) -> KMeansParams {
        let text = format!("{{\"n_clusters\": {n_clusters}, \"rows\": 90}}");
        serde_json::from_str(&text).unwrap()
    }

    fn inputs() -> BTreeMap<String, Vec<InputArtifact>> {
        BTreeMap::from([("decomposition".to_owned(), vec![artifact("decompose", "decompose.spd", BTreeMap::new())])])
    }

    #[test]
    fn components_that_matter_together_share_a_cluster_and_dead_ones_have_none() {
        let folder = tempfile::tempdir().unwrap();
        let summary = run_kind::<KMeans<ThreeGroups>>(&params(3), &inputs(), folder.path(), 1).unwrap();
        let table = tables::read(&folder.path().join("clusters.parquet")).unwrap();
        let per_site = [Some(0), Some(1), Some(2), None, Some(0), Some(1), Some(2), None];
        assert_eq!(table.optional_int32("cluster").unwrap(), [per_site, per_site].concat());
        assert_eq!(table.bool("alive").unwrap()[3..5], [false, true]);
        assert_eq!(table.text("site").unwrap()[8], "linear2");
        let metrics: BTreeMap<_, _> = summary.metrics.into_iter().collect();
        assert_eq!((metrics["n_clusters"], metrics["n_alive"]), (3.0, 12.0));
        assert!(metrics["inertia"] < 1e-2 && metrics["silhouette"] > 0.9, "{metrics:?}");
    }

    #[test]
    fn bytes_do_not_depend_on_threads() {
        let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        for (folder, threads) in folders.iter().zip([1, 4]) {
            run_kind::<KMeans<ThreeGroups>>(&params(5), &inputs(), folder.path(), threads).unwrap();
        }
        for name in ["clusters.parquet", "history.json", "summary.json"] {
            let [first, second] = folders.each_ref().map(|folder| std::fs::read(folder.path().join(name)).unwrap());
            assert!(first == second, "`{name}` differs");
        }
    }

    #[test]
    fn a_diverged_decomposition_is_an_error_that_names_the_component() {
        let folder = tempfile::tempdir().unwrap();
        let error = run_kind::<KMeans<Diverged>>(&params(3), &inputs(), folder.path(), 1).unwrap_err();
        let expected = "causal importance of component 1 of site `linear1` is NaN, expected a finite number";
        assert_eq!(error.to_string(), expected);
    }

    #[test]
    fn parameters_out_of_range_are_named() {
        let wrong = KMeansParams { n_clusters: 0, tolerance: -1.0, alive_threshold: 1.0, ..params(1) };
        let issues = KMeans::<ThreeGroups>::validate(&wrong);
        let shown: Vec<String> = issues.iter().map(|issue| format!("{}: {}", issue.path, issue.message)).collect();
        assert_eq!(
            shown,
            [
                "n_clusters: must be at least 1, found 0",
                "tolerance: must be at least 0, found -1",
                "alive_threshold: must be in [0, 1), found 1"
            ]
        );
    }
}
