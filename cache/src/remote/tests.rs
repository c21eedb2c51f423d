//! What is carried over, what is refused, and what a transfer that was cut short leaves.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::{fs, thread};

use super::folder::Folder;
use super::*;
use crate::record::tests::example;
use crate::{Lookup, Output, Record, artifact_digest};

/// Two caches and a folder between them.
struct Scene {
    dir: tempfile::TempDir,
    here: Cache,
    there: Cache,
}

fn key(number: usize) -> Digest {
    Digest::of(format!("key {number}").as_bytes())
}

impl Scene {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (here, there) = (dir.path().join("here"), dir.path().join("there"));
        Self { here: Cache::open(&here).unwrap(), there: Cache::open(&there).unwrap(), dir }
    }

    fn between(&self) -> PathBuf {
        self.dir.path().join("between")
    }

    fn remote(&self) -> Remote {
        Remote::open(self.between().to_str().unwrap()).unwrap()
    }

    /// Stores a result with files of these sizes and a log.
    fn put(&self, number: usize, sizes: &[usize]) -> Record {
        let mut record = example(&self.here, key(number));
        let output = |(index, size): (usize, &usize)| {
            let bytes: Vec<u8> = (0..*size).map(|place| (place * 7 + number + index) as u8).collect();
            Output {
                path: format!("{index}.bin"),
                size_bytes: *size as u64,
                digest: self.here.store_bytes(&bytes).unwrap(),
                format: "bytes".to_owned(),
                summary: String::new(),
            }
        };
        record.artifact.outputs = sizes.iter().enumerate().map(output).collect();
        record.artifact.digest = artifact_digest(&record.artifact.outputs);
        record.log = Some(self.here.store_bytes(format!("log {number}\n").as_bytes()).unwrap());
        self.here.put_record(&record).unwrap();
        record
    }

    fn push(&self, number: usize) -> Pushed {
        self.remote().push(&self.here, &key(number), PushOptions::default(), &|| false).unwrap()
    }

    fn pull(&self, number: usize) -> Pulled {
        self.remote().pull(&self.there, &key(number), &|_| Ok(()), &|| false).unwrap()
    }

    /// Asserts that the second cache has nothing at all.
    fn assert_nothing_there(&self) {
        for folder in ["blobs", "records", "tmp", "quarantine"] {
            let left = files_below(&self.there.root().join(folder));
            assert_eq!(left, Vec::<PathBuf>::new());
        }
    }
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() { files.extend(files_below(&path)) } else { files.push(path) }
    }
    files
}

/// Replaces an object's bytes.
fn replace(path: &Path, bytes: &[u8]) {
    fs::remove_file(path).unwrap();
    fs::write(path, bytes).unwrap();
}

/// A remote whose connection breaks after some objects were written.
#[derive(Debug)]
struct Breaking {
    folder: Folder,
    writes_left: AtomicUsize,
}

impl Objects for Breaking {
    fn size(&self, name: &str, stop: Stop<'_>) -> Result<Option<u64>, Trouble> {
        self.folder.size(name, stop)
    }

    fn read(&self, name: &str, stop: Stop<'_>, take: &mut dyn FnMut(&[u8]) -> io::Result<()>) -> Result<bool, Trouble> {
        self.folder.read(name, stop, take)
    }

    fn write(&self, name: &str, body: Body<'_>, stop: Stop<'_>) -> Result<(), Trouble> {
        let left = self.writes_left.fetch_update(Ordering::AcqRel, Ordering::Acquire, |left| left.checked_sub(1));
        left.map_err(|_| Trouble::Unreachable("the cable was pulled".to_owned()))?;
        self.folder.write(name, body, stop)
    }
}

