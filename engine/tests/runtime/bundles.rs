//! Bundles: the same bytes each time, every damage named, nothing written where it does not belong.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use spdflow_cache::{Cache, Lookup};
use spdflow_engine::bundle::{Arguments, BundleError, Packed, Packing, Problem, Unpacked, pack, unpack};
use spdflow_engine::kind::Device;
use spdflow_engine::lock::Lock;
use spdflow_engine::pipeline::Pipeline;
use spdflow_engine::plan::Scope;
use spdflow_engine::present::{Lacking, Present, present};
use tar::EntryType;

use crate::support::{Place, chain, tree};

fn found(place: &Place, pipeline: &Pipeline) -> Vec<Present> {
    present(pipeline, &place.cache(), &Scope::default(), &Device::Cpu.into()).unwrap().unwrap()
}

fn bundled(place: &Place, pipeline: &Pipeline, name: &str, digests_only: bool) -> (PathBuf, Packed) {
    let (cache, results) = (place.cache(), found(place, pipeline));
    let arguments = Arguments { device: "cpu".to_owned(), ranks: 1, ..Arguments::default() };
    let packing = Packing { pipeline, cache: &cache, results: &results, arguments, digests_only };
    let path = place.dir.path().join(name);
    let packed = pack(&packing, &path).unwrap();
    (path, packed)
}

/// An entry of an archive, as it stands there.
#[derive(Clone)]
struct Item {
    path: Vec<u8>,
    kind: EntryType,
    bytes: Vec<u8>,
}

fn item(path: &str, kind: EntryType, bytes: &[u8]) -> Item {
    Item { path: path.as_bytes().to_vec(), kind, bytes: bytes.to_vec() }
}

fn items(archive: &Path) -> Vec<Item> {
    let bytes = zstd::decode_all(fs::File::open(archive).unwrap()).unwrap();
    let mut archive = tar::Archive::new(&*bytes);
    let entries = archive.entries().unwrap().map(|entry| {
        let mut entry = entry.unwrap();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        let header = entry.header();
        assert_eq!((header.mtime().unwrap(), header.uid().unwrap(), header.gid().unwrap()), (0, 0, 0));
        Item { path: entry.path_bytes().into_owned(), kind: header.entry_type(), bytes }
    });
    entries.collect()
}

/// Writes an archive of these entries, whatever they are called.
fn archive(place: &Place, items: &[Item]) -> PathBuf {
    let mut builder = tar::Builder::new(Vec::new());
    for Item { path, kind, bytes } in items {
        let mut header = tar::Header::new_gnu();
        header.as_gnu_mut().unwrap().name[..path.len()].copy_from_slice(path);
        header.set_entry_type(*kind);
        header.set_mode(0o644);
        let is_link = matches!(kind, EntryType::Symlink | EntryType::Link);
        if is_link {
            header.set_link_name("/etc").unwrap();
        }
        header.set_size(bytes.len() as u64);
        header.set_cksum();
        builder.append(&header, &**bytes).unwrap();
    }
    let path = place.dir.path().join("planted");
    fs::write(&path, zstd::encode_all(&*builder.into_inner().unwrap(), 1).unwrap()).unwrap();
    path
}

fn unpacked(place: &Place, archive: &Path) -> Result<Unpacked, BundleError> {
    let folder = place.dir.path().join("unpacked");
    let _ = fs::remove_dir_all(&folder);
    let result = unpack(archive, &folder);
    if result.is_err() {
        assert_eq!(fs::read_dir(&folder).map_or(0, Iterator::count), 0, "something was left of it");
    }
    result
}

/// Returns everything in the cache, with the times at which it was changed.
fn snapshot(place: &Place) -> BTreeMap<String, (Vec<u8>, SystemTime)> {
    let root = place.dir.path().join("cache");
    let with_time = |(path, bytes): (String, Vec<u8>)| {
        let time = fs::metadata(root.join(&path)).unwrap().modified().unwrap();
        (path, (bytes, time))
    };
    tree(&root).into_iter().map(with_time).collect()
}

