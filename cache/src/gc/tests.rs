//! What collections keep and what they take, alone and in company.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::ops::ControlFlow;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::record::tests::example;
use crate::{Cache, Lookup, Output, Record, artifact_digest};

/// Keeps nothing of its own accord.
fn nothing() -> Keep {
    Keep {
        results: BTreeSet::new(),
        blobs: BTreeSet::new(),
        runs: 0,
        younger_than: Duration::ZERO,
        size_bytes: None,
        grace: Duration::ZERO,
    }
}

fn key(number: usize) -> Digest {
    Digest::of(format!("key {number}").as_bytes())
}

/// Stores a result with these file contents.
fn put(cache: &Cache, number: usize, contents: &[u8]) -> Record {
    let mut record = example(cache, key(number));
    // The example's own files belong to no result of these tests.
    for output in &record.artifact.outputs {
        let _ = fs::remove_file(cache.blob_path(&output.digest));
    }
    let output = |(index, byte): (usize, &u8)| Output {
        path: format!("{index}.bin"),
        size_bytes: 100 + u64::from(*byte),
        digest: cache.store_bytes(&vec![*byte; 100 + usize::from(*byte)]).unwrap(),
        format: "bytes".to_owned(),
        summary: String::new(),
    };
    record.artifact.outputs = contents.iter().enumerate().map(output).collect();
    record.artifact.digest = artifact_digest(&record.artifact.outputs);
    cache.put_record(&record).unwrap();
    record
}

fn is_whole(cache: &Cache, number: usize) -> bool {
    matches!(cache.lookup(&key(number)).unwrap(), Lookup::Hit(_))
}

fn blobs(cache: &Cache) -> BTreeSet<Digest> {
    cache.files("blobs", "").unwrap().into_iter().map(|(_, digest)| digest.unwrap()).collect()
}

fn collect(cache: &Cache, keep: &Keep) -> BTreeMap<Class, (u64, u64)> {
    let garbage = cache.garbage(keep).unwrap();
    let planned = garbage.classes.clone();
    let collected = cache.collect(garbage).unwrap();
    assert_eq!((&collected.classes, collected.spared), (&planned, 0), "the look and the deed agree");
    planned.into_iter().map(|class| (class.class, (class.count, class.size_bytes))).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    /// Whatever the roots are, all that belongs to them stays whole, and nothing else is left.
    #[test]
    fn exactly_what_the_roots_reach_stays(
        contents in prop::collection::vec(prop::collection::vec(0_u8..8, 0..4), 0..10),
        locked in prop::collection::btree_set(0_usize..10, 0..4),
        used in prop::collection::vec(prop::collection::btree_set(0_usize..10, 0..4), 0..5),
        pinned in prop::collection::btree_set(0_usize..5, 0..2),
        runs in 0_usize..4,
        orphans in prop::collection::vec(20_u8..24, 0..3),
        has_log in any::<bool>(),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path()).unwrap();
        let mut wanted: Vec<BTreeSet<Digest>> = Vec::new();
        for (number, contents) in contents.iter().enumerate() {
            let mut record = put(&cache, number, contents);
            if has_log && number % 2 == 0 {
                record.log = Some(cache.store_bytes(format!("log {number}").as_bytes()).unwrap());
                cache.put_record(&record).unwrap();
            }
            wanted.push(record.blobs().collect());
        }
        for byte in orphans {
            cache.store_bytes(&[byte; 9]).unwrap();
        }
        let mut kept = locked.clone();
        for (index, results) in used.iter().enumerate() {
            let folder = cache.create_run(&format!("2026112{index}T000000Z")).unwrap();
            let results: Vec<Digest> = results.iter().copied().map(key).collect();
            folder.lease(&cache).unwrap().add(&cache, &results).unwrap();
            if pinned.contains(&index) {
                cache.pin_run(folder.id(), true).unwrap();
            }
        }
        for (index, results) in used.iter().enumerate() {
            if pinned.contains(&index) || index + runs >= used.len() {
                kept.extend(results);
            }
        }
        let keep = Keep { results: locked.iter().copied().map(key).collect(), runs, ..nothing() };
        let garbage = cache.garbage(&keep).unwrap();
        prop_assert_eq!(garbage.kept_results as usize, kept.iter().filter(|number| **number < contents.len()).count());
        let before = blobs(&cache);
        prop_assert_eq!(&blobs(&cache), &before, "the look deletes nothing");
        cache.collect(garbage).unwrap();
        for number in 0..contents.len() {
            prop_assert_eq!(is_whole(&cache, number), kept.contains(&number));
        }
        let left: BTreeSet<Digest> =
            kept.iter().filter_map(|number| wanted.get(*number)).flatten().copied().collect();
        prop_assert_eq!(blobs(&cache), left);
        prop_assert_eq!(cache.garbage(&keep).unwrap().classes, []);
    }
}

