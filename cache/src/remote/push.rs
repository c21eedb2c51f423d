//! Sending a result: its blobs, then its record.

use std::collections::BTreeMap;
use std::fs;

use super::objects::{Body, Trouble};
use super::{FILES_AT_ONCE, Remote, RemoteError, Stop, Transfer, blob_name, record_name, side_by_side};
use crate::record::unseal;
use crate::{BlobState, Cache, Digest, Record};

/// How to send.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PushOptions {
    /// Send also what seems to be there already: this mends objects that were damaged.
    pub again: bool,
    /// Send nothing, and say what would be sent.
    pub dry_run: bool,
}

/// What became of a result that was to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pushed {
    /// It is there now; this much was not there before. With [`PushOptions::dry_run`], it would be.
    Sent(Transfer),
    /// It was there.
    Known,
    /// The remote has other bytes for the same key, and keeps them.
    Other {
        /// The digest of the artifact there.
        artifact: Digest,
    },
    /// The cache does not have it, or not whole.
    Incomplete {
        /// What is missing or damaged.
        reason: String,
    },
}

impl Remote {
    /// Sends one result, unless it is there. The caller keeps it from garbage collection, by a lease.
    ///
    /// # Errors
    /// [`RemoteError`] if the remote cannot be used, or the cache cannot be read.
    pub fn push(
        &self,
        cache: &Cache,
        fingerprint: &Digest,
        options: PushOptions,
        stop: Stop<'_>,
    ) -> Result<Pushed, RemoteError> {
        let Some((record, sealed)) = cache.sealed_record(fingerprint)? else {
            return Ok(Pushed::Incomplete { reason: "its record is missing or damaged".to_owned() });
        };
        let is_there = if options.dry_run { self.has_version(stop)? } else { self.prepare(stop).map(|()| true)? };
        if !options.again
            && is_there
            && let Some(theirs) = self.known(fingerprint, stop)?
        {
            let artifact = theirs.artifact.digest;
            return Ok(if artifact == record.artifact.digest { Pushed::Known } else { Pushed::Other { artifact } });
        }
        let blobs: Vec<_> = cache.blob_sizes(&record).into_iter().collect();
        if let Some((_, (name, _))) = blobs.iter().find(|(_, (_, size))| size.is_none()) {
            return Ok(Pushed::Incomplete { reason: format!("file `{name}` is missing from the cache") });
        }
        let sent = side_by_side(FILES_AT_ONCE, &blobs, |_, (digest, (name, size_bytes))| {
            let (object, size_bytes) = (blob_name(digest), size_bytes.unwrap_or(0));
            let failed = |action, trouble| self.failed(action, &object, trouble);
            if !options.again && is_there {
                let size_there = self.objects.size(&object, stop).map_err(|trouble| failed("look for", trouble))?;
                if size_there == Some(size_bytes) {
                    return Ok(Ok(None));
                }
            }
            if options.dry_run {
                return Ok(Ok(Some(size_bytes)));
            }
            match cache.check_blob(digest)? {
                BlobState::Intact => {}
                BlobState::Missing => return Ok(Err(format!("file `{name}` is missing from the cache"))),
                BlobState::Damaged { quarantined } => {
                    let place = quarantined.display();
                    return Ok(Err(format!("file `{name}` is damaged in the cache; it was moved to `{place}`")));
                }
            }
            match self.objects.write(&object, Body::File(&cache.blob_path(digest)), stop) {
                // It went away since it was looked at.
                Err(Trouble::Local(error)) => Ok(Err(format!("file `{name}` cannot be read: {error}"))),
                written => written.map(|()| Ok(Some(size_bytes))).map_err(|trouble| failed("write", trouble)),
            }
        })?;
        let mut transfer = Transfer::default();
        for sent in sent {
            match sent {
                Err(reason) => return Ok(Pushed::Incomplete { reason }),
                Ok(None) => {}
                Ok(Some(size_bytes)) => {
                    transfer.files += 1;
                    transfer.size_bytes += size_bytes;
                }
            }
        }
        if !options.dry_run {
            let object = record_name(fingerprint);
            let written = self.objects.write(&object, Body::Bytes(&sealed), stop);
            written.map_err(|trouble| self.failed("write", &object, trouble))?;
        }
        Ok(Pushed::Sent(transfer))
    }

    /// Returns the record that the remote has, if it can be trusted; one that cannot is replaced.
    fn known(&self, fingerprint: &Digest, stop: Stop<'_>) -> Result<Option<Record>, RemoteError> {
        let bytes = self.read_small(&record_name(fingerprint), stop)?;
        Ok(bytes.and_then(|bytes| unseal(&bytes, fingerprint).ok()))
    }
}

impl Cache {
    /// Returns each blob of a record with what it is called there and its size, if it is present.
    pub(super) fn blob_sizes(&self, record: &Record) -> BTreeMap<Digest, (String, Option<u64>)> {
        let size = |digest: &Digest| fs::metadata(self.blob_path(digest)).ok().map(|metadata| metadata.len());
        let outputs = record.artifact.outputs.iter().map(|output| {
            let is_whole = self.has_blob(&output.digest, output.size_bytes);
            (output.digest, (output.path.clone(), is_whole.then_some(output.size_bytes)))
        });
        let log = record.log.iter().map(|digest| (*digest, ("log".to_owned(), size(digest))));
        log.chain(outputs).collect()
    }
}
