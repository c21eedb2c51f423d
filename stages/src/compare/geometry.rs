//! Stage kind `compare.geometry`: how similar the subcomponents of two decompositions of one target are.
//!
//! The formulas are in `similarity.rs`. Which subcomponents count as live is measured on the data of the current
//! decomposition.

use std::collections::BTreeMap;
use std::marker::PhantomData;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use spdflow_engine::kind::{InputArtifact, InputSlot, Kind, KindInfo, ParamIssue, StageContext, StageError, Summary};

use super::similarity::{SiteComponents, SiteSimilarity, densities, metrics, similarities};
use crate::artifact::tables::{self, Column};
use crate::artifact::{components, json};
use crate::importance::ImportanceSource;
use crate::threads::with_threads;

/// Compares the geometry of two decompositions; importances come from `S`.
#[derive(Debug)]
pub struct Geometry<S>(PhantomData<fn() -> S>);

/// Parameters of `compare.geometry`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct GeometryParams {
    /// A subcomponent is compared when it is active on more than this share of inputs.
    pub density_threshold: f64,
    /// How many batches of inputs that share is measured on.
    pub n_eval_steps: usize,
    /// The inputs of one batch.
    pub eval_batch_size: usize,
    /// A subcomponent is active on an input when its causal importance is above this.
    pub ci_alive_threshold: f64,
    /// Of the inputs drawn.
    pub seed: u64,
}

impl Default for GeometryParams {
    fn default() -> Self {
        Self { density_threshold: 0.001, n_eval_steps: 5, eval_batch_size: 32, ci_alive_threshold: 0.0, seed: 0 }
    }
}

/// What `summary.json` says.
#[derive(Serialize)]
struct Report {
    /// The reference's names and numbers; NaN is null.
    metrics: BTreeMap<String, f64>,
    /// How many subcomponents of each site were compared.
    compared: BTreeMap<String, usize>,
}

impl<S: ImportanceSource> Kind for Geometry<S> {
    type Params = GeometryParams;

    const INFO: KindInfo = KindInfo {
        name: "compare.geometry",
        version: 1,
        summary: "for each live subcomponent the most similar one of another decomposition, by cosine",
        inputs: &[
            InputSlot {
                name: "current",
                accepts: &["decompose.*"],
                many: false,
                required: true,
                summary: "whose live subcomponents are looked for",
            },
            InputSlot {
                name: "reference",
                accepts: &["decompose.*"],
                many: false,
                required: true,
                summary: "among whose subcomponents they are looked for",
            },
        ],
    };

    fn validate(params: &Self::Params) -> Vec<ParamIssue> {
        let mut issues = Vec::new();
        for (name, value) in
            [("density_threshold", params.density_threshold), ("ci_alive_threshold", params.ci_alive_threshold)]
        {
            if !(0.0..=1.0).contains(&value) {
                issues.push(ParamIssue::new(name, format!("must be in [0, 1], found {value}")));
            }
        }
        for (name, value) in [("n_eval_steps", params.n_eval_steps), ("eval_batch_size", params.eval_batch_size)] {
            if value == 0 {
                issues.push(ParamIssue::new(name, "must be at least 1, found 0"));
            }
        }
        issues
    }

