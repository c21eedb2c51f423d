//! The log of runs, `log/runs.jsonl`: one line for each run that made something, each naming the digest of the one before.
//!
//! A line holds the root of a hash tree (`merkle.rs`) over the results that the run made or relied on, whose leaves are the
//! lines of `runs/<id>/evidence.jsonl`, and the digests of the other files in the run's folder. So whoever knows one line
//! can tell whether anything before it was changed, and a signature of one line is one of everything before it.
//! Signatures lie in `log/signatures/`; who makes and checks them is not the cache's affair.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::lease::is_held;
use crate::run_folder::{PINNED, RESULTS};
use crate::verify::list;
use crate::{Cache, CacheError, Digest, merkle};

/// The format of lines; a line of another one is not read.
const FORMAT: u32 = 1;
/// Below the cache's folder.
pub(crate) const FOLDER: &str = "log";
const LOG: &str = "runs.jsonl";
const SIGNATURES: &str = "signatures";
/// An empty file for each run that will be logged when it ends.
const OPEN: &str = "open";
/// The leaves, in a run's folder.
pub const EVIDENCE: &str = "evidence.jsonl";

/// A result that a run made or relied on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Evidence {
    /// The instance whose result it is.
    pub instance: String,
    /// Its key.
    pub fingerprint: Digest,
    /// The digest of its artifact.
    pub artifact: Digest,
    /// The digest of its record's file.
    pub record: Digest,
}

/// A line of the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogEntry {
    format: u32,
    /// Counted from 0.
    pub sequence: u64,
    /// The digest of the line before, without its end.
    pub previous: Option<Digest>,
    /// The run.
    pub run: String,
    /// When it ended.
    pub time: String,
    /// How many leaves the tree has.
    pub results: u64,
    /// The root of the tree.
    pub root: Digest,
    /// The digests of the files in the run's folder, but for its evidence, which has the tree.
    pub files: BTreeMap<String, Digest>,
}

/// A line as it was found.
#[derive(Debug, Clone)]
pub struct LogLine {
    /// The digest of its bytes.
    pub digest: Digest,
    /// Its bytes, without the end of the line.
    pub bytes: Vec<u8>,
    /// What it says, or why it cannot be read.
    pub entry: Result<LogEntry, String>,
}

impl Cache {
    /// Appends the line of a run whose folder is complete, with its results in the order of the pipeline, and returns the
    /// digest of the line.
    ///
    /// # Errors
    /// [`CacheError`] if a file cannot be read or written.
    pub fn log_run(&self, run: &str, time: &str, results: &[Evidence]) -> Result<Digest, CacheError> {
        let folder = self.root().join("runs").join(run);
        let lines: Vec<String> = results.iter().map(line).collect();
        let evidence = folder.join(EVIDENCE);
        let text: String = lines.iter().flat_map(|line| [line.as_str(), "\n"]).collect();
        fs::write(&evidence, text).map_err(CacheError::io("write", &evidence))?;
        let leaves: Vec<Digest> = lines.iter().map(|line| merkle::leaf(line.as_bytes())).collect();
        let (root, files) = (merkle::root(&leaves), digests(&folder)?);

        let log = self.log_folder();
        fs::create_dir_all(&log).map_err(CacheError::io("create", &log))?;
        let path = log.join(LOG);
        let opened = File::options().read(true).append(true).create(true).open(&path);
        let mut file = opened.map_err(CacheError::io("write", &path))?;
        file.lock().map_err(CacheError::io("lock", &path))?;
        let (sequence, previous) = end(&mut file).map_err(CacheError::io("read", &path))?;
        let entry = LogEntry {
            format: FORMAT,
            sequence,
            previous,
            run: run.to_owned(),
            time: time.to_owned(),
            results: leaves.len() as u64,
            root,
            files,
        };
        let line = line(&entry);
        let written = file.write_all(format!("{line}\n").as_bytes()).and_then(|()| file.sync_data());
        written.map_err(CacheError::io("write", &path))?;
        let _ = fs::remove_file(log.join(OPEN).join(run));
        Ok(Digest::of(line.as_bytes()))
    }