#[test]
fn a_result_goes_there_and_back_with_its_record_byte_for_byte() {
    let scene = Scene::new();
    let record = scene.put(1, &[0, 5, 3_000_000]);
    let size_bytes = 3_000_005 + "log 1\n".len() as u64;
    let all = Transfer { files: 4, size_bytes };
    assert_eq!(scene.push(1), Pushed::Sent(all));
    assert_eq!(scene.push(1), Pushed::Known);
    assert_eq!(fs::read_to_string(scene.between().join("VERSION")).unwrap(), "spdflow-cache 1\n");
    let Pulled::Taken(taken, transfer) = scene.pull(1) else { panic!("not taken") };
    assert_eq!((*taken, transfer), (record.clone(), all));
    assert!(matches!(scene.there.lookup(&key(1)).unwrap(), Lookup::Hit(_)));
    assert_eq!(scene.there.record_digest(&key(1)).unwrap(), scene.here.record_digest(&key(1)).unwrap());
    assert_eq!(scene.there.verify().unwrap().problems, []);
    // What is there already is not carried over again.
    assert!(matches!(scene.pull(1), Pulled::Taken(_, Transfer { files: 0, size_bytes: 0 })));
    assert_eq!(scene.pull(2), Pulled::Absent);
    assert_eq!(files_below(&scene.between().join("tmp")), Vec::<PathBuf>::new());
}

#[test]
fn another_cache_is_a_remote_too() {
    let scene = Scene::new();
    scene.put(1, &[5]);
    let remote = Remote::open(&format!("file://{}", scene.here.root().display())).unwrap();
    assert!(matches!(remote.pull(&scene.there, &key(1), &|_| Ok(()), &|| false), Ok(Pulled::Taken(..))));
    let back = Remote::open(scene.there.root().to_str().unwrap()).unwrap();
    scene.put(2, &[6]);
    let pushed = back.push(&scene.here, &key(2), PushOptions::default(), &|| false).unwrap();
    assert!(matches!(pushed, Pushed::Sent(Transfer { files: 2, .. })));
    assert!(matches!(scene.there.lookup(&key(2)).unwrap(), Lookup::Hit(_)));
    assert_eq!(scene.there.verify().unwrap().problems, []);
}

#[test]
fn a_push_that_was_cut_goes_on_where_it_was() {
    let scene = Scene::new();
    scene.put(1, &[10, 20, 30, 40]);
    let folder = Folder::new(scene.between());
    // The version and two of five blobs.
    let objects = Box::new(Breaking { folder, writes_left: AtomicUsize::new(3) });
    let broken = Remote { objects, ..scene.remote() };
    let error = broken.push(&scene.here, &key(1), PushOptions::default(), &|| false).unwrap_err();
    let text = error.to_string();
    assert!(text.starts_with("cannot write `blobs/") && text.ends_with(": the cable was pulled"), "{text}");
    assert!(error.hint().unwrap().starts_with("check the URL and the network"), "{:?}", error.hint());
    assert_eq!(files_below(&scene.between().join("blobs")).len(), 2);
    // Without its record, a result is not there.
    assert_eq!(scene.pull(1), Pulled::Absent);
    let Pushed::Sent(Transfer { files, .. }) = scene.push(1) else { panic!("not sent") };
    assert_eq!(files, 3);
    assert!(matches!(scene.pull(1), Pulled::Taken(_, Transfer { files: 5, .. })));
}

#[test]
fn what_a_killed_push_left_in_a_folder_goes_a_day_later() {
    let scene = Scene::new();
    scene.put(1, &[5]);
    scene.push(1);
    let (old, new) = (scene.between().join("tmp/old"), scene.between().join("tmp/new"));
    let two_days_ago = std::time::SystemTime::now() - std::time::Duration::from_secs(2 * 86_400);
    fs::File::create(&old).unwrap().set_modified(two_days_ago).unwrap();
    fs::write(&new, "").unwrap();
    scene.put(2, &[6]);
    scene.push(2);
    assert_eq!(files_below(&scene.between().join("tmp")), [new]);
}

#[test]
fn a_pull_that_was_cut_keeps_what_has_arrived() {
    let scene = Scene::new();
    let record = scene.put(1, &[10, 20, 30]);
    scene.push(1);
    let away = scene.between().join(blob_name(&record.artifact.outputs[1].digest));
    let bytes = fs::read(&away).unwrap();
    fs::remove_file(&away).unwrap();
    let Pulled::Damaged { object, reason } = scene.pull(1) else { panic!("not refused") };
    assert_eq!(object, blob_name(&record.artifact.outputs[1].digest));
    assert_eq!(reason, "a record names it, but it is missing");
    assert!(matches!(scene.there.lookup(&key(1)).unwrap(), Lookup::Miss));
    let arrived = files_below(&scene.there.root().join("blobs")).len();
    fs::write(&away, bytes).unwrap();
    assert!(matches!(scene.pull(1), Pulled::Taken(_, Transfer { files, .. }) if files == 4 - arrived));
}

