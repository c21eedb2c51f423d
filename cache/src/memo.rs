//! What was seen of output folders when they were last known to be right: the disposable index.
//!
//! A folder whose stamps are all as they were, and were settled then, still holds the same bytes; looking at a
//! thousand stages so costs a few thousand `stat` calls instead of reading every record and hashing every file. One
//! memo file in `index/` belongs to one output root. It may be deleted at any time; a damaged one, one from before
//! the last reboot (file contents may have been lost with the power) or one of another format is ignored.
//!
//! File: as in `packed.rs`, with the format `spdflow-memo 1\n`. Body: boot id, then the entries.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use crate::blob::digest_file;
use crate::index::read_index;
use crate::packed::{Packer, Unpacker};
use crate::{Cache, CacheError, Digest, Stamp};

/// What was seen of one output folder.
#[derive(Debug, Clone, PartialEq)]
pub struct FolderMemo {
    /// The fingerprint whose artifact the folder holds.
    pub fingerprint: Digest,
    /// The artifact.
    pub artifact: Digest,
    /// The stamp of the record's file.
    pub record: Stamp,
    /// The headline metric, so that it can be shown without reading the record.
    pub headline: Option<(String, f64)>,
    /// The folder itself (empty path) and its subfolders.
    pub folders: Vec<(String, Stamp)>,
    /// The files.
    pub files: Vec<MemoFile>,
    /// When the stamps were taken, in nanoseconds since 1970.
    pub seen: i64,
}

/// What was seen of one file.
#[derive(Debug, Clone, PartialEq)]
pub struct MemoFile {
    /// Path below the folder, with `/`.
    pub path: String,
    /// Digest of its bytes.
    pub digest: Digest,
    /// Its stamp.
    pub stamp: Stamp,
}

/// How a folder compares with its memo.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FolderState {
    /// Certainly the same bytes.
    Unchanged,
    /// The same bytes, but the stamps had to be checked by reading; a new memo is worth writing.
    Rehashed,
    /// There is no such folder.
    Absent,
    /// Something differs; names the first file that does.
    Changed(String),
}

/// The memos of one output root, by the folder's path below it.
#[derive(Debug, Default)]
pub struct Memos {
    entries: BTreeMap<String, Arc<FolderMemo>>,
    changed: bool,
}

impl Memos {
    /// Returns the memo of a folder.
    #[must_use]
    pub fn get(&self, folder: &str) -> Option<Arc<FolderMemo>> {
        self.entries.get(folder).cloned()
    }

    /// Remembers a folder.
    pub fn insert(&mut self, folder: String, memo: FolderMemo) {
        self.changed = true;
        self.entries.insert(folder, Arc::new(memo));
    }
}

impl FolderMemo {
    /// Returns the memo of `folder` if it now holds exactly `files` (path and digest), taking their bytes on trust:
    /// for a folder that was just written or just hashed.
    #[must_use]
    pub fn take(
        folder: &Path,
        fingerprint: Digest,
        artifact: Digest,
        record: Stamp,
        headline: Option<(String, f64)>,
        files: &[(String, Digest)],
    ) -> Option<Self> {
        let seen = Stamp::now();
        let mut folders = Vec::new();
        let mut found = BTreeMap::new();
        walk(folder, "", &mut folders, &mut found).ok()?;
        if found.len() != files.len() {
            return None;
        }
        let files = files
            .iter()
            .map(|(path, digest)| Some(MemoFile { path: path.clone(), digest: *digest, stamp: *found.get(path)? }))
            .collect::<Option<Vec<_>>>()?;
        Some(Self { fingerprint, artifact, record, headline, folders, files, seen })
    }

    /// Compares `folder` with the memo; reads files only where the stamps are not conclusive.
    #[must_use]
    pub fn compare(&self, folder: &Path) -> FolderState {
        let mut conclusive = true;
        for (path, stamp) in &self.folders {
            let place = if path.is_empty() { folder.to_owned() } else { folder.join(path) };
            match fs::symlink_metadata(&place) {
                Err(_) if path.is_empty() => return FolderState::Absent,
                Ok(metadata) if metadata.is_dir() => {
                    conclusive &= Stamp::of(&metadata) == *stamp && stamp.is_settled(self.seen);
                }
                _ => return FolderState::Changed(format!("{path}/")),
            }
        }
        for file in &self.files {
            match fs::symlink_metadata(folder.join(&file.path)) {
                Ok(metadata) if metadata.is_file() && metadata.len() == file.stamp.size_bytes => {
                    conclusive &= Stamp::of(&metadata) == file.stamp && file.stamp.is_settled(self.seen);
                }
                _ => return FolderState::Changed(file.path.clone()),
            }
        }
        if conclusive { FolderState::Unchanged } else { self.compare_bytes(folder) }
    }

    fn compare_bytes(&self, folder: &Path) -> FolderState {
        let expected: Vec<_> = self.files.iter().map(|file| (file.path.as_str(), file.digest)).collect();
        match first_difference(folder, &expected) {
            None => FolderState::Rehashed,
            Some(path) => FolderState::Changed(path),
        }
    }
}

