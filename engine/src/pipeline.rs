//! A pipeline ready to be planned: every instance of every stage, checked, in an order that respects their inputs.
//!
//! `spec/` makes it out of text; `plan.rs` and `run.rs` read it. Nothing here refers to the cache.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::audit::format::Tolerance;
use crate::kind::StageKind;
use crate::outside::{Found, OutsideFiles};
use crate::params::Params;
use crate::select::is_match;
use crate::value::{Origin, Value};

/// A checked pipeline.
pub struct Pipeline {
    /// `[pipeline] name`, else the file's stem.
    pub name: String,
    /// `[pipeline] description`, perhaps empty.
    pub description: String,
    /// `[pipeline] expected_time`: how long the whole takes on a laptop's CPU.
    pub expected_time: Option<Duration>,
    /// The texts the pipeline came from: the file first, then its bases, then `--set` arguments.
    pub sources: Vec<Source>,
    /// The instances, producers before consumers; ties in the order of the file, then of the axes' values.
    pub instances: Vec<Instance>,
    /// The sweep it was expanded for.
    pub sweep: Option<Sweep>,
    /// What its parameters refer to outside of it.
    pub outside: Found,
}

/// A sweep: the values of its parameters at each of its points.
#[derive(Debug, Clone)]
pub struct Sweep {
    /// Its name, which is also that of the axis of its points.
    pub name: String,
    /// Short, distinct names of the parameters that vary.
    pub keys: Vec<String>,
    /// The points, in the order of the axis.
    pub points: Vec<SweepPoint>,
}

/// A point of a sweep.
#[derive(Debug, Clone)]
pub struct SweepPoint {
    /// As in `decompose[price=coeff-0.001]`.
    pub name: String,
    /// The value of each parameter.
    pub values: Vec<Value>,
}

/// A text a pipeline was read from.
#[derive(Debug, Clone)]
pub struct Source {
    /// How to name it in messages: a path as the user gave it, or `--set`.
    pub name: String,
    /// The text.
    pub text: String,
}

/// A stage at one point of its matrix.
pub struct Instance {
    /// Its name.
    pub id: InstanceId,
    /// What it runs.
    pub kind: Arc<dyn StageKind>,
    /// Its parameters, defaults filled in (the result of [`StageKind::resolve`]).
    pub params: Params,
    /// By slot, the indices in [`Pipeline::instances`] of the instances whose artifacts it takes, in axis order.
    pub inputs: BTreeMap<String, Vec<usize>>,
    /// The files outside the pipeline that it reads; their digests are in the parameters.
    pub files: OutsideFiles,
    /// What it may use; never part of the fingerprint.
    pub resources: Resources,
    /// What is done when it fails or takes long; never part of the fingerprint.
    pub policy: Policy,
    /// How far its files may depart when an audit makes them again; never part of the fingerprint.
    pub tolerances: Vec<Allowance>,
}

impl Instance {
    /// Returns the indices of all instances this one takes artifacts from.
    pub fn parents(&self) -> impl Iterator<Item = usize> + '_ {
        self.inputs.values().flatten().copied()
    }

    /// Returns what a file of its artifact may depart by when it is made again; unless something is said of it, by nothing.
    #[must_use]
    pub fn allowed(&self, file: &str) -> Allowed {
        let said = self.tolerances.iter().find(|tolerance| is_match(&tolerance.files, file));
        said.map_or(Allowed::Within(Tolerance::EXACT), |tolerance| tolerance.allowed)
    }

    /// Returns where its artifact appears below the pipeline's output folder: `decompose/seed=0`.
    #[must_use]
    pub fn out_path(&self) -> PathBuf {
        let mut path = PathBuf::from(&self.id.stage);
        path.extend(self.id.axes.iter().map(|(axis, value)| format!("{axis}={value}")));
        path
    }
}

/// The name of an instance: `decompose[seed=0]`, or `target` for a stage without a matrix.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InstanceId {
    /// The stage's name.
    pub stage: String,
    /// The axis values, by axis name.
    pub axes: BTreeMap<String, String>,
}

impl fmt::Display for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.stage)?;
        for (position, (axis, value)) in self.axes.iter().enumerate() {
            write!(f, "{}{axis}={value}", if position == 0 { '[' } else { ',' })?;
        }
        if self.axes.is_empty() { Ok(()) } else { f.write_str("]") }
    }
}

/// What files that are made again may depart by from those that were recorded.
#[derive(Debug, Clone, PartialEq)]
pub struct Allowance {
    /// The name of a file in the artifact, or a glob.
    pub files: String,
    /// What they may depart by.
    pub allowed: Allowed,
}

/// What a file that is made again may depart by.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Allowed {
    /// Its numbers by this much.
    Within(Tolerance),
    /// It may be another file altogether.
    Anything,
}

/// What a stage may use of the machine.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Resources {
    /// Threads; a share of the run's `--threads` when absent.
    pub threads: Option<usize>,
    /// Memory that is set aside for it.
    pub memory_bytes: Option<u64>,
    /// Where that is written.
    pub memory_origin: Option<Origin>,
    /// GPUs.
    pub gpus: usize,
    /// Where that is written.
    pub gpus_origin: Option<Origin>,
    /// Expected time, for schedulers that want one.
    pub time: Option<Duration>,
}

/// What is done when a stage fails or takes long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Policy {
    /// How often it is tried again after a failure.
    pub retries: u32,
    /// How long one attempt may take.
    pub timeout: Option<Duration>,
}