#[test]
fn bytes_that_are_not_what_they_should_be_are_refused_and_nothing_is_stored() {
    // Another byte, one more, one less, none.
    for wrong in [&b"[7"[..], b"[]+", b"[", b""] {
        let scene = Scene::new();
        let mut record = example(&scene.here, key(1));
        record.artifact.outputs.remove(0);
        record.artifact.digest = artifact_digest(&record.artifact.outputs);
        scene.here.put_record(&record).unwrap();
        scene.push(1);
        let name = blob_name(&record.artifact.outputs[0].digest);
        replace(&scene.between().join(&name), wrong);
        let Pulled::Damaged { object, reason } = scene.pull(1) else { panic!("not refused") };
        assert_eq!(object, name);
        let expected = match wrong.len() {
            3 => "it has more than the 2 bytes that its record says".to_owned(),
            _ => format!("its bytes have the digest {}", Digest::of(wrong)),
        };
        assert_eq!(reason, expected);
        scene.assert_nothing_there();
        // The present size is right in the first case, so only sending it again mends it.
        let again = PushOptions { again: true, dry_run: false };
        let pushed = scene.remote().push(&scene.here, &key(1), again, &|| false).unwrap();
        assert_eq!(pushed, Pushed::Sent(Transfer { files: 1, size_bytes: 2 }));
        assert!(matches!(scene.pull(1), Pulled::Taken(..)));
    }
}

#[test]
fn a_record_that_cannot_be_trusted_is_refused_and_replaced_by_the_next_push() {
    let scene = Scene::new();
    scene.put(1, &[5]);
    scene.put(2, &[6]);
    scene.push(1);
    scene.push(2);
    let path = scene.between().join(record_name(&key(1)));
    let good = fs::read_to_string(&path).unwrap();
    let other = fs::read_to_string(scene.between().join(record_name(&key(2)))).unwrap();
    let cases = [
        (good.replace("\"stage[seed=0]\"", "\"stage[seed=1]\""), "its bytes do not match its seal".to_owned()),
        (good[..40].to_owned(), "it is cut short".to_owned()),
        (String::new(), "it is cut short".to_owned()),
        (other, format!("it belongs to fingerprint {}", key(2))),
    ];
    for (text, expected) in cases {
        replace(&path, text.as_bytes());
        let Pulled::Damaged { object, reason } = scene.pull(1) else { panic!("not refused") };
        assert_eq!((object, reason), (record_name(&key(1)), expected));
        scene.assert_nothing_there();
        assert_eq!(scene.push(1), Pushed::Sent(Transfer::default()));
        assert_eq!(fs::read_to_string(&path).unwrap(), good);
    }
    // Whole, but its key is not what it says it is the key of.
    let remote = scene.remote();
    let pulled = remote.pull(&scene.there, &key(1), &|_| Err("its preimage is another's".to_owned()), &|| false);
    let Ok(Pulled::Damaged { reason, .. }) = pulled else { panic!("not refused") };
    assert_eq!(reason, "its preimage is another's");
    scene.assert_nothing_there();
}

#[test]
fn a_record_whose_files_would_lie_outside_of_the_artifact_is_refused() {
    for path in ["../x", "a/../../x", "/tmp/x", "a//x", "./x", ""] {
        let scene = Scene::new();
        let mut record = scene.put(1, &[5]);
        scene.push(1);
        record.artifact.outputs[0].path = path.to_owned();
        record.artifact.digest = artifact_digest(&record.artifact.outputs);
        scene.here.put_record(&record).unwrap();
        // Whole and sealed, as somebody who means harm would send it.
        let sealed = fs::read(scene.here.record_path(&key(1))).unwrap();
        replace(&scene.between().join(record_name(&key(1))), &sealed);
        let Pulled::Damaged { reason, .. } = scene.pull(1) else { panic!("`{path}` is not refused") };
        assert_eq!(reason, format!("its output `{path}` is not a plain path below the artifact's folder"));
        scene.assert_nothing_there();
    }
}

#[test]
fn the_first_of_two_results_for_one_key_stays() {
    let scene = Scene::new();
    let first = scene.put(1, &[5]);
    scene.push(1);
    scene.put(1, &[6]);
    assert_eq!(scene.push(1), Pushed::Other { artifact: first.artifact.digest });
    assert!(matches!(scene.pull(1), Pulled::Taken(record, _) if *record == first));
}