#[test]
fn equal_results_make_equal_bundles_and_the_cache_stays_as_it_was() {
    let place = Place::new();
    let pipeline = chain(23);
    place.run(&pipeline);
    let before = snapshot(&place);
    let (first, packed) = bundled(&place, &pipeline, "first", false);
    let (second, _) = bundled(&place, &pipeline, "second", false);
    assert_eq!(fs::read(&first).unwrap(), fs::read(&second).unwrap());
    assert!(snapshot(&place) == before, "the cache was changed");
    assert_eq!(packed.size_bytes, fs::metadata(&first).unwrap().len());
    let files = items(&first).iter().filter(|item| item.kind == EntryType::Regular).count();
    assert_eq!(packed.files, files);
    assert_eq!(items(&first)[0].path, b"bundle.json");
}

#[test]
fn what_is_unpacked_is_a_cache_with_the_results_and_the_run_that_made_them() {
    let place = Place::new();
    let pipeline = chain(23);
    let run = place.run(&pipeline).summary.run;
    let (path, _) = bundled(&place, &pipeline, "bundle", false);
    let unpacked = unpacked(&place, &path).unwrap();
    assert_eq!((unpacked.problems.as_slice(), unpacked.left_out.as_slice()), (&[][..], &[][..]));
    assert_eq!((unpacked.name.as_str(), unpacked.arguments.ranks), ("p", 1));
    assert_eq!(fs::read_to_string(&unpacked.pipeline).unwrap(), "# by hand\n");
    let cache = Cache::open(&unpacked.cache).unwrap();
    let lock = Lock::parse(&fs::read_to_string(&unpacked.lock).unwrap()).unwrap();
    assert_eq!(lock.stages.len(), 3);
    for (instance, stage) in &lock.stages {
        let Lookup::Hit(record) = cache.lookup(&stage.fingerprint).unwrap() else { panic!("{instance} is not there") };
        assert_eq!(record.artifact.digest, stage.artifact);
        assert!(record.blobs().all(|blob| cache.blob_path(&blob).is_file()));
    }
    assert_eq!(cache.verify().unwrap().problems, []);
    let history = |root: &Path| tree(&root.join("runs").join(&run));
    assert_eq!(history(&unpacked.cache), history(place.cache().root()));
    // With a cache one can work.
    cache.store_bytes(b"something new").unwrap();
}

#[test]
fn of_digests_alone_everything_but_the_results_is_there() {
    let place = Place::new();
    let pipeline = chain(23);
    place.run(&pipeline);
    let (path, _) = bundled(&place, &pipeline, "bundle", true);
    let unpacked = unpacked(&place, &path).unwrap();
    assert_eq!(unpacked.problems, []);
    let named: std::collections::BTreeSet<_> =
        found(&place, &pipeline).iter().flat_map(|result| result.record.blobs().collect::<Vec<_>>()).collect();
    assert_eq!(
        unpacked.left_out.iter().map(|left| left.blake3).collect::<Vec<_>>(),
        named.into_iter().collect::<Vec<_>>()
    );
    assert!(tree(&unpacked.cache.join("blobs")).is_empty());
    assert_eq!(tree(&unpacked.cache.join("records")).len(), 3);
}

#[test]
fn what_is_lacking_is_named_instance_by_instance() {
    let place = Place::new();
    let pipeline = chain(23);
    let cache = place.cache();
    let lacks = || present(&pipeline, &cache, &Scope::default(), &Device::Cpu.into()).unwrap().unwrap_err();
    let words = || lacks().iter().map(ToString::to_string).collect::<Vec<_>>();
    let nothing = [
        "`a` has no result yet",
        "`b` has no result yet: it depends on `a`",
        "`c` has no result yet: it depends on `b`",
    ];
    assert_eq!(words(), nothing);
    place.run(&pipeline);
    let results = found(&place, &pipeline);
    let output = &results[2].record.artifact.outputs[1];
    fs::remove_file(cache.blob_path(&output.digest)).unwrap();
    assert_eq!(words(), ["`c`: its file `number.json` is missing from the cache"]);
    let record = cache.record_path(&results[1].record.fingerprint);
    fs::write(&record, "{}").unwrap();
    let first = lacks().swap_remove(0);
    assert!(matches!(&first.what, Lacking::Trust(wrong) if wrong.path == record), "{first}");
    assert!(record.exists());
}

