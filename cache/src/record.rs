//! What the cache knows of one fingerprint: how the key came about, what was made, by whom and when.
//!
//! A record file is JSON whose first member, `seal`, is the digest of all text after it, so that a flipped bit
//! anywhere is seen. A record that cannot be trusted is moved to `quarantine/` and counts as absent.

use std::fs;
use std::io;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::{Cache, CacheError, Digest, Stamp};

/// The format of record files; a file of another format is not read.
pub const RECORD_FORMAT: u32 = 1;

/// One finished computation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// [`RECORD_FORMAT`].
    pub format: u32,
    /// The key.
    pub fingerprint: Digest,
    /// What the key is the hash of, verbatim, so that it can be recomputed and compared field by field.
    pub preimage: serde_json::Value,
    /// The stage kind.
    pub kind: String,
    /// The instance, pipeline and run that computed it first: for people, never part of a key.
    pub instance: String,
    /// See `instance`.
    pub pipeline: String,
    /// See `instance`.
    pub run: String,
    /// What was made.
    pub artifact: Artifact,
    /// The numbers that describe the result, headline first.
    pub metrics: Vec<Metric>,
    /// The program that computed it.
    pub build: BuildInfo,
    /// Where it was computed.
    pub machine: MachineInfo,
    /// When it was computed.
    pub times: Times,
    /// With what means it was computed.
    pub usage: Usage,
    /// The blob that holds the stage's log, if it wrote one.
    pub log: Option<Digest>,
    /// How often the work was interrupted or killed and begun again before it finished.
    pub interruptions: u32,
    /// Whether the last attempt continued from a checkpoint.
    pub resumed: bool,
}

impl Record {
    /// Returns the digests of the blobs that belong to the record: its outputs and its log.
    pub fn blobs(&self) -> impl Iterator<Item = Digest> + '_ {
        self.artifact.outputs.iter().map(|output| output.digest).chain(self.log)
    }
}

/// A folder of named files, identified by their contents.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Artifact {
    /// [`artifact_digest`] of the outputs.
    pub digest: Digest,
    /// The files, sorted by path.
    pub outputs: Vec<Output>,
}

/// One file of an artifact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Output {
    /// Path below the artifact's folder, with `/` as separator.
    pub path: String,
    /// Size in bytes.
    pub size_bytes: u64,
    /// Digest of the bytes.
    pub digest: Digest,
    /// `safetensors`, `parquet`, `json`, …
    pub format: String,
    /// One line saying what is in it.
    pub summary: String,
}

/// A number with its name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Metric {
    /// For example `loss`.
    pub name: String,
    /// Its value; JSON has no NaN and no infinity, so these are written as text.
    #[serde(with = "any_float")]
    pub value: f64,
}

/// The program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildInfo {
    /// Version of spdflow.
    pub version: String,
    /// Git commit, or `unknown`; ends in `-dirty` when the sources had uncommitted changes.
    pub git_commit: String,
    /// Digest of `Cargo.lock`: the exact dependencies.
    pub cargo_lock: Digest,
    /// Digest of the sources it was built from; records of earlier versions do not tell.
    #[serde(default)]
    pub sources: Option<Digest>,
    /// Version of the compiler.
    pub rustc: String,
    /// `release` or `debug`.
    pub profile: String,
}

/// The machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineInfo {
    /// Host name, or `unknown`.
    pub host: String,
    /// Operating system and architecture: `linux-x86_64`.
    pub platform: String,
    /// The processor's name, or `unknown`.
    pub processor: String,
    /// Features of the processor that numerical code chooses by, sorted. Bits may depend on them.
    pub cpu_features: Vec<String>,
    /// How many processors the program may use.
    pub processors: usize,
}

/// When.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Times {
    /// Start of the last attempt, `2026-11-21T22:55:53Z`.
    pub started: String,
    /// Its end.
    pub finished: String,
    /// Duration of the last attempt.
    pub seconds: f64,
}

/// With what means.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Threads the stage was given.
    pub threads: usize,
    /// `cpu` or `cuda:0`.
    pub device: String,
    /// The GPUs it was given, as `CUDA_VISIBLE_DEVICES` calls them; records of earlier versions do not tell.
    #[serde(default)]
    pub gpus: Vec<String>,
}

