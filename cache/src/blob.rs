//! File contents by digest.
//!
//! A blob is moved or copied into `blobs/` under the digest of its bytes and never changed again. Bytes are checked
//! whenever they leave the cache, so that a damaged disk costs a recomputation and never a wrong result.

use std::fs::{self, File, Permissions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::store::sync_early;
use crate::{Cache, CacheError, Digest, Stamp};

/// What became of a request for a blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BlobState {
    /// The bytes are there and have the right digest.
    Intact,
    /// There is no such blob.
    Missing,
    /// The bytes had another digest; they were moved to `quarantined`.
    Damaged {
        /// Where the damaged bytes lie now.
        quarantined: PathBuf,
    },
}

/// Files up to this size are read at once and written from memory; larger ones are copied by the kernel.
const SMALL_BYTES: u64 = 1 << 20;

impl Cache {
    /// Returns where the blob's bytes lie, or would lie.
    #[must_use]
    pub fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.place("blobs", digest, "")
    }

    /// Returns whether a blob of this digest and size is present. Does not read it.
    #[must_use]
    pub fn has_blob(&self, digest: &Digest, size_bytes: u64) -> bool {
        // Relative to the open folder: a path from `/` has many more parts to look up, and a run without work consists of
        // little else than these questions.
        let text = digest.to_string();
        let path = format!("blobs/{}/{}", &text[..2], &text[2..]);
        rustix::fs::statat(self.folder(), path, rustix::fs::AtFlags::empty()).is_ok_and(|stat| {
            rustix::fs::FileType::from_raw_mode(stat.st_mode).is_file() && u64::try_from(stat.st_size) == Ok(size_bytes)
        })
    }

    /// Returns the stamp of the blob's file, or `None` if there is none.
    #[must_use]
    pub fn blob_stamp(&self, digest: &Digest) -> Option<Stamp> {
        fs::metadata(self.blob_path(digest)).ok().map(|metadata| Stamp::of(&metadata))
    }

    /// Stores bytes and returns their digest.
    ///
    /// # Errors
    /// [`CacheError`] if the blob cannot be written.
    pub fn store_bytes(&self, bytes: &[u8]) -> Result<Digest, CacheError> {
        let digest = Digest::of(bytes);
        // Many stages make the same small files. What is there is read, so that storing again still heals it.
        if bytes.len() as u64 <= SMALL_BYTES && fs::read(self.blob_path(&digest)).is_ok_and(|there| there == bytes) {
            return Ok(digest);
        }
        self.write_whole(&self.blob_path(&digest), bytes, 0o444)?;
        Ok(digest)
    }

    /// Stores a copy of `file` and returns its digest and size.
    ///
    /// # Errors
    /// [`CacheError`] if the file cannot be read or the blob cannot be written.
    pub fn store_file(&self, file: &Path) -> Result<(Digest, u64), CacheError> {
        let temporary = self.temporary();
        let copied = copy_contents(file, &temporary);
        if let Err(error) = copied {
            let _ = fs::remove_file(&temporary);
            // The source was readable a moment ago, so what fails here is nearly always the writing.
            return Err(CacheError::io("write", &temporary)(error));
        }
        self.adopt_unshared(&temporary)
    }

    /// Stores `file` by moving it into the cache, and returns its digest and size.
    ///
    /// For files that nobody else uses and that lie on the cache's file system: a stage's fresh outputs.
    ///
    /// # Errors
    /// [`CacheError`] if the file cannot be read or the blob cannot be written.
    pub fn adopt_file(&self, file: &Path) -> Result<(Digest, u64), CacheError> {
        let metadata = fs::symlink_metadata(file).map_err(CacheError::io("read", file))?;
        // A second hard link could change the bytes later.
        if metadata.nlink() > 1 || !metadata.is_file() { self.store_file(file) } else { self.adopt_unshared(file) }
    }

    fn adopt_unshared(&self, file: &Path) -> Result<(Digest, u64), CacheError> {
        let opened = File::open(file).map_err(CacheError::io("read", file))?;
        let (digest, size_bytes) = digest_opened(&opened).map_err(CacheError::io("read", file))?;
        let prepared = opened.set_permissions(Permissions::from_mode(0o444)).and_then(|()| sync_early(&opened));
        prepared.map_err(CacheError::io("write", file))?;
        self.publish(file, &self.blob_path(&digest))?;
        Ok((digest, size_bytes))
    }

    /// Reads the whole blob and compares its digest; damaged bytes go to quarantine.
    ///
    /// # Errors
    /// [`CacheError`] if the blob exists but cannot be read or moved.
    pub fn check_blob(&self, digest: &Digest) -> Result<BlobState, CacheError> {
        let path = self.blob_path(digest);
        match digest_file(&path) {
            Ok((found, _)) if found == *digest => Ok(BlobState::Intact),
            Ok(_) => Ok(BlobState::Damaged { quarantined: self.quarantine(&path)? }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(BlobState::Missing),
            // A disk that cannot give the bytes back has lost them.
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error()) => {
                Ok(BlobState::Damaged { quarantined: self.quarantine(&path)? })
            }
            Err(error) => Err(CacheError::io("read", &path)(error)),
        }
    }

    /// Returns the blob's bytes if they are intact.
    ///
    /// # Errors
    /// [`CacheError`] if the blob exists but cannot be read or moved.
    pub fn read_blob(&self, digest: &Digest) -> Result<Result<Vec<u8>, BlobState>, CacheError> {
        let path = self.blob_path(digest);
        match fs::read(&path) {
            Ok(bytes) if Digest::of(&bytes) == *digest => Ok(Ok(bytes)),
            Ok(_) => Ok(Err(BlobState::Damaged { quarantined: self.quarantine(&path)? })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Err(BlobState::Missing)),
            Err(error) => Err(CacheError::io("read", &path)(error)),
        }
    }

    /// Writes the blob's bytes to `destination`, which must not exist, sharing disk blocks where the file system can.
    ///
    /// The digest is taken of what was written, so neither a damaged blob nor a failing copy passes.
    ///
    /// # Errors
    /// [`CacheError`] if `destination` cannot be written, or the blob exists but cannot be read.
    pub fn restore(&self, digest: &Digest, destination: &Path) -> Result<BlobState, CacheError> {
        let path = self.blob_path(digest);
        let source = match File::open(&path) {
            Ok(source) => source,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BlobState::Missing),
            Err(error) => return Err(CacheError::io("read", &path)(error)),
        };
        let size_bytes = source.metadata().map_err(CacheError::io("read", &path))?.len();
        if size_bytes <= SMALL_BYTES {
            let bytes = read_opened(&source, size_bytes).map_err(CacheError::io("read", &path))?;
            if Digest::of(&bytes) != *digest {
                return Ok(BlobState::Damaged { quarantined: self.quarantine(&path)? });
            }
            fs::write(destination, bytes).map_err(CacheError::io("write", destination))?;
            return Ok(BlobState::Intact);
        }
        copy_contents(&path, destination).map_err(CacheError::io("write", destination))?;
        let (found, _) = digest_file(destination).map_err(CacheError::io("read", destination))?;
        if found == *digest {
            return Ok(BlobState::Intact);
        }
        let _ = fs::remove_file(destination);
        match self.check_blob(digest)? {
            BlobState::Intact => Err(CacheError::Io {
                action: "write",
                path: destination.to_owned(),
                source: io::Error::other("the bytes written differ from the bytes read"),
            }),
            state => Ok(state),
        }
    }
}