/// Returns the path of the first file that makes `folder` differ from the `expected` files: one that is missing, has
/// other bytes, or should not be there.
#[must_use]
pub(crate) fn first_difference(folder: &Path, expected: &[(&str, Digest)]) -> Option<String> {
    let mut found = BTreeMap::new();
    if let Err(path) = walk(folder, "", &mut Vec::new(), &mut found) {
        return Some(path);
    }
    for (path, digest) in expected {
        if found.remove(*path).is_none() || !digest_file(&folder.join(path)).is_ok_and(|(bytes, _)| bytes == *digest) {
            return Some((*path).to_owned());
        }
    }
    found.into_keys().next()
}

/// Lists a folder's files and subfolders with their stamps; `Err` names what is neither or cannot be read.
fn walk(
    root: &Path,
    below: &str,
    folders: &mut Vec<(String, Stamp)>,
    files: &mut BTreeMap<String, Stamp>,
) -> Result<(), String> {
    let here = if below.is_empty() { root.to_owned() } else { root.join(below) };
    let name_of = |below: &str| if below.is_empty() { ".".to_owned() } else { below.to_owned() };
    // The stamp is taken before the listing: a file added in between changes the stamp and is seen next time.
    let metadata = fs::symlink_metadata(&here).map_err(|_| name_of(below))?;
    if !metadata.is_dir() {
        return Err(name_of(below));
    }
    folders.push((below.to_owned(), Stamp::of(&metadata)));
    for entry in fs::read_dir(&here).map_err(|_| name_of(below))? {
        let name = entry.map_err(|_| name_of(below))?.file_name();
        let name = name.to_str().ok_or_else(|| name_of(below))?;
        let path = if below.is_empty() { name.to_owned() } else { format!("{below}/{name}") };
        let metadata = fs::symlink_metadata(root.join(&path)).map_err(|_| path.clone())?;
        if metadata.is_dir() {
            walk(root, &path, folders, files)?;
        } else if metadata.is_file() {
            files.insert(path, Stamp::of(&metadata));
        } else {
            return Err(path);
        }
    }
    Ok(())
}

impl Cache {
    /// Returns the first file that makes `folder` differ from the `expected` paths and digests, reading every byte.
    #[must_use]
    pub fn compare_folder(folder: &Path, expected: &[(&str, Digest)]) -> Option<String> {
        first_difference(folder, expected)
    }

    /// Returns the memos of the output root `root`; none if there are none that can be trusted.
    #[must_use]
    pub fn read_memos(&self, root: &Path) -> Memos {
        let body = read_index(self.root(), &memo_name(root), FORMAT);
        let entries = body.and_then(|body| decode(&body)).unwrap_or_default();
        Memos { entries, changed: false }
    }

    /// Stores the memos of the output root `root` if they changed since they were read.
    ///
    /// # Errors
    /// [`CacheError`] if the file cannot be written.
    pub fn write_memos(&self, root: &Path, memos: &mut Memos) -> Result<(), CacheError> {
        if !std::mem::take(&mut memos.changed) {
            return Ok(());
        }
        self.write_index(&memo_name(root), FORMAT, &encode(&memos.entries))
    }
}

fn memo_name(root: &Path) -> String {
    format!("{}.memo", Digest::of(root.as_os_str().as_encoded_bytes()).short())
}

const FORMAT: &[u8] = b"spdflow-memo 1\n";

pub(crate) fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default()
}

fn encode(entries: &BTreeMap<String, Arc<FolderMemo>>) -> Vec<u8> {
    let mut body = Packer::default();
    body.text(&boot_id());
    body.list(entries.iter(), |body, (folder, memo)| {
        body.text(folder);
        body.digest(&memo.fingerprint);
        body.digest(&memo.artifact);
        body.stamp(&memo.record);
        body.list(memo.headline.iter(), |body, (name, value)| {
            body.text(name);
            body.number(value.to_bits());
        });
        body.list(memo.folders.iter(), |body, (path, stamp)| {
            body.text(path);
            body.stamp(stamp);
        });
        body.list(memo.files.iter(), |body, file| {
            body.text(&file.path);
            body.digest(&file.digest);
            body.stamp(&file.stamp);
        });
        body.signed(memo.seen);
    });
    body.into_bytes()
}