    fn run(params: &Self::Params, context: &StageContext<'_>) -> Result<Summary, StageError> {
        let (current, reference) = (context.input("current"), context.input("reference"));
        let (ours, theirs) = (sites(current)?, sites(reference)?);
        let importances = S::on_data(current, params.n_eval_steps * params.eval_batch_size, params.seed)?;
        if context.should_stop() {
            // Comparing takes seconds: nothing is worth saving.
            return Err(StageError::Interrupted);
        }
        let densities: Vec<Vec<f32>> = ours
            .iter()
            .map(|site| {
                let found = importances.iter().find(|(name, _)| *name == site.site);
                let (_, ci) = found.ok_or_else(|| {
                    StageError::failed(format!(
                        "`{}` has no causal importances at site `{}`",
                        current.instance, site.site
                    ))
                })?;
                Ok(densities(ci, params.ci_alive_threshold))
            })
            .collect::<Result<_, StageError>>()?;
        let compare = || similarities(&ours, &theirs, &densities, params.density_threshold);
        let found = with_threads(context.threads, compare)?.map_err(|message| {
            StageError::failed_with_hint(
                format!("`{}` and `{}` cannot be compared: {message}", current.instance, reference.instance),
                "both must be decompositions of the same target",
            )
        })?;
        for site in ours.iter().filter(|site| !found.iter().any(|found| found.site == site.site)) {
            context
                .progress
                .log(&format!("site `{}` is left out: not in the reference, or nothing is live", site.site));
        }
        write(context, &ours, &densities, &found)
    }
}

fn sites(artifact: &InputArtifact) -> Result<Vec<SiteComponents>, StageError> {
    let sites = components::read(artifact)?;
    Ok(sites.into_iter().map(|site| SiteComponents { site: site.name, v: site.v, u: site.u }).collect())
}