    /// Notes that a run will be logged when it ends, so that it is known if it does not get there.
    ///
    /// # Errors
    /// [`CacheError`] if that cannot be noted.
    pub fn open_in_log(&self, run: &str) -> Result<(), CacheError> {
        let folder = self.log_folder().join(OPEN);
        fs::create_dir_all(&folder).map_err(CacheError::io("create", &folder))?;
        let path = folder.join(run);
        fs::write(&path, "").map_err(CacheError::io("create", &path))
    }

    /// Forgets the runs that were killed, or given up, before they were logged, and says whether there were any. What they
    /// made is vouched for by nobody until another run relies on it and is logged.
    ///
    /// # Errors
    /// [`CacheError`] if they cannot be looked for.
    pub fn forget_unlogged(&self) -> Result<bool, CacheError> {
        let folder = self.log_folder().join(OPEN);
        let Ok(entries) = fs::read_dir(&folder) else { return Ok(false) };
        let mut is_any = false;
        for entry in entries.flatten() {
            let results = self.root().join("runs").join(entry.file_name()).join(RESULTS);
            if !is_held(&results)? {
                is_any |= fs::remove_file(entry.path()).is_ok();
            }
        }
        Ok(is_any)
    }

    /// Returns the lines of the log, the oldest first; none if there is no log.
    ///
    /// # Errors
    /// [`CacheError`] if it cannot be read.
    pub fn run_log(&self) -> Result<Vec<LogLine>, CacheError> {
        let path = self.log_folder().join(LOG);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(CacheError::io("read", &path)(error)),
        };
        let mut lines: Vec<&[u8]> = bytes.split(|byte| *byte == b'\n').collect();
        // What follows the last end of a line is empty, or a line that was cut short, which counts.
        if lines.last().is_some_and(|last| last.is_empty()) {
            lines.pop();
        }
        let parsed = |bytes: &[u8]| {
            let entry: LogEntry = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
            if entry.format != FORMAT {
                return Err(format!("it has format {}", entry.format));
            }
            // Whoever reads it looks for files of these names in a folder of that name.
            let wrong = [&entry.run].into_iter().chain(entry.files.keys()).find(|name| !is_name(name)).cloned();
            wrong.map_or(Ok(entry), |name| Err(format!("`{name}` is not the name of a file")))
        };
        let line = |bytes: &[u8]| LogLine { digest: Digest::of(bytes), bytes: bytes.to_owned(), entry: parsed(bytes) };
        Ok(lines.into_iter().map(line).collect())
    }

    /// Returns where the log's files lie, or would lie.
    #[must_use]
    pub fn log_folder(&self) -> PathBuf {
        self.root().join(FOLDER)
    }

    /// Returns the files that hold signatures of a line.
    ///
    /// # Errors
    /// [`CacheError`] if their folder cannot be read.
    pub fn signatures(&self, line: &Digest) -> Result<Vec<PathBuf>, CacheError> {
        let files = self.signed_lines()?.into_iter();
        Ok(files.filter(|(_, signed)| signed.as_ref() == Some(line)).map(|(file, _)| file).collect())
    }

    /// Returns all files that hold signatures, with the digest of the line that each is of, as its name says.
    ///
    /// # Errors
    /// [`CacheError`] if their folder cannot be read.
    pub fn signed_lines(&self) -> Result<Vec<(PathBuf, Option<Digest>)>, CacheError> {
        let folder = self.log_folder().join(SIGNATURES);
        if !folder.exists() {
            return Ok(Vec::new());
        }
        let line = |path: &Path| {
            let name = path.file_name()?.to_str()?.strip_suffix(".sig")?;
            name.split_once('-').map_or(name, |(line, _)| line).parse().ok()
        };
        Ok(list(&folder)?.into_iter().map(|path| (path.clone(), line(&path))).collect())
    }

    /// Adds a signature of a line to those that are there, unless it is one of them.
    ///
    /// # Errors
    /// [`CacheError`] if it cannot be written.
    pub fn put_signature(&self, line: &Digest, signature: &[u8]) -> Result<PathBuf, CacheError> {
        let known = self.signatures(line)?;
        for path in &known {
            if fs::read(path).map_err(CacheError::io("read", path))? == signature {
                return Ok(path.clone());
            }
        }
        let folder = self.log_folder().join(SIGNATURES);
        let names =
            (0..).map(|number| if number == 0 { format!("{line}.sig") } else { format!("{line}-{number}.sig") });
        let mut free = names.map(|name| folder.join(name)).filter(|path| !known.contains(path));
        let path = free.next().expect("the numbers do not end");
        self.write_whole(&path, signature, 0o644)?;
        Ok(path)
    }
}