#[test]
fn what_is_damaged_here_is_not_sent() {
    let scene = Scene::new();
    let record = scene.put(1, &[5]);
    let digest = record.artifact.outputs[0].digest;
    replace(&scene.here.blob_path(&digest), b"wrong");
    let Pushed::Incomplete { reason } = scene.push(1) else { panic!("sent") };
    assert!(reason.starts_with("file `0.bin` is damaged in the cache; it was moved to `"), "{reason}");
    assert_eq!(scene.push(1), Pushed::Incomplete { reason: "file `0.bin` is missing from the cache".to_owned() });
    assert_eq!(scene.push(9), Pushed::Incomplete { reason: "its record is missing or damaged".to_owned() });
    assert_eq!(scene.pull(1), Pulled::Absent);
}

#[test]
fn many_push_the_same_results_at_once_while_others_pull_them() {
    let scene = Scene::new();
    let keys: Vec<Digest> = (0..12).map(|number| scene.put(number, &[number, 100, 70_000]).fingerprint).collect();
    let none = |_: usize, _: &Pushed| {};
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| scene.remote().push_all(&scene.here, &keys, PushOptions::default(), &none).unwrap());
        }
        scope.spawn(|| {
            let remote = scene.remote();
            let mut left = keys.clone();
            while !left.is_empty() {
                let pulled = remote.pull_all(&scene.there, &left, &|_| Ok(()), &|_, _| {}).unwrap();
                assert!(pulled.iter().all(|pulled| !matches!(pulled, Pulled::Damaged { .. })), "{pulled:?}");
                let mut pulled = pulled.into_iter();
                left.retain(|_| pulled.next() == Some(Pulled::Absent));
            }
        });
    });
    assert_eq!(scene.there.results().unwrap().len(), keys.len());
    assert_eq!(scene.there.verify().unwrap().problems, []);
}

#[test]
fn a_dry_run_sends_and_stores_nothing() {
    let scene = Scene::new();
    scene.put(1, &[5, 6]);
    let dry = PushOptions { dry_run: true, again: false };
    let would = Transfer { files: 3, size_bytes: 17 };
    let pushed = scene.remote().push(&scene.here, &key(1), dry, &|| false).unwrap();
    assert_eq!(pushed, Pushed::Sent(would));
    assert!(!scene.between().exists());
    scene.push(1);
    let look = scene.remote().look(&scene.there, &key(1), &|_| Ok(()), &|| false).unwrap();
    assert!(matches!(look, Pulled::Taken(_, transfer) if transfer == would));
    scene.assert_nothing_there();
}

#[test]
fn a_place_that_is_not_ours_is_refused_and_left_alone() {
    let scene = Scene::new();
    scene.put(1, &[5]);
    let push = || {
        let pushed = scene.remote().push(&scene.here, &key(1), PushOptions::default(), &|| false);
        pushed.unwrap_err().to_string()
    };
    let between = scene.between();
    let shown = between.display();
    fs::create_dir(&between).unwrap();
    fs::write(between.join("thesis.tex"), "x").unwrap();
    assert_eq!(push(), format!("the remote `{shown}` is not a spdflow cache: it holds `thesis.tex` but no `VERSION`"));
    fs::write(between.join("VERSION"), "3.11\n").unwrap();
    assert_eq!(
        push(),
        format!("the remote `{shown}` is not a spdflow cache: expected the `VERSION` `spdflow-cache 1`, found `3.11`")
    );
    fs::write(between.join("VERSION"), "spdflow-cache 7\n").unwrap();
    assert_eq!(push(), format!("the remote `{shown}` has format 7, but this spdflow reads format 1"));
    assert_eq!(files_below(&between).len(), 2);
}

#[test]
fn a_transfer_stops_when_it_is_asked_to() {
    let scene = Scene::new();
    scene.put(1, &[3_000_000]);
    scene.push(1);
    let pulled = scene.remote().pull(&scene.there, &key(1), &|_| Ok(()), &|| true);
    assert!(matches!(pulled, Err(RemoteError::Stopped)));
    scene.assert_nothing_there();
}

