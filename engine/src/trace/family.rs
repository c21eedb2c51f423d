//! What a result was made from, up to where nothing more is known.
//!
//! A record names its inputs by the digests of their artifacts. Several results may have equal artifacts; the earliest is
//! taken for the producer, and the others are named. A stage that passes on what it was given makes the artifact it took: it
//! comes after those that made it of something else, and a result that is being told of already is not taken again.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use spdflow_cache::{Digest, Record};

use crate::fingerprint::Preimage;

/// An input of a result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Input {
    /// What the stage calls it.
    pub slot: String,
    /// Its artifact.
    pub artifact: Digest,
    /// What made it, if the cache has a record of that.
    pub producer: Option<Producer>,
}

/// A result that another one was made from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Producer {
    /// The instance, pipeline, run and kind, as its record names them.
    pub instance: String,
    /// See `instance`.
    pub pipeline: String,
    /// See `instance`.
    pub run: String,
    /// See `instance`.
    pub kind: String,
    /// Its key.
    pub fingerprint: Digest,
    /// Other instances that made the same artifact: the bytes do not tell which of them was taken.
    pub others: Vec<String>,
    /// Whether it was told of before; then its inputs are not repeated.
    pub is_repeated: bool,
    /// What it was made from.
    pub inputs: Vec<Input>,
}

/// The records of a cache by what they made.
pub(super) struct Family<'r> {
    /// The earliest first.
    by_artifact: BTreeMap<Digest, Vec<&'r Record>>,
}

impl<'r> Family<'r> {
    /// Returns that of records of which the earliest come first.
    pub(super) fn new(records: &'r [Record]) -> Self {
        let mut by_artifact: BTreeMap<Digest, Vec<&Record>> = BTreeMap::new();
        for record in records {
            by_artifact.entry(record.artifact.digest).or_default().push(record);
        }
        for records in by_artifact.values_mut() {
            records.sort_by_key(|record| passes_on(record));
        }
        Self { by_artifact }
    }

    /// Returns what a result was made from.
    pub(super) fn inputs(&self, record: &Record) -> Vec<Input> {
        self.inputs_of(record, &mut vec![record.fingerprint], &mut BTreeSet::new())
    }

    fn inputs_of(&self, record: &Record, path: &mut Vec<Digest>, told: &mut BTreeSet<Digest>) -> Vec<Input> {
        let mut inputs = Vec::new();
        for (slot, artifacts) in taken(record) {
            for artifact in artifacts {
                let makers = self.by_artifact.get(&artifact).into_iter().flatten();
                let mut makers = makers.copied().filter(|maker| !path.contains(&maker.fingerprint));
                let maker = makers.next();
                let others: BTreeSet<&str> = makers.map(|other| other.instance.as_str()).collect();
                let producer = maker.map(|maker| {
                    let others = others.into_iter().filter(|other| *other != maker.instance).map(str::to_owned);
                    Producer { others: others.collect(), ..self.producer(maker, path, told) }
                });
                inputs.push(Input { slot: slot.clone(), artifact, producer });
            }
        }
        inputs
    }

    fn producer(&self, record: &Record, path: &mut Vec<Digest>, told: &mut BTreeSet<Digest>) -> Producer {
        let is_repeated = !told.insert(record.fingerprint);
        let inputs = if is_repeated {
            Vec::new()
        } else {
            path.push(record.fingerprint);
            let inputs = self.inputs_of(record, path, told);
            path.pop();
            inputs
        };
        let Record { instance, pipeline, run, kind, fingerprint, .. } = record;
        Producer {
            instance: instance.clone(),
            pipeline: pipeline.clone(),
            run: run.clone(),
            kind: kind.clone(),
            fingerprint: *fingerprint,
            others: Vec::new(),
            is_repeated: is_repeated && taken(record).values().any(|artifacts| !artifacts.is_empty()),
            inputs,
        }
    }
}

/// Returns the artifacts that a result was made from, by slot.
fn taken(record: &Record) -> BTreeMap<String, Vec<Digest>> {
    let preimage: Option<Preimage> = serde_json::from_value(record.preimage.clone()).ok();
    preimage.map(|preimage| preimage.inputs).unwrap_or_default()
}

