//! k-means: Lloyd's iterations from k-means++ starts, the best of several restarts.
//!
//! Written here because the crates we measured find worse optima; it follows scikit-learn's choices (several
//! candidates per new centre, tolerance relative to the data's variance, an emptied cluster takes the farthest point).
//! All sums are f64 in index order and random numbers depend on (seed, restart, index) alone, so the result is the
//! same for any number of threads.
//!
//! Profiles have thousands of coordinates, so the distances are nearly all of the work, and none is computed twice
//! without need: those between points serve every start, and an iteration looks only at the centres that moved.

use rayon::prelude::*;
use spdflow_kernels::philox::{Stream, unit_f64};

use crate::purpose::Purpose;

/// Points in a space: row-major [n, dim].
#[derive(Debug, Clone)]
pub struct Points {
    dim: usize,
    data: Vec<f64>,
}

/// How to search.
#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    /// The number of clusters wanted.
    pub n_clusters: usize,
    /// The number of restarts.
    pub n_init: usize,
    /// The limit of iterations of one restart.
    pub max_iterations: usize,
    /// A restart has converged when the squared shift of all centres together is at most this times the mean variance
    /// of the coordinates.
    pub tolerance: f64,
    /// Of the random numbers.
    pub seed: u64,
}

/// The best clustering found.
#[derive(Debug, Clone, PartialEq)]
pub struct Clustering {
    /// The cluster of each point: 0 is the largest, clusters of one size in the order of their first points.
    pub labels: Vec<usize>,
    /// How many clusters there are: fewer than wanted if there are fewer distinct points.
    pub n_clusters: usize,
    /// The sum of squared distances of all points to their centres.
    pub inertia: f64,
    /// What each restart reached.
    pub restarts: Vec<Restart>,
    /// Which restart was best: the first of those with the smallest inertia.
    pub best_restart: usize,
}

/// What one restart reached.
#[derive(Debug, Clone, PartialEq)]
pub struct Restart {
    /// The inertia of the start and after each iteration.
    pub inertia: Vec<f64>,
    /// Whether it stopped by itself.
    pub converged: bool,
}

impl Points {
    /// Returns points of `dim` coordinates.
    ///
    /// # Panics
    /// If `data` is not a multiple of `dim` long, or `dim` is 0.
    #[must_use]
    pub fn new(dim: usize, data: Vec<f64>) -> Self {
        assert!(dim > 0 && data.len().is_multiple_of(dim), "{} numbers in rows of {dim}", data.len());
        Self { dim, data }
    }

    /// Returns the number of points.
    #[must_use]
    pub fn len(&self) -> usize {
        self.data.len() / self.dim
    }

    /// Returns whether there are no points.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.data.is_empty()
    }

    fn row(&self, i: usize) -> &[f64] {
        &self.data[i * self.dim..(i + 1) * self.dim]
    }

    /// Returns the mean over coordinates of their variance.
    fn mean_variance(&self) -> f64 {
        let n = self.len() as f64;
        let mut mean = vec![0.0; self.dim];
        let mut variance = vec![0.0; self.dim];
        for i in 0..self.len() {
            add(&mut mean, self.row(i));
        }
        mean.iter_mut().for_each(|m| *m /= n);
        for i in 0..self.len() {
            for ((v, x), m) in variance.iter_mut().zip(self.row(i)).zip(&mean) {
                *v += (x - m) * (x - m);
            }
        }
        variance.iter().sum::<f64>() / n / self.dim as f64
    }
}

