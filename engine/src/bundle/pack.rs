//! Makes a bundle.
//!
//! Equal results make equal bytes: files in the order of their paths, no time, no owner, one compression. Everything is read
//! twice, since `bundle.json` comes first and holds the sums of all others; a blob whose bytes are not those of its name
//! is found at the first reading, one that changes in between at the second.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write};
use std::path::Path;

use spdflow_cache::{Cache, Digest};
use tar::{Builder, EntryType, Header};
use zstd::Encoder;

use super::BundleError;
use super::blobs::{BlobOf, damaged, open_blob, sums_of_blobs};
use super::describe::{reproduce, script};
use super::entries::{Content, Entries, REPRODUCE, SCRIPT, cache_folders, mode, of_cache, of_pipeline};
use super::manifest::{Arguments, FORMAT, FileEntry, LeftOut, MANIFEST, Manifest};
use crate::pipeline::Pipeline;
use crate::present::Present;
use crate::sums::Sums;

/// How hard is compressed. Fixed, since the archive's bytes depend on it.
const LEVEL: i32 = 9;

/// What goes into a bundle.
#[derive(Clone)]
pub struct Packing<'a> {
    /// The pipeline.
    pub pipeline: &'a Pipeline,
    /// The cache that has its results.
    pub cache: &'a Cache,
    /// The results.
    pub results: &'a [Present],
    /// How the pipeline was called.
    pub arguments: Arguments,
    /// Whether of the files of results only the sums go in.
    pub digests_only: bool,
}

/// What became of a bundle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packed {
    /// How many files it holds.
    pub files: usize,
    /// How many bytes these have.
    pub content_bytes: u64,
    /// How many bytes the bundle has.
    pub size_bytes: u64,
}

/// Makes the bundle `to`, which is there whole or not at all; what was there is replaced.
///
/// # Errors
/// [`BundleError`] if the cache cannot be read, one of the results is damaged, or the bundle cannot be written.
pub fn pack(packing: &Packing<'_>, to: &Path) -> Result<Packed, BundleError> {
    let mut entries = Entries::new();
    let pipeline = of_pipeline(packing.pipeline, &mut entries)?;
    let blobs = of_cache(packing, &mut entries)?;
    let sums = sums_of_blobs(packing.cache, &blobs)?;
    let variables = &packing.pipeline.outside.variables;
    entries.insert(SCRIPT.to_owned(), Content::Bytes(script(packing, &pipeline).into_bytes()));
    entries.insert(REPRODUCE.to_owned(), Content::Bytes(reproduce(packing, &sums).into_bytes()));
    let entry = |(path, content): (&String, &Content)| FileEntry {
        path: path.clone(),
        sums: match content {
            Content::Bytes(bytes) => Sums::of(bytes),
            Content::Blob(digest) => sums[digest].clone(),
        },
    };
    let left_out = sums.values().filter(|_| packing.digests_only).map(|sums| LeftOut {
        blake3: sums.blake3,
        sha256: sums.sha256.clone(),
        size_bytes: sums.size_bytes,
    });
    let manifest = Manifest {
        format: FORMAT,
        name: packing.pipeline.name.clone(),
        pipeline,
        arguments: packing.arguments.clone(),
        variables: variables.clone(),
        files: entries.iter().map(entry).collect(),
        left_out: left_out.collect(),
    };
    let content_bytes = manifest.files.iter().map(|file| file.sums.size_bytes).sum();
    let size_bytes = write_whole(to, |file| write(packing, &manifest, &entries, &blobs, file))?;
    Ok(Packed { files: entries.len() + 1, content_bytes, size_bytes })
}

fn write(
    packing: &Packing<'_>,
    manifest: &Manifest,
    entries: &Entries,
    blobs: &BTreeMap<Digest, BlobOf>,
    file: &File,
) -> Result<(), Failed> {
    let mut encoder = Encoder::new(BufWriter::new(file), LEVEL)?;
    encoder.include_checksum(true)?;
    let mut archive = Builder::new(encoder);
    add(&mut archive, MANIFEST, manifest.text().as_bytes())?;
    // An archive that somebody takes apart by hand is a cache as well.
    for folder in cache_folders() {
        let mut header = header(EntryType::Directory, 0, 0o755);
        archive.append_data(&mut header, folder + "/", io::empty())?;
    }
    for (path, content) in entries {
        match content {
            Content::Bytes(bytes) => add(&mut archive, path, bytes)?,
            Content::Blob(digest) => {
                let blob = open_blob(packing.cache, digest).map_err(BundleError::from)?;
                let size_bytes = manifest_size(manifest, path);
                let mut header = header(EntryType::Regular, size_bytes, mode(path));
                let mut hasher = Hashing { inner: blob.take(size_bytes), hasher: blake3::Hasher::new() };
                archive.append_data(&mut header, path, &mut hasher)?;
                if Digest::from_bytes(*hasher.hasher.finalize().as_bytes()) != *digest {
                    return Err(damaged(packing.cache, digest, &blobs[digest]).into());
                }
            }
        }
    }
    archive.into_inner()?.finish()?.flush()?;
    Ok(())
}

fn manifest_size(manifest: &Manifest, path: &str) -> u64 {
    let index = manifest.files.binary_search_by(|file| (*file.path).cmp(path)).expect("every entry is in the manifest");
    manifest.files[index].sums.size_bytes
}

fn add(archive: &mut Builder<impl Write>, path: &str, bytes: &[u8]) -> io::Result<()> {
    archive.append_data(&mut header(EntryType::Regular, bytes.len() as u64, mode(path)), path, bytes)
}

/// Returns a header without time and owner.
fn header(kind: EntryType, size_bytes: u64, mode: u32) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_size(size_bytes);
    header.set_mode(mode);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header
}

/// Why the archive was not written.
enum Failed {
    /// Writing failed.
    Io(io::Error),
    /// Something else did.
    Bundle(BundleError),
}

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<BundleError> for Failed {
    fn from(error: BundleError) -> Self {
        Self::Bundle(error)
    }
}

/// Writes a file beside its place and renames it; returns its size.
fn write_whole(to: &Path, write: impl FnOnce(&File) -> Result<(), Failed>) -> Result<u64, BundleError> {
    let mut temporary = to.to_owned();
    temporary.as_mut_os_string().push(format!(".{}.tmp", std::process::id()));
    let written = File::create(&temporary).map_err(Failed::from).and_then(|file| {
        write(&file)?;
        file.sync_all()?;
        let size_bytes = file.metadata()?.len();
        fs::rename(&temporary, to)?;
        Ok(size_bytes)
    });
    written.map_err(|failed| {
        let _ = fs::remove_file(&temporary);
        match failed {
            Failed::Io(error) => BundleError::io("write", to)(error),
            Failed::Bundle(error) => error,
        }
    })
}

/// Takes the digest of what is read through it.
struct Hashing<R> {
    inner: R,
    hasher: blake3::Hasher,
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..count]);
        Ok(count)
    }
}