/// Returns whether a result is one of those that it was made from.
fn passes_on(record: &Record) -> bool {
    taken(record).values().flatten().any(|artifact| *artifact == record.artifact.digest)
}

#[cfg(test)]
mod tests {
    use spdflow_cache::{Artifact, BuildInfo, MachineInfo, RECORD_FORMAT, Times, Usage};

    use super::*;

    /// Returns the record of an instance that made an artifact of these artifacts.
    fn record(instance: &str, made: &str, from: &[&str]) -> Record {
        let digest = |text: &str| Digest::of(text.as_bytes());
        let from: Vec<Digest> = from.iter().copied().map(digest).collect();
        let inputs = BTreeMap::from([("of".to_owned(), from)]);
        let preimage = Preimage {
            kind: "test".to_owned(),
            version: 1,
            params: serde_json::json!({}),
            inputs,
            numeric_target: "cpu".to_owned(),
        };
        Record {
            format: RECORD_FORMAT,
            fingerprint: digest(instance),
            preimage: serde_json::to_value(preimage).unwrap(),
            kind: "test".to_owned(),
            instance: instance.to_owned(),
            pipeline: "p".to_owned(),
            run: "r".to_owned(),
            artifact: Artifact { digest: digest(made), outputs: Vec::new() },
            metrics: Vec::new(),
            build: BuildInfo {
                version: String::new(),
                git_commit: String::new(),
                cargo_lock: digest(""),
                rustc: String::new(),
                profile: String::new(),
                sources: None,
            },
            machine: MachineInfo {
                host: String::new(),
                platform: String::new(),
                processor: String::new(),
                cpu_features: Vec::new(),
                processors: 1,
            },
            times: Times { started: String::new(), finished: String::new(), seconds: 0.0 },
            usage: Usage { threads: 1, device: "cpu".to_owned(), gpus: Vec::new() },
            log: None,
            interruptions: 0,
            resumed: false,
        }
    }

    /// Returns the inputs of the last record as `slot instance(inputs)`.
    fn told(records: &[Record]) -> String {
        fn text(inputs: &[Input]) -> String {
            let one = |input: &Input| match &input.producer {
                None => "nobody".to_owned(),
                Some(Producer { instance, is_repeated: true, .. }) => format!("{instance}(above)"),
                Some(Producer { instance, others, inputs, .. }) => {
                    format!(
                        "{instance}{}({})",
                        others.iter().map(|other| format!("|{other}")).collect::<String>(),
                        text(inputs)
                    )
                }
            };
            inputs.iter().map(one).collect::<Vec<_>>().join(" ")
        }
        text(&Family::new(records).inputs(records.last().unwrap()))
    }

    #[test]
    fn a_result_is_told_once_and_then_as_above() {
        let diamond = [
            record("a", "A", &[]),
            record("b", "B", &["A"]),
            record("c", "C", &["B", "A"]),
            record("d", "D", &["B", "C"]),
        ];
        assert_eq!(told(&diamond), "b(a()) c(b(above) a())");
    }

    #[test]
    fn a_stage_that_passes_on_what_it_took_is_not_its_own_source() {
        // Whatever their order: times have whole seconds.
        let (a, b, c) = (record("a", "A", &[]), record("b", "A", &["A"]), record("c", "C", &["A"]));
        assert_eq!(told(&[a.clone(), b.clone(), c.clone()]), "a|b()");
        assert_eq!(told(&[b.clone(), a.clone(), c.clone()]), "a|b()");
        assert_eq!(told(&[a, b.clone()]), "a()");
        // Without a record of `a`.
        assert_eq!(told(&[b.clone(), c]), "b(nobody)");
        assert_eq!(told(&[b]), "nobody");
    }

    #[test]
    fn an_input_of_which_there_is_no_record_is_told_as_such() {
        assert_eq!(told(&[record("a", "A", &["X"])]), "nobody");
    }
}
