//! Taking a result: its blobs, each checked while it arrives, then its record.

use std::collections::BTreeMap;
use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;

use super::objects::Trouble;
use super::{FILES_AT_ONCE, Remote, RemoteError, Stop, Transfer, blob_name, record_name, side_by_side};
use crate::record::unseal;
use crate::store::sync_early;
use crate::{Cache, CacheError, Digest, Record};

/// What a record must be beside whole; the error says what is wrong with it. The cache does not know how a key comes
/// about, so whoever does compares the record's preimage with its fingerprint.
pub type CheckRecord<'a> = &'a (dyn Fn(&Record) -> Result<(), String> + Sync);

/// What became of a result that was looked for.
#[derive(Debug, Clone, PartialEq)]
pub enum Pulled {
    /// The cache has it now; this much had to be carried over.
    Taken(Box<Record>, Transfer),
    /// The remote does not have it.
    Absent,
    /// What the remote has cannot be trusted; nothing of it was stored.
    Damaged {
        /// The object.
        object: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// A record with its file's bytes, or what became of it.
type Found = Result<(Record, Vec<u8>), Pulled>;

/// How large a log may be, whose size no record tells. Whoever sends without end must not fill the disk.
const MOST_LOG_BYTES: u64 = 4 << 30;

/// How often blobs that garbage collection takes away before the record is written are fetched again.
const ROUNDS: usize = 3;

impl Remote {
    /// Takes one result into the cache, if the remote has it. The caller keeps it from garbage collection, by a lease.
    ///
    /// # Errors
    /// [`RemoteError`] if the remote cannot be used, or the cache cannot be written.
    pub fn pull(
        &self,
        cache: &Cache,
        fingerprint: &Digest,
        check: CheckRecord<'_>,
        stop: Stop<'_>,
    ) -> Result<Pulled, RemoteError> {
        let (record, sealed) = match self.find(fingerprint, check, stop)? {
            Ok(found) => found,
            Err(other) => return Ok(other),
        };
        let mut transfer = Transfer::default();
        for _ in 0..ROUNDS {
            let missing: Vec<_> = cache.missing_blobs(&record).into_iter().collect();
            let fetched =
                side_by_side(FILES_AT_ONCE, &missing, |_, (digest, size)| self.fetch(cache, digest, *size, stop))?;
            for fetched in fetched {
                match fetched {
                    Ok(size_bytes) => {
                        transfer.files += 1;
                        transfer.size_bytes += size_bytes;
                    }
                    Err((object, reason)) => return Ok(Pulled::Damaged { object, reason }),
                }
            }
            // A blob that was there and that nobody needed may have been collected meanwhile. From now on none is.
            let _hold = cache.hold()?;
            if cache.missing_blobs(&record).is_empty() {
                cache.write_whole(&cache.record_path(fingerprint), &sealed, 0o644)?;
                return Ok(Pulled::Taken(Box::new(record), transfer));
            }
        }
        let object = record_name(fingerprint);
        Ok(Pulled::Damaged { object, reason: "its files vanish from the cache as they arrive".to_owned() })
    }

    /// As [`Remote::pull`], but stores nothing; the transfer is what there would be to carry over.
    ///
    /// # Errors
    /// [`RemoteError`] if the remote cannot be used.
    pub fn look(
        &self,
        cache: &Cache,
        fingerprint: &Digest,
        check: CheckRecord<'_>,
        stop: Stop<'_>,
    ) -> Result<Pulled, RemoteError> {
        let record = match self.find(fingerprint, check, stop)? {
            Ok((record, _)) => record,
            Err(other) => return Ok(other),
        };
        let mut transfer = Transfer::default();
        for (digest, size) in cache.missing_blobs(&record) {
            let object = blob_name(&digest);
            let size_there = self.objects.size(&object, stop);
            let Some(there) = size_there.map_err(|trouble| self.failed("look for", &object, trouble))? else {
                return Ok(Pulled::Damaged { object, reason: missing_text(fingerprint) });
            };
            transfer.files += 1;
            transfer.size_bytes += size.unwrap_or(there);
        }
        Ok(Pulled::Taken(Box::new(record), transfer))
    }

    /// Returns whether anything was ever sent to the remote.
    ///
    /// # Errors
    /// [`RemoteError`] if the remote cannot be used.
    pub fn is_there(&self) -> Result<bool, RemoteError> {
        self.has_version(&|| false)
    }

    /// Returns the record of a result and nothing else of it; what became of it if there is none that can be trusted.
    ///
    /// # Errors
    /// [`RemoteError`] if the remote cannot be used.
    pub fn record(
        &self,
        fingerprint: &Digest,
        check: CheckRecord<'_>,
        stop: Stop<'_>,
    ) -> Result<Result<Record, Pulled>, RemoteError> {
        Ok(self.find(fingerprint, check, stop)?.map(|(record, _)| record))
    }

    /// Returns the record, if there is one that can be trusted.
    fn find(&self, fingerprint: &Digest, check: CheckRecord<'_>, stop: Stop<'_>) -> Result<Found, RemoteError> {
        if !self.has_version(stop)? {
            return Ok(Err(Pulled::Absent));
        }
        let object = record_name(fingerprint);
        let Some(bytes) = self.read_small(&object, stop)? else { return Ok(Err(Pulled::Absent)) };
        let checked = unseal(&bytes, fingerprint).and_then(|record| check(&record).map(|()| record));
        Ok(match checked {
            Ok(record) => Ok((record, bytes)),
            Err(reason) => Err(Pulled::Damaged { object, reason }),
        })
    }

    /// Carries one blob over and returns its size, or the object's name and what is wrong with it.
    fn fetch(
        &self,
        cache: &Cache,
        digest: &Digest,
        size: Option<u64>,
        stop: Stop<'_>,
    ) -> Result<Result<u64, (String, String)>, RemoteError> {
        let object = blob_name(digest);
        let temporary = cache.temporary();
        let write = |error| CacheError::io("write", &temporary)(error);
        let mut file = File::create_new(&temporary).map_err(write)?;
        let (mut hasher, mut found_bytes) = (blake3::Hasher::new(), 0);
        let most = size.unwrap_or(MOST_LOG_BYTES);
        let read = self.objects.read(&object, stop, &mut |piece| {
            hasher.update(piece);
            found_bytes += piece.len() as u64;
            if found_bytes > most { Err(io::ErrorKind::FileTooLarge.into()) } else { file.write_all(piece) }
        });
        let found = Digest::from_bytes(*hasher.finalize().as_bytes());
        let refused = match read {
            Ok(true) if found != *digest => Some(format!("its bytes have the digest {found}")),
            Ok(true) if size.is_some_and(|size| size != found_bytes) => {
                Some(format!("it has {found_bytes} bytes, and its record says {most}"))
            }
            Ok(true) => None,
            Ok(false) => Some("a record names it, but it is missing".to_owned()),
            Err(Trouble::Local(_)) if found_bytes > most => {
                let who = if size.is_some() { "its record says" } else { "a log may have" };
                Some(format!("it has more than the {most} bytes that {who}"))
            }
            Err(trouble) => {
                let _ = fs::remove_file(&temporary);
                return Err(match trouble {
                    Trouble::Local(error) => write(error).into(),
                    trouble => self.failed("read", &object, trouble),
                });
            }
        };
        if let Some(reason) = refused {
            let _ = fs::remove_file(&temporary);
            return Ok(Err((object, reason)));
        }
        let prepared = file.set_permissions(Permissions::from_mode(0o444)).and_then(|()| sync_early(&file));
        prepared.map_err(|error| {
            let _ = fs::remove_file(&temporary);
            write(error)
        })?;
        cache.publish(&temporary, &cache.blob_path(digest))?;
        Ok(Ok(found_bytes))
    }
}

fn missing_text(fingerprint: &Digest) -> String {
    format!("record {} names it, but it is missing", fingerprint.short())
}

impl Cache {
    /// Returns the blobs of a record that are not present, with their sizes where the record tells.
    fn missing_blobs(&self, record: &Record) -> BTreeMap<Digest, Option<u64>> {
        let outputs = record.artifact.outputs.iter();
        let outputs = outputs.filter(|output| !self.has_blob(&output.digest, output.size_bytes));
        let log = record.log.iter().filter(|digest| self.blob_stamp(digest).is_none());
        let outputs = outputs.map(|output| (output.digest, Some(output.size_bytes)));
        log.map(|digest| (*digest, None)).chain(outputs).collect()
    }
}
