//! The files in `index/`: memos that make a look at the cache fast and may be deleted at any time.
//!
//! They appear whole by a rename and are sealed (`packed.rs`), but not synced to disk: after a power failure one may be
//! damaged, and then counts as absent.

use std::fs;
use std::path::Path;

use crate::packed::{seal, unseal};
use crate::{Cache, CacheError};

pub(crate) const INDEX: &str = "index";

/// Returns the body of the index file `name` in the cache folder `root`, which need not be a cache; `None` if there is no
/// such file of this format, or it is damaged.
#[must_use]
pub fn read_index(root: &Path, name: &str, format: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = fs::read(root.join(INDEX).join(name)).ok()?;
    let length = unseal(format, &bytes)?.len();
    bytes.drain(..format.len());
    bytes.truncate(length);
    Some(bytes)
}

impl Cache {
    /// Writes the index file `name`.
    ///
    /// # Errors
    /// [`CacheError`] if it cannot be written.
    pub fn write_index(&self, name: &str, format: &[u8], body: &[u8]) -> Result<(), CacheError> {
        let path = self.root().join(INDEX).join(name);
        let temporary = self.temporary();
        if let Err(error) = fs::write(&temporary, seal(format, body)) {
            let _ = fs::remove_file(&temporary);
            return Err(CacheError::io("write", &path)(error));
        }
        self.publish_unsynced(&temporary, &path)
    }

    /// Removes the oldest index files that end in `.ending`, if there are more than `most`.
    pub fn trim_index(&self, ending: &str, most: usize) {
        let entries = fs::read_dir(self.root().join(INDEX)).into_iter().flatten().flatten();
        let mut files: Vec<_> = entries
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|found| found == ending))
            .filter_map(|path| Some((fs::metadata(&path).and_then(|metadata| metadata.modified()).ok()?, path)))
            .collect();
        files.sort();
        for (_, path) in &files[..files.len().saturating_sub(most)] {
            let _ = fs::remove_file(path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FORMAT: &[u8] = b"test 1\n";

    #[test]
    fn an_index_file_is_read_without_opening_the_cache_and_a_damaged_one_is_absent() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path()).unwrap();
        cache.write_index("a.test", FORMAT, b"body").unwrap();
        assert_eq!(read_index(dir.path(), "a.test", FORMAT).as_deref(), Some(&b"body"[..]));
        assert_eq!(read_index(dir.path(), "b.test", FORMAT), None);
        assert_eq!(read_index(&dir.path().join("nowhere"), "a.test", FORMAT), None);
        fs::write(dir.path().join("index/a.test"), "test 1\nbody").unwrap();
        assert_eq!(read_index(dir.path(), "a.test", FORMAT), None);
        assert_eq!(fs::read_dir(dir.path().join("tmp")).unwrap().count(), 0);
    }

    #[test]
    fn the_oldest_of_many_go_and_other_endings_stay() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path()).unwrap();
        for name in ["0.other", "1.test", "2.test", "3.test"] {
            cache.write_index(name, FORMAT, b"").unwrap();
            let file = fs::File::options().write(true).open(dir.path().join("index").join(name)).unwrap();
            let seconds = name[..1].parse().unwrap();
            file.set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds)).unwrap();
        }
        cache.trim_index("test", 2);
        let left = |name: &&str| dir.path().join("index").join(name).exists();
        let found: Vec<_> = ["0.other", "1.test", "2.test", "3.test"].into_iter().filter(left).collect();
        assert_eq!(found, ["0.other", "2.test", "3.test"]);
    }
}
