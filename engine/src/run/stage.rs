//! Brings one instance to its end: finds its result, waits for whoever computes it, or computes it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::Write;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use spdflow_cache::{
    BlobState, Cache, CacheError, Digest, Lease, Lookup, MachineInfo, Metric, Output, RECORD_FORMAT, Record, Stamp,
    Times, Usage, Work,
};

use crate::artifact::{NotAnArtifact, collect};
use crate::error::RunError;
use crate::event::{Event, Listener, Outcome};
use crate::executor::{ExecutionError, Executor};
use crate::fingerprint::Key;
use crate::kind::{Device, InputArtifact, StageContext, StageError, StopFlag};
use crate::machine::now_text;
use crate::outputs::Placed;
use crate::pipeline::{Instance, Pipeline};
use crate::plan;
use crate::run::progress::StageProgress;
use crate::run::schedule::Done;
use crate::workspace::{Found, Known, Workspace, known_of};

/// What a run hands to each of its stages.
pub(crate) struct Session<'a> {
    pub(crate) pipeline: &'a Pipeline,
    pub(crate) workspace: &'a Workspace<'a>,
    pub(crate) executor: &'a dyn Executor,
    pub(crate) listener: &'a dyn Listener,
    pub(crate) device: Device,
    pub(crate) checkpoint_every: Duration,
    pub(crate) stop: &'a StopFlag,
    pub(crate) run: &'a str,
    pub(crate) build: &'a spdflow_cache::BuildInfo,
    pub(crate) machine: &'a MachineInfo,
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
}

// Long enough that a thousand small stages share one sync (which may wait for everything else the machine writes),
// short enough that little is lost with the power. The end of a run always syncs.
const FLUSH_PAUSE: Duration = Duration::from_secs(5);