#[test]
fn a_damaged_blob_is_named_and_no_bundle_is_left() {
    let place = Place::new();
    let pipeline = chain(23);
    place.run(&pipeline);
    let (cache, results) = (place.cache(), found(&place, &pipeline));
    let blob = cache.blob_path(&results[1].record.artifact.outputs[1].digest);
    let size = fs::metadata(&blob).unwrap().len();
    fs::remove_file(&blob).unwrap();
    fs::write(&blob, vec![b'!'; usize::try_from(size).unwrap()]).unwrap();
    let packing = Packing {
        pipeline: &pipeline,
        cache: &cache,
        results: &results,
        arguments: Arguments::default(),
        digests_only: false,
    };
    let error = pack(&packing, &place.dir.path().join("bundle")).unwrap_err().to_string();
    let expected = format!(
        "the file `number.json` of `b` is damaged in the cache: `{}` has other bytes than its name says",
        blob.display()
    );
    assert_eq!(error, expected);
    assert!(blob.exists());
    let left: Vec<_> = fs::read_dir(place.dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(left.iter().all(|name| name == "cache" || name == "out"), "{left:?}");
}

#[test]
fn every_file_that_is_changed_missing_or_added_is_named() {
    let place = Place::new();
    let pipeline = chain(23);
    place.run(&pipeline);
    let (path, _) = bundled(&place, &pipeline, "bundle", false);
    let whole = items(&path);
    let said = |items: &[Item]| {
        let problems = unpacked(&place, &archive(&place, items)).unwrap().problems;
        problems.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(said(&whole), [""; 0]);
    let files = whole.iter().enumerate().skip(1).filter(|(_, item)| item.kind == EntryType::Regular);
    for (index, item) in files {
        let name = String::from_utf8(item.path.clone()).unwrap();
        let mut items = whole.clone();
        items.remove(index);
        assert_eq!(said(&items), [format!("`{name}` is missing from the bundle")]);

        let mut items = whole.clone();
        let Some(byte) = items[index].bytes.last_mut() else { continue };
        *byte ^= 1;
        let [problem] = &said(&items)[..] else { panic!("one problem for {name}") };
        assert!(problem.starts_with(&format!("`{name}` was changed: it has BLAKE3 ")), "{problem}");

        let mut items = whole.clone();
        items[index].bytes.pop();
        let length = item.bytes.len();
        let size = |found: usize| format!("`{name}` has {found} bytes, its `bundle.json` says {length}");
        assert_eq!(said(&items), [size(length - 1)]);
        items[index].bytes.extend(b"xy");
        assert_eq!(said(&items), [size(length + 1)]);
    }
    let mut items = whole.clone();
    items.push(item("cache/records/more.json", EntryType::Regular, b"{}"));
    items.push(item("more/", EntryType::Directory, b""));
    items.push(whole.last().unwrap().clone());
    let last = String::from_utf8(whole.last().unwrap().path.clone()).unwrap();
    let more = "is in the bundle, but not in its `bundle.json`";
    let expected = [
        format!("`cache/records/more.json` {more}"),
        format!("`more/` {more}"),
        format!("`{last}` is in the bundle more than once"),
    ];
    assert_eq!(said(&items), expected);
    assert!(!place.dir.path().join("unpacked/more").exists());
}

#[test]
fn an_archive_that_was_cut_or_has_a_flipped_bit_is_an_error_or_has_a_problem() {
    let place = Place::new();
    let pipeline = chain(23);
    place.run(&pipeline);
    let (path, _) = bundled(&place, &pipeline, "bundle", false);
    let whole = fs::read(&path).unwrap();
    let planted = place.dir.path().join("planted");
    for length in (0..whole.len()).step_by(1 + whole.len() / 40) {
        fs::write(&planted, &whole[..length]).unwrap();
        let error = unpacked(&place, &planted).unwrap_err();
        assert!(matches!(error, BundleError::Damaged { .. } | BundleError::NotABundle { .. }), "{length}: {error}");
    }
    unpacked(&place, &path).unwrap();
    let folder = place.dir.path().join("unpacked");
    let (intact, mut unseen) = (tree(&folder), 0);
    for position in (0..whole.len()).step_by(1 + whole.len() / 100) {
        let mut bytes = whole.clone();
        bytes[position] ^= 0x10;
        fs::write(&planted, &bytes).unwrap();
        // Some bits mean nothing, such as one in the frame's header; then nothing may have changed.
        if unpacked(&place, &planted).is_ok_and(|found| found.problems.is_empty()) {
            assert!(tree(&folder) == intact, "a flipped bit at {position} went unseen");
            unseen += 1;
        }
    }
    assert!(unseen < 20, "{unseen} of about 100 flipped bits went unseen");
    fs::write(&planted, [&*whole, b"more"].concat()).unwrap();
    assert!(matches!(unpacked(&place, &planted), Err(BundleError::Damaged { .. })));
    let more = zstd::encode_all(&b"more"[..], 1).unwrap();
    fs::write(&planted, [&*whole, &*more].concat()).unwrap();
    assert_eq!(unpacked(&place, &planted).unwrap().problems, [Problem::Trailing]);
}

#[test]
fn what_would_be_written_elsewhere_ends_it_with_the_name() {
    let place = Place::new();
    let pipeline = chain(23);
    place.run(&pipeline);
    let (path, _) = bundled(&place, &pipeline, "bundle", false);
    let whole = items(&path);
    let said = |planted: Item, at: usize| {
        let mut items = whole.clone();
        items.insert(at, planted);
        unpacked(&place, &archive(&place, &items)).unwrap_err().to_string()
    };
    let outside = place.dir.path().join("outside");
    let absolute = outside.to_str().unwrap();
    let cases = [
        (absolute, EntryType::Regular, "lies outside of the bundle"),
        ("../outside", EntryType::Regular, "leads out of the bundle"),
        ("cache/../../outside", EntryType::Regular, "leads out of the bundle"),
        ("../outside/", EntryType::Directory, "leads out of the bundle"),
        ("cache//x", EntryType::Regular, "is not a plain path"),
        ("./x", EntryType::Regular, "is not a plain path"),
        ("cache/log", EntryType::Symlink, "is a symbolic link"),
        ("pipeline.lock", EntryType::Link, "is a hard link"),
        ("null", EntryType::Char, "is a device"),
        ("disk", EntryType::Block, "is a device"),
        ("pipe", EntryType::Fifo, "is a device"),
        ("x", EntryType::XHeader, "is neither a file nor a folder"),
        ("x", EntryType::GNUSparse, "is neither a file nor a folder"),
    ];
    for (name, kind, reason) in cases {
        for at in [0, 1, whole.len()] {
            let error = said(item(name, kind, b""), at);
            let expected = format!(
                "`{}` is not unpacked: its entry `{name}` {reason}",
                place.dir.path().join("planted").display()
            );
            assert_eq!(error, expected);
            assert!(!outside.exists());
        }
    }
    // A name of its own, by way of the extension for long names.
    let long = item("././@LongLink", EntryType::GNULongName, b"../outside\0");
    let mut items = whole.clone();
    items.splice(1..1, [long, item("x", EntryType::Regular, b"x")]);
    let error = unpacked(&place, &archive(&place, &items)).unwrap_err();
    assert!(matches!(&error, BundleError::Refused { entry, .. } if entry == "../outside"), "{error}");
}

#[test]
fn more_than_it_says_it_holds_is_not_written() {
    let place = Place::new();
    let pipeline = chain(23);
    place.run(&pipeline);
    let (path, _) = bundled(&place, &pipeline, "bundle", false);
    let whole = items(&path);
    let zeros = vec![0; 40 << 20];
    let named = whole.iter().position(|item| item.path == b"pipeline.lock").unwrap();
    let mut items = whole.clone();
    items[named].bytes.clone_from(&zeros);
    let error = unpacked(&place, &archive(&place, &items)).unwrap_err();
    assert!(matches!(&error, BundleError::TooLarge { after, .. } if after == "pipeline.lock"), "{error}");
    let mut items = whole.clone();
    items.insert(1, item("zeros", EntryType::Regular, &zeros));
    let error = unpacked(&place, &archive(&place, &items)).unwrap_err();
    assert!(matches!(&error, BundleError::TooLarge { after, .. } if after == "zeros"), "{error}");
    // What it says itself is more than any disk has.
    let mut items = whole.clone();
    let text = String::from_utf8(items[0].bytes.clone()).unwrap();
    let at = text.find("\"size_bytes\": ").unwrap() + "\"size_bytes\": ".len();
    items[0].bytes = format!("{}1000000000000000{}", &text[..at], &text[at..]).into_bytes();
    let error = unpacked(&place, &archive(&place, &items)).unwrap_err();
    assert!(matches!(error, BundleError::NoRoom { .. }), "{error}");
}

#[test]
fn a_manifest_that_cannot_be_one_is_refused_with_what_is_wrong() {
    let place = Place::new();
    let pipeline = chain(23);
    place.run(&pipeline);
    let (path, _) = bundled(&place, &pipeline, "bundle", false);
    let whole = items(&path);
    let text = String::from_utf8(whole[0].bytes.clone()).unwrap();
    let said = |text: String| {
        let mut items = whole.clone();
        items[0].bytes = text.into_bytes();
        let error = unpacked(&place, &archive(&place, &items)).unwrap_err().to_string();
        error.split_once("` is no bundle: ").unwrap().1.to_owned()
    };
    let replaced = |from: &str, to: &str| {
        assert!(text.contains(from), "{from}");
        said(text.replacen(from, to, 1))
    };
    assert_eq!(
        replaced("\"format\": 1", "\"format\": 2"),
        "its `bundle.json` has format 2, this spdflow reads format 1"
    );
    assert_eq!(
        replaced("\"cache/VERSION\"", "\"cache/../../x\""),
        "its `bundle.json` names the file `cache/../../x`, which leads out of the bundle"
    );
    assert_eq!(
        replaced("\"cache/VERSION\"", "\"cache/.gitignore\""),
        "its `bundle.json` names the file `cache/.gitignore` twice or out of order"
    );
    assert_eq!(
        replaced("\"path\": \"pipeline.lock\"", "\"path\": \"pipeline.lock2\""),
        "its lock file should be `pipeline.lock`, which its `bundle.json` does not name"
    );
    assert!(replaced("\"variables\"", "\"varibales\"").starts_with("its `bundle.json` cannot be read: unknown field"));
    let mut items = whole.clone();
    items.swap(0, 8);
    let error = unpacked(&place, &archive(&place, &items)).unwrap_err().to_string();
    assert!(error.contains("expected `bundle.json` as its first file, found `"), "{error}");
    fs::write(place.dir.path().join("text"), "hello").unwrap();
    let error = unpacked(&place, &place.dir.path().join("text")).unwrap_err().to_string();
    assert!(error.contains("` is no bundle: it is not a tar archive compressed with Zstandard ("), "{error}");
    let folder = place.dir.path().join("cache");
    assert!(matches!(unpack(&path, &folder), Err(BundleError::NotEmpty { .. })));
    assert!(folder.join("VERSION").exists());
}
