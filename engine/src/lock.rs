//! Lock files: which result each instance of a pipeline has, in text that is kept beside a paper.
//!
//! One line per instance, sorted, so that version control merges and compares them line by line:
//!
//! ```toml
//! "decompose[seed=0]" = { fingerprint = "9f3c…", artifact = "07d2…", record = "aa10…", outputs = { "ci.parquet" = "…" } }
//! ```
//!
//! `fingerprint` is the key of the result, `artifact` the digest of all its files, `record` that of the record which
//! tells how it was made, `outputs` the digests of the files. A result that is computed again elsewhere has the same
//! fingerprint, artifact and outputs; only its record differs, since that says when and where.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde::{Deserialize, Serialize};
use spdflow_cache::{Cache, CacheError, Digest, Lookup};

use crate::diagnostic::Diagnostic;
use crate::pipeline::Pipeline;
use crate::plan::Plan;

/// The version of the format.
const VERSION: u32 = 1;

/// In the first line of every lock file; other programs have files called `.lock` as well.
const MARK: &str = "Written by `spdflow lock`";

/// The contents of a lock file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lock {
    version: u32,
    /// The pipeline's name.
    pub pipeline: String,
    /// The result of each instance.
    #[serde(default)]
    pub stages: BTreeMap<String, LockedStage>,
}

/// The result of one instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LockedStage {
    /// Its key.
    pub fingerprint: Digest,
    /// The digest of its artifact.
    pub artifact: Digest,
    /// The digest of the record's file; a run's own list of its results does without.
    #[serde(default)]
    pub record: Option<Digest>,
    /// The digest of each file, by path.
    pub outputs: BTreeMap<String, Digest>,
}

/// How a pipeline is not what its lock file says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "drift")]
pub enum Drift {
    /// The lock file does not have the instance.
    NotLocked {
        /// Which.
        instance: String,
    },
    /// The pipeline does not have the instance.
    Gone {
        /// Which.
        instance: String,
    },
    /// The instance's key is another one.
    OtherKey {
        /// Which.
        instance: String,
        /// The key it has now.
        found: Digest,
        /// The key that the lock file says.
        locked: Digest,
    },
    /// The instance's result has other bytes.
    OtherBytes {
        /// Which.
        instance: String,
        /// The artifact it has now.
        found: Digest,
        /// The artifact that the lock file says.
        locked: Digest,
    },
}

impl std::fmt::Display for Drift {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NotLocked { instance } => write!(f, "`{instance}` is not in the lock file"),
            Self::Gone { instance } => write!(f, "`{instance}` is in the lock file, but not in the pipeline"),
            Self::OtherKey { instance, found, locked } => {
                write!(f, "`{instance}` has the key {}, the lock file says {}", found.short(), locked.short())
            }
            Self::OtherBytes { instance, found, locked } => {
                write!(
                    f,
                    "`{instance}` made other bytes: artifact {}, the lock file says {}",
                    found.short(),
                    locked.short()
                )
            }
        }
    }
}

impl Lock {
    /// Returns a lock with these results.
    pub(crate) fn new(pipeline: &str, stages: BTreeMap<String, LockedStage>) -> Self {
        Self { version: VERSION, pipeline: pipeline.to_owned(), stages }
    }

    /// Returns the lock of results that are all known, or the first instance whose result is not.
    ///
    /// # Errors
    /// [`CacheError`] if the cache cannot be read.
    pub fn of(pipeline: &Pipeline, plan: &Plan, cache: &Cache) -> Result<Result<Self, String>, CacheError> {
        let mut stages = BTreeMap::new();
        for step in &plan.steps {
            let id = pipeline.instances[step.index].id.to_string();
            let (Some(fingerprint), Some(_)) = (step.fingerprint, step.artifact()) else { return Ok(Err(id)) };
            let Lookup::Hit(record) = cache.read_record(&fingerprint)? else { return Ok(Err(id)) };
            let Some(record_digest) = cache.record_digest(&fingerprint)? else { return Ok(Err(id)) };
            let outputs = record.artifact.outputs.iter().map(|output| (output.path.clone(), output.digest)).collect();
            let locked =
                LockedStage { fingerprint, artifact: record.artifact.digest, record: Some(record_digest), outputs };
            stages.insert(id, locked);
        }
        Ok(Ok(Self { version: VERSION, pipeline: pipeline.name.clone(), stages }))
    }

    /// Returns whether a file was written by `spdflow lock`, even if something has happened to it since.
    #[must_use]
    pub fn is_meant(text: &str) -> bool {
        text.contains(MARK)
    }

    /// Returns the lock that a file's text holds.
    ///
    /// # Errors
    /// What is wrong with it, with the line.
    pub fn parse(text: &str) -> Result<Self, Diagnostic> {
        let wrong = |message: String| {
            Diagnostic::new(message)
                .hint("lock files are written by `spdflow lock`; write it again rather than mend it")
        };
        let lock: Self = toml::from_str(text).map_err(|error| {
            let line = error.span().map_or(String::new(), |span| {
                format!("line {}: ", text[..span.start.min(text.len())].matches('\n').count() + 1)
            });
            wrong(format!("this is no lock file: {line}{}", error.message().trim_end()))
        })?;
        if lock.version != VERSION {
            let version = lock.version;
            return Err(wrong(format!("the lock file has version {version}, this spdflow reads version {VERSION}")));
        }
        Ok(lock)
    }

