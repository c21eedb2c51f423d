//! Looks at the whole cache and says what nobody needs. Deletes nothing.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use super::watch::Watch;
use super::{Class, FileItem, Garbage, Item, Keep, Tally, WorkItem};
use crate::lease::is_held;
use crate::usage::weigh;
use crate::verify::list;
use crate::{Cache, CacheError, Digest, Stamp};

/// A record that can be trusted.
struct Seen {
    fingerprint: Digest,
    stamp: Stamp,
    last_use: i64,
    blobs: Vec<Digest>,
}

impl Cache {
    /// Returns what nobody needs. Deletes nothing.
    ///
    /// # Errors
    /// [`CacheError`] if the cache cannot be read.
    pub fn garbage(&self, keep: &Keep) -> Result<Garbage, CacheError> {
        let hold = self.hold_alone()?;
        let mut watch = Watch::begin(self, keep)?;
        drop(hold);
        let now = Stamp::now();
        let is_old = |then: i64, time: Duration| now.saturating_sub(then) >= nanoseconds(time);
        let mut tally = Tally::default();
        let (mut seen, damaged) = self.seen_records()?;
        seen.sort_by_key(|record| (record.last_use, record.fingerprint));
        let blobs: BTreeMap<Digest, Stamp> = self
            .files("blobs", "")?
            .into_iter()
            .filter_map(|(path, digest)| Some((digest?, Stamp::of(&fs::metadata(path).ok()?))))
            .collect();
        // How many records need each blob; what the roots name themselves is needed once more.
        let mut users: BTreeMap<Digest, u32> = watch.blobs.iter().map(|digest| (*digest, 1)).collect();
        for digest in seen.iter().flat_map(|record| &record.blobs) {
            *users.entry(*digest).or_default() += 1;
        }

        let work = self.needless_work(&watch, &is_old, keep)?;
        work.iter().for_each(|item| tally.add(Class::WorkFolders, 1, item.size_bytes));
        let files = self.needless_files(&watch, &is_old, keep)?;
        files.iter().for_each(|item| tally.add(item.class, 1, item.stamp.size_bytes));
        damaged.iter().for_each(|item| tally.add(Class::DamagedRecords, 1, item.stamp.size_bytes));
        let mut doomed = Vec::new();
        for (digest, stamp) in blobs.iter().filter(|(digest, _)| !users.contains_key(digest)) {
            if is_old(stamp.changed, keep.grace) {
                tally.add(Class::OrphanBlobs, 1, stamp.size_bytes);
                doomed.push(Item { digest: *digest, stamp: *stamp, class: Class::OrphanBlobs });
            }
        }
        let mut remaining = self.size_bytes()?.saturating_sub(tally.0.values().map(|(_, bytes)| bytes).sum());

        let (mut results, mut records, mut kept_results) = (Vec::new(), damaged, 0);
        for record in seen {
            let is_needed = watch.results.contains(&record.fingerprint) || !is_old(record.last_use, keep.younger_than);
            if is_needed || keep.size_bytes.is_some_and(|most| remaining <= most) {
                watch.blobs.extend(&record.blobs);
                kept_results += 1;
                continue;
            }
            let mut freed = record.stamp.size_bytes;
            for digest in &record.blobs {
                let Some(count) = users.get_mut(digest) else { continue };
                *count -= 1;
                if let (0, Some(stamp)) = (*count, blobs.get(digest)) {
                    freed += stamp.size_bytes;
                    doomed.push(Item { digest: *digest, stamp: *stamp, class: Class::Results });
                }
            }
            tally.add(Class::Results, 1, freed);
            remaining = remaining.saturating_sub(freed);
            results.push(record.fingerprint);
            records.push(Item { digest: record.fingerprint, stamp: record.stamp, class: Class::Results });
        }
        let classes = tally.classes();
        Ok(Garbage {
            classes,
            kept_results,
            kept_bytes: remaining,
            results,
            records,
            blobs: doomed,
            work,
            files,
            watch,
        })
    }

