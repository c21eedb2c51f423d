//! How long computations took, in one small file: `index/durations`.
//!
//! What a run still has to do is estimated from it without a look at every record. The file is disposable: it grows by
//! a line for each computation, later lines count, and where it is missing it is made anew from the records.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::Write;
use std::path::PathBuf;

use crate::{Cache, Digest, Record};

/// How many records are read to make the file.
const MOST_RECORDS: usize = 20_000;
/// How many lines may be superseded by later ones before the file is written anew.
const MOST_SUPERSEDED: usize = 4_096;

/// The last known durations, in seconds.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Durations {
    /// By kind, pipeline and instance.
    instances: BTreeMap<(String, String, String), f64>,
    /// By kind, pipeline and stage.
    stages: BTreeMap<(String, String, String), f64>,
    kinds: BTreeMap<String, f64>,
}

impl Durations {
    /// Returns how long an instance took, of this kind and in this pipeline.
    #[must_use]
    pub fn of_instance(&self, kind: &str, pipeline: &str, instance: &str) -> Option<f64> {
        self.instances.get(&(kind.to_owned(), pipeline.to_owned(), instance.to_owned())).copied()
    }

    /// Returns how long any instance of a stage took.
    #[must_use]
    pub fn of_stage(&self, kind: &str, pipeline: &str, stage: &str) -> Option<f64> {
        self.stages.get(&(kind.to_owned(), pipeline.to_owned(), stage.to_owned())).copied()
    }

    /// Returns how long any stage of a kind took.
    #[must_use]
    pub fn of_kind(&self, kind: &str) -> Option<f64> {
        self.kinds.get(kind).copied()
    }

    fn note(&mut self, [kind, pipeline, instance]: [&str; 3], seconds: f64) {
        let key = |name: &str| (kind.to_owned(), pipeline.to_owned(), name.to_owned());
        self.instances.insert(key(instance), seconds);
        self.stages.insert(key(instance.split('[').next().unwrap_or(instance)), seconds);
        self.kinds.insert(kind.to_owned(), seconds);
    }

    /// Reads lines of seconds, kind, pipeline and instance; a line that is cut short or not one of ours is left out.
    /// Returns how many there were.
    fn read(&mut self, text: &str) -> usize {
        let mut lines = 0;
        for line in text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n')) {
            let fields: Vec<&str> = line.split('\t').collect();
            let &[seconds, kind, pipeline, instance] = fields.as_slice() else { continue };
            if let Some(seconds) = seconds.parse().ok().filter(|seconds: &f64| seconds.is_finite() && *seconds >= 0.0) {
                self.note([kind, pipeline, instance], seconds);
                lines += 1;
            }
        }
        lines
    }

    fn text(&self) -> String {
        let mut text = String::new();
        for ((kind, pipeline, instance), seconds) in &self.instances {
            let _ = writeln!(text, "{seconds}\t{kind}\t{pipeline}\t{instance}");
        }
        text
    }
}

impl Cache {
    /// Returns how long computations took. What cannot be read is not known: an estimate is then worse, and nothing
    /// else.
    #[must_use]
    pub fn durations(&self) -> Durations {
        let mut durations = Durations::default();
        match fs::read_to_string(self.durations_path()) {
            Ok(text) => {
                let lines = durations.read(&text);
                if lines <= durations.instances.len() + MOST_SUPERSEDED {
                    return durations;
                }
            }
            Err(_) => {
                let mut records: Vec<_> =
                    self.fingerprints(MOST_RECORDS).iter().filter_map(|key| self.taken(key)).collect();
                records.sort_by(|(left, _), (right, _)| left.cmp(right));
                let text: String = records.into_iter().map(|(_, line)| line).collect();
                durations.read(&text);
            }
        }
        let _ = self.write_whole(&self.durations_path(), durations.text().as_bytes(), 0o644);
        durations
    }

    /// Remembers how long a computation took. A result that was continued from a checkpoint does not tell.
    pub fn note_duration(&self, record: &Record) {
        // Without the file, the next look reads all records, this one among them.
        if let (Some(line), Ok(mut file)) = (line(record), File::options().append(true).open(self.durations_path())) {
            let _ = file.write_all(line.as_bytes());
        }
    }

    /// Returns when a record's computation ended, and its line.
    fn taken(&self, fingerprint: &Digest) -> Option<(String, String)> {
        // A record that cannot be trusted is left to those who need it.
        let record = self.peek_record(fingerprint).ok()??.ok()?;
        Some((record.times.finished.clone(), line(&record)?))
    }

    fn durations_path(&self) -> PathBuf {
        self.root().join("index").join("durations")
    }
}

fn line(record: &Record) -> Option<String> {
    let Record { kind, pipeline, instance, .. } = record;
    let is_plain = ![kind, pipeline, instance].into_iter().any(|name| name.contains(['\t', '\n']));
    (is_plain && !record.resumed).then(|| format!("{}\t{kind}\t{pipeline}\t{instance}\n", record.times.seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(cache: &Cache, instance: &str, seconds: f64, resumed: bool) -> Record {
        let mut record = crate::record::tests::example(cache, Digest::of(format!("{instance}{seconds}").as_bytes()));
        record.kind = "train".to_owned();
        record.pipeline = "p".to_owned();
        record.instance = instance.to_owned();
        record.times.seconds = seconds;
        record.times.finished = format!("2026-11-28T00:00:{:02}Z", seconds as u64);
        record.resumed = resumed;
        record
    }

    #[test]
    fn durations_are_those_of_the_newest_record_that_was_not_resumed() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path()).unwrap();
        for (instance, seconds, resumed) in [("a[x=1]", 3.0, false), ("a[x=2]", 5.0, false), ("a[x=1]", 9.0, true)] {
            cache.put_record(&record(&cache, instance, seconds, resumed)).unwrap();
        }
        let durations = cache.durations();
        assert_eq!(durations.of_instance("train", "p", "a[x=1]"), Some(3.0));
        assert_eq!(durations.of_stage("train", "p", "a"), Some(5.0));
        assert_eq!(durations.of_kind("train"), Some(5.0));
        assert_eq!(durations.of_instance("train", "q", "a[x=1]"), None);
        assert_eq!((durations.of_stage("train", "p", "b"), durations.of_kind("plot")), (None, None));
        // Now there is a file, which each computation adds to.
        cache.note_duration(&record(&cache, "a[x=1]", 7.5, false));
        assert_eq!(cache.durations().of_instance("train", "p", "a[x=1]"), Some(7.5));
    }

    #[test]
    fn a_damaged_file_is_read_as_far_as_it_goes_and_a_long_one_is_written_anew() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path()).unwrap();
        let line = |number: usize| format!("{number}\ttrain\tp\ta\n");
        fs::write(cache.durations_path(), "what\n-1\ttrain\tp\tb\nNaN\ttrain\tp\tb\n4\ttrain\tp\ta\n9\ttrain\tp")
            .unwrap();
        let mut expected = Durations::default();
        expected.note(["train", "p", "a"], 4.0);
        assert_eq!(cache.durations(), expected);
        fs::write(cache.durations_path(), (0..MOST_SUPERSEDED + 2).map(line).collect::<String>()).unwrap();
        assert_eq!(cache.durations().of_kind("train"), Some((MOST_SUPERSEDED + 1) as f64));
        assert_eq!(fs::read_to_string(cache.durations_path()).unwrap(), line(MOST_SUPERSEDED + 1));
    }
}