    /// Returns the file's text.
    #[must_use]
    pub fn text(&self) -> String {
        let quoted = |text: &str| toml::Value::String(text.to_owned()).to_string();
        let mut text = format!("# {MARK}. Keep it beside the pipeline; `run --locked` makes nothing else.\n");
        let _ = writeln!(text, "version = {}\npipeline = {}\n\n[stages]", self.version, quoted(&self.pipeline));
        for (instance, stage) in &self.stages {
            let LockedStage { fingerprint, artifact, record, outputs } = stage;
            let outputs: Vec<String> =
                outputs.iter().map(|(path, digest)| format!("{} = \"{digest}\"", quoted(path))).collect();
            let record = record.map(|record| format!(" record = \"{record}\",")).unwrap_or_default();
            let _ = writeln!(
                text,
                "{} = {{ fingerprint = \"{fingerprint}\", artifact = \"{artifact}\",{record} outputs = {{ {} }} }}",
                quoted(instance),
                outputs.join(", ")
            );
        }
        text
    }

    /// Returns how a plan departs from the lock, as far as its keys and results are known; with `all` also instances
    /// that only the lock has.
    #[must_use]
    pub fn drift(&self, pipeline: &Pipeline, plan: &Plan, all: bool) -> Vec<Drift> {
        let mut drift = Vec::new();
        for step in &plan.steps {
            let id = pipeline.instances[step.index].id.to_string();
            drift.extend(self.check(&id, step.fingerprint, step.artifact()));
        }
        if all {
            let present: std::collections::BTreeSet<String> =
                pipeline.instances.iter().map(|instance| instance.id.to_string()).collect();
            let gone = self.stages.keys().filter(|instance| !present.contains(*instance));
            drift.extend(gone.map(|instance| Drift::Gone { instance: instance.clone() }));
        }
        drift
    }

    /// Returns how an instance with this key and this artifact, as far as they are known, departs from the lock.
    #[must_use]
    pub fn check(&self, instance: &str, fingerprint: Option<Digest>, artifact: Option<Digest>) -> Option<Drift> {
        let instance = instance.to_owned();
        let Some(stage) = self.stages.get(&instance) else { return Some(Drift::NotLocked { instance }) };
        match (fingerprint, artifact) {
            (Some(found), _) if found != stage.fingerprint => {
                Some(Drift::OtherKey { instance, found, locked: stage.fingerprint })
            }
            (_, Some(found)) if found != stage.artifact => {
                Some(Drift::OtherBytes { instance, found, locked: stage.artifact })
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lock() -> Lock {
        let stage = |name: &str| LockedStage {
            fingerprint: Digest::of(name.as_bytes()),
            artifact: Digest::of(b"artifact"),
            record: Some(Digest::of(b"record")),
            outputs: BTreeMap::from([("a \"b\".json".to_owned(), Digest::of(b"file"))]),
        };
        let stages = ["target", "decompose[seed=0]"].map(|name| (name.to_owned(), stage(name)));
        Lock { version: VERSION, pipeline: "tms".to_owned(), stages: stages.into() }
    }

    #[test]
    fn the_text_has_one_line_per_instance_and_is_read_back() {
        let lock = lock();
        let text = lock.text();
        assert_eq!(text.lines().count(), 5 + 2);
        assert!(text.lines().nth(5).is_some_and(|line| line.starts_with("\"decompose[seed=0]\" = { fingerprint = ")));
        assert_eq!(Lock::parse(&text), Ok(lock));
    }

    #[test]
    fn what_is_wrong_with_a_file_is_said_with_its_line() {
        let message = |text: &str| Lock::parse(text).expect_err("wrong").message;
        let text = lock().text();
        let cut = &text[..text.len() - 20];
        assert!(message(cut).starts_with("this is no lock file: line 7: "), "{}", message(cut));
        assert_eq!(
            message(&text.replace("version = 1", "version = 9")),
            "the lock file has version 9, this spdflow reads version 1"
        );
        assert!(message("").contains("missing field `version`"), "{}", message(""));
        assert!(message(&text.replace("record =", "recrod =")).contains("unknown field `recrod`"));
    }

    #[test]
    fn drift_names_what_departs() {
        let lock = lock();
        let (key, artifact) = (Digest::of(b"target"), Digest::of(b"artifact"));
        assert_eq!(lock.check("target", Some(key), Some(artifact)), None);
        assert_eq!(lock.check("target", None, None), None);
        let other = Digest::of(b"other");
        let said = |instance, key, artifact| lock.check(instance, key, artifact).expect("a drift").to_string();
        assert_eq!(said("plot", None, None), "`plot` is not in the lock file");
        let (was, now) = (key.short(), other.short());
        assert_eq!(said("target", Some(other), None), format!("`target` has the key {now}, the lock file says {was}"));
        assert_eq!(
            said("target", Some(key), Some(other)),
            format!("`target` made other bytes: artifact {now}, the lock file says {}", artifact.short())
        );
    }
}