/// What became of a lookup.
#[derive(Debug)]
pub enum Lookup {
    /// The record is there and so is every blob it names.
    Hit(Box<Record>),
    /// Nothing is known of the fingerprint.
    Miss,
    /// There is a record, but a blob it names is gone or has another size.
    MissingBlob {
        /// The output whose bytes are gone.
        output: String,
    },
    /// The record could not be trusted; it lies in quarantine now.
    Corrupt {
        /// What was wrong with it.
        reason: String,
        /// Where it lies now.
        quarantined: PathBuf,
    },
}

/// Returns the digest of an artifact: BLAKE3 `derive_key("spdflow artifact v1")` over, for each file in the order of
/// paths, the length of the path (u64, little-endian), the path, the size (u64, little-endian) and the digest.
#[must_use]
pub fn artifact_digest(outputs: &[Output]) -> Digest {
    let mut sorted: Vec<&Output> = outputs.iter().collect();
    sorted.sort_by(|left, right| left.path.cmp(&right.path));
    let mut hasher = blake3::Hasher::new_derive_key("spdflow artifact v1");
    for output in sorted {
        hasher.update(&(output.path.len() as u64).to_le_bytes());
        hasher.update(output.path.as_bytes());
        hasher.update(&output.size_bytes.to_le_bytes());
        hasher.update(output.digest.as_bytes());
    }
    Digest::from_bytes(*hasher.finalize().as_bytes())
}

const SEAL_START: &str = "{\n  \"seal\": \"";
const SEAL_END: &str = "\",\n";

impl Cache {
    /// Returns where the record of `fingerprint` lies, or would lie.
    #[must_use]
    pub fn record_path(&self, fingerprint: &Digest) -> PathBuf {
        self.place("records", fingerprint, ".json")
    }

    /// Returns what is known of `fingerprint`. A hit means that every blob is present; their bytes are checked when
    /// they are restored.
    ///
    /// # Errors
    /// [`CacheError`] if the cache cannot be read.
    pub fn lookup(&self, fingerprint: &Digest) -> Result<Lookup, CacheError> {
        let record = match self.read_record(fingerprint)? {
            Lookup::Hit(record) => record,
            other => return Ok(other),
        };
        match record.artifact.outputs.iter().find(|output| !self.has_blob(&output.digest, output.size_bytes)) {
            Some(output) => Ok(Lookup::MissingBlob { output: output.path.clone() }),
            None => Ok(Lookup::Hit(record)),
        }
    }

