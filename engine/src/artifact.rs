//! From what a stage wrote to an artifact: checks that the files are those it declared, adds `artifact.json`.
//!
//! `artifact.json` tells a reader which files there are, in which format, and the headline numbers. It holds no time,
//! host, path or name of a stage: equal results must be equal bytes wherever they came from.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};
use spdflow_cache::{Artifact, Cache, CacheError, Digest, Metric, Output, artifact_digest};

use crate::kind::Summary;

/// The file that describes an artifact, in its folder.
pub const MANIFEST: &str = "artifact.json";

/// The version of `artifact.json`.
const MANIFEST_FORMAT: u32 = 1;

/// The contents of `artifact.json`.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Manifest {
    format: u32,
    pub(crate) kind: String,
    pub(crate) metrics: Vec<Metric>,
    pub(crate) files: Vec<Output>,
}

/// Why what a stage wrote is not an artifact.
#[derive(Debug)]
pub(crate) enum NotAnArtifact {
    /// The stage's own mistake.
    Mistake(String),
    /// The cache cannot be used.
    Cache(CacheError),
}

impl From<CacheError> for NotAnArtifact {
    fn from(error: CacheError) -> Self {
        Self::Cache(error)
    }
}

/// Moves the files in `out_dir` into the cache, with an `artifact.json` for them.
pub(crate) fn collect(
    cache: &Cache,
    kind: &str,
    out_dir: &Path,
    summary: &Summary,
) -> Result<(Artifact, Vec<Metric>), NotAnArtifact> {
    let mut declared = BTreeMap::new();
    for file in &summary.files {
        if let Some(problem) = name_problem(&file.path) {
            return Err(NotAnArtifact::Mistake(format!("declared the output `{}`, which {problem}", file.path)));
        }
        if declared.insert(file.path.as_str(), file).is_some() {
            return Err(NotAnArtifact::Mistake(format!("declared the output `{}` twice", file.path)));
        }
    }
    let written = written_files(out_dir)?;
    if let Some(path) = declared.keys().find(|path| !written.contains(&(**path).to_owned())) {
        return Err(NotAnArtifact::Mistake(format!("declared the output `{path}` but did not write it")));
    }
    if let Some(path) = written.iter().find(|path| !declared.contains_key(path.as_str())) {
        return Err(NotAnArtifact::Mistake(format!("wrote the file `{path}` without declaring it as an output")));
    }

    let mut outputs = Vec::with_capacity(declared.len() + 1);
    for (path, file) in declared {
        let (digest, size_bytes) = cache.adopt_file(&out_dir.join(path))?;
        let (format, summary) = (file.format.clone(), file.summary.clone());
        outputs.push(Output { path: path.to_owned(), size_bytes, digest, format, summary });
    }
    let metrics: Vec<_> =
        summary.metrics.iter().map(|(name, value)| Metric { name: name.clone(), value: *value }).collect();
    let manifest =
        Manifest { format: MANIFEST_FORMAT, kind: kind.to_owned(), metrics: metrics.clone(), files: outputs.clone() };
    // Strings, numbers and lists only: serialising them cannot fail.
    let text = serde_json::to_string_pretty(&manifest).expect("a manifest is plain data") + "\n";
    outputs.push(Output {
        path: MANIFEST.to_owned(),
        size_bytes: text.len() as u64,
        digest: cache.store_bytes(text.as_bytes())?,
        format: "json".to_owned(),
        summary: "what this artifact holds".to_owned(),
    });
    outputs.sort_by(|left, right| left.path.cmp(&right.path));
    Ok((Artifact { digest: artifact_digest(&outputs), outputs }, metrics))
}

/// Returns the first file by which a result's folder differs from what its own `artifact.json` says, `None` if it is
/// as it was made.
pub(crate) fn edited_file(folder: &Path) -> Option<String> {
    let manifest = fs::read(folder.join(MANIFEST)).ok();
    let manifest: Option<Manifest> = manifest.and_then(|bytes| serde_json::from_slice(&bytes).ok());
    let Some(manifest) = manifest else { return Some(MANIFEST.to_owned()) };
    let own = fs::read(folder.join(MANIFEST)).map(|bytes| Digest::of(&bytes)).ok()?;
    let mut expected: Vec<_> = manifest.files.iter().map(|file| (file.path.as_str(), file.digest)).collect();
    expected.push((MANIFEST, own));
    Cache::compare_folder(folder, &expected)
}