fn write(
    context: &StageContext<'_>,
    ours: &[SiteComponents],
    densities: &[Vec<f32>],
    found: &[SiteSimilarity],
) -> Result<Summary, StageError> {
    let mut summary = Summary::default();
    let small = |index: usize| i32::try_from(index).expect("fewer than 2^31 components");
    let rows = || found.iter().flat_map(|site| site.matches.iter().map(|best| (site.site.as_str(), best)));
    let density = |site: &str, component: usize| {
        let place = ours.iter().position(|ours| ours.site == site).expect("a site of the current decomposition");
        densities[place][component]
    };
    tables::write(
        &context.out_dir.join("similarity.parquet"),
        &[
            ("site", Column::Text(rows().map(|(site, _)| site.to_owned()).collect())),
            ("component", Column::Int32(rows().map(|(_, best)| small(best.current)).collect())),
            ("reference_component", Column::Int32(rows().map(|(_, best)| small(best.reference)).collect())),
            ("max_abs_cosine_sim", Column::Float64(rows().map(|(_, best)| best.abs_cosine).collect())),
            ("density", Column::Float32(rows().map(|(site, best)| density(site, best.current)).collect())),
        ],
    )?;
    summary.file("similarity.parquet", "parquet", "the best match of each live subcomponent");

    let metrics = metrics(found);
    let compared = found.iter().map(|site| (site.site.clone(), site.matches.len())).collect();
    let report = Report { metrics: metrics.iter().cloned().collect(), compared };
    json::write(&context.out_dir.join("summary.json"), &report)?;
    summary.file("summary.json", "json", "mean, spread and range of the best matches, by site");

    // The mean over all sites is the headline; the others follow in the order of the sites.
    let means = || metrics.iter().filter(|(name, value)| name.starts_with("mean_") && value.is_finite());
    for (name, value) in means().filter(|(name, _)| name.ends_with("/all_layers")) {
        summary.metric(name, *value);
    }
    for (name, value) in means().filter(|(name, _)| !name.ends_with("/all_layers")) {
        summary.metric(name, *value);
    }
    summary.metric("n_compared", rows().count() as f64);
    Ok(summary)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;

    use spdflow_engine::kind::{InputArtifact, Kind, StageError};

    use super::{Geometry, GeometryParams};
    use crate::artifact::tables;
    use crate::artifact::tensors::{self, Tensor};
    use crate::importance::ImportanceSource;
    use crate::matrix::Matrix;
    use crate::testing::{artifact_in, run_kind};

    /// Components 0 and 1 of each site are active on every second input, component 2 never.
    struct TwoLive;

    impl ImportanceSource for TwoLive {
        fn on_data(_: &InputArtifact, rows: usize, _: u64) -> Result<Vec<(String, Matrix)>, StageError> {
            let ci = Matrix::from_fn(rows, 3, |row, c| if c < 2 && row % 2 == 0 { 0.7 } else { 0.0 });
            Ok(vec![("a.b".to_owned(), ci)])
        }
    }

    fn decomposition(folder: &Path, v: &Matrix, u: &Matrix) -> InputArtifact {
        let (v, u): (Tensor, Tensor) = (v.clone().into(), u.clone().into());
        let named = [("_components.a-b.V", &v), ("_components.a-b.U", &u)];
        tensors::write(&folder.join("components.safetensors"), named).unwrap();
        std::fs::write(folder.join("decomposition.json"), r#"{"sites": [{"name": "a.b"}]}"#).unwrap();
        artifact_in(folder, &folder.file_name().unwrap().to_string_lossy(), "decompose.spd")
    }

    fn run(
        current: (&Matrix, &Matrix),
        reference: (&Matrix, &Matrix),
    ) -> (tempfile::TempDir, Result<Vec<(String, f64)>, String>) {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| {
            let path = folder.path().join(name);
            std::fs::create_dir(&path).unwrap();
            path
        };
        let inputs = BTreeMap::from([
            ("current".to_owned(), vec![decomposition(&at("ours"), current.0, current.1)]),
            ("reference".to_owned(), vec![decomposition(&at("theirs"), reference.0, reference.1)]),
        ]);
        let out = at("out");
        let result = run_kind::<Geometry<TwoLive>>(&GeometryParams::default(), &inputs, &out, 2);
        (folder, result.map(|summary| summary.metrics).map_err(|error| error.to_string()))
    }

    #[test]
    fn live_components_find_their_permuted_and_scaled_twins() {
        let (v, u) = (
            Matrix::from_fn(4, 3, |r, c| ((r * 5 + c * 3) % 7) as f32 - 2.5),
            Matrix::from_fn(3, 2, |r, c| (r + 1) as f32 - 2.0 * c as f32),
        );
        let (their_v, their_u) = (v.with_columns(&[2, 0, 1]), Matrix::from_rows(&[u.row(2), u.row(0), u.row(1)]));
        let scaled = Matrix::from_fn(4, 3, |r, c| -3.0 * their_v.at(r, c));
        let (folder, metrics) = run((&v, &u), (&scaled, &their_u));
        let metrics = metrics.unwrap();
        assert_eq!(metrics[0].0, "mean_max_abs_cosine_sim/all_layers");
        assert!((metrics[0].1 - 1.0).abs() < 1e-9);
        assert_eq!(metrics[2], ("n_compared".to_owned(), 2.0));
        let table = tables::read(&folder.path().join("out/similarity.parquet")).unwrap();
        assert_eq!(table.int32("component").unwrap(), [0, 1]);
        assert_eq!(table.int32("reference_component").unwrap(), [1, 2]);
        assert_eq!(table.float32("density").unwrap(), [0.5, 0.5]);
    }

    #[test]
    fn decompositions_of_different_targets_cannot_be_compared() {
        let (_folder, result) =
            run((&Matrix::zeros(4, 3), &Matrix::zeros(3, 2)), (&Matrix::zeros(5, 3), &Matrix::zeros(3, 2)));
        assert_eq!(
            result.unwrap_err(),
            "`ours` and `theirs` cannot be compared: site `a.b` is 4 x 2 in the current decomposition but 5 x 2 in the \
             reference"
        );
    }

    #[test]
    fn parameters_out_of_range_are_named() {
        let wrong = GeometryParams { density_threshold: 1.5, n_eval_steps: 0, ..GeometryParams::default() };
        let issues = Geometry::<TwoLive>::validate(&wrong);
        let shown: Vec<String> = issues.iter().map(|issue| format!("{}: {}", issue.path, issue.message)).collect();
        assert_eq!(
            shown,
            ["density_threshold: must be in [0, 1], found 1.5", "n_eval_steps: must be at least 1, found 0"]
        );
    }
}
