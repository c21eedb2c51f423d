//! Looks at many results at once, to find those of which certainly nothing has changed.
//!
//! A run without work consists of little else than questions to the file system. They are asked relative to open folders,
//! which spares the system most of each path, by several threads, and of many results' records and blobs only where the
//! folder they lie in has changed (`shelf.rs`): three questions are left for a result of two files, of six.

use std::fs::File;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat, openat, statat};

use crate::shelf::{Kind, Shelf, Shelves};
use crate::{Cache, Digest, FolderMemo, Stamp};

/// How many results are looked at at a time.
const PART: usize = 32;

/// Fewer results than this for each thread are not worth one.
const LEAST_PER_THREAD: usize = 128;

/// Fewer results than this have not many more records and blobs than there are folders of them.
const LEAST_FOR_SHELVES: usize = 256;

/// More threads than this only wait for one another in the system.
const MOST_THREADS: usize = 8;

impl Cache {
    /// Returns, for each folder below the output root `root` with its memo, whether certainly nothing has changed since the
    /// memo was made: the folder, its subfolders and its files have the stamps they had, which were settled then, and the
    /// record and the blobs are present. A folder of which that cannot be said may be unchanged all the same.
    #[must_use]
    pub fn untouched(&self, root: &Path, memos: Vec<(String, Arc<FolderMemo>)>) -> Vec<bool> {
        let count = memos.len();
        let Some(folders) = Folders::open(self, root) else { return vec![false; count] };
        let shelves = (count >= LEAST_FOR_SHELVES).then(|| Known::look(self, root, &memos));
        let answers = (0..count.div_ceil(PART)).map(|_| OnceLock::new()).collect();
        let look = Arc::new(Look { folders, shelves, memos, next: AtomicUsize::new(0), answers });
        let most = (count / LEAST_PER_THREAD).min(MOST_THREADS);
        let threads =
            if most > 1 { std::thread::available_parallelism().map_or(1, |all| most.min(all.get())) } else { 1 };
        for _ in 1..threads {
            let theirs = look.clone();
            // Without a helper it takes longer, no more.
            let _ = std::thread::Builder::new().name("look".to_owned()).spawn(move || theirs.work());
        }
        look.work();
        // On a busy machine a helper may not have come to its turn. Nobody waits for it: its part is done here.
        let answers: Vec<bool> =
            (0..look.answers.len()).flat_map(|part| look.answers[part].get_or_init(|| look.at(part)).clone()).collect();
        if let Some(Known { before, now }) = &look.shelves
            && answers.iter().all(|is_untouched| *is_untouched)
            && now.has_more_than(before)
        {
            // What cannot be written only costs time later.
            let _ = self.write_shelves(root, now);
        }
        answers
    }
}

/// Questions that several threads answer.
struct Look {
    folders: Folders,
    /// If there are many.
    shelves: Option<Known>,
    memos: Vec<(String, Arc<FolderMemo>)>,
    /// The next part to take.
    next: AtomicUsize,
    answers: Vec<OnceLock<Vec<bool>>>,
}

impl Look {
    /// Answers one part after another until all are taken.
    fn work(&self) {
        while let part = self.next.fetch_add(1, Ordering::Relaxed)
            && let Some(answer) = self.answers.get(part)
        {
            let _ = answer.set(self.at(part));
        }
    }

    fn at(&self, part: usize) -> Vec<bool> {
        let mut path = String::new();
        let memos = self.memos.iter().skip(part * PART).take(PART);
        memos.map(|(folder, memo)| self.folders.are_untouched(folder, memo, self.shelves.as_ref(), &mut path)).collect()
    }
}

/// What is known of the cache's own folders.
struct Known {
    /// From an earlier look that found every record and blob.
    before: Shelves,
    /// From before this look.
    now: Shelves,
}

impl Known {
    fn look(cache: &Cache, root: &Path, memos: &[(String, Arc<FolderMemo>)]) -> Self {
        let results: Vec<u8> = memos
            .iter()
            .flat_map(|(_, memo)| [memo.fingerprint.as_bytes(), memo.artifact.as_bytes()])
            .flatten()
            .copied()
            .collect();
        let results = Digest::of(&results);
        let before = cache.read_shelves(root, results);
        let mut now = Shelves::now(results);
        for shelf in Shelf::all() {
            if let Ok(stat) = statat(cache.folder(), shelf.place(), AtFlags::empty()) {
                now.insert(shelf, stamp_of(&stat));
            }
        }
        Self { before, now }
    }

    /// Returns whether the file of this kind and digest is certainly still there.
    fn holds(&self, kind: Kind, digest: &Digest) -> bool {
        self.before.agree(&self.now, Shelf::of(kind, digest))
    }
}

/// The open folders that paths are relative to.
struct Folders {
    root: File,
    records: File,
    blobs: File,
}