#[test]
fn every_class_of_garbage_is_counted_and_taken() {
    let dir = tempfile::tempdir().unwrap();
    let cache = Cache::open(dir.path()).unwrap();
    put(&cache, 0, &[1]);
    put(&cache, 1, &[1, 2]);
    cache.collect(cache.garbage(&Keep { results: [key(0), key(1)].into(), ..nothing() }).unwrap()).unwrap();
    cache.store_bytes(b"orphan").unwrap();
    let damaged = cache.record_path(&key(9));
    fs::create_dir_all(damaged.parent().unwrap()).unwrap();
    fs::write(&damaged, "{}").unwrap();
    fs::write(dir.path().join("tmp/left"), "four").unwrap();
    fs::write(dir.path().join("quarantine/bad"), "three").unwrap();
    // One whose result is known, and one that was given up.
    for number in [0, 5] {
        let mut work = cache.lock(&key(number), &mut |_| ControlFlow::Break(())).unwrap().unwrap();
        work.begin(false).unwrap();
        fs::write(work.scratch_dir().join("checkpoint"), vec![0; 50]).unwrap();
    }
    let record = fs::metadata(cache.record_path(&key(1))).unwrap().len();
    let work: u64 = crate::usage::weigh(&dir.path().join("work")).unwrap().1;
    let taken = collect(&cache, &Keep { results: [key(0)].into(), ..nothing() });
    let expected = [
        (Class::Results, (1, record + 102)), // the blob of 101 bytes belongs to the other result too
        (Class::DamagedRecords, (1, 2)),
        (Class::OrphanBlobs, (1, 6)),
        (Class::WorkFolders, (2, work)),
        (Class::Temporaries, (1, 4)),
        (Class::Quarantine, (1, 5)),
    ];
    assert_eq!(taken, expected.into());
    assert!(is_whole(&cache, 0));
    assert_eq!(fs::read_dir(dir.path().join("work")).unwrap().count(), 0);
}

#[test]
fn what_is_young_or_may_still_be_written_stays() {
    let dir = tempfile::tempdir().unwrap();
    let cache = Cache::open(dir.path()).unwrap();
    put(&cache, 0, &[1]);
    cache.store_bytes(b"orphan").unwrap();
    fs::write(dir.path().join("tmp/left"), "four").unwrap();
    fs::write(dir.path().join("quarantine/bad"), "three").unwrap();
    let mut work = cache.lock(&key(5), &mut |_| ControlFlow::Break(())).unwrap().unwrap();
    work.begin(false).unwrap();
    drop(work);
    let hour = Duration::from_secs(3600);
    assert_eq!(collect(&cache, &Keep { younger_than: hour, grace: hour, ..nothing() }), BTreeMap::new());
}

