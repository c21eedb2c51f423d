//! Which results of a pipeline the cache has, and taking the others from a remote: `cache push` and `cache pull`.
//!
//! A result is found by its fingerprint, for which the inputs must be known. So the pipeline is gone through in waves:
//! every instance whose inputs have become known, then those behind them.

use std::collections::BTreeMap;

use spdflow_cache::remote::{Pulled, Remote, Transfer};
use spdflow_cache::{Cache, Digest, Lease, Lookup};

use crate::error::RunError;
use crate::fingerprint::check_key;
use crate::kind::NumericTarget;
use crate::pipeline::Pipeline;
use crate::plan::{input_digests, key};

/// Where results are taken from that the cache lacks.
#[derive(Debug, Clone, Copy)]
pub struct Source<'a> {
    /// The remote.
    pub remote: &'a Remote,
    /// Whether nothing is taken, and only looked at.
    pub dry_run: bool,
}

/// One instance, and what became of its result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gathered {
    /// Its index in the pipeline.
    pub index: usize,
    /// Its fingerprint, if its inputs are known.
    pub fingerprint: Option<Digest>,
    /// What became of its result.
    pub state: GatheredState,
}

/// What became of a result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GatheredState {
    /// The cache had it.
    Known,
    /// It was taken from the source, or could be.
    Taken(Transfer),
    /// Neither has it.
    Absent,
    /// The source has something that cannot be trusted.
    Damaged {
        /// The object.
        object: String,
        /// What is wrong with it.
        reason: String,
    },
    /// It is not known which result it would be: one of its inputs is not known.
    Unknown,
}

/// Finds the result of every instance in the cache or, if there is one, in the source. `done` hears of each that was
/// looked for in the source, as soon as that is known. Garbage collection keeps what was found as long as `lease` lives.
///
/// # Errors
/// [`RunError`] if the cache or the remote cannot be used.
pub fn gather(
    pipeline: &Pipeline,
    cache: &Cache,
    lease: &Lease,
    target: &NumericTarget,
    source: Option<Source<'_>>,
    done: &(dyn Fn(&Gathered) + Sync),
) -> Result<Vec<Gathered>, RunError> {
    let mut artifacts: BTreeMap<usize, Digest> = BTreeMap::new();
    let mut gathered: BTreeMap<usize, Gathered> = BTreeMap::new();
    loop {
        let mut wave: BTreeMap<Digest, Vec<usize>> = BTreeMap::new();
        for (index, instance) in pipeline.instances.iter().enumerate() {
            if !gathered.contains_key(&index) && instance.parents().all(|parent| artifacts.contains_key(&parent)) {
                let inputs = input_digests(instance, |parent| artifacts.get(&parent).copied());
                wave.entry(key(instance, &inputs, target).fingerprint()).or_default().push(index);
            }
        }
        if wave.is_empty() {
            break;
        }
        lease.add(cache, &wave.keys().copied().collect::<Vec<_>>())?;
        let mut missing = Vec::new();
        for (key, indices) in wave {
            let found = match cache.lookup(&key)? {
                Lookup::Hit(record) => Some(record.artifact.digest),
                Lookup::Miss | Lookup::MissingBlob { .. } | Lookup::Corrupt { .. } => None,
            };
            if found.is_none() && source.is_some() {
                missing.push((key, indices));
                continue;
            }
            let state = if found.is_some() { GatheredState::Known } else { GatheredState::Absent };
            for index in indices {
                artifacts.extend(found.map(|artifact| (index, artifact)));
                gathered.insert(index, Gathered { index, fingerprint: Some(key), state: state.clone() });
            }
        }
        let Some(source) = source else { continue };
        let keys: Vec<Digest> = missing.iter().map(|(key, _)| *key).collect();
        let of = |place: usize, pulled: &Pulled| {
            let (key, indices) = &missing[place];
            let state = GatheredState::of(pulled);
            let of = |index: &usize| Gathered { index: *index, fingerprint: Some(*key), state: state.clone() };
            indices.iter().map(of).collect::<Vec<_>>()
        };
        let tell = |place: usize, pulled: &Pulled| of(place, pulled).iter().for_each(done);
        let pulled = if source.dry_run {
            source.remote.look_all(cache, &keys, &check_key, &tell)?
        } else {
            source.remote.pull_all(cache, &keys, &check_key, &tell)?
        };
        for (place, pulled) in pulled.iter().enumerate() {
            for result in of(place, pulled) {
                if let Pulled::Taken(record, _) = pulled {
                    artifacts.insert(result.index, record.artifact.digest);
                }
                gathered.insert(result.index, result);
            }
        }
    }
    let unknown = |index| Gathered { index, fingerprint: None, state: GatheredState::Unknown };
    Ok((0..pipeline.instances.len()).map(|index| gathered.remove(&index).unwrap_or_else(|| unknown(index))).collect())
}

impl GatheredState {
    fn of(pulled: &Pulled) -> Self {
        match pulled {
            Pulled::Taken(_, transfer) => Self::Taken(*transfer),
            Pulled::Absent => Self::Absent,
            Pulled::Damaged { object, reason } => Self::Damaged { object: object.clone(), reason: reason.clone() },
        }
    }
}
