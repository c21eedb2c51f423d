//! Computes one instance: tries as often as its policy allows, turns what was made into a record, puts it in place.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use spdflow_cache::{
    Artifact, CacheError, Digest, Hold, Lookup, Metric, Output, RECORD_FORMAT, Record, Times, Usage, Work,
};

use crate::artifact::{MANIFEST, NotAnArtifact, collect};
use crate::error::RunError;
use crate::event::{Event, Outcome};
use crate::executor::ExecutionError;
use crate::fingerprint::Key;
use crate::kind::{InputArtifact, StageContext, StageError, Summary};
use crate::machine::now_text;
use crate::outputs::Placed;
use crate::pipeline::Instance;
use crate::ranks::Alone;
use crate::run::progress::StageProgress;
use crate::run::schedule::Done;
use crate::run::stage::{End, Job, Session, StageFailure};
use crate::suggest::listed;
use crate::workspace::{Known, known_of};

// Long enough that a thousand small stages share one sync (which may wait for everything else the machine writes),
// short enough that little is lost with the power. The end of a run always syncs.
const FLUSH_PAUSE: Duration = Duration::from_secs(5);

/// What one attempt came to.
enum Attempt {
    Made(Made),
    Failed(Mistake),
    Interrupted,
}

/// What a successful attempt made.
struct Made {
    artifact: Artifact,
    metrics: Vec<Metric>,
    times: Times,
    /// How many attempts before it were cut short.
    earlier: u32,
    resumed: bool,
    /// Until the record names them, the files belong to nobody.
    hold: Hold,
}

/// Why an attempt failed.
struct Mistake {
    message: String,
    hint: Option<String>,
    is_bug: bool,
}

/// The log of a computation.
struct Log {
    path: PathBuf,
    /// Its length before this run wrote to it.
    length_before: u64,
}