    /// Returns the records that can be trusted and those that cannot.
    fn seen_records(&self) -> Result<(Vec<Seen>, Vec<Item>), CacheError> {
        let uses = self.last_uses()?;
        let (mut seen, mut damaged) = (Vec::new(), Vec::new());
        for (_, fingerprint) in self.files("records", ".json")? {
            let Some(fingerprint) = fingerprint else { continue };
            // Before the bytes: a record that is replaced in between then differs from its stamp and is spared.
            let Some(stamp) = self.record_stamp(&fingerprint) else { continue };
            match self.peek_record(&fingerprint)? {
                None => {}
                Some(Ok(record)) => {
                    let last_use = stamp.modified.max(uses.get(&fingerprint).copied().unwrap_or(0));
                    seen.push(Seen { fingerprint, stamp, last_use, blobs: record.blobs().collect() });
                }
                Some(Err(_)) => damaged.push(Item { digest: fingerprint, stamp, class: Class::DamagedRecords }),
            }
        }
        Ok((seen, damaged))
    }

    /// Returns the work folders of computations that are finished or that nobody needs and nobody is at.
    fn needless_work(
        &self,
        watch: &Watch,
        is_old: &dyn Fn(i64, Duration) -> bool,
        keep: &Keep,
    ) -> Result<Vec<WorkItem>, CacheError> {
        let mut items = Vec::new();
        for path in list(&self.root().join("work"))? {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let fingerprint: Option<Digest> = name.parse().ok();
            let is_needless = match fingerprint {
                Some(fingerprint) if self.record_stamp(&fingerprint).is_some() => true,
                Some(fingerprint) => {
                    !watch.results.contains(&fingerprint) && is_old(last_change(&path), keep.younger_than)
                }
                None => is_old(last_change(&path), keep.grace),
            };
            if is_needless && path.is_dir() && !is_held(&path.join("lock"))? {
                let (_, size_bytes) = weigh(&path)?;
                items.push(WorkItem { path, fingerprint, size_bytes });
            }
        }
        Ok(items)
    }

    /// Returns the temporary files, leases and damaged files that lie there for long.
    fn needless_files(
        &self,
        watch: &Watch,
        is_old: &dyn Fn(i64, Duration) -> bool,
        keep: &Keep,
    ) -> Result<Vec<FileItem>, CacheError> {
        let temporaries = list(&self.root().join("tmp"))?.into_iter().chain(watch.left.iter().cloned());
        let temporaries = temporaries.map(|path| (path, Class::Temporaries, keep.grace));
        let damaged = list(&self.root().join("quarantine"))?;
        let damaged = damaged.into_iter().map(|path| (path, Class::Quarantine, keep.younger_than));
        let item = |(path, class, time)| {
            let metadata = fs::symlink_metadata(&path).ok().filter(|metadata| !metadata.is_dir())?;
            let stamp = Stamp::of(&metadata);
            is_old(stamp.changed, time).then_some(FileItem { path, stamp, class })
        };
        Ok(temporaries.chain(damaged).filter_map(item).collect())
    }

    /// Returns how many bytes the cache has, histories of runs and the index not counted.
    fn size_bytes(&self) -> Result<u64, CacheError> {
        let counted = self.usage()?.into_iter().filter(|usage| !["runs", "index"].contains(&usage.folder));
        Ok(counted.map(|usage| usage.size_bytes).sum())
    }
}

/// Returns when a work folder was last written to, as far as its own entries and checkpoints tell.
fn last_change(folder: &Path) -> i64 {
    let changed = |path: &Path| fs::symlink_metadata(path).map_or(0, |metadata| Stamp::of(&metadata).changed);
    let within = |path: &Path| list(path).unwrap_or_default();
    let entries = within(folder).into_iter().chain(within(&folder.join("scratch")));
    entries.map(|path| changed(&path)).fold(changed(folder), i64::max)
}

fn nanoseconds(time: Duration) -> i64 {
    i64::try_from(time.as_nanos()).unwrap_or(i64::MAX)
}