/// Collections run all the time: nothing that a lease names is lost, however the two meet.
#[test]
fn results_that_arrive_while_garbage_is_collected_are_whole() {
    let scene = Scene::new();
    // Many files in common, so that some are there already when a result arrives.
    let keys: Vec<Digest> = (0..8).map(|number| scene.put(number, &[3, 4, 5 + number % 2]).fingerprint).collect();
    scene.remote().push_all(&scene.here, &keys, PushOptions::default(), &|_, _| {}).unwrap();
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let keep = crate::Keep {
                results: [].into(),
                blobs: [].into(),
                runs: 0,
                younger_than: std::time::Duration::ZERO,
                size_bytes: None,
                grace: std::time::Duration::from_millis(20),
            };
            while !is_over.load(Ordering::Acquire) {
                let garbage = scene.there.garbage(&keep).unwrap();
                scene.there.collect(garbage).unwrap();
            }
        });
        for _ in 0..20 {
            for key in &keys {
                let lease = scene.there.lease().unwrap();
                lease.add(&scene.there, &[*key]).unwrap();
                let pulled = scene.remote().pull(&scene.there, key, &|_| Ok(()), &|| false).unwrap();
                assert!(matches!(pulled, Pulled::Taken(..)), "{pulled:?}");
                assert!(matches!(scene.there.lookup(key).unwrap(), Lookup::Hit(_)));
            }
        }
        is_over.store(true, Ordering::Release);
    });
}

/// Any web server that hands out a folder can be read from.
#[cfg(feature = "remotes")]
mod web {
    use std::io::{BufRead, BufReader, Write};
    use std::net::{TcpListener, TcpStream};

    use super::*;

    /// Answers one request for a file below `root`; everything but reading is refused.
    fn answer(mut stream: TcpStream, root: &Path) -> io::Result<()> {
        let mut lines = BufReader::new(stream.try_clone()?).lines();
        let request = lines.next().unwrap_or(Ok(String::new()))?;
        for line in lines.by_ref() {
            if line?.is_empty() {
                break;
            }
        }
        let mut words = request.split(' ');
        let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let name = path.strip_prefix("/results/").unwrap_or_default();
        let (status, body) = match (method, fs::read(root.join(name))) {
            ("GET" | "HEAD", Ok(bytes)) => ("200 OK", bytes),
            ("GET" | "HEAD", Err(_)) => ("404 Not Found", Vec::new()),
            _ => ("501 Not Implemented", b"<html></html>".to_vec()),
        };
        write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len())?;
        if method == "HEAD" { Ok(()) } else { stream.write_all(&body) }
    }

    #[test]
    fn results_are_taken_from_a_web_server_but_not_sent_there() {
        let scene = Scene::new();
        let record = scene.put(1, &[5, 2_000_000]);
        scene.push(1);
        scene.put(2, &[6]);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/results/", listener.local_addr().unwrap());
        let root = scene.between();
        // It ends with the test's process.
        thread::spawn(move || {
            for stream in listener.incoming() {
                let root = root.clone();
                thread::spawn(move || answer(stream.unwrap(), &root));
            }
        });
        let remote = Remote::open(&url).unwrap();
        let pulled = remote.pull(&scene.there, &key(1), &|_| Ok(()), &|| false).unwrap();
        assert!(matches!(pulled, Pulled::Taken(taken, Transfer { files: 3, .. }) if *taken == record));
        assert_eq!(remote.pull(&scene.there, &key(2), &|_| Ok(()), &|| false).unwrap(), Pulled::Absent);
        let error = remote.push(&scene.here, &key(2), PushOptions::default(), &|| false).unwrap_err();
        let text = error.to_string();
        let end = format!(" of the remote `{url}`: Server returned non-2xx status code: 501 Not Implemented");
        assert!(text.starts_with("cannot write `blobs/") && text.ends_with(&end), "{text}");
        assert!(error.hint().unwrap().starts_with("most web servers can be read only"));
    }

    #[test]
    fn a_server_that_is_not_there_is_told_from_one_without_results() {
        // A port that was free a moment ago.
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let remote = Remote::open(&format!("http://127.0.0.1:{port}/x")).unwrap();
        let error = remote.is_there().unwrap_err();
        let expected = format!(
            "cannot read `VERSION` of the remote `http://127.0.0.1:{port}/x`: Connection refused (os error 111)"
        );
        assert_eq!(error.to_string(), expected);
        assert!(error.hint().unwrap().starts_with("check the URL and the network"));
    }
}
