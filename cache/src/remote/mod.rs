//! Results elsewhere: a folder or an object store to which results are sent and from which they are taken.
//!
//! A remote has the layout of a cache, so that another cache's folder is a remote as well: `VERSION`, `blobs/`,
//! `records/`. Nothing in it is ever deleted, and nothing that is whole is changed. Blobs are sent before the record
//! that names them, and what is there already is not sent again; so a reader that sees a record may rely on its blobs,
//! any number of processes may send at once, and what was cut short goes on where it was. Nothing that arrives is
//! believed: a blob has to have its digest, a record its seal and its key, or it is not stored.
//!
//! `address.rs` reads URLs, `folder.rs` and `server.rs` keep objects (`objects.rs`), `push.rs` and `pull.rs`
//! know results.

mod address;
mod error;
mod folder;
mod objects;
mod pull;
mod push;
#[cfg(feature = "remotes")]
mod server;
#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::store::{CACHE_FORMAT, VERSION_TEXT, version_number};
use crate::{Cache, Digest};

use address::Address;
pub use error::RemoteError;
use objects::{Body, Objects, Trouble};
pub use pull::{CheckRecord, Pulled};
pub use push::{PushOptions, Pushed};

/// Whether the user wants to stop; asked several times a second while anything is under way.
pub type Stop<'a> = &'a (dyn Fn() -> bool + Sync);

/// Hears of the outcome for each result as soon as it is known, with the result's place in the list.
pub type OnDone<'a, T> = &'a (dyn Fn(usize, &T) + Sync);

/// How much was carried over, or would be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Transfer {
    /// How many blobs.
    pub files: usize,
    /// Their bytes.
    pub size_bytes: u64,
}

/// A place for results, shared by any number of threads. Nothing is asked of it before the first transfer.
#[derive(Debug)]
pub struct Remote {
    address: Address,
    objects: Box<dyn Objects>,
    /// Whether a `VERSION` of ours was seen.
    is_ready: AtomicBool,
}

/// How many results are carried over at once, and how many files of each.
const RESULTS_AT_ONCE: usize = 4;
const FILES_AT_ONCE: usize = 2;

const VERSION: &str = "VERSION";

impl Remote {
    /// Returns the remote at a URL or path, without looking whether it is there.
    ///
    /// Credentials and endpoints of servers come from the environment.
    ///
    /// # Errors
    /// [`RemoteError::BadUrl`] if the text is not the URL of anything that can be a remote.
    pub fn open(url: &str) -> Result<Self, RemoteError> {
        let address = Address::parse(url)?;
        let objects = address.objects()?;
        Ok(Self { address, objects, is_ready: AtomicBool::new(false) })
    }

    /// Returns the URL, without a password.
    #[must_use]
    pub fn url(&self) -> &str {
        self.address.shown()
    }

    /// Sends results, several at once; the outcomes are in the order of `fingerprints`.
    ///
    /// # Errors
    /// [`RemoteError`] if the remote cannot be used, or the cache cannot be read.
    pub fn push_all(
        &self,
        cache: &Cache,
        fingerprints: &[Digest],
        options: PushOptions,
        done: OnDone<'_, Pushed>,
    ) -> Result<Vec<Pushed>, RemoteError> {
        side_by_side(RESULTS_AT_ONCE, fingerprints, |index, fingerprint| {
            let pushed = self.push(cache, fingerprint, options, &|| false)?;
            done(index, &pushed);
            Ok(pushed)
        })
    }

    /// Takes results, several at once; the outcomes are in the order of `fingerprints`.
    ///
    /// # Errors
    /// [`RemoteError`] if the remote cannot be used, or the cache cannot be written.
    pub fn pull_all(
        &self,
        cache: &Cache,
        fingerprints: &[Digest],
        check: CheckRecord<'_>,
        done: OnDone<'_, Pulled>,
    ) -> Result<Vec<Pulled>, RemoteError> {
        side_by_side(RESULTS_AT_ONCE, fingerprints, |index, fingerprint| {
            let pulled = self.pull(cache, fingerprint, check, &|| false)?;
            done(index, &pulled);
            Ok(pulled)
        })
    }

