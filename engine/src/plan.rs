//! Decides which stages must run.
//!
//! A stage is reused when a record exists for its fingerprint and every blob the record names is present. A stage
//! whose producers must run first has inputs nobody knows yet: it is a `maybe`, because the producers may make the
//! same bytes as before. `run` plans in the same way and goes on from there, so what the two say cannot differ.

use std::collections::BTreeMap;

use serde::Serialize;
use spdflow_cache::Digest;

use crate::error::RunError;
use crate::fingerprint::{Key, fingerprint};
use crate::kind::NumericTarget;
use crate::pipeline::{Instance, Pipeline};
use crate::why::{Comparison, Earlier};
use crate::workspace::{Found, Known, Workspace, known_of_memo};

/// What would happen to each instance in scope, in the order of the pipeline.
#[derive(Debug)]
pub struct Plan {
    /// One step per instance in scope.
    pub steps: Vec<Step>,
    /// Instances outside the scope whose results are taken from the cache ([`Scope::only`]), by index.
    pub(crate) given: Vec<(usize, Digest, Known)>,
    /// What was noticed on the way: the instance's index and a message.
    pub warnings: Vec<(usize, String)>,
}

/// What would happen to one instance.
#[derive(Debug)]
pub struct Step {
    /// Its index in [`Pipeline::instances`].
    pub index: usize,
    /// What would happen.
    pub action: Action,
    /// Why.
    pub why: String,
    /// How its key differs from an earlier one, if it must run and [`Plan::explain`] has found one.
    pub comparison: Option<Comparison>,
    /// Its fingerprint, unless its inputs are unknown.
    pub fingerprint: Option<Digest>,
    pub(crate) known: Option<Known>,
}

impl Step {
    /// Returns the digest of the instance's artifact, if it is known.
    #[must_use]
    pub fn artifact(&self) -> Option<Digest> {
        self.known.as_ref().map(|known| known.artifact)
    }
}

/// What would happen to an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Nothing: the result is in place.
    Fresh,
    /// The result is put in place from the cache.
    Cached,
    /// The stage runs.
    Run,
    /// Unknown until something before it has run.
    Maybe,
}

impl Action {
    /// Returns the word used in tables and JSON.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Fresh => "fresh",
            Self::Cached => "cached",
            Self::Run => "run",
            Self::Maybe => "maybe",
        }
    }
}

/// Which part of a pipeline is meant.
#[derive(Debug, Clone, Default)]
pub struct Scope {
    /// Indices of the instances wanted; what they need comes with them. `None`: everything.
    pub targets: Option<Vec<usize>>,
    /// What the targets need does not come with them: it must be known.
    pub only: bool,
    /// Indices of the instances that run even if their result is known.
    pub force: Vec<usize>,
}

impl Scope {
    /// Returns, for each instance, whether it is wanted or needed by one that is.
    pub(crate) fn members(&self, pipeline: &Pipeline) -> Vec<bool> {
        let Some(targets) = &self.targets else { return vec![true; pipeline.instances.len()] };
        let mut members = vec![false; pipeline.instances.len()];
        for target in targets {
            members[*target] = true;
        }
        if !self.only {
            add_ancestors(pipeline, &mut members);
        }
        members
    }

    /// Returns, for each instance, whether its result must be known because a member needs it.
    fn needed(&self, pipeline: &Pipeline, members: &[bool]) -> Vec<bool> {
        let mut all = members.to_vec();
        if self.only {
            add_ancestors(pipeline, &mut all);
        }
        all.iter().zip(members).map(|(any, member)| *any && !member).collect()
    }

    /// Returns, for each instance, whether it is forced.
    pub(crate) fn forced(&self, pipeline: &Pipeline) -> Vec<bool> {
        let mut forced = vec![false; pipeline.instances.len()];
        for index in &self.force {
            forced[*index] = true;
        }
        forced
    }
}

fn add_ancestors(pipeline: &Pipeline, members: &mut [bool]) {
    // Producers come before consumers, so one pass from the end reaches every ancestor.
    for index in (0..members.len()).rev() {
        if members[index] {
            for parent in pipeline.instances[index].parents() {
                members[parent] = true;
            }
        }
    }
}