impl Folders {
    fn open(cache: &Cache, root: &Path) -> Option<Self> {
        let open = |name: &str| openat(cache.folder(), name, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
        Some(Self {
            root: File::open(root).ok()?,
            records: open("records").ok()?.into(),
            blobs: open("blobs").ok()?.into(),
        })
    }

    /// `path` is room for paths.
    fn are_untouched(&self, folder: &str, memo: &FolderMemo, shelves: Option<&Known>, path: &mut String) -> bool {
        let holds = |kind, digest: &Digest| shelves.is_some_and(|shelves| shelves.holds(kind, digest));
        let is_settled = |stamp: &Stamp| stamp.is_settled(memo.seen);
        let mut below = |name: &str| {
            path.clear();
            path.push_str(folder);
            if !name.is_empty() {
                path.push('/');
                path.push_str(name);
            }
            statat(&self.root, path.as_str(), AtFlags::SYMLINK_NOFOLLOW).ok()
        };
        let is_same = memo.folders.iter().all(|(name, stamp)| {
            is_settled(stamp)
                && below(name).is_some_and(|stat| is(&stat, FileType::Directory) && stamp_of(&stat) == *stamp)
        }) && memo.files.iter().all(|file| {
            let is_same = |stat: Stat| is(&stat, FileType::RegularFile) && stamp_of(&stat) == file.stamp;
            is_settled(&file.stamp) && below(&file.path).is_some_and(is_same)
        });
        let mut place = |folder: &File, digest: &Digest, suffix: &str| {
            path.clear();
            digest.push_place(path);
            path.push_str(suffix);
            statat(folder, path.as_str(), AtFlags::empty()).ok()
        };
        is_same
            && (holds(Kind::Record, &memo.fingerprint)
                || place(&self.records, &memo.fingerprint, ".json").is_some_and(|stat| stamp_of(&stat) == memo.record))
            && memo.files.iter().all(|file| {
                let is_there = |stat: Stat| is(&stat, FileType::RegularFile) && size(&stat) == file.stamp.size_bytes;
                holds(Kind::Blob, &file.digest) || place(&self.blobs, &file.digest, "").is_some_and(is_there)
            })
    }
}

fn is(stat: &Stat, kind: FileType) -> bool {
    FileType::from_raw_mode(stat.st_mode) == kind
}

// The types of these fields differ between systems.
#[allow(clippy::unnecessary_cast)]
fn size(stat: &Stat) -> u64 {
    stat.st_size as u64
}

/// Returns what [`Stamp::of`] makes of the same file.
#[allow(clippy::unnecessary_cast)]
fn stamp_of(stat: &Stat) -> Stamp {
    let nanoseconds = |seconds: i64, rest: i64| seconds.saturating_mul(1_000_000_000).saturating_add(rest);
    Stamp {
        device: stat.st_dev as u64,
        inode: stat.st_ino as u64,
        size_bytes: if is(stat, FileType::Directory) { 0 } else { size(stat) },
        modified: nanoseconds(stat.st_mtime as i64, stat.st_mtime_nsec as i64),
        changed: nanoseconds(stat.st_ctime as i64, stat.st_ctime_nsec as i64),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::record::tests::example;

    /// What a look finds.
    type Memos = Vec<(String, Arc<FolderMemo>)>;

    /// A cache, and `count` folders that hold the result of one record, with memos that were taken long after.
    fn results(dir: &Path, count: usize) -> (Cache, Memos) {
        let cache = Cache::open(&dir.join("cache")).unwrap();
        let record = example(&cache, Digest::of(b"key"));
        cache.put_record(&record).unwrap();
        let files: Vec<_> = record.artifact.outputs.iter().map(|output| (output.path.clone(), output.digest)).collect();
        let memos = (0..count).map(|number| {
            let name = format!("stage/number={number}");
            let folder = dir.join("out").join(&name);
            for (path, digest) in &files {
                fs::create_dir_all(folder.join(path).parent().unwrap()).unwrap();
                cache.restore(digest, &folder.join(path)).unwrap();
            }
            let stamp = cache.record_stamp(&record.fingerprint).unwrap();
            let memo = FolderMemo::take(&folder, record.fingerprint, record.artifact.digest, stamp, None, &files);
            let memo = FolderMemo { seen: Stamp::now() + 60_000_000_000, ..memo.unwrap() };
            (name, Arc::new(memo))
        });
        let memos = memos.collect();
        (cache, memos)
    }

    fn untouched(dir: &Path, cache: &Cache, memos: &[(String, Arc<FolderMemo>)]) -> Vec<bool> {
        cache.untouched(&dir.join("out"), memos.to_vec())
    }

    #[test]
    fn each_of_many_results_is_judged_by_itself() {
        let dir = tempfile::tempdir().unwrap();
        let (cache, memos) = results(dir.path(), 4 * LEAST_PER_THREAD + 1);
        assert!(untouched(dir.path(), &cache, &memos).into_iter().all(|is_untouched| is_untouched));
        for number in [1, PART, 4 * LEAST_PER_THREAD] {
            fs::write(dir.path().join(format!("out/stage/number={number}/a.json")), "[]").unwrap();
        }
        let touched = untouched(dir.path(), &cache, &memos);
        let touched: Vec<_> = (0..memos.len()).filter(|number| !touched[*number]).collect();
        assert_eq!(touched, [1, PART, 4 * LEAST_PER_THREAD]);
    }

    #[test]
    fn any_change_touches_a_result() {
        type Change = fn(&Path, &Cache, &FolderMemo);
        let changes: [(&str, Change); 9] = [
            ("a new file", |folder, _, _| fs::write(folder.join("b/new"), "").unwrap()),
            ("a file that is gone", |folder, _, _| fs::remove_file(folder.join("b/c.json")).unwrap()),
            ("a file written anew", |folder, _, _| {
                fs::remove_file(folder.join("a.json")).unwrap();
                fs::write(folder.join("a.json"), "{}").unwrap();
            }),
            ("a touched file", |folder, _, _| {
                let file = File::options().write(true).open(folder.join("a.json")).unwrap();
                file.set_modified(std::time::UNIX_EPOCH).unwrap();
            }),
            ("a link", |folder, _, _| {
                fs::rename(folder.join("a.json"), folder.join("../a.json")).unwrap();
                std::os::unix::fs::symlink("../a.json", folder.join("a.json")).unwrap();
            }),
            ("no folder", |folder, _, _| fs::remove_dir_all(folder).unwrap()),
            ("no record", |_, cache, memo| fs::remove_file(cache.record_path(&memo.fingerprint)).unwrap()),
            ("a record in its place", |_, cache, memo| {
                let path = cache.record_path(&memo.fingerprint);
                fs::copy(&path, path.with_extension("copy")).unwrap();
                fs::rename(path.with_extension("copy"), &path).unwrap();
            }),
            ("no blob", |_, cache, memo| fs::remove_file(cache.blob_path(&memo.files[1].digest)).unwrap()),
        ];
        for (what, change) in changes {
            let dir = tempfile::tempdir().unwrap();
            let (cache, memos) = results(dir.path(), 1);
            assert_eq!(untouched(dir.path(), &cache, &memos), [true], "{what}");
            // Within one tick of the clock a stamp cannot show a change; memos are settled for that reason.
            std::thread::sleep(std::time::Duration::from_millis(20));
            change(&dir.path().join("out/stage/number=0"), &cache, &memos[0].1);
            assert_eq!(untouched(dir.path(), &cache, &memos), [false], "{what}");
        }
    }

    #[test]
    fn a_stamp_that_was_not_settled_says_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let (cache, mut memos) = results(dir.path(), 1);
        memos[0].1 = Arc::new(FolderMemo { seen: Stamp::now(), ..(*memos[0].1).clone() });
        assert_eq!(untouched(dir.path(), &cache, &memos), [false]);
    }
    /// Makes the folders of records and blobs look as if they had not changed for long.
    fn settle(cache: &Cache) {
        let old = std::time::SystemTime::now() - std::time::Duration::from_secs(3600);
        for shelf in Shelf::all() {
            if let Ok(folder) = File::open(cache.root().join(shelf.place())) {
                folder.set_modified(old).unwrap();
            }
        }
        // Nobody can set the change time.
        std::thread::sleep(std::time::Duration::from_millis(2050));
    }

    #[test]
    fn what_goes_from_the_cache_is_missed_though_its_folders_are_asked_instead() {
        let dir = tempfile::tempdir().unwrap();
        let (cache, memos) = results(dir.path(), LEAST_FOR_SHELVES);
        let root = dir.path().join("out");
        let look = || {
            let all = cache.untouched(&root, memos.clone());
            (all.iter().filter(|is_untouched| **is_untouched).count(), all.len())
        };
        let kept = |memos: &Memos| Known::look(&cache, &root, memos).before;
        let memo = &memos[0].1;
        let record = Shelf::of(Kind::Record, &memo.fingerprint);
        assert_eq!(look(), (LEAST_FOR_SHELVES, LEAST_FOR_SHELVES));
        assert!(!kept(&memos).agree(&kept(&memos), record), "a stamp that is too young was kept");
        settle(&cache);
        look();
        assert!(kept(&memos).agree(&kept(&memos), record), "no stamp was kept");
        assert!(!kept(&memos[1..].to_vec()).agree(&kept(&memos), record), "the stamps answer for other memos");
        // The folder answers for the record, whatever its own stamp is.
        File::open(cache.record_path(&memo.fingerprint)).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
        assert_eq!(look(), (LEAST_FOR_SHELVES, LEAST_FOR_SHELVES));
        for path in [cache.blob_path(&memo.files[1].digest), cache.record_path(&memo.fingerprint)] {
            let aside = dir.path().join("aside");
            fs::rename(&path, &aside).unwrap();
            assert_eq!(look(), (0, LEAST_FOR_SHELVES), "{}", path.display());
            fs::rename(&aside, &path).unwrap();
        }
    }
}