    /// As [`Remote::pull_all`], but stores nothing; the transfers are what there would be to carry over.
    ///
    /// # Errors
    /// [`RemoteError`] if the remote cannot be used.
    pub fn look_all(
        &self,
        cache: &Cache,
        fingerprints: &[Digest],
        check: CheckRecord<'_>,
        done: OnDone<'_, Pulled>,
    ) -> Result<Vec<Pulled>, RemoteError> {
        side_by_side(RESULTS_AT_ONCE, fingerprints, |index, fingerprint| {
            let pulled = self.look(cache, fingerprint, check, &|| false)?;
            done(index, &pulled);
            Ok(pulled)
        })
    }

    /// Returns whether the remote has a `VERSION`: without it there are no results.
    fn has_version(&self, stop: Stop<'_>) -> Result<bool, RemoteError> {
        if self.is_ready.load(Ordering::Acquire) {
            return Ok(true);
        }
        let Some(bytes) = self.read_small(VERSION, stop)? else { return Ok(false) };
        let text = String::from_utf8_lossy(&bytes);
        match version_number(&text) {
            Some(CACHE_FORMAT) => {}
            Some(newer) if newer > CACHE_FORMAT => {
                return Err(RemoteError::Newer { remote: self.url().to_owned(), found: newer });
            }
            _ => {
                let found = text.lines().next().unwrap_or_default().chars().take(60).collect();
                return Err(RemoteError::BadVersion { remote: self.url().to_owned(), found });
            }
        }
        self.is_ready.store(true, Ordering::Release);
        Ok(true)
    }

    /// Makes the remote one that may hold results.
    fn prepare(&self, stop: Stop<'_>) -> Result<(), RemoteError> {
        if self.has_version(stop)? {
            return Ok(());
        }
        if let Some(found) = self.objects.foreign().map_err(|trouble| self.failed("read", "", trouble))? {
            return Err(RemoteError::Foreign { remote: self.url().to_owned(), found });
        }
        let written = self.objects.write(VERSION, Body::Bytes(VERSION_TEXT.as_bytes()), stop);
        written.map_err(|trouble| self.failed("write", VERSION, trouble))?;
        self.is_ready.store(true, Ordering::Release);
        Ok(())
    }

    /// Returns the bytes of an object that is known to be small, or `None` if there is none.
    fn read_small(&self, name: &str, stop: Stop<'_>) -> Result<Option<Vec<u8>>, RemoteError> {
        let mut bytes = Vec::new();
        let read = self.objects.read(name, stop, &mut |piece| {
            bytes.extend_from_slice(piece);
            if bytes.len() > SMALL_BYTES { Err(std::io::ErrorKind::FileTooLarge.into()) } else { Ok(()) }
        });
        match read {
            Ok(is_there) => Ok(is_there.then_some(bytes)),
            // More than any of our own: whatever it is, it is not believed.
            Err(Trouble::Local(_)) => Ok(Some(Vec::new())),
            Err(trouble) => Err(self.failed("read", name, trouble)),
        }
    }

    fn failed(&self, action: &'static str, object: &str, trouble: Trouble) -> RemoteError {
        RemoteError::of(&self.address, action, object, trouble)
    }
}

/// Records of runs with very many outputs have some hundred bytes for each.
const SMALL_BYTES: usize = 64 << 20;

fn blob_name(digest: &Digest) -> String {
    let text = digest.to_string();
    format!("blobs/{}/{}", &text[..2], &text[2..])
}

fn record_name(fingerprint: &Digest) -> String {
    let text = fingerprint.to_string();
    format!("records/{}/{}.json", &text[..2], &text[2..])
}

/// Does `work` for each item, `most` of them at once, and returns what came of it in the order of items. After an error
/// nothing more is begun.
fn side_by_side<T: Sync, R: Send>(
    most: usize,
    items: &[T],
    work: impl Fn(usize, &T) -> Result<R, RemoteError> + Sync,
) -> Result<Vec<R>, RemoteError> {
    if let [item] = items {
        return Ok(vec![work(0, item)?]);
    }
    let (next, is_over) = (AtomicUsize::new(0), AtomicBool::new(false));
    let results = Mutex::new(Vec::with_capacity(items.len()));
    std::thread::scope(|scope| {
        for _ in 0..most.min(items.len()) {
            scope.spawn(|| {
                while !is_over.load(Ordering::Acquire) {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(item) = items.get(index) else { return };
                    let result = work(index, item);
                    is_over.fetch_or(result.is_err(), Ordering::AcqRel);
                    results.lock().unwrap_or_else(PoisonError::into_inner).push((index, result));
                }
            });
        }
    });
    let mut results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
    results.sort_by_key(|(index, _)| *index);
    results.into_iter().map(|(_, result)| result).collect()
}