/// Returns the best clustering of `points` that `options.n_init` restarts find.
///
/// # Panics
/// If there are no points, or an option that counts is 0.
#[must_use]
pub fn kmeans(points: &Points, options: &Options) -> Clustering {
    assert!(!points.is_empty(), "expected at least one point");
    assert!(options.n_clusters > 0 && options.n_init > 0 && options.max_iterations > 0, "{options:?}");
    let tolerance = options.tolerance * points.mean_variance();
    let between = Between::new(points);
    let runs: Vec<(Vec<usize>, Restart)> = (0..options.n_init)
        .into_par_iter()
        .map(|restart| {
            let start = plus_plus(&between, options.n_clusters, &mut Draws::new(options.seed, restart as u32));
            lloyd(points, Centres::at(&between, &start), options.max_iterations, tolerance)
        })
        .collect();
    let best_restart = (1..runs.len()).fold(0, |best, i| if last(&runs[i].1) < last(&runs[best].1) { i } else { best });
    let (labels, n_clusters) = largest_first(&runs[best_restart].0);
    let restarts: Vec<Restart> = runs.into_iter().map(|(_, restart)| restart).collect();
    Clustering { labels, n_clusters, inertia: last(&restarts[best_restart]), restarts, best_restart }
}

fn last(restart: &Restart) -> f64 {
    *restart.inertia.last().expect("a restart begins with the inertia of its start")
}

/// Above this many points their distances to one another are not kept (32 MiB).
const MOST_FOR_TABLE: usize = 2048;

/// The squared distances between points.
struct Between<'p> {
    points: &'p Points,
    /// Row i: those from point i to the points before it. Both directions have the same bits.
    table: Option<Vec<Vec<f64>>>,
}

impl<'p> Between<'p> {
    fn new(points: &'p Points) -> Self {
        let row = |i: usize| (0..i).map(|j| squared_distance(points.row(i), points.row(j))).collect();
        let is_small = points.len() <= MOST_FOR_TABLE;
        Self { points, table: is_small.then(|| (0..points.len()).into_par_iter().map(row).collect()) }
    }

    fn get(&self, i: usize, j: usize) -> f64 {
        match &self.table {
            Some(_) if i == j => 0.0,
            Some(table) => table[i.max(j)][i.min(j)],
            None => squared_distance(self.points.row(i), self.points.row(j)),
        }
    }
}

/// Returns the points where centres start: each new one is drawn with probability proportional to its squared distance
/// to those so far, the best of a few such draws. Fewer than `k` if all points already lie on centres.
fn plus_plus(between: &Between<'_>, k: usize, draws: &mut Draws) -> Vec<usize> {
    let n = between.points.len();
    let candidates = 2 + (k as f64).ln() as usize;
    let first = ((draws.next() * n as f64) as usize).min(n - 1);
    let mut start = vec![first];
    let mut distance: Vec<f64> = (0..n).map(|i| between.get(i, first)).collect();
    while start.len() < k {
        let total: f64 = distance.iter().sum();
        if total <= 0.0 {
            break;
        }
        let best = (0..candidates)
            .map(|_| {
                let chosen = pick(&distance, draws.next() * total);
                let nearer: Vec<f64> = (0..n).map(|i| distance[i].min(between.get(i, chosen))).collect();
                (nearer.iter().sum::<f64>(), chosen, nearer)
            })
            .reduce(|best, next| if next.0 < best.0 { next } else { best })
            .expect("at least two candidates");
        start.push(best.1);
        distance = best.2;
    }
    start
}

/// Returns the index at which the running sum of `weights` passes `target`; never one of weight zero.
fn pick(weights: &[f64], target: f64) -> usize {
    let mut sum = 0.0;
    let mut chosen = 0;
    for (i, weight) in weights.iter().enumerate() {
        if *weight > 0.0 {
            chosen = i;
            sum += weight;
            if sum > target {
                break;
            }
        }
    }
    chosen
}

/// Centres, and the squared distance of every point to each.
struct Centres {
    /// Row-major [k, dim].
    data: Vec<f64>,
    /// Row-major [n, k].
    distance: Vec<f64>,
}

