//! Brings one instance to its end: finds its result, waits for whoever computes it, or computes it (`compute.rs`).

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

use spdflow_cache::{BlobState, Cache, CacheError, Digest, Lease, MachineInfo, Stamp};

use crate::capacity::Gpu;
use crate::error::RunError;
use crate::event::{Event, Listener, Outcome};
use crate::executor::Executor;
use crate::kind::{Device, NumericTarget, StopFlag};
use crate::lock::Lock;
use crate::outputs::Placed;
use crate::pipeline::{Instance, Pipeline};
use crate::plan;
use crate::run::exchange::Exchange;
use crate::run::schedule::Done;
use crate::workspace::{Found, Workspace};

/// What a run hands to each of its stages.
pub(crate) struct Session<'a> {
    pub(crate) pipeline: &'a Pipeline,
    pub(crate) workspace: &'a Workspace<'a>,
    pub(crate) executor: &'a dyn Executor,
    /// The journal, which passes on what it hears.
    pub(crate) listener: &'a dyn Listener,
    /// Whom the journal passes it on to.
    pub(crate) audience: &'a dyn Listener,
    pub(crate) device: Device,
    /// What of it enters fingerprints.
    pub(crate) target: &'a NumericTarget,
    pub(crate) checkpoint_every: Duration,
    pub(crate) locked: Option<&'a Lock>,
    pub(crate) stop: &'a StopFlag,
    pub(crate) exchange: Option<Exchange<'a>>,
    pub(crate) run: &'a str,
    pub(crate) build: &'a spdflow_cache::BuildInfo,
    pub(crate) machine: &'a LazyLock<MachineInfo>,
    /// Keeps garbage collection from what the run needs, and says later what that was.
    pub(crate) lease: &'a Lease,
    /// The fingerprints in the lease.
    pub(crate) needed: Mutex<BTreeSet<Digest>>,
    /// Blobs whose bytes were checked in this run, with the stamps they had then: many stages may read one.
    pub(crate) checked: Mutex<BTreeMap<Digest, Stamp>>,
    pub(crate) last_flush: Mutex<Instant>,
    /// Warnings given, by instance.
    pub(crate) said: Mutex<BTreeSet<(String, String)>>,
}

/// What became of one instance.
pub(crate) enum End {
    Done(Done),
    Failed(StageFailure),
    Interrupted,
    /// The results of these producers are lost and have to be made again first.
    Lost(BTreeSet<usize>),
}

/// How a stage failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StageFailure {
    /// The instance's index in the pipeline.
    pub index: usize,
    /// What went wrong.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
    /// Whether it is a mistake of spdflow rather than of the pipeline or the machine.
    pub is_bug: bool,
    /// The stage's log, if it wrote to it.
    pub log: Option<PathBuf>,
}

/// One instance with everything known about it before it is worked on.
pub(crate) struct Job<'a> {
    pub(crate) index: usize,
    pub(crate) instance: &'a Instance,
    pub(crate) inputs: BTreeMap<String, Vec<Digest>>,
    /// The producers' results.
    pub(crate) parents: BTreeMap<usize, Done>,
    pub(crate) is_forced: bool,
    /// Why it runs, if the plan knew: looking again later may not show it any more.
    pub(crate) planned_why: Option<String>,
    pub(crate) threads: usize,
    pub(crate) gpus: Vec<Gpu>,
    /// How long it will run, if that is known.
    pub(crate) expected_seconds: Option<f64>,
}