impl Session<'_> {
    /// Computes the job's result and puts it in place.
    pub(crate) fn compute(
        &self,
        job: &Job<'_>,
        key: &Key<'_>,
        fingerprint: Digest,
        why: &str,
        mut work: Work,
        begin: Instant,
    ) -> Result<End, RunError> {
        let name = job.instance.id.to_string();
        let log = Log::new(work.log_path(), job.is_forced);
        let mut tries = 0;
        let made = loop {
            let mistake = match self.attempt(job, &fingerprint, why, &mut work, tries)? {
                Attempt::Made(made) => break made,
                Attempt::Interrupted => {
                    let seconds = begin.elapsed().as_secs_f64();
                    self.listener.on_event(&Event::Interrupted { instance: name, seconds });
                    return Ok(End::Interrupted);
                }
                Attempt::Failed(mistake) => mistake,
            };
            let Mistake { message, hint, is_bug } = mistake;
            let written = log.path_if_written();
            log.add_reason(&message, hint.as_deref());
            // A bug fails the same way each time, and whoever stops the run does not want to see it tried again.
            if is_bug || tries == job.instance.policy.retries || self.stop.is_raised() {
                self.listener.on_event(&Event::Failed {
                    instance: name,
                    message: message.clone(),
                    hint: hint.clone(),
                    is_bug,
                    log: written.as_ref().map(|path| path.display().to_string()),
                    seconds: begin.elapsed().as_secs_f64(),
                });
                return Ok(End::Failed(StageFailure { index: job.index, message, hint, is_bug, log: written }));
            }
            tries += 1;
            let retries = job.instance.policy.retries;
            self.listener.on_event(&Event::Retrying { instance: name.clone(), retry: tries, retries, message });
        };
        self.expect_as_locked(job.instance, fingerprint, Some(made.artifact.digest))?;
        if job.is_forced {
            self.compare_with_earlier(job.instance, &fingerprint, &made.artifact)?;
        }
        let record = Record {
            format: RECORD_FORMAT,
            fingerprint,
            preimage: serde_json::to_value(key.preimage()).expect("a preimage is plain data"),
            kind: job.instance.kind.info().name.to_owned(),
            instance: name,
            pipeline: self.pipeline.name.clone(),
            run: self.run.to_owned(),
            artifact: made.artifact,
            metrics: made.metrics,
            build: self.build.clone(),
            machine: (**self.machine).clone(),
            times: made.times,
            usage: Usage {
                threads: job.threads,
                device: self.device_of(job).to_string(),
                gpus: job.gpus.iter().map(|gpu| gpu.id.clone()).collect(),
            },
            log: self.store_log(&log.path)?,
            interruptions: made.earlier,
            resumed: made.resumed,
        };
        self.publish(&record)?;
        drop(made.hold);
        self.cache().finish(work)?;

        let known = known_of(&record.artifact, &record.metrics);
        self.put_in_place(job.instance, &fingerprint, &known, &record.artifact.outputs)?;
        let outcome = if record.resumed { Outcome::Resumed } else { Outcome::Ran };
        let done = Done { known, fingerprint, outcome, seconds: begin.elapsed().as_secs_f64() };
        self.report_done(job.instance, &done, true);
        self.offer(job.instance, fingerprint);
        Ok(End::Done(done))
    }

    /// Runs the stage once, after `tries` attempts that failed.
    fn attempt(
        &self,
        job: &Job<'_>,
        fingerprint: &Digest,
        why: &str,
        work: &mut Work,
        tries: u32,
    ) -> Result<Attempt, RunError> {
        let name = job.instance.id.to_string();
        let info = job.instance.kind.info();
        let begin = Instant::now();
        let earlier = work.begin(job.is_forced && tries == 0)?.earlier;
        let log_path = work.log_path();
        let log = File::options().create(true).append(true).open(&log_path);
        let log = log.map_err(CacheError::io("create", &log_path))?;
        if tries == 0 {
            self.listener.on_event(&Event::Started {
                instance: name.clone(),
                kind: info.name.to_owned(),
                fingerprint: *fingerprint,
                why: why.to_owned(),
                earlier_attempts: earlier,
                expected_seconds: job.expected_seconds,
            });
        }
        let progress = StageProgress::new(name, self.listener, log);
        let inputs = self.input_artifacts(job);
        let (out_dir, scratch_dir) = (work.out_dir(), work.scratch_dir());
        let timeout = job.instance.policy.timeout;
        let stop = self.stop.until(timeout.map(|timeout| begin + timeout));
        let context = StageContext {
            inputs: &inputs,
            files: &job.instance.files,
            out_dir: &out_dir,
            scratch_dir: &scratch_dir,
            repro_path: &work.repro_path(),
            threads: job.threads,
            gpus: &job.gpus,
            device: self.device_of(job),
            world: &Alone,
            checkpoint_every: self.checkpoint_every,
            progress: &progress,
            stop: &stop,
        };
        let started = now_text();
        let executed = self.executor.execute(&*job.instance.kind, &job.instance.params.value(), &context);
        let hold = self.cache().hold()?;
        let mistake = match executed {
            Ok(summary) => match self.collected(info.name, &out_dir, &summary)? {
                Ok((artifact, metrics)) => {
                    let times = Times { started, finished: now_text(), seconds: begin.elapsed().as_secs_f64() };
                    let resumed = progress.has_resumed();
                    return Ok(Attempt::Made(Made { artifact, metrics, times, earlier, resumed, hold }));
                }
                Err(mistake) => mistake,
            },
            Err(ExecutionError::Stage(StageError::Interrupted)) => match timeout {
                _ if self.stop.is_raised() => return Ok(Attempt::Interrupted),
                Some(timeout) if stop.is_late() => Mistake::timeout(timeout, &job.instance.id.stage),
                _ => Mistake::bug("stopped as if interrupted, but nobody asked it to"),
            },
            Err(ExecutionError::Stage(StageError::Failed { message, hint })) => {
                Mistake { message, hint, is_bug: false }
            }
            Err(ExecutionError::Stage(StageError::Io { action, path, source })) => {
                // A full disk under the work folder is the cache's trouble, not the stage's.
                if path.starts_with(self.cache().root())
                    && let error @ CacheError::Full { .. } = CacheError::io(action, &path)(source.kind().into())
                {
                    return Err(error.into());
                }
                let message = StageError::Io { action, path, source }.to_string();
                Mistake { message, hint: None, is_bug: false }
            }
            Err(ExecutionError::Panicked { message }) => Mistake::bug(message),
        };
        Ok(Attempt::Failed(mistake))
    }

    /// Moves what a stage wrote into the cache.
    fn collected(
        &self,
        kind: &str,
        out_dir: &Path,
        summary: &Summary,
    ) -> Result<Result<(Artifact, Vec<Metric>), Mistake>, RunError> {
        match collect(self.cache(), kind, out_dir, summary) {
            Ok(collected) => Ok(Ok(collected)),
            Err(NotAnArtifact::Mistake(message)) => Ok(Err(Mistake::bug(message))),
            Err(NotAnArtifact::Cache(error)) => Err(error.into()),
        }
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
        self.cache().note_duration(record);
        let mut last = self.last_flush.lock().unwrap_or_else(PoisonError::into_inner);
        if last.elapsed() > FLUSH_PAUSE {
            self.cache().flush()?;
            *last = Instant::now();
        }
        Ok(())
    }

    fn store_log(&self, path: &Path) -> Result<Option<Digest>, CacheError> {
        match fs::metadata(path) {
            Ok(metadata) if metadata.len() > 0 => self.cache().store_file(path).map(|(digest, _)| Some(digest)),
            _ => Ok(None),
        }
    }

    /// A forced stage that makes other bytes than before is not reproducible, which the user must hear.
    fn compare_with_earlier(&self, instance: &Instance, key: &Digest, now: &Artifact) -> Result<(), CacheError> {
        let Lookup::Hit(earlier) = self.cache().read_record(key)? else { return Ok(()) };
        let before = earlier.artifact;
        if before.digest == now.digest {
            return Ok(());
        }
        let lacks = |artifact: &Artifact, file: &Output| {
            !artifact.outputs.iter().any(|other| other.path == file.path && other.digest == file.digest)
        };
        // The manifest differs whenever another file does.
        let differing = before.outputs.iter().filter(|file| lacks(now, file));
        let mut files: Vec<_> = differing.chain(now.outputs.iter().filter(|file| lacks(&before, file))).collect();
        files.retain(|file| file.path != MANIFEST || before.outputs.len() == 1);
        files.sort_by(|left, right| left.path.cmp(&right.path));
        files.dedup_by(|left, right| left.path == right.path);
        let message = format!(
            "it made other bytes than the last time from the same inputs, so its result cannot be reproduced: {} \
             (artifact {}, now {})",
            listed(files.iter().map(|file| file.path.as_str())),
            before.digest.short(),
            now.digest.short()
        );
        self.warn(instance, message);
        Ok(())
    }

    fn input_artifacts(&self, job: &Job<'_>) -> BTreeMap<String, Vec<InputArtifact>> {
        let artifact = |producer: &usize| {
            let instance = &self.pipeline.instances[*producer];
            let known = &job.parents[producer].known;
            let place = |(path, digest, _): (&str, Digest, u64)| (path.to_owned(), self.cache().blob_path(&digest));
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

impl Mistake {
    fn bug(message: impl Into<String>) -> Self {
        Self { message: message.into(), hint: None, is_bug: true }
    }

    fn timeout(timeout: Duration, stage: &str) -> Self {
        Self {
            message: format!("it was stopped because it took longer than its timeout of {} s", timeout.as_secs_f64()),
            hint: Some(format!("raise `timeout` of `[stage.{stage}]`, or leave it out")),
            is_bug: false,
        }
    }
}

impl Log {
    fn new(path: PathBuf, is_emptied: bool) -> Self {
        let length_before = if is_emptied { 0 } else { length(&path) };
        Self { path, length_before }
    }

    /// Returns the log's path if this run wrote to it.
    fn path_if_written(&self) -> Option<PathBuf> {
        (length(&self.path) > self.length_before).then(|| self.path.clone())
    }

    /// Whoever looks into the log later finds the reason there; if it cannot be written, it was told all the same.
    fn add_reason(&self, message: &str, hint: Option<&str>) {
        let hint = hint.map(|hint| format!("hint: {hint}\n")).unwrap_or_default();
        let log = File::options().append(true).open(&self.path);
        let _ = log.and_then(|mut log| log.write_all(format!("error: {message}\n{hint}").as_bytes()));
    }
}

fn length(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |metadata| metadata.len())
}