impl Centres {
    /// Returns centres at these points.
    fn at(between: &Between<'_>, start: &[usize]) -> Self {
        let points = between.points;
        let distance = (0..points.len()).flat_map(|i| start.iter().map(move |&c| between.get(i, c)));
        Self { data: start.iter().flat_map(|&c| points.row(c)).copied().collect(), distance: distance.collect() }
    }

    fn count(&self, points: &Points) -> usize {
        self.data.len() / points.dim
    }

    /// Moves the centres to `data`, and returns the squared distance they went together.
    fn move_to(&mut self, points: &Points, data: Vec<f64>) -> f64 {
        let shift = squared_distance(&data, &self.data);
        let k = self.count(points);
        for (c, (to, from)) in data.chunks_exact(points.dim).zip(self.data.chunks_exact(points.dim)).enumerate() {
            if to != from {
                (0..points.len()).for_each(|i| self.distance[i * k + c] = squared_distance(points.row(i), to));
            }
        }
        self.data = data;
        shift
    }

    /// Returns for each point its nearest centre, the first of equals, and the squared distance to it.
    fn nearest(&self, points: &Points) -> (Vec<usize>, Vec<f64>) {
        let of_point = |distance: &[f64]| {
            let first = (0, distance[0]);
            distance.iter().copied().enumerate().fold(first, |best, next| if next.1 < best.1 { next } else { best })
        };
        self.distance.chunks_exact(self.count(points)).map(of_point).unzip()
    }
}

fn lloyd(points: &Points, mut centres: Centres, max_iterations: usize, tolerance: f64) -> (Vec<usize>, Restart) {
    let (mut labels, mut distance) = centres.nearest(points);
    let mut restart = Restart { inertia: vec![distance.iter().sum()], converged: false };
    for _ in 0..max_iterations {
        let moved = means(points, &mut labels, &distance, centres.count(points));
        let shift = centres.move_to(points, moved);
        let (next, next_distance) = centres.nearest(points);
        let is_fixed = next == labels;
        (labels, distance) = (next, next_distance);
        restart.inertia.push(distance.iter().sum());
        if is_fixed || shift <= tolerance {
            restart.converged = true;
            break;
        }
    }
    (labels, restart)
}

/// Returns the mean of each cluster. A cluster that lost all its points takes the point that is farthest from its own
/// centre, as long as one is left in a cluster of several.
fn means(points: &Points, labels: &mut [usize], distance: &[f64], k: usize) -> Vec<f64> {
    let mut counts = vec![0_usize; k];
    labels.iter().for_each(|&label| counts[label] += 1);
    if counts.contains(&0) {
        let mut farthest: Vec<usize> = (0..points.len()).collect();
        farthest.sort_by(|&a, &b| distance[b].total_cmp(&distance[a]));
        let mut farthest = farthest.into_iter();
        for empty in 0..k {
            if counts[empty] == 0
                && let Some(point) = farthest.find(|&point| counts[labels[point]] > 1)
            {
                counts[labels[point]] -= 1;
                labels[point] = empty;
                counts[empty] = 1;
            }
        }
    }
    let mut means = vec![0.0; k * points.dim];
    for (i, &label) in labels.iter().enumerate() {
        add(&mut means[label * points.dim..(label + 1) * points.dim], points.row(i));
    }
    for (mean, count) in means.chunks_exact_mut(points.dim).zip(&counts) {
        mean.iter_mut().for_each(|x| *x /= (*count).max(1) as f64);
    }
    means
}

/// Returns the labels renamed so that larger clusters come first, and the number of clusters that have points.
fn largest_first(labels: &[usize]) -> (Vec<usize>, usize) {
    let mut clusters: Vec<(usize, usize, usize)> = Vec::new();
    for (i, &label) in labels.iter().enumerate() {
        match clusters.iter_mut().find(|(_, _, known)| *known == label) {
            Some((size, _, _)) => *size += 1,
            None => clusters.push((1, i, label)),
        }
    }
    clusters.sort_by_key(|&(size, first, _)| (std::cmp::Reverse(size), first));
    let rename = |label: usize| clusters.iter().position(|&(_, _, known)| known == label).expect("a label in use");
    (labels.iter().map(|&label| rename(label)).collect(), clusters.len())
}

