//! How long what has to run is expected to take, and which of it is urgent.
//!
//! Of a stage that has to run the duration is taken, in this order, from the record of its own fingerprint (when it is
//! forced), the last run of the instance, of another instance of its stage, the `time` among its resources, or the last
//! run of its kind. What is left is thought to take as long as the median of the others, or a second. What may turn out
//! to be unchanged counts as if it ran. A wrong estimate costs time and changes no result.

use spdflow_cache::{Cache, Durations, Lookup};

use crate::capacity::Capacity;
use crate::pipeline::{Instance, Pipeline};
use crate::plan::{Action, Plan, Step};
use crate::run::simulate;

/// What is thought of an instance of which nothing is known, if that holds for all.
const UNKNOWN_SECONDS: f64 = 1.0;

/// What is expected of each instance of a pipeline.
#[derive(Debug, Clone)]
pub struct Expectation {
    /// By instance; nothing where nothing has to run.
    estimates: Vec<Option<Estimate>>,
}

#[derive(Debug, Clone, Copy)]
struct Estimate {
    seconds: f64,
    /// Whether something was known of the stage itself or its kind.
    is_known: bool,
}

impl Expectation {
    /// Returns what is expected of a plan. Reads the cache only if something has to run.
    #[must_use]
    pub fn new(pipeline: &Pipeline, plan: &Plan, cache: &Cache) -> Self {
        let mut estimates = vec![None; pipeline.instances.len()];
        let to_run = || plan.steps.iter().filter(|step| matches!(step.action, Action::Run | Action::Maybe));
        if to_run().next().is_none() {
            return Self { estimates };
        }
        let durations = cache.durations();
        let known: Vec<_> =
            to_run().map(|step| (step.index, known_seconds(pipeline, step, cache, &durations))).collect();
        let mut sorted: Vec<f64> = known.iter().filter_map(|(_, seconds)| *seconds).collect();
        sorted.sort_by(f64::total_cmp);
        let guess = sorted.get(sorted.len() / 2).copied().unwrap_or(UNKNOWN_SECONDS);
        for (index, seconds) in known {
            estimates[index] = Some(Estimate { seconds: seconds.unwrap_or(guess), is_known: seconds.is_some() });
        }
        Self { estimates }
    }

    /// Returns how long an instance will run as far as that is known, 0 if it will not.
    #[must_use]
    pub fn known_seconds(&self, index: usize) -> Option<f64> {
        self.estimates[index].map_or(Some(0.0), |estimate| estimate.is_known.then_some(estimate.seconds))
    }

    /// Returns how long the whole will take on such a machine, or nothing if no duration is known.
    #[must_use]
    pub fn total_seconds(&self, pipeline: &Pipeline, capacity: &Capacity) -> Option<f64> {
        let left: Vec<_> = (0..self.estimates.len()).map(|index| self.seconds(index)).collect();
        self.is_known().then(|| simulate::seconds(pipeline, capacity, &self.urgency(pipeline), left, &[]))
    }

    /// Returns whether anything is known of what has to run, or nothing has to.
    pub(crate) fn is_known(&self) -> bool {
        let mut estimates = self.estimates.iter().flatten().peekable();
        estimates.peek().is_none() || estimates.any(|estimate| estimate.is_known)
    }

    /// Returns the seconds of an instance that has to run, known or guessed.
    pub(crate) fn seconds(&self, index: usize) -> Option<f64> {
        self.estimates[index].map(|estimate| estimate.seconds)
    }

    /// Returns, for each instance, the microseconds from its start to the end of the longest chain behind it.
    pub(crate) fn urgency(&self, pipeline: &Pipeline) -> Vec<u64> {
        let microseconds = |index: usize| (self.seconds(index).unwrap_or(0.0) * 1e6) as u64;
        let mut urgency = vec![0_u64; pipeline.instances.len()];
        // Producers come before consumers, so one pass from the end has seen all that is behind an instance.
        for (index, instance) in pipeline.instances.iter().enumerate().rev() {
            urgency[index] = urgency[index].saturating_add(microseconds(index));
            for parent in instance.parents() {
                urgency[parent] = urgency[parent].max(urgency[index]);
            }
        }
        urgency
    }
}

fn known_seconds(pipeline: &Pipeline, step: &Step, cache: &Cache, durations: &Durations) -> Option<f64> {
    let Instance { id, kind, resources, .. } = &pipeline.instances[step.index];
    let kind = kind.info().name;
    let of_record = || match cache.read_record(&step.fingerprint?) {
        Ok(Lookup::Hit(record)) if !record.resumed => Some(record.times.seconds),
        _ => None,
    };
    of_record()
        .or_else(|| durations.of_instance(kind, &pipeline.name, &id.to_string()))
        .or_else(|| durations.of_stage(kind, &pipeline.name, &id.stage))
        .or_else(|| resources.time.map(|time| time.as_secs_f64()))
        .or_else(|| durations.of_kind(kind))
}