/// Plans a run. Reads the cache and the results; changes neither, except that damaged records go to quarantine and
/// blobs the cache lost are taken back from results that still hold them.
///
/// # Errors
/// [`RunError`] if the cache cannot be read, or a result that must be known is not.
pub fn plan(
    pipeline: &Pipeline,
    workspace: &Workspace<'_>,
    scope: &Scope,
    target: &NumericTarget,
) -> Result<Plan, RunError> {
    let members = scope.members(pipeline);
    let needed = scope.needed(pipeline, &members);
    let forced = scope.forced(pipeline);
    let wanted: Vec<bool> = members.iter().zip(&needed).map(|(member, needed)| *member || *needed).collect();
    let untouched = workspace.untouched(pipeline, &wanted);
    let mut plan = Plan { steps: Vec::new(), given: Vec::new(), warnings: Vec::new() };
    let mut artifacts: Vec<Option<Digest>> = vec![None; pipeline.instances.len()];
    // Why a needed result is not known.
    let mut unknown: BTreeMap<usize, String> = BTreeMap::new();
    for (index, instance) in pipeline.instances.iter().enumerate().filter(|(index, _)| wanted[*index]) {
        let is_forced = forced[index] && members[index];
        if let Some((parent, why)) = instance.parents().find_map(|parent| Some((parent, unknown.get(&parent)?)))
            && members[index]
        {
            let (instance, input) = (instance.id.to_string(), pipeline.instances[parent].id.to_string());
            return Err(RunError::InputUnknown { instance, input, why: why.clone() });
        }
        let step = match instance.parents().find(|parent| artifacts[*parent].is_none()) {
            Some(_) if is_forced => Step::unknown(index, Action::Run, "forced".to_owned()),
            Some(parent) => {
                let why = format!("depends on what `{}` makes", pipeline.instances[parent].id);
                Step::unknown(index, Action::Maybe, why)
            }
            None => {
                let known = |parent: usize| artifacts[parent].expect("no parent is without a result here");
                let fingerprint = fingerprint_of(instance, known, target);
                let warnings = &mut plan.warnings;
                let found = if is_forced {
                    Found::Absent { why: "forced".to_owned() }
                } else if let Some(memo) = untouched[index].as_ref().filter(|memo| memo.fingerprint == fingerprint) {
                    Found::Fresh(known_of_memo(memo))
                } else {
                    workspace.find(instance, &fingerprint, &mut |message| warnings.push((index, message)))?
                };
                Step::found(index, fingerprint, found)
            }
        };
        artifacts[index] = step.artifact();
        match step {
            step if members[index] => plan.steps.push(step),
            Step { known: Some(known), fingerprint: Some(key), .. } => plan.given.push((index, key, known)),
            Step { why, .. } => {
                unknown.insert(index, why);
            }
        }
    }
    Ok(plan)
}

/// How many stages without an earlier result in place are compared with what the cache has: it costs a look at every
/// record.
const MOST_SEARCHES: usize = 100;

impl Plan {
    /// Finds out, for stages that must run, how their keys differ from earlier ones, and says so in [`Step::why`].
    ///
    /// # Errors
    /// As [`plan`].
    pub fn explain(
        &mut self,
        pipeline: &Pipeline,
        workspace: &Workspace<'_>,
        scope: &Scope,
        target: &NumericTarget,
    ) -> Result<(), RunError> {
        let forced = scope.forced(pipeline);
        let artifacts: BTreeMap<usize, Digest> =
            self.steps.iter().filter_map(|step| Some((step.index, step.artifact()?))).collect();
        let mut earlier = Earlier::new(workspace.cache);
        let mut searches = 0;
        for step in self.steps.iter_mut().filter(|step| step.action == Action::Run && !forced[step.index]) {
            let (Some(_), instance) = (step.fingerprint, &pipeline.instances[step.index]) else { continue };
            let in_place = workspace.in_place(instance);
            searches += usize::from(in_place.is_none());
            // The result in place may be the very one, with a record that is gone or a blob that is missing.
            if searches > MOST_SEARCHES || in_place == step.fingerprint {
                continue;
            }
            let inputs = input_digests(instance, |producer| artifacts.get(&producer).copied());
            let wanted = key(instance, &inputs, target).preimage();
            let producers = |slot: &str| {
                let producers = instance.inputs.get(slot).into_iter().flatten();
                producers.map(|producer| pipeline.instances[*producer].id.to_string()).collect()
            };
            let id = instance.id.to_string();
            step.comparison = earlier.compare(&wanted, &id, in_place, &producers);
            match &step.comparison {
                Some(comparison) if in_place.is_some() || comparison.instance == id => {
                    step.why = comparison.to_string();
                }
                Some(comparison) => {
                    step.why = format!("{}; unlike `{}`: {comparison}", step.why, comparison.instance);
                }
                None => {}
            }
        }
        Ok(())
    }
}

impl Step {
    fn unknown(index: usize, action: Action, why: String) -> Self {
        Self { index, action, why, comparison: None, fingerprint: None, known: None }
    }

    fn found(index: usize, fingerprint: Digest, found: Found) -> Self {
        let (action, why, known) = match found {
            Found::Fresh(known) => (Action::Fresh, "up to date".to_owned(), Some(known)),
            Found::Cached { known, why, .. } => (Action::Cached, why, Some(known)),
            Found::Absent { why } => (Action::Run, why, None),
        };
        Self { index, action, why, comparison: None, fingerprint: Some(fingerprint), known }
    }
}

/// Returns the digests of an instance's inputs by slot.
pub(crate) fn input_digests(
    instance: &Instance,
    artifact: impl Fn(usize) -> Option<Digest>,
) -> BTreeMap<String, Vec<Digest>> {
    let digests = |producers: &Vec<usize>| producers.iter().filter_map(|producer| artifact(*producer)).collect();
    instance.inputs.iter().map(|(slot, producers)| (slot.clone(), digests(producers))).collect()
}

/// Returns the fingerprint of an instance whose producers have made these artifacts: that of its [`key`].
fn fingerprint_of(instance: &Instance, artifact: impl Fn(usize) -> Digest, target: &NumericTarget) -> Digest {
    let info = instance.kind.info();
    let inputs = instance.inputs.iter().map(|(slot, producers)| {
        let digests = producers.iter().map(|producer| artifact(*producer));
        (slot.as_str(), digests)
    });
    fingerprint(info.name, info.version, &instance.params, inputs, target.of(&*instance.kind))
}

/// Returns the key of an instance with the given inputs.
pub(crate) fn key<'a>(
    instance: &'a Instance,
    inputs: &'a BTreeMap<String, Vec<Digest>>,
    target: &'a NumericTarget,
) -> Key<'a> {
    let info = instance.kind.info();
    Key {
        kind: info.name,
        version: info.version,
        params: &instance.params,
        inputs,
        numeric_target: target.of(&*instance.kind),
    }
}