impl Session<'_> {
    fn cache(&self) -> &Cache {
        self.workspace.cache
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
        let key = plan::key(job.instance, &job.inputs, self.device);
        let fingerprint = plan::fingerprint(job.instance, &job.inputs, self.device)?;
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
            work.finish()?;
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
        self.listener.on_event(&Event::Finished {
            instance: instance.id.to_string(),
            outcome: done.outcome,
            restored,
            seconds: done.seconds,
            fingerprint: done.fingerprint,
            artifact: done.known.artifact,
            headline: done.known.headline.clone(),
            path: self.workspace.folder(instance).display().to_string(),
        });
    }

    /// Checks the bytes of every input and returns the producers whose results cannot be given to the stage.
    fn lost_inputs(&self, job: &Job<'_>) -> Result<BTreeSet<usize>, RunError> {
        let mut lost = BTreeSet::new();
        for (parent, done) in &job.parents {
            let instance = &self.pipeline.instances[*parent];
            let mut intact = true;
            for (path, digest, _) in &done.known.files {
                let stamp = self.cache().blob_stamp(digest);
                if stamp.is_some() && self.checked().get(digest) == stamp.as_ref() {
                    continue;
                }
                match self.cache().check_blob(digest)? {
                    BlobState::Intact => {
                        self.checked().extend(stamp.map(|stamp| (*digest, stamp)));
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

    fn compute(
        &self,
        job: &Job<'_>,
        key: &Key<'_>,
        fingerprint: Digest,
        why: &str,
        work: Work,
        begin: Instant,
    ) -> Result<End, RunError> {
        let name = job.instance.id.to_string();
        let info = job.instance.kind.info();
        let attempt = work.begin(job.is_forced)?;
        let log_path = work.log_path();
        let log = File::options().create(true).append(true).open(&log_path);
        let log = log.map_err(CacheError::io("create", &log_path))?;
        let written = || fs::metadata(&log_path).map_or(0, |metadata| metadata.len());
        let written_before = written();
        self.listener.on_event(&Event::Started {
            instance: name.clone(),
            kind: info.name.to_owned(),
            fingerprint,
            why: why.to_owned(),
            earlier_attempts: attempt.earlier,
        });
        let progress = StageProgress::new(name.clone(), self.listener, log);
        let inputs = self.input_artifacts(job);
        let (out_dir, scratch_dir) = (work.out_dir(), work.scratch_dir());
        let context = StageContext {
            inputs: &inputs,
            out_dir: &out_dir,
            scratch_dir: &scratch_dir,
            threads: job.threads,
            device: self.device,
            checkpoint_every: self.checkpoint_every,
            progress: &progress,
            stop: self.stop,
        };
        let started = now_text();
        let executed = self.executor.execute(&*job.instance.kind, &job.instance.params, &context);
        let seconds = begin.elapsed().as_secs_f64();

        let failed = |message: String, hint: Option<String>, is_bug: bool| {
            let log = (written() > written_before).then(|| log_path.clone());
            // Whoever looks into the log later finds the reason there; if it cannot be written, it was told all the same.
            let hint_line = hint.as_ref().map(|hint| format!("hint: {hint}\n")).unwrap_or_default();
            let _ = File::options()
                .append(true)
                .open(&log_path)
                .and_then(|mut log| log.write_all(format!("error: {message}\n{hint_line}").as_bytes()));
            self.listener.on_event(&Event::Failed {
                instance: name.clone(),
                message: message.clone(),
                hint: hint.clone(),
                is_bug,
                log: log.as_ref().map(|path| path.display().to_string()),
                seconds,
            });
            Ok(End::Failed(StageFailure { index: job.index, message, hint, is_bug, log }))
        };
        let summary = match executed {
            Ok(summary) => summary,
            Err(ExecutionError::Stage(StageError::Interrupted)) if self.stop.is_raised() => {
                self.listener.on_event(&Event::Interrupted { instance: name, seconds });
                return Ok(End::Interrupted);
            }
            Err(ExecutionError::Stage(StageError::Interrupted)) => {
                return failed("stopped as if interrupted, but nobody asked it to".to_owned(), None, true);
            }
            Err(ExecutionError::Stage(StageError::Failed { message, hint })) => return failed(message, hint, false),
            Err(ExecutionError::Stage(StageError::Io { action, path, source })) => {
                // A full disk under the work folder is the cache's trouble, not the stage's.
                if path.starts_with(self.cache().root())
                    && let error @ CacheError::Full { .. } = CacheError::io(action, &path)(source.kind().into())
                {
                    return Err(error.into());
                }
                return failed(StageError::Io { action, path, source }.to_string(), None, false);
            }
            Err(ExecutionError::Panicked { message }) => return failed(message, None, true),
        };
        // Until the record names them, the files belong to nobody.
        let hold = self.cache().hold()?;
        let (artifact, metrics) = match collect(self.cache(), info.name, &out_dir, &summary) {
            Ok(collected) => collected,
            Err(NotAnArtifact::Mistake(message)) => return failed(message, None, true),
            Err(NotAnArtifact::Cache(error)) => return Err(error.into()),
        };
        if job.is_forced {
            self.compare_with_earlier(job.instance, &fingerprint, &artifact.digest)?;
        }
        let record = Record {
            format: RECORD_FORMAT,
            fingerprint,
            preimage: serde_json::to_value(key.preimage()).expect("a preimage is plain data"),
            kind: info.name.to_owned(),
            instance: name.clone(),
            pipeline: self.pipeline.name.clone(),
            run: self.run.to_owned(),
            artifact,
            metrics,
            build: self.build.clone(),
            machine: self.machine.clone(),
            times: Times { started, finished: now_text(), seconds },
            usage: Usage { threads: job.threads, device: device_text(self.device) },
            log: self.store_log(&log_path)?,
            interruptions: attempt.earlier,
            resumed: progress.has_resumed(),
        };
        self.publish(&record)?;
        drop(hold);
        work.finish()?;

        let known = known_of(&record.artifact, &record.metrics);
        self.put_in_place(job.instance, &fingerprint, &known, &record.artifact.outputs)?;
        let outcome = if record.resumed { Outcome::Resumed } else { Outcome::Ran };
        let done = Done { known, fingerprint, outcome, seconds: begin.elapsed().as_secs_f64() };
        self.report_done(job.instance, &done, true);
        Ok(End::Done(done))
    }

    fn put_in_place(
        &self,
        instance: &Instance,
        fingerprint: &Digest,
        known: &Known,
        outputs: &[Output],
    ) -> Result<(), RunError> {
        match self.workspace.place(instance, fingerprint, known, outputs)? {
            Placed::Whole => Ok(()),
            // The bytes were written a moment ago and are already wrong: computing again would not help.
            Placed::Lost { .. } => Err(RunError::KeepsBreaking { instance: instance.id.to_string() }),
        }
    }

    fn publish(&self, record: &Record) -> Result<(), CacheError> {
        self.cache().put_record(record)?;
        let mut last = self.last_flush.lock().unwrap_or_else(PoisonError::into_inner);
        if last.elapsed() > FLUSH_PAUSE {
            self.cache().flush()?;
            *last = Instant::now();
        }
        Ok(())
    }

    fn store_log(&self, path: &std::path::Path) -> Result<Option<Digest>, CacheError> {
        match fs::metadata(path) {
            Ok(metadata) if metadata.len() > 0 => self.cache().store_file(path).map(|(digest, _)| Some(digest)),
            _ => Ok(None),
        }
    }

    /// A forced stage that makes other bytes than before is not reproducible, which the user must hear.
    fn compare_with_earlier(&self, instance: &Instance, key: &Digest, artifact: &Digest) -> Result<(), CacheError> {
        if let Lookup::Hit(earlier) = self.cache().read_record(key)?
            && earlier.artifact.digest != *artifact
        {
            let (before, now) = (earlier.artifact.digest.short(), artifact.short());
            let message = format!("it made other bytes than the last time from the same inputs: {before}, now {now}");
            self.warn(instance, message);
        }
        Ok(())
    }

    fn input_artifacts(&self, job: &Job<'_>) -> BTreeMap<String, Vec<InputArtifact>> {
        let artifact = |producer: &usize| {
            let instance = &self.pipeline.instances[*producer];
            let known = &job.parents[producer].known;
            let place = |(path, digest, _): &(String, Digest, u64)| (path.clone(), self.cache().blob_path(digest));
            InputArtifact {
                instance: instance.id.to_string(),
                kind: instance.kind.info().name.to_owned(),
                axes: instance.id.axes.clone(),
                digest: known.artifact,
                files: known.files.iter().map(place).collect(),
            }
        };
        let slot = |(slot, producers): (&String, &Vec<usize>)| {
            (slot.clone(), producers.iter().map(artifact).collect::<Vec<_>>())
        };
        job.instance.inputs.iter().map(slot).collect()
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

fn device_text(device: Device) -> String {
    match device {
        Device::Cpu => "cpu".to_owned(),
        Device::Cuda(index) => format!("cuda:{index}"),
    }
}

/// Returns the headline of a result for summaries.
pub(crate) fn headline(done: &Done) -> Option<Metric> {
    done.known.headline.clone()
}
