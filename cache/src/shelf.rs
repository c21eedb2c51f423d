//! What was seen of the cache's own folders, `records/ab` and `blobs/ab`, when everything in them that a set of memos
//! names was last there.
//!
//! A file can go from a folder only by a change of the folder's stamp. So where the stamp is as it was, a look at one
//! folder answers for all files that the memos have in it, and a run without work asks a few hundred questions less than
//! it has stages. A file that was changed where it lies is not noticed; it is when its bytes are used.
//!
//! File: `index/<name>.shelves`, as in `packed.rs`, with the format `spdflow-shelves 1\n`. Body: boot id, digest of the
//! memos, when the stamps were taken, then each folder (its number) and its stamp.

use std::path::Path;

use crate::index::read_index;
use crate::memo::boot_id;
use crate::packed::{Packer, Unpacker};
use crate::{Cache, CacheError, Digest, Stamp};

/// Two kinds of folders, each for every first byte of a digest.
const COUNT: usize = 512;

/// Where something lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Record,
    Blob,
}

/// One of the folders `records/ab` and `blobs/ab`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shelf(usize);

impl Shelf {
    /// Returns the folder in which the file of this kind and digest lies.
    pub(crate) fn of(kind: Kind, digest: &Digest) -> Self {
        let first = usize::from(digest.as_bytes()[0]);
        Self(if kind == Kind::Record { first } else { 256 + first })
    }

    /// Returns all of them.
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        (0..COUNT).map(Self)
    }

    /// Returns the path below the cache.
    pub(crate) fn place(self) -> String {
        let Self(number) = self;
        format!("{}/{:02x}", if number < 256 { "records" } else { "blobs" }, number % 256)
    }
}

/// The stamps of some of the folders.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Shelves {
    /// Says which memos the stamps answer for.
    memos: Digest,
    stamps: Vec<Option<Stamp>>,
    /// When they were taken, in nanoseconds since 1970.
    seen: i64,
}

impl Shelves {
    /// Returns stamps for these memos that are taken from now on, none as yet.
    pub(crate) fn now(memos: Digest) -> Self {
        Self { memos, stamps: vec![None; COUNT], seen: Stamp::now() }
    }

    /// Keeps the stamp of a folder, unless it could hide a later change.
    pub(crate) fn insert(&mut self, Shelf(number): Shelf, stamp: Stamp) {
        self.stamps[number] = stamp.is_settled(self.seen).then_some(stamp);
    }

    /// Returns whether the folder has the same stamp in both.
    pub(crate) fn agree(&self, other: &Self, Shelf(number): Shelf) -> bool {
        self.stamps[number].is_some() && self.stamps[number] == other.stamps[number]
    }

    /// Returns whether there is a folder with a stamp that `other` does not have.
    pub(crate) fn has_more_than(&self, other: &Self) -> bool {
        Shelf::all().any(|Shelf(number)| self.stamps[number].is_some() && self.stamps[number] != other.stamps[number])
    }
}

impl Cache {
    /// Returns the stamps that were kept for these memos of the output root `root`; none if there are none that can be
    /// trusted.
    pub(crate) fn read_shelves(&self, root: &Path, memos: Digest) -> Shelves {
        let kept = read_index(self.root(), &file_name(root), FORMAT).and_then(|body| decode(&body));
        kept.filter(|kept| kept.memos == memos).unwrap_or_else(|| Shelves::now(memos))
    }

    /// Stores them.
    pub(crate) fn write_shelves(&self, root: &Path, shelves: &Shelves) -> Result<(), CacheError> {
        self.write_index(&file_name(root), FORMAT, &encode(shelves))
    }
}

const FORMAT: &[u8] = b"spdflow-shelves 1\n";

fn file_name(root: &Path) -> String {
    format!("{}.shelves", Digest::of(root.as_os_str().as_encoded_bytes()).short())
}

fn encode(shelves: &Shelves) -> Vec<u8> {
    let mut body = Packer::default();
    body.text(&boot_id());
    body.digest(&shelves.memos);
    body.signed(shelves.seen);
    let known: Vec<_> =
        shelves.stamps.iter().enumerate().filter_map(|(number, stamp)| Some((number, (*stamp)?))).collect();
    body.list(known.iter(), |body, (number, stamp)| {
        body.number(*number as u64);
        body.stamp(stamp);
    });
    body.into_bytes()
}

fn decode(body: &[u8]) -> Option<Shelves> {
    let mut body = Unpacker::new(body);
    if body.text()? != boot_id() {
        return None;
    }
    let mut shelves = Shelves { memos: body.digest()?, seen: body.signed()?, stamps: vec![None; COUNT] };
    for (number, stamp) in body.list(|body| Some((usize::try_from(body.number()?).ok()?, body.stamp()?)))? {
        *shelves.stamps.get_mut(number)? = Some(stamp);
    }
    body.is_empty().then_some(shelves)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn stamps_survive_their_file_and_a_damaged_file_and_that_of_other_memos_is_ignored() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(&dir.path().join("cache")).unwrap();
        let digest = Digest::of(b"x");
        let mut shelves = Shelves { seen: Stamp::now() + 60_000_000_000, ..Shelves::now(digest) };
        for kind in [Kind::Record, Kind::Blob] {
            shelves.insert(Shelf::of(kind, &digest), Stamp::of(&fs::metadata(dir.path()).unwrap()));
        }
        cache.write_shelves(dir.path(), &shelves).unwrap();
        let read = |memos| cache.read_shelves(dir.path(), memos);
        assert_eq!(read(digest), shelves);
        assert!(!read(digest).has_more_than(&shelves));
        assert!(shelves.has_more_than(&read(Digest::of(b"y"))));
        let path = cache.root().join("index").join(file_name(dir.path()));
        let mut bytes = fs::read(&path).unwrap();
        bytes[30] ^= 1;
        fs::write(&path, bytes).unwrap();
        assert!(shelves.has_more_than(&read(digest)));
    }

    #[test]
    fn a_folder_is_named_by_the_kind_and_the_first_digits() {
        let digest = Digest::of(b"x");
        let head = &digest.to_string()[..2];
        assert_eq!(Shelf::of(Kind::Record, &digest).place(), format!("records/{head}"));
        assert_eq!(Shelf::of(Kind::Blob, &digest).place(), format!("blobs/{head}"));
        assert_eq!(Shelf::all().count(), COUNT);
    }

    #[test]
    fn a_stamp_that_could_hide_a_change_is_not_kept() {
        let dir = tempfile::tempdir().unwrap();
        let mut shelves = Shelves::now(Digest::of(b""));
        let shelf = Shelf::of(Kind::Blob, &Digest::of(b"x"));
        shelves.insert(shelf, Stamp::of(&fs::metadata(dir.path()).unwrap()));
        assert!(!shelves.agree(&shelves, shelf));
    }
}
