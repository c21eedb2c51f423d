//! What a result was made from, up to where nothing more is known.
//!
//! A record names its inputs by the digests of their artifacts. Several results may have equal artifacts; the earliest is
//! taken for the producer, and the others are named. A stage that passes on what it was given makes the artifact it took, so a result that is being
//! told of already is not taken again.

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
        Self { by_artifact }
    }

    /// Returns what a result was made from.
    pub(super) fn inputs(&self, record: &Record) -> Vec<Input> {
        self.inputs_of(record, &mut vec![record.fingerprint], &mut BTreeSet::new())
    }

    fn inputs_of(&self, record: &Record, path: &mut Vec<Digest>, told: &mut BTreeSet<Digest>) -> Vec<Input> {
        let preimage: Option<Preimage> = serde_json::from_value(record.preimage.clone()).ok();
        let slots = preimage.into_iter().flat_map(|preimage| preimage.inputs);
        let mut inputs = Vec::new();
        for (slot, artifacts) in slots {
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
            is_repeated: is_repeated && has_inputs(record),
            inputs,
        }
    }
}

fn has_inputs(record: &Record) -> bool {
    record.preimage["inputs"].as_object().is_some_and(|inputs| !inputs.is_empty())
}