/// Returns the mean silhouette of a clustering: near 1 when clusters are tight and far apart, near 0 when they touch.
///
/// `s_i = (b_i - a_i) / max(a_i, b_i)` with a_i the mean distance to the other points of i's cluster and b_i the
/// smallest mean distance to another cluster; 0 for a point alone in its cluster (Rousseeuw 1987). `None` with fewer
/// than two clusters. Quadratic in the number of points.
#[must_use]
pub fn silhouette(points: &Points, labels: &[usize], n_clusters: usize) -> Option<f64> {
    if n_clusters < 2 {
        return None;
    }
    let mut sizes = vec![0_usize; n_clusters];
    labels.iter().for_each(|&label| sizes[label] += 1);
    let scores: Vec<f64> = (0..points.len())
        .into_par_iter()
        .map(|i| {
            let own = labels[i];
            if sizes[own] == 1 {
                return 0.0;
            }
            let mut sums = vec![0.0; n_clusters];
            for (j, &label) in labels.iter().enumerate() {
                sums[label] += squared_distance(points.row(i), points.row(j)).sqrt();
            }
            let inside = sums[own] / (sizes[own] - 1) as f64;
            let outside = (0..n_clusters)
                .filter(|&c| c != own && sizes[c] > 0)
                .map(|c| sums[c] / sizes[c] as f64)
                .fold(f64::INFINITY, f64::min);
            let largest = inside.max(outside);
            if largest > 0.0 { (outside - inside) / largest } else { 0.0 }
        })
        .collect();
    Some(scores.iter().sum::<f64>() / scores.len() as f64)
}

fn add(sum: &mut [f64], values: &[f64]) {
    sum.iter_mut().zip(values).for_each(|(sum, value)| *sum += value);
}

fn squared_distance(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum()
}

/// The random choices of one restart, in order.
struct Draws {
    stream: Stream,
    index: u32,
}

impl Draws {
    fn new(seed: u64, restart: u32) -> Self {
        Self { stream: Purpose::Clustering.stream(seed, restart, 0), index: 0 }
    }

    /// Returns the next number in [0, 1).
    fn next(&mut self) -> f64 {
        self.index += 1;
        unit_f64(self.stream, self.index)
    }
}

#[cfg(test)]
mod tests {
    use super::{Between, Centres, Draws, Options, Points, kmeans, plus_plus, silhouette, squared_distance};

    fn options(n_clusters: usize) -> Options {
        Options { n_clusters, n_init: 10, max_iterations: 300, tolerance: 1e-4, seed: 0 }
    }

    /// `per_cluster` points around each of `k` corners, the clusters taking turns.
    fn blobs(k: usize, per_cluster: usize, dim: usize, spread: f64) -> (Points, Vec<usize>) {
        let mut draws = Draws::new(7, 7);
        let corners: Vec<f64> = (0..k * dim).map(|_| 10.0 * draws.next()).collect();
        let truth: Vec<usize> = (0..k * per_cluster).map(|i| i % k).collect();
        let data = truth
            .iter()
            .flat_map(|&c| corners[c * dim..(c + 1) * dim].to_vec())
            .map(|x| x + spread * (draws.next() - 0.5))
            .collect();
        (Points::new(dim, data), truth)
    }

    #[test]
    fn well_separated_groups_are_found_exactly() {
        let (points, truth) = blobs(20, 50, 16, 1.0);
        let found = kmeans(&points, &options(20));
        assert_eq!(found.n_clusters, 20);
        // Equal sizes, so clusters are named in the order of their first points, and so are the groups.
        assert_eq!(found.labels, truth);
        assert!(silhouette(&points, &found.labels, 20).unwrap() > 0.8);
    }

