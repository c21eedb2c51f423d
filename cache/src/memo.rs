//! What was seen of output folders when they were last known to be right: the disposable index.
//!
//! A folder whose stamps are all as they were, and were settled then, still holds the same bytes; looking at a
//! thousand stages so costs a few thousand `stat` calls instead of reading every record and hashing every file. One
//! memo file in `index/` belongs to one output root. It may be deleted at any time; a damaged one, one from before
//! the last reboot (file contents may have been lost with the power) or one of another format is ignored.
//!
//! File: `spdflow-memo 1\n`, the body, the digest of the body. Body: boot id, then the entries; texts and lists are
//! preceded by their length as u32, numbers are little-endian.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::blob::digest_file;
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
        let entries = fs::read(self.memo_path(root)).ok().and_then(|bytes| decode(&bytes)).unwrap_or_default();
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
        self.write_whole(&self.memo_path(root), &encode(&memos.entries), 0o644)
    }

    fn memo_path(&self, root: &Path) -> PathBuf {
        let name = Digest::of(root.as_os_str().as_encoded_bytes()).short();
        self.root().join("index").join(format!("{name}.memo"))
    }
}

const MAGIC: &[u8] = b"spdflow-memo 1\n";

fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default()
}

fn encode(entries: &BTreeMap<String, Arc<FolderMemo>>) -> Vec<u8> {
    let mut body = Vec::new();
    put_text(&mut body, &boot_id());
    put_length(&mut body, entries.len());
    for (folder, memo) in entries {
        put_text(&mut body, folder);
        body.extend_from_slice(memo.fingerprint.as_bytes());
        body.extend_from_slice(memo.artifact.as_bytes());
        put_stamp(&mut body, &memo.record);
        put_length(&mut body, usize::from(memo.headline.is_some()));
        if let Some((name, value)) = &memo.headline {
            put_text(&mut body, name);
            body.extend_from_slice(&value.to_bits().to_le_bytes());
        }
        put_length(&mut body, memo.folders.len());
        for (path, stamp) in &memo.folders {
            put_text(&mut body, path);
            put_stamp(&mut body, stamp);
        }
        put_length(&mut body, memo.files.len());
        for file in &memo.files {
            put_text(&mut body, &file.path);
            body.extend_from_slice(file.digest.as_bytes());
            put_stamp(&mut body, &file.stamp);
        }
        body.extend_from_slice(&memo.seen.to_le_bytes());
    }
    let digest = Digest::of(&body);
    [MAGIC, &body, digest.as_bytes()].concat()
}

fn put_length(body: &mut Vec<u8>, length: usize) {
    // Lengths of names and of lists of files: far below 2^32.
    body.extend_from_slice(&u32::try_from(length).expect("a memo list is short").to_le_bytes());
}

fn put_text(body: &mut Vec<u8>, text: &str) {
    put_length(body, text.len());
    body.extend_from_slice(text.as_bytes());
}

fn put_stamp(body: &mut Vec<u8>, stamp: &Stamp) {
    for number in [stamp.device, stamp.inode, stamp.size_bytes] {
        body.extend_from_slice(&number.to_le_bytes());
    }
    for number in [stamp.modified, stamp.changed] {
        body.extend_from_slice(&number.to_le_bytes());
    }
}

fn decode(bytes: &[u8]) -> Option<BTreeMap<String, Arc<FolderMemo>>> {
    let rest = bytes.strip_prefix(MAGIC)?;
    let (body, digest) = rest.split_last_chunk::<32>()?;
    if Digest::of(body).as_bytes() != digest {
        return None;
    }
    let mut reader = Reader { rest: body };
    if reader.text()? != boot_id() {
        return None;
    }
    let mut entries = BTreeMap::new();
    for _ in 0..reader.length()? {
        let folder = reader.text()?;
        let memo = FolderMemo {
            fingerprint: reader.digest()?,
            artifact: reader.digest()?,
            record: reader.stamp()?,
            headline: match reader.length()? {
                0 => None,
                _ => Some((reader.text()?, f64::from_bits(reader.number()?))),
            },
            folders: (0..reader.length()?).map(|_| Some((reader.text()?, reader.stamp()?))).collect::<Option<_>>()?,
            files: (0..reader.length()?)
                .map(|_| Some(MemoFile { path: reader.text()?, digest: reader.digest()?, stamp: reader.stamp()? }))
                .collect::<Option<_>>()?,
            seen: reader.signed()?,
        };
        entries.insert(folder, Arc::new(memo));
    }
    Some(entries)
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl Reader<'_> {
    fn chunk<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (chunk, rest) = self.rest.split_first_chunk::<N>()?;
        self.rest = rest;
        Some(*chunk)
    }

    fn length(&mut self) -> Option<u32> {
        self.chunk().map(u32::from_le_bytes)
    }

    fn number(&mut self) -> Option<u64> {
        self.chunk().map(u64::from_le_bytes)
    }

    fn signed(&mut self) -> Option<i64> {
        self.chunk().map(i64::from_le_bytes)
    }

    fn digest(&mut self) -> Option<Digest> {
        self.chunk().map(Digest::from_bytes)
    }

    fn text(&mut self) -> Option<String> {
        let length = self.length()? as usize;
        let (text, rest) = self.rest.split_at_checked(length)?;
        self.rest = rest;
        String::from_utf8(text.to_vec()).ok()
    }

    fn stamp(&mut self) -> Option<Stamp> {
        Some(Stamp {
            device: self.number()?,
            inode: self.number()?,
            size_bytes: self.number()?,
            modified: self.signed()?,
            changed: self.signed()?,
        })
    }
}

#[cfg(test)]
mod tests {
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

        let path = cache.memo_path(dir.path());
        let good = fs::read(&path).unwrap();
        for position in 0..good.len() {
            let mut bytes = good.clone();
            bytes[position] ^= 4;
            assert_eq!(decode(&bytes), None, "byte {position}");
            assert_eq!(decode(&good[..position]), None, "cut at {position}");
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