/// Returns the digest and size of a file's bytes.
///
/// # Errors
/// What the system said when the file could not be read.
pub(crate) fn digest_file(path: &Path) -> io::Result<(Digest, u64)> {
    digest_opened(&File::open(path)?)
}

/// Returns the digest and size of the bytes of a file of which nothing was read yet.
pub(crate) fn digest_opened(mut file: &File) -> io::Result<(Digest, u64)> {
    let size_bytes = file.metadata()?.len();
    if size_bytes <= SMALL_BYTES {
        let bytes = read_opened(file, size_bytes)?;
        return Ok((Digest::of(&bytes), bytes.len() as u64));
    }
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; 1 << 18];
    let mut total = 0;
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok((Digest::from_bytes(*hasher.finalize().as_bytes()), total)),
            Ok(count) => {
                hasher.update(&buffer[..count]);
                total += count as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Returns the bytes of a file of which nothing was read yet, and which is expected to have this many.
fn read_opened(file: &File, size_bytes: u64) -> io::Result<Vec<u8>> {
    // One more, so that the end is found without more room.
    let mut bytes = Vec::with_capacity(usize::try_from(size_bytes).unwrap_or(0) + 1);
    // A file itself would be asked for its size once more.
    file.take(u64::MAX).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Copies bytes, not permissions; by reflink where the file system can, else in the kernel, else through memory.
fn copy_contents(from: &Path, to: &Path) -> io::Result<()> {
    let mut source = File::open(from)?;
    let mut target = File::create_new(to)?;
    #[cfg(target_os = "linux")]
    if rustix::fs::ioctl_ficlone(&target, &source).is_ok() {
        return Ok(());
    }
    io::copy(&mut source, &mut target).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cache() -> (tempfile::TempDir, Cache) {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path()).unwrap();
        (dir, cache)
    }

    fn corrupt(path: &Path) {
        fs::set_permissions(path, Permissions::from_mode(0o644)).unwrap();
        let mut bytes = fs::read(path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(path, bytes).unwrap();
    }

    #[test]
    fn what_is_stored_comes_back_small_and_large() {
        let (dir, cache) = cache();
        for size in [0, 1, 1 << 20, (1 << 20) + 1, 3_000_001] {
            let bytes: Vec<u8> = (0..size).map(|index: u32| (index % 251) as u8).collect();
            let file = dir.path().join("tmp/source");
            fs::write(&file, &bytes).unwrap();
            let (digest, size_bytes) = cache.store_file(&file).unwrap();
            assert_eq!(digest, Digest::of(&bytes));
            assert_eq!(size_bytes, u64::from(size));
            assert!(cache.has_blob(&digest, size_bytes));
            let back = dir.path().join("tmp/back");
            assert_eq!(cache.restore(&digest, &back).unwrap(), BlobState::Intact);
            assert_eq!(fs::read(&back).unwrap(), bytes);
            fs::remove_file(back).unwrap();
        }
        assert_eq!(fs::read_dir(dir.path().join("tmp")).unwrap().count(), 1, "only the source file is left in tmp");
    }

    #[test]
    fn blobs_are_read_only_and_restored_files_are_not() {
        let (dir, cache) = cache();
        let digest = cache.store_bytes(b"abc").unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&cache.blob_path(&digest)), 0o444);
        let back = dir.path().join("back");
        cache.restore(&digest, &back).unwrap();
        assert_eq!(mode(&back) & 0o600, 0o600);
    }

    #[test]
    fn a_damaged_blob_is_quarantined_and_never_restored() {
        let (dir, cache) = cache();
        for size in [10, 2_000_000] {
            let digest = cache.store_bytes(&vec![7; size]).unwrap();
            corrupt(&cache.blob_path(&digest));
            let back = dir.path().join("back");
            let BlobState::Damaged { quarantined } = cache.restore(&digest, &back).unwrap() else {
                panic!("a damaged blob of {size} bytes was restored");
            };
            assert!(quarantined.is_file());
            assert!(!back.exists());
            assert_eq!(cache.restore(&digest, &back).unwrap(), BlobState::Missing);
        }
    }

    #[test]
    fn storing_again_heals_a_damaged_blob() {
        let (_dir, cache) = cache();
        let digest = cache.store_bytes(b"precious").unwrap();
        corrupt(&cache.blob_path(&digest));
        cache.store_bytes(b"precious").unwrap();
        assert_eq!(cache.check_blob(&digest).unwrap(), BlobState::Intact);
    }

    #[test]
    fn adopting_a_file_with_a_second_hard_link_copies_it() {
        let (dir, cache) = cache();
        let file = dir.path().join("tmp/file");
        fs::write(&file, "one").unwrap();
        fs::hard_link(&file, dir.path().join("tmp/link")).unwrap();
        let (digest, _) = cache.adopt_file(&file).unwrap();
        fs::write(dir.path().join("tmp/link"), "two").unwrap();
        assert_eq!(cache.check_blob(&digest).unwrap(), BlobState::Intact);
    }
}