    #[test]
    fn inertia_never_rises_and_the_best_restart_is_kept() {
        let (points, _) = blobs(6, 20, 2, 9.0);
        let found = kmeans(&points, &options(9));
        for restart in &found.restarts {
            assert!(restart.inertia.windows(2).all(|pair| pair[1] <= pair[0] * (1.0 + 1e-12)), "{restart:?}");
            assert!(restart.inertia.last().unwrap() >= &found.inertia);
        }
        assert!(found.restarts.iter().all(|restart| restart.converged));
        assert_eq!(found.restarts.len(), 10);
    }

    #[test]
    fn result_does_not_depend_on_threads() {
        let (points, _) = blobs(6, 20, 3, 9.0);
        let with = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| kmeans(&points, &options(5)))
        };
        assert_eq!(with(1), with(3));
    }

    #[test]
    fn distances_that_are_kept_are_those_that_would_be_computed() {
        let (points, _) = blobs(6, 20, 3, 9.0);
        let (kept, computed) = (Between::new(&points), Between { points: &points, table: None });
        let start = |between| plus_plus(between, 9, &mut Draws::new(4, 0));
        assert_eq!(start(&kept), start(&computed));
        let mut centres = Centres::at(&kept, &start(&kept));
        assert_eq!(centres.distance, Centres::at(&computed, &start(&computed)).distance);
        // One centre moves, the others stay.
        let mut data = centres.data.clone();
        data[4] += 1.0;
        centres.move_to(&points, data.clone());
        let all =
            |i: usize| data.chunks_exact(3).map(|centre| squared_distance(points.row(i), centre)).collect::<Vec<_>>();
        let all: Vec<f64> = (0..points.len()).flat_map(all).collect();
        assert_eq!(centres.distance, all);
    }

    #[test]
    fn fewer_distinct_points_than_clusters_give_fewer_clusters() {
        let points = Points::new(1, vec![1.0, 2.0, 1.0, 1.0, 2.0]);
        let found = kmeans(&points, &options(4));
        assert_eq!((found.n_clusters, found.inertia), (2, 0.0));
        assert_eq!(found.labels, [0, 1, 0, 0, 1]);
    }

    #[test]
    fn one_point_is_one_cluster() {
        let found = kmeans(&Points::new(2, vec![3.0, 4.0]), &options(3));
        assert_eq!((found.labels.as_slice(), found.n_clusters), (&[0][..], 1));
        assert_eq!(silhouette(&Points::new(2, vec![3.0, 4.0]), &found.labels, 1), None);
    }

    #[test]
    fn a_cluster_that_lost_its_points_takes_the_farthest() {
        // The third centre is nearest to no point.
        let points = Points::new(1, vec![0.0, 1.0, 10.0, 14.0]);
        let mut centres = Centres { data: vec![f64::NAN; 3], distance: vec![f64::NAN; 12] };
        centres.move_to(&points, vec![0.5, 11.0, 100.0]);
        let (labels, restart) = super::lloyd(&points, centres, 50, 0.0);
        assert_eq!(labels, [0, 0, 1, 2]);
        assert_eq!(restart.inertia.last(), Some(&0.5));
    }

    #[test]
    fn silhouette_of_a_hand_made_case() {
        // Point 0: a = 1, b = (9 + 11) / 2 = 10 -> 0.9; point 1: a = 1, b = 9 -> 8/9; 2 and 3: a = 2,
        // b = (9 + 8)/2 = 8.5 and (11 + 10)/2 = 10.5 -> 6.5/8.5 and 8.5/10.5.
        let points = Points::new(1, vec![0.0, 1.0, 9.0, 11.0]);
        let expected = (0.9 + 8.0 / 9.0 + 6.5 / 8.5 + 8.5 / 10.5) / 4.0;
        let found = silhouette(&points, &[0, 0, 1, 1], 2).unwrap();
        assert!((found - expected).abs() < 1e-12, "{found} against {expected}");
    }
}