    /// Returns the record of `fingerprint`, whether or not its blobs are still present.
    ///
    /// # Errors
    /// [`CacheError`] if the cache cannot be read.
    pub fn read_record(&self, fingerprint: &Digest) -> Result<Lookup, CacheError> {
        let path = self.record_path(fingerprint);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Lookup::Miss),
            Err(error) => return Err(CacheError::io("read", &path)(error)),
        };
        match unseal(&bytes, fingerprint) {
            Ok(record) => Ok(Lookup::Hit(Box::new(record))),
            Err(reason) => Ok(Lookup::Corrupt { reason, quarantined: self.quarantine(&path)? }),
        }
    }

    /// As [`Cache::read_record`], but leaves a record that cannot be trusted where it is; the error says what is wrong.
    pub(crate) fn peek_record(&self, fingerprint: &Digest) -> Result<Option<Result<Record, String>>, CacheError> {
        let path = self.record_path(fingerprint);
        match fs::read(&path) {
            Ok(bytes) => Ok(Some(unseal(&bytes, fingerprint))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(CacheError::io("read", &path)(error)),
        }
    }

    /// Returns a record that can be trusted with the bytes of its file; one that cannot stays where it is.
    pub(crate) fn sealed_record(&self, fingerprint: &Digest) -> Result<Option<(Record, Vec<u8>)>, CacheError> {
        let path = self.record_path(fingerprint);
        match fs::read(&path) {
            Ok(bytes) => Ok(unseal(&bytes, fingerprint).ok().map(|record| (record, bytes))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(CacheError::io("read", &path)(error)),
        }
    }

    /// Returns the digest of the bytes of a record's file, or `None` if there is none.
    ///
    /// # Errors
    /// [`CacheError`] if the cache cannot be read.
    pub fn record_digest(&self, fingerprint: &Digest) -> Result<Option<Digest>, CacheError> {
        let path = self.record_path(fingerprint);
        match fs::read(&path) {
            Ok(bytes) => Ok(Some(Digest::of(&bytes))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(CacheError::io("read", &path)(error)),
        }
    }

    /// Moves a record that cannot be trusted out of the way, and returns where it lies now.
    ///
    /// # Errors
    /// [`CacheError`] if it cannot be moved.
    pub fn quarantine_record(&self, fingerprint: &Digest) -> Result<PathBuf, CacheError> {
        self.quarantine(&self.record_path(fingerprint))
    }

    /// Stores a record. Its blobs must have been stored before: a reader that sees the record may rely on them.
    ///
    /// # Errors
    /// [`CacheError`] if the record cannot be written.
    pub fn put_record(&self, record: &Record) -> Result<(), CacheError> {
        self.write_whole(&self.record_path(&record.fingerprint), seal(record).as_bytes(), 0o644)
    }

    /// Returns the stamp of the record's file, or `None` if there is none.
    #[must_use]
    pub fn record_stamp(&self, fingerprint: &Digest) -> Option<Stamp> {
        fs::metadata(self.record_path(fingerprint)).ok().map(|metadata| Stamp::of(&metadata))
    }
}

fn seal(record: &Record) -> String {
    // Strings, numbers and lists only: serialising them cannot fail.
    let text = serde_json::to_string_pretty(record).expect("a record is plain data");
    let body = format!("{}\n", text.strip_prefix("{\n").expect("a record is a JSON object"));
    format!("{SEAL_START}{}{SEAL_END}{body}", Digest::of(body.as_bytes()))
}

impl Record {
    /// Returns the record that a file's bytes hold, which must be that of `fingerprint`.
    ///
    /// # Errors
    /// Why they cannot be trusted.
    pub fn unseal(bytes: &[u8], fingerprint: &Digest) -> Result<Self, String> {
        unseal(bytes, fingerprint)
    }
}

pub(crate) fn unseal(bytes: &[u8], fingerprint: &Digest) -> Result<Record, String> {
    let (head, body) = bytes.split_at_checked(SEAL_START.len() + 64 + SEAL_END.len()).ok_or("it is cut short")?;
    let sealed = std::str::from_utf8(head)
        .ok()
        .and_then(|head| head.strip_prefix(SEAL_START)?.strip_suffix(SEAL_END))
        .ok_or("it has no seal")?;
    if Digest::of(body).to_string() != sealed {
        return Err("its bytes do not match its seal".to_owned());
    }
    let text = [b"{\n", body].concat();
    let record: Record = serde_json::from_slice(&text).map_err(|error| format!("it is not a record: {error}"))?;
    if record.format != RECORD_FORMAT {
        return Err(format!("expected format {RECORD_FORMAT}, found {}", record.format));
    }
    if record.fingerprint != *fingerprint {
        return Err(format!("it belongs to fingerprint {}", record.fingerprint));
    }
    if record.artifact.digest != artifact_digest(&record.artifact.outputs) {
        return Err("its artifact digest does not match its outputs".to_owned());
    }
    if let Some(output) = record.artifact.outputs.iter().find(|output| !is_plain(&output.path)) {
        return Err(format!("its output `{}` is not a plain path below the artifact's folder", output.path));
    }
    Ok(record)
}

/// Returns whether a file of this path lies below whatever folder the artifact is put into.
fn is_plain(path: &str) -> bool {
    !path.split('/').any(|part| matches!(part, "" | "." | "..")) && !path.contains(['\\', '\0'])
}

mod any_float {
    use serde::{Deserialize, Deserializer, Serializer};

    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Written {
        Number(f64),
        Text(String),
    }

    pub fn serialize<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
        if value.is_finite() { serializer.serialize_f64(*value) } else { serializer.serialize_str(&value.to_string()) }
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
        match Written::deserialize(deserializer)? {
            Written::Number(value) => Ok(value),
            Written::Text(text) => text.parse().map_err(serde::de::Error::custom),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn example(cache: &Cache, fingerprint: Digest) -> Record {
        let output = |path: &str, bytes: &[u8]| Output {
            path: path.to_owned(),
            size_bytes: bytes.len() as u64,
            digest: cache.store_bytes(bytes).unwrap(),
            format: "json".to_owned(),
            summary: "a file".to_owned(),
        };
        let outputs = vec![output("a.json", b"{}"), output("b/c.json", b"[]")];
        Record {
            format: RECORD_FORMAT,
            fingerprint,
            preimage: serde_json::json!({"kind": "test.kind", "params": {"lr": 0.1}}),
            kind: "test.kind".to_owned(),
            instance: "stage[seed=0]".to_owned(),
            pipeline: "p".to_owned(),
            run: "r".to_owned(),
            artifact: Artifact { digest: artifact_digest(&outputs), outputs },
            metrics: vec![
                Metric { name: "loss".to_owned(), value: 0.1 + 0.2 },
                Metric { name: "worst".to_owned(), value: f64::INFINITY },
            ],
            build: BuildInfo {
                version: "0".to_owned(),
                git_commit: "unknown".to_owned(),
                cargo_lock: Digest::of(b""),
                sources: None,
                rustc: "rustc".to_owned(),
                profile: "debug".to_owned(),
            },
            machine: MachineInfo {
                host: "host".to_owned(),
                platform: "linux-x86_64".to_owned(),
                processor: "unknown".to_owned(),
                cpu_features: vec!["avx2".to_owned()],
                processors: 2,
            },
            times: Times { started: String::new(), finished: String::new(), seconds: 1.5 },
            usage: Usage { threads: 2, device: "cpu".to_owned(), gpus: Vec::new() },
            log: None,
            interruptions: 0,
            resumed: false,
        }
    }

    #[test]
    fn a_record_survives_its_file() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path()).unwrap();
        let record = example(&cache, Digest::of(b"key"));
        cache.put_record(&record).unwrap();
        let Lookup::Hit(back) = cache.lookup(&record.fingerprint).unwrap() else { panic!("not a hit") };
        assert_eq!(*back, record);
    }

    #[test]
    fn missing_blob_is_a_miss() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path()).unwrap();
        let record = example(&cache, Digest::of(b"key"));
        cache.put_record(&record).unwrap();
        fs::remove_file(cache.blob_path(&record.artifact.outputs[1].digest)).unwrap();
        let found = cache.lookup(&record.fingerprint).unwrap();
        assert!(matches!(found, Lookup::MissingBlob { ref output } if output == "b/c.json"), "{found:?}");
    }

    #[test]
    fn a_record_with_any_flipped_bit_or_cut_short_is_quarantined() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path()).unwrap();
        let record = example(&cache, Digest::of(b"key"));
        cache.put_record(&record).unwrap();
        let path = cache.record_path(&record.fingerprint);
        let good = fs::read(&path).unwrap();
        let damaged = (0..good.len()).step_by(7).map(|position| {
            let mut bytes = good.clone();
            bytes[position] ^= 1 << (position % 8);
            bytes
        });
        let cut = [0, 10, 80, good.len() - 1].into_iter().map(|length| good[..length].to_vec());
        for bytes in damaged.chain(cut) {
            fs::write(&path, &bytes).unwrap();
            let found = cache.lookup(&record.fingerprint).unwrap();
            assert!(matches!(found, Lookup::Corrupt { .. }), "{found:?}");
            assert!(matches!(cache.lookup(&record.fingerprint).unwrap(), Lookup::Miss));
        }
    }

    #[test]
    fn a_record_under_the_wrong_name_is_quarantined() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path()).unwrap();
        let record = example(&cache, Digest::of(b"key"));
        cache.put_record(&record).unwrap();
        let other = Digest::of(b"other");
        let place = cache.record_path(&other);
        fs::create_dir_all(place.parent().unwrap()).unwrap();
        fs::rename(cache.record_path(&record.fingerprint), place).unwrap();
        assert!(matches!(cache.lookup(&other).unwrap(), Lookup::Corrupt { .. }));
    }

    #[test]
    fn the_artifact_digest_does_not_depend_on_the_order_of_files_but_on_their_names() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path()).unwrap();
        let mut outputs = example(&cache, Digest::of(b"key")).artifact.outputs;
        let digest = artifact_digest(&outputs);
        outputs.reverse();
        assert_eq!(artifact_digest(&outputs), digest);
        outputs[0].path = "z".to_owned();
        assert_ne!(artifact_digest(&outputs), digest);
    }
}