/// Returns the digests of a run's files, but for those that may change after its end.
pub(crate) fn digests(folder: &Path) -> Result<BTreeMap<String, Digest>, CacheError> {
    let mut digests = BTreeMap::new();
    for path in list(folder)? {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        // `replay/` is what the script of the run makes.
        if name == PINNED || name == EVIDENCE || path.is_dir() {
            continue;
        }
        let bytes = fs::read(&path).map_err(CacheError::io("read", &path))?;
        digests.insert(name, Digest::of(&bytes));
    }
    Ok(digests)
}

fn is_name(name: &str) -> bool {
    !matches!(name, "" | "." | "..") && !name.contains(['/', '\\', '\0'])
}

fn line(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("a line is plain data")
}

/// Returns the number of the next line and the digest of the last one; a line that was cut short by a crash goes.
fn end(file: &mut File) -> io::Result<(u64, Option<Digest>)> {
    const TAIL: u64 = 1 << 16;
    let length = file.seek(SeekFrom::End(0))?;
    let mut begin = length.saturating_sub(TAIL);
    loop {
        file.seek(SeekFrom::Start(begin))?;
        let mut tail = Vec::new();
        file.take(length - begin).read_to_end(&mut tail)?;
        let whole = tail.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1);
        let last = tail[..whole].strip_suffix(b"\n").unwrap_or_default();
        let first = last.iter().rposition(|byte| *byte == b'\n').map(|end| end + 1);
        // The last line may be longer than the tail, or say no number: then everything is read.
        let number = serde_json::from_slice(&last[first.unwrap_or(0)..]).map(|entry: LogEntry| entry.sequence);
        if begin > 0 && (first.is_none() || number.is_err()) {
            begin = 0;
            continue;
        }
        if whole < tail.len() {
            file.set_len(begin + whole as u64)?;
        }
        if whole == 0 {
            return Ok((0, None));
        }
        let lines = || last.iter().filter(|byte| **byte == b'\n').count() as u64;
        return Ok((number.unwrap_or_else(|_| lines()) + 1, Some(Digest::of(&last[first.unwrap_or(0)..]))));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn evidence(name: &str) -> Evidence {
        let digest = |part: &str| Digest::of(format!("{name} {part}").as_bytes());
        Evidence {
            instance: name.to_owned(),
            fingerprint: digest("fingerprint"),
            artifact: digest("artifact"),
            record: digest("record"),
        }
    }

    fn logged(cache: &Cache, results: &[Evidence]) -> Digest {
        let mut folder = cache.create_run("20261121T225553Z").unwrap();
        folder.append("{}").unwrap();
        folder.flush().unwrap();
        cache.log_run(folder.id(), "2026-11-21T22:55:54Z", results).unwrap()
    }

    #[test]
    fn each_line_names_the_one_before_and_what_the_run_made() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path()).unwrap();
        assert!(cache.run_log().unwrap().is_empty());
        let results = [evidence("a"), evidence("b")];
        let lines = [logged(&cache, &results), logged(&cache, &[])];
        let log = cache.run_log().unwrap();
        assert_eq!(log.iter().map(|line| line.digest).collect::<Vec<_>>(), lines);
        let entries: Vec<LogEntry> = log.iter().map(|line| line.entry.clone().unwrap()).collect();
        assert_eq!((entries[0].sequence, entries[0].previous), (0, None));
        assert_eq!((entries[1].sequence, entries[1].previous), (1, Some(lines[0])));
        let folder = &cache.runs().unwrap()[0].path;
        let written = fs::read_to_string(folder.join(EVIDENCE)).unwrap();
        let leaves: Vec<Digest> = written.lines().map(|line| merkle::leaf(line.as_bytes())).collect();
        assert_eq!((entries[0].results, entries[0].root), (2, merkle::root(&leaves)));
        assert_eq!(entries[0].files["journal.jsonl"], Digest::of(b"{}\n"));
        fs::write(folder.join(PINNED), "").unwrap();
        assert_eq!(digests(folder).unwrap(), entries[0].files);
    }

    #[test]
    fn a_line_that_was_cut_short_goes_and_one_that_cannot_be_read_stays() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path()).unwrap();
        let first = logged(&cache, &[]);
        let path = cache.log_folder().join(LOG);
        let append = |text: &str| {
            File::options().append(true).open(&path).unwrap().write_all(text.as_bytes()).unwrap();
        };
        append("{\"format\":1,\"seq");
        assert!(cache.run_log().unwrap()[1].entry.is_err());
        logged(&cache, &[]);
        append("not a line\n");
        logged(&cache, &[evidence("a")]);
        let log = cache.run_log().unwrap();
        let summary = |line: &LogLine| line.entry.as_ref().map(|entry| (entry.sequence, entry.previous)).ok();
        let garbage = Digest::of(b"not a line");
        let expected = [Some((0, None)), Some((1, Some(first))), None, Some((3, Some(garbage)))];
        assert_eq!(log.iter().map(summary).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn a_line_longer_than_the_tail_is_read_whole() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path()).unwrap();
        let folder = cache.create_run("20261121T225553Z").unwrap();
        for number in 0..1200 {
            folder.write(&format!("code-{number}-a"), b"").unwrap();
        }
        let first = cache.log_run(folder.id(), "2026-11-21T22:55:54Z", &[]).unwrap();
        logged(&cache, &[]);
        let log = cache.run_log().unwrap();
        assert!(log[0].bytes.len() > 1 << 16);
        assert_eq!(log[1].entry.as_ref().unwrap().previous, Some(first));
        assert_eq!(log[1].entry.as_ref().unwrap().sequence, 1);
    }

    #[test]
    fn runs_that_end_at_once_stand_one_behind_the_other() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path()).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..4 {
                        logged(&cache, &[evidence("a")]);
                    }
                });
            }
        });
        let log = cache.run_log().unwrap();
        assert_eq!(log.len(), 32);
        for (number, pair) in log.windows(2).enumerate() {
            let next = pair[1].entry.as_ref().unwrap();
            assert_eq!((next.sequence, next.previous), (number as u64 + 1, Some(pair[0].digest)));
        }
    }

    #[test]
    fn a_run_that_was_not_logged_is_known_once_its_process_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path()).unwrap();
        let folder = cache.create_run("20261121T225553Z").unwrap();
        let lease = folder.lease(&cache).unwrap();
        cache.open_in_log(folder.id()).unwrap();
        assert!(!cache.forget_unlogged().unwrap(), "it is under way");
        drop(lease);
        assert!(cache.forget_unlogged().unwrap());
        assert!(!cache.forget_unlogged().unwrap(), "once");
        cache.open_in_log(folder.id()).unwrap();
        cache.log_run(folder.id(), "2026-11-21T22:55:54Z", &[]).unwrap();
        assert!(!cache.forget_unlogged().unwrap(), "it was logged");
    }

    #[test]
    fn a_line_that_leads_elsewhere_is_not_read() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path()).unwrap();
        logged(&cache, &[]);
        let path = cache.log_folder().join(LOG);
        let text = fs::read_to_string(&path).unwrap();
        for (from, to) in [("20261121T225553Z", "../x"), ("journal.jsonl", "/dev/zero"), ("journal.jsonl", "..")] {
            fs::write(&path, text.replace(from, to)).unwrap();
            let entry = cache.run_log().unwrap()[0].entry.clone();
            assert_eq!(entry, Err(format!("`{to}` is not the name of a file")));
        }
    }

    #[test]
    fn a_line_may_have_several_signatures_each_once() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path()).unwrap();
        let line = logged(&cache, &[]);
        assert!(cache.signatures(&line).unwrap().is_empty());
        for signature in [b"one", b"two", b"one"] {
            cache.put_signature(&line, signature).unwrap();
        }
        assert_eq!(cache.signatures(&line).unwrap().len(), 2);
    }
}
