//! The results that a pipeline has in a cache, found without changing a byte of the cache.
//!
//! A plan mends on its way: it moves damaged records away and takes lost blobs back from `out/`. Whoever carries results out
//! of a cache (`bundle`, `export/`) wants to know what is there, all of it or what is lacking.

use std::collections::BTreeMap;
use std::fmt;

use spdflow_cache::{Cache, CacheError, Digest, Record, RecordState, Untrusted};

use crate::fingerprint::check_key;
use crate::kind::NumericTarget;
use crate::pipeline::Pipeline;
use crate::plan::{Scope, input_digests, key};

/// The result of one instance.
#[derive(Debug, Clone)]
pub struct Present {
    /// The index of the instance in [`Pipeline::instances`].
    pub index: usize,
    /// Its name.
    pub instance: String,
    /// The record.
    pub record: Record,
    /// The digest of the record's file.
    pub digest: Digest,
}

/// An instance whose result is not there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lack {
    /// Its name.
    pub instance: String,
    /// What is lacking.
    pub what: Lacking,
}

/// What is lacking of a result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lacking {
    /// There is no record.
    Result,
    /// What one of its inputs would be is not known.
    Input(String),
    /// The record is there, but the bytes of this output are not.
    Output(String),
    /// The record cannot be trusted.
    Trust(Untrusted),
}

impl fmt::Display for Lack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let instance = &self.instance;
        match &self.what {
            Lacking::Result => write!(f, "`{instance}` has no result yet"),
            Lacking::Input(input) => write!(f, "`{instance}` has no result yet: it depends on `{input}`"),
            Lacking::Output(output) => write!(f, "`{instance}`: its file `{output}` is missing from the cache"),
            Lacking::Trust(Untrusted { path, reason }) => {
                write!(f, "`{instance}`: its record `{}` cannot be trusted: {reason}", path.display())
            }
        }
    }
}

/// Returns the results of all instances in scope, in the order of the pipeline, or every instance whose result is not there.
///
/// # Errors
/// [`CacheError`] if the cache cannot be read.
pub fn present(
    pipeline: &Pipeline,
    cache: &Cache,
    scope: &Scope,
    target: &NumericTarget,
) -> Result<Result<Vec<Present>, Vec<Lack>>, CacheError> {
    let members = scope.members(pipeline);
    let mut artifacts: BTreeMap<usize, Digest> = BTreeMap::new();
    let (mut found, mut lacks) = (Vec::new(), Vec::new());
    for (index, instance) in pipeline.instances.iter().enumerate().filter(|(index, _)| members[*index]) {
        let name = instance.id.to_string();
        let lack = |what| Lack { instance: name.clone(), what };
        if let Some(unknown) = instance.parents().find(|parent| !artifacts.contains_key(parent)) {
            lacks.push(lack(Lacking::Input(pipeline.instances[unknown].id.to_string())));
            continue;
        }
        let inputs = input_digests(instance, |parent| artifacts.get(&parent).copied());
        let fingerprint = key(instance, &inputs, target).fingerprint();
        let untrusted = |reason| Lacking::Trust(Untrusted { path: cache.record_path(&fingerprint), reason });
        let (record, digest) = match cache.inspect_record(&fingerprint)? {
            RecordState::Missing => {
                lacks.push(lack(Lacking::Result));
                continue;
            }
            RecordState::Damaged { reason, .. } => {
                lacks.push(lack(untrusted(reason)));
                continue;
            }
            RecordState::Intact { record, digest, .. } => (*record, digest),
        };
        if let Err(reason) = check_key(&record) {
            lacks.push(lack(untrusted(reason)));
            continue;
        }
        artifacts.insert(index, record.artifact.digest);
        let gone = record.artifact.outputs.iter().filter(|output| !cache.has_blob(&output.digest, output.size_bytes));
        lacks.extend(gone.map(|output| lack(Lacking::Output(output.path.clone()))));
        found.push(Present { index, instance: name, record, digest });
    }
    Ok(if lacks.is_empty() { Ok(found) } else { Err(lacks) })
}