fn decode(body: &[u8]) -> Option<BTreeMap<String, Arc<FolderMemo>>> {
    let mut body = Unpacker::new(body);
    if body.text()? != boot_id() {
        return None;
    }
    let entries = body.list(|body| {
        let folder = body.text()?.to_owned();
        let memo = FolderMemo {
            fingerprint: body.digest()?,
            artifact: body.digest()?,
            record: body.stamp()?,
            headline: body.list(|body| Some((body.text()?.to_owned(), f64::from_bits(body.number()?))))?.pop(),
            folders: body.list(|body| Some((body.text()?.to_owned(), body.stamp()?)))?,
            files: body.list(|body| {
                Some(MemoFile { path: body.text()?.to_owned(), digest: body.digest()?, stamp: body.stamp()? })
            })?,
            seen: body.signed()?,
        };
        Some((folder, Arc::new(memo)))
    })?;
    body.is_empty().then(|| entries.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn write_folder(dir: &Path) -> (PathBuf, Vec<(String, Digest)>) {
        let folder = dir.join("folder");
        fs::create_dir_all(folder.join("sub")).unwrap();
        fs::write(folder.join("a.json"), "{}").unwrap();
        fs::write(folder.join("sub/b.json"), "[]").unwrap();
        (folder, vec![("a.json".to_owned(), Digest::of(b"{}")), ("sub/b.json".to_owned(), Digest::of(b"[]"))])
    }

    fn memo(folder: &Path, files: &[(String, Digest)]) -> FolderMemo {
        let stamp = Stamp::of(&fs::metadata(folder).unwrap());
        let headline = Some(("loss".to_owned(), 0.5));
        FolderMemo::take(folder, Digest::of(b"f"), Digest::of(b"a"), stamp, headline, files).unwrap()
    }

    /// As if the stamps had been taken long after the last change.
    fn settled(folder: &Path, files: &[(String, Digest)]) -> FolderMemo {
        FolderMemo { seen: Stamp::now() + 60_000_000_000, ..memo(folder, files) }
    }

    #[test]
    fn memos_survive_their_file_and_a_damaged_file_is_ignored() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(&dir.path().join("cache")).unwrap();
        let (folder, files) = write_folder(dir.path());
        let mut memos = Memos::default();
        memos.insert("stage/seed=0".to_owned(), memo(&folder, &files));
        cache.write_memos(dir.path(), &mut memos).unwrap();
        assert_eq!(cache.read_memos(dir.path()).entries, memos.entries);

        let path = cache.root().join("index").join(memo_name(dir.path()));
        let good = fs::read(&path).unwrap();
        for position in 0..good.len() {
            let mut bytes = good.clone();
            bytes[position] ^= 4;
            for damaged in [&bytes[..], &good[..position]] {
                fs::write(&path, damaged).unwrap();
                assert_eq!(cache.read_memos(dir.path()).entries, BTreeMap::new(), "at byte {position}");
            }
        }
    }

    #[test]
    fn a_settled_folder_is_known_without_reading_it() {
        let dir = tempfile::tempdir().unwrap();
        let (folder, files) = write_folder(dir.path());
        assert_eq!(settled(&folder, &files).compare(&folder), FolderState::Unchanged);
    }

    #[test]
    fn a_fresh_folder_is_read_because_its_stamps_could_hide_a_change() {
        let dir = tempfile::tempdir().unwrap();
        let (folder, files) = write_folder(dir.path());
        assert_eq!(memo(&folder, &files).compare(&folder), FolderState::Rehashed);
    }

    #[test]
    fn an_edit_that_keeps_size_and_modification_time_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        let (folder, files) = write_folder(dir.path());
        let memo = settled(&folder, &files);
        let file = folder.join("a.json");
        let modified = fs::metadata(&file).unwrap().modified().unwrap();
        std::thread::sleep(std::time::Duration::from_millis(20));
        fs::write(&file, "[]").unwrap();
        fs::File::options().write(true).open(&file).unwrap().set_modified(modified).unwrap();
        assert_eq!(memo.compare(&folder), FolderState::Changed("a.json".to_owned()));
    }

    #[test]
    fn a_touch_without_an_edit_is_not_a_change() {
        let dir = tempfile::tempdir().unwrap();
        let (folder, files) = write_folder(dir.path());
        let memo = settled(&folder, &files);
        let file = fs::File::options().write(true).open(folder.join("a.json")).unwrap();
        file.set_modified(std::time::UNIX_EPOCH).unwrap();
        assert_eq!(memo.compare(&folder), FolderState::Rehashed);
    }

    #[test]
    fn an_added_a_removed_and_a_replaced_file_are_seen() {
        let dir = tempfile::tempdir().unwrap();
        let (folder, files) = write_folder(dir.path());
        let memo = settled(&folder, &files);
        std::thread::sleep(std::time::Duration::from_millis(20));
        fs::write(folder.join("sub/new"), "").unwrap();
        assert_eq!(memo.compare(&folder), FolderState::Changed("sub/new".to_owned()));
        fs::remove_file(folder.join("sub/new")).unwrap();
        assert_eq!(memo.compare(&folder), FolderState::Rehashed);
        fs::remove_file(folder.join("sub/b.json")).unwrap();
        assert_eq!(memo.compare(&folder), FolderState::Changed("sub/b.json".to_owned()));
        std::os::unix::fs::symlink("../a.json", folder.join("sub/b.json")).unwrap();
        assert_eq!(memo.compare(&folder), FolderState::Changed("sub/b.json".to_owned()));
        fs::remove_dir_all(&folder).unwrap();
        assert_eq!(memo.compare(&folder), FolderState::Absent);
    }
}