impl Session<'_> {
    pub(crate) fn cache(&self) -> &Cache {
        self.workspace.cache
    }

    /// Returns where the job computes: on the first GPU it was given, if the run computes on GPUs.
    pub(crate) fn device_of(&self, job: &Job<'_>) -> Device {
        match (self.device, job.gpus.first()) {
            (Device::Cuda(_), Some(gpu)) => Device::Cuda(gpu.ordinal),
            (device, _) => device,
        }
    }

    /// Tells the user once; the plan and the work often notice the same thing.
    pub(crate) fn warn(&self, instance: &Instance, message: String) {
        let said = (instance.id.to_string(), message.clone());
        if self.said.lock().unwrap_or_else(PoisonError::into_inner).insert(said) {
            self.listener.on_event(&Event::Warning { instance: Some(instance.id.to_string()), message });
        }
    }

    /// Brings the job to its end and reports it.
    pub(crate) fn work(&self, job: &Job<'_>) -> Result<End, RunError> {
        let begin = Instant::now();
        let key = plan::key(job.instance, &job.inputs, self.target);
        let fingerprint = key.fingerprint();
        self.expect_as_locked(job.instance, fingerprint, None)?;
        self.need(fingerprint)?;
        let mut why = "forced".to_owned();
        if !job.is_forced {
            match self.reuse(job, &fingerprint, begin)? {
                Ok(done) => return Ok(End::Done(done)),
                Err(reason) => why = job.planned_why.clone().unwrap_or(reason),
            }
        }
        let mut has_waited = false;
        let work = self.cache().lock(&fingerprint, &mut |holder| {
            if !has_waited {
                let instance = job.instance.id.to_string();
                self.listener.on_event(&Event::Waiting { instance, process: holder.process });
            }
            has_waited = true;
            if self.stop.is_raised() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        let Some(work) = work else { return Ok(End::Interrupted) };
        // Between the look and the lock somebody else may have finished; if not, this costs one failed `open`.
        if !job.is_forced
            && let Ok(done) = self.reuse(job, &fingerprint, begin)?
        {
            self.cache().finish(work)?;
            return Ok(End::Done(done));
        }
        // With the lock held, so that one process fetches what many wait for.
        if !job.is_forced
            && self.take(job.instance, &fingerprint)?
            && let Ok(done) = self.reuse(job, &fingerprint, begin)?
        {
            self.cache().finish(work)?;
            return Ok(End::Done(done));
        }
        let lost = self.lost_inputs(job)?;
        if !lost.is_empty() {
            return Ok(End::Lost(lost));
        }
        if self.stop.is_raised() {
            return Ok(End::Interrupted);
        }
        self.compute(job, &key, fingerprint, &why, work, begin)
    }

    /// Refuses a key or a result that is not the one of the lock file.
    pub(crate) fn expect_as_locked(
        &self,
        instance: &Instance,
        fingerprint: Digest,
        artifact: Option<Digest>,
    ) -> Result<(), RunError> {
        let drift = self.locked.and_then(|lock| lock.check(&instance.id.to_string(), Some(fingerprint), artifact));
        drift.map_or(Ok(()), |drift| Err(RunError::Drift(drift)))
    }

    /// Keeps garbage collection from the result, before it is looked up or made.
    fn need(&self, fingerprint: Digest) -> Result<(), CacheError> {
        let mut needed = self.needed.lock().unwrap_or_else(PoisonError::into_inner);
        if needed.insert(fingerprint) { self.lease.add(self.cache(), &[fingerprint]) } else { Ok(()) }
    }

    /// Takes the result from where it is known; `Err` says why it has to be computed.
    fn reuse(&self, job: &Job<'_>, fingerprint: &Digest, begin: Instant) -> Result<Result<Done, String>, RunError> {
        let found = self.workspace.find(job.instance, fingerprint, &mut |message| self.warn(job.instance, message))?;
        let (known, restored) = match found {
            Found::Absent { why } => return Ok(Err(why)),
            Found::Fresh(known) => (known, false),
            Found::Cached { known, outputs, .. } => {
                self.expect_as_locked(job.instance, *fingerprint, Some(known.artifact))?;
                match self.workspace.place(job.instance, fingerprint, &known, &outputs)? {
                    Placed::Whole => (known, true),
                    Placed::Lost { output, state } => {
                        self.warn(job.instance, lost_text(&output, &state));
                        return Ok(Err(format!("file `{output}` was lost from the cache")));
                    }
                }
            }
        };
        let producer_ran =
            job.parents.values().any(|parent| parent.outcome.has_run() || parent.outcome == Outcome::Cutoff);
        let outcome = if producer_ran && !restored { Outcome::Cutoff } else { Outcome::Cached };
        let done = Done { known, fingerprint: *fingerprint, outcome, seconds: begin.elapsed().as_secs_f64() };
        self.report_done(job.instance, &done, restored);
        Ok(Ok(done))
    }

    pub(crate) fn report_done(&self, instance: &Instance, done: &Done, restored: bool) {
        self.listener.on_event(&self.finished(instance, done, restored));
    }

    /// Tells who wants to know it of a result that the plan found in place. The journal does not: the plan lies beside it.
    pub(crate) fn report_fresh(&self, instance: &Instance, done: &Done) {
        if self.audience.hears_of_fresh() {
            self.audience.on_event(&self.finished(instance, done, false));
        }
    }

    fn finished(&self, instance: &Instance, done: &Done, restored: bool) -> Event {
        Event::Finished {
            instance: instance.id.to_string(),
            outcome: done.outcome,
            restored,
            seconds: done.seconds,
            fingerprint: done.fingerprint,
            artifact: done.known.artifact,
            headline: done.known.headline.clone(),
            path: self.workspace.folder(instance).display().to_string(),
        }
    }

    /// Checks the bytes of every input and returns the producers whose results cannot be given to the stage.
    fn lost_inputs(&self, job: &Job<'_>) -> Result<BTreeSet<usize>, RunError> {
        let mut lost = BTreeSet::new();
        for (parent, done) in &job.parents {
            let instance = &self.pipeline.instances[*parent];
            let mut intact = true;
            for (path, digest, _) in done.known.files.iter() {
                let stamp = self.cache().blob_stamp(&digest);
                if stamp.is_some() && self.checked().get(&digest) == stamp.as_ref() {
                    continue;
                }
                match self.cache().check_blob(&digest)? {
                    BlobState::Intact => {
                        self.checked().extend(stamp.map(|stamp| (digest, stamp)));
                    }
                    state => {
                        self.warn(instance, lost_text(path, &state));
                        intact = false;
                    }
                }
            }
            // The copy among the results may still be good.
            if !intact && self.workspace.heal(&done.fingerprint, &self.workspace.folder(instance))?.is_none() {
                lost.insert(*parent);
            }
        }
        Ok(lost)
    }

    fn checked(&self) -> std::sync::MutexGuard<'_, BTreeMap<Digest, Stamp>> {
        self.checked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn lost_text(output: &str, state: &BlobState) -> String {
    match state {
        BlobState::Damaged { quarantined } => {
            format!("file `{output}` is damaged in the cache; it was moved to `{}`", quarantined.display())
        }
        BlobState::Intact | BlobState::Missing => format!("file `{output}` is missing from the cache"),
    }
}