#[test]
fn a_bound_on_the_size_takes_what_was_used_longest_ago_and_no_more_than_it_must() {
    let dir = tempfile::tempdir().unwrap();
    let cache = Cache::open(dir.path()).unwrap();
    let mut sizes = Vec::new();
    for number in 0..4 {
        let before = cache.garbage(&nothing()).unwrap().size_bytes();
        put(&cache, number, &[number as u8]);
        sizes.push(cache.garbage(&nothing()).unwrap().size_bytes() - before);
        std::thread::sleep(Duration::from_millis(5));
    }
    // The oldest is used again, by a run that is over.
    let folder = cache.create_run("20261121T225553Z").unwrap();
    folder.lease(&cache).unwrap().add(&cache, &[key(0)]).unwrap();
    // Two bytes more than the two that were used last.
    let most = sizes[0] + sizes[3] + 2;
    let keep = Keep { size_bytes: Some(most), ..nothing() };
    let garbage = cache.garbage(&keep).unwrap();
    assert_eq!((garbage.results.clone(), garbage.kept_bytes), (vec![key(1), key(2)], sizes[0] + sizes[3]));
    cache.collect(garbage).unwrap();
    assert_eq!([0, 1, 2, 3].map(|number| is_whole(&cache, number)), [true, false, false, true]);
    // What is needed stays, however small the bound.
    let keep = Keep { size_bytes: Some(1), results: [key(3)].into(), ..nothing() };
    collect(&cache, &keep);
    assert_eq!([0, 3].map(|number| is_whole(&cache, number)), [false, true]);
}

#[test]
fn a_lock_file_keeps_blobs_whose_record_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let cache = Cache::open(dir.path()).unwrap();
    let digest = cache.store_bytes(b"figure").unwrap();
    assert_eq!(collect(&cache, &Keep { blobs: [digest].into(), ..nothing() }), BTreeMap::new());
}

#[test]
fn what_came_into_use_after_the_look_is_spared() {
    let dir = tempfile::tempdir().unwrap();
    let cache = Cache::open(dir.path()).unwrap();
    for number in 0..4 {
        put(&cache, number, &[number as u8]);
    }
    let orphan = cache.store_bytes(b"orphan").unwrap();
    let garbage = cache.garbage(&nothing()).unwrap();
    // A run that finds a result, makes a new one from bytes that were there, and ends before anything is deleted.
    let folder = cache.create_run("20261121T225553Z").unwrap();
    let lease = folder.lease(&cache).unwrap();
    lease.add(&cache, &[key(0), key(7)]).unwrap();
    let hold = cache.hold().unwrap();
    let mut record = put(&cache, 7, &[1]);
    record.log = Some(orphan);
    cache.put_record(&record).unwrap();
    drop((hold, lease, folder));
    // A result that was made again, by nobody who is known.
    std::thread::sleep(Duration::from_millis(5));
    put(&cache, 2, &[2]);

    let collected = cache.collect(garbage).unwrap();
    assert_eq!([0, 1, 2, 3, 7].map(|number| is_whole(&cache, number)), [true, false, true, false, true]);
    assert!(cache.has_blob(&orphan, 6));
    assert!(collected.spared >= 3, "{collected:?}");
}

#[test]
fn a_computation_that_is_under_way_keeps_its_folder_and_what_it_needs() {
    let dir = tempfile::tempdir().unwrap();
    let cache = Cache::open(dir.path()).unwrap();
    put(&cache, 0, &[1]);
    let folder = cache.create_run("20261121T225553Z").unwrap();
    let lease = folder.lease(&cache).unwrap();
    lease.add(&cache, &[key(0), key(5)]).unwrap();
    let mut work = cache.lock(&key(5), &mut |_| ControlFlow::Break(())).unwrap().unwrap();
    work.begin(false).unwrap();
    assert_eq!(collect(&cache, &nothing()), BTreeMap::new());
    // Stopped: the run is the last one, so its checkpoint stays for the next.
    drop((lease, work));
    assert_eq!(collect(&cache, &Keep { runs: 1, ..nothing() }), BTreeMap::new());
    assert_eq!(collect(&cache, &nothing()).len(), 2);
}

