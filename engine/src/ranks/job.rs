//! A stage on its way from rank 0 to the others: what to compute, and the bytes of its inputs.
//!
//! A frame with the description in JSON, then one frame per file, in the order of the description. The others need no
//! file system in common with rank 0.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Component, Path};

use serde::{Deserialize, Serialize};
use spdflow_cache::Digest;

use super::connection::{Connection, Tag};
use crate::fingerprint::{from_json, to_json};
use crate::kind::{InputArtifact, StageError};
use crate::value::Value;

/// What to compute.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Job {
    pub(super) kind: String,
    params: serde_json::Value,
    inputs: BTreeMap<String, Vec<Input>>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Input {
    instance: String,
    kind: String,
    axes: BTreeMap<String, String>,
    digest: Digest,
    /// Names and digests.
    files: Vec<(String, Digest)>,
}

/// A job and the bytes of its files, in order.
pub(super) struct Parcel {
    pub(super) job: Job,
    files: Vec<Vec<u8>>,
}

impl Parcel {
    /// Reads what the stage will need.
    pub(super) fn new(
        kind: &str,
        params: &Value,
        inputs: &BTreeMap<String, Vec<InputArtifact>>,
    ) -> Result<Self, StageError> {
        let mut bytes = Vec::new();
        let mut input = |artifact: &InputArtifact| {
            let mut files = Vec::new();
            for (name, path) in &artifact.files {
                let contents = fs::read(path).map_err(StageError::io("read", path))?;
                files.push((name.clone(), Digest::of(&contents)));
                bytes.push(contents);
            }
            let InputArtifact { instance, kind, axes, digest, .. } = artifact.clone();
            Ok(Input { instance, kind, axes, digest, files })
        };
        let mut slots = BTreeMap::new();
        for (slot, artifacts) in inputs {
            let artifacts: Result<Vec<Input>, StageError> = artifacts.iter().map(&mut input).collect();
            slots.insert(slot.clone(), artifacts?);
        }
        let job = Job { kind: kind.to_owned(), params: to_json(params), inputs: slots };
        Ok(Self { job, files: bytes })
    }

    pub(super) fn send(&self, connection: &Connection) -> io::Result<()> {
        connection.send(Tag::Job, &serde_json::to_vec(&self.job).expect("plain data"))?;
        self.files.iter().try_for_each(|bytes| connection.send(Tag::File, bytes))
    }

    /// Receives the files of a job whose description has come.
    pub(super) fn receive(description: &[u8], connection: &Connection) -> io::Result<Self> {
        let wrong = |what: String| io::Error::new(io::ErrorKind::InvalidData, what);
        let job: Job = serde_json::from_slice(description).map_err(|error| wrong(error.to_string()))?;
        let mut files = Vec::new();
        for (name, digest) in job.inputs.values().flatten().flat_map(|input| &input.files) {
            let (tag, bytes) = connection.receive()?;
            if tag != Tag::File || Digest::of(&bytes) != *digest {
                return Err(wrong(format!("file `{name}` arrived damaged")));
            }
            files.push(bytes);
        }
        Ok(Self { job, files })
    }

    /// Returns the parameters.
    pub(super) fn params(&self) -> Result<Value, String> {
        from_json(&self.job.params, &mut String::new()).map_err(|error| error.to_string())
    }

    /// Writes the files into `folder` and returns the artifacts they belong to.
    pub(super) fn unpack(&self, folder: &Path) -> Result<BTreeMap<String, Vec<InputArtifact>>, String> {
        let mut bytes = self.files.iter();
        let mut inputs: BTreeMap<String, Vec<InputArtifact>> = BTreeMap::new();
        let mut number = 0;
        for (slot, artifacts) in &self.job.inputs {
            let placed = inputs.entry(slot.clone()).or_default();
            for Input { instance, kind, axes, digest, files } in artifacts {
                let mut paths = BTreeMap::new();
                for (name, _) in files {
                    if !Path::new(name).components().all(|part| matches!(part, Component::Normal(_))) {
                        return Err(format!("file `{name}` has a name that leads elsewhere"));
                    }
                    let path = folder.join(number.to_string()).join(name);
                    let parent = path.parent().expect("a file lies in a folder");
                    let contents = bytes.next().expect("as many files as names");
                    fs::create_dir_all(parent)
                        .and_then(|()| fs::write(&path, contents))
                        .map_err(|error| format!("cannot write `{}`: {error}", path.display()))?;
                    paths.insert(name.clone(), path);
                }
                number += 1;
                let (instance, kind, axes) = (instance.clone(), kind.clone(), axes.clone());
                placed.push(InputArtifact { instance, kind, axes, digest: *digest, files: paths });
            }
        }
        Ok(inputs)
    }
}