fn name_problem(path: &str) -> Option<&'static str> {
    if path == MANIFEST {
        Some("is the engine's own file")
    } else if path.split('/').any(|part| matches!(part, "" | "." | "..")) || path.contains('\\') {
        Some("is not a plain path below the artifact's folder")
    } else {
        None
    }
}

fn written_files(out_dir: &Path) -> Result<Vec<String>, NotAnArtifact> {
    let mut files = Vec::new();
    let mut folders = vec![String::new()];
    while let Some(below) = folders.pop() {
        let folder = out_dir.join(&below);
        let entries = fs::read_dir(&folder).and_then(Iterator::collect::<io::Result<Vec<_>>>);
        for entry in entries.map_err(CacheError::io("read", &folder))? {
            let name = entry.file_name();
            let Some(name) = name.to_str() else {
                let shown = entry.path().display().to_string();
                return Err(NotAnArtifact::Mistake(format!("wrote the file `{shown}`, whose name is not UTF-8")));
            };
            let path = if below.is_empty() { name.to_owned() } else { format!("{below}/{name}") };
            let kind = entry.file_type().map_err(CacheError::io("read", &folder))?;
            if kind.is_dir() {
                folders.push(path);
            } else if kind.is_file() {
                files.push(path);
            } else {
                return Err(NotAnArtifact::Mistake(format!("wrote `{path}`, which is not a regular file")));
            }
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mistake(write: &[&str], declare: &[&str]) -> Option<String> {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(&dir.path().join("cache")).unwrap();
        let out = dir.path().join("out");
        fs::create_dir_all(out.join("sub")).unwrap();
        for path in write {
            fs::write(out.join(path), path).unwrap();
        }
        let mut summary = Summary::default();
        for path in declare {
            summary.file(*path, "json", "a file");
        }
        match collect(&cache, "test.kind", &out, &summary) {
            Ok(_) => None,
            Err(NotAnArtifact::Mistake(message)) => Some(message),
            Err(NotAnArtifact::Cache(error)) => panic!("{error}"),
        }
    }

    #[test]
    fn declared_and_written_files_must_be_the_same() {
        assert_eq!(mistake(&["a", "sub/b"], &["sub/b", "a"]), None);
        let cases: [(&[&str], &[&str], &str); 6] = [
            (&["a"], &["a", "b"], "declared the output `b` but did not write it"),
            (&["a", "sub/b"], &["a"], "wrote the file `sub/b` without declaring it as an output"),
            (&["a"], &["a", "a"], "declared the output `a` twice"),
            (&[], &["../a"], "declared the output `../a`, which is not a plain path below the artifact's folder"),
            (&[], &["/a"], "declared the output `/a`, which is not a plain path below the artifact's folder"),
            (&[], &["artifact.json"], "declared the output `artifact.json`, which is the engine's own file"),
        ];
        for (written, declared, expected) in cases {
            assert_eq!(mistake(written, declared).as_deref(), Some(expected));
        }
    }

    #[test]
    fn a_manifest_names_every_file_and_an_edit_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(&dir.path().join("cache")).unwrap();
        let out = dir.path().join("out");
        fs::create_dir_all(&out).unwrap();
        fs::write(out.join("a.json"), "{}").unwrap();
        let mut summary = Summary::default();
        summary.file("a.json", "json", "nothing");
        summary.metric("loss", f64::NAN);
        let (artifact, _) = collect(&cache, "test.kind", &out, &summary).unwrap();

        let place = dir.path().join("place");
        fs::create_dir(&place).unwrap();
        for output in &artifact.outputs {
            cache.restore(&output.digest, &place.join(&output.path)).unwrap();
        }
        let manifest = fs::read_to_string(place.join(MANIFEST)).unwrap();
        let digest = Digest::of(b"{}");
        let expected = format!(
            r#"{{
  "format": 1,
  "kind": "test.kind",
  "metrics": [
    {{
      "name": "loss",
      "value": "NaN"
    }}
  ],
  "files": [
    {{
      "path": "a.json",
      "size_bytes": 2,
      "digest": "{digest}",
      "format": "json",
      "summary": "nothing"
    }}
  ]
}}
"#
        );
        assert_eq!(manifest, expected);
        assert_eq!(edited_file(&place), None);
        fs::write(place.join("a.json"), "[]").unwrap();
        assert_eq!(edited_file(&place).as_deref(), Some("a.json"));
    }
}