#[test]
fn a_damaged_cache_loses_nothing_that_is_whole() {
    let dir = tempfile::tempdir().unwrap();
    let cache = Cache::open(dir.path()).unwrap();
    let damaged = put(&cache, 0, &[1, 2]);
    put(&cache, 1, &[2, 3]);
    let broken = put(&cache, 2, &[4]);
    // A flipped bit in a record, another in a blob, a blob that is gone, and files that nobody knows.
    let path = cache.record_path(&key(0));
    let mut bytes = fs::read(&path).unwrap();
    bytes[200] ^= 1;
    fs::write(&path, bytes).unwrap();
    let path = cache.blob_path(&put(&cache, 3, &[5]).artifact.outputs[0].digest);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    fs::write(&path, vec![9; 105]).unwrap();
    fs::remove_file(cache.blob_path(&broken.artifact.outputs[0].digest)).unwrap();
    fs::write(dir.path().join("blobs/readme.txt"), "hello").unwrap();
    fs::write(dir.path().join("records/ab"), "hello").unwrap();

    let keep = Keep { results: (0..4).map(key).collect(), ..nothing() };
    let taken = collect(&cache, &keep);
    // Of the damaged record: itself, and the blob that only it named.
    assert_eq!(taken.keys().copied().collect::<Vec<_>>(), [Class::DamagedRecords, Class::OrphanBlobs]);
    assert!(is_whole(&cache, 1) && is_whole(&cache, 3), "whether bytes are right is for those who read them");
    assert!(!cache.has_blob(&damaged.artifact.outputs[0].digest, 101));
    assert!(matches!(cache.lookup(&key(2)).unwrap(), Lookup::MissingBlob { .. }));
    assert!(Path::new(&dir.path().join("blobs/readme.txt")).exists());
}

/// Runs that find, make and read results while the cache is collected again and again with no roots but theirs.
#[test]
fn runs_beside_collections_never_lose_what_they_found_or_made() {
    let dir = tempfile::tempdir().unwrap();
    let cache = Cache::open(dir.path()).unwrap();
    let is_over = AtomicBool::new(false);
    let found = std::thread::scope(|scope| {
        let runs: Vec<_> = (0..3)
            .map(|worker| {
                let cache = &cache;
                scope.spawn(move || {
                    let mut found = 0;
                    for turn in 0..60 {
                        let folder = cache.create_run("20261121T225553Z").unwrap();
                        let lease = folder.lease(cache).unwrap();
                        let wanted = [turn / 3, turn / 2, turn + worker];
                        lease.add(cache, &wanted.map(key)).unwrap();
                        for number in wanted {
                            match cache.lookup(&key(number)).unwrap() {
                                Lookup::Hit(_) => found += 1,
                                _ => {
                                    let _hold = cache.hold().unwrap();
                                    put(cache, number, &[(number % 7) as u8, (number % 5) as u8]);
                                }
                            }
                        }
                        for number in wanted {
                            let Lookup::Hit(record) = cache.lookup(&key(number)).unwrap() else {
                                panic!("result {number} went away while a run needed it");
                            };
                            for output in &record.artifact.outputs {
                                assert_eq!(cache.check_blob(&output.digest).unwrap(), crate::BlobState::Intact);
                            }
                        }
                    }
                    found
                })
            })
            .collect();
        let collector = scope.spawn(|| {
            let mut taken = 0;
            // No grace: files that are stored before their record are kept by the lock alone.
            while !is_over.load(Ordering::Relaxed) {
                let garbage = cache.garbage(&nothing()).unwrap();
                taken += cache.collect(garbage).unwrap().classes.iter().map(|class| class.count).sum::<u64>();
            }
            taken
        });
        let found: u32 = runs.into_iter().map(|run| run.join().unwrap()).sum();
        is_over.store(true, Ordering::Relaxed);
        assert!(collector.join().unwrap() > 0);
        found
    });
    assert!(found > 0, "no run ever found a result of another");
}
