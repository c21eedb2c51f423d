//! Numbers, texts and lists packed into bytes, sealed by a digest: the form of the files in `index/`.
//!
//! Texts and lists are preceded by their length as u32, all numbers are little-endian. A sealed file is a line that
//! names its format, the packed body, and the digest of the body. Whoever reads one takes anything unexpected as if
//! the file were not there.

use crate::{Digest, Stamp};

/// Packs values one after another.
#[derive(Debug, Default)]
pub struct Packer(Vec<u8>);

/// Takes packed values out again, in the same order; `None` where the bytes hold no such value.
#[derive(Debug)]
pub struct Unpacker<'b> {
    whole: &'b [u8],
    rest: &'b [u8],
}

/// Returns the bytes of a sealed file.
#[must_use]
pub fn seal(format: &[u8], body: &[u8]) -> Vec<u8> {
    [format, body, Digest::of(body).as_bytes()].concat()
}

/// Returns the body of a sealed file of this format, if it is one and none of its bytes has changed.
#[must_use]
pub fn unseal<'b>(format: &[u8], bytes: &'b [u8]) -> Option<&'b [u8]> {
    let (body, digest) = bytes.strip_prefix(format)?.split_last_chunk::<32>()?;
    (Digest::of(body).as_bytes() == digest).then_some(body)
}

impl Packer {
    /// Returns the bytes.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    /// Packs the length of what follows.
    ///
    /// # Panics
    /// If it is 2³² or more: such lists are not kept in an index.
    pub fn length(&mut self, length: usize) {
        self.0.extend_from_slice(&u32::try_from(length).expect("a list in an index is short").to_le_bytes());
    }

    /// Packs a text.
    pub fn text(&mut self, text: &str) {
        self.bytes(text.as_bytes());
    }

    /// Packs bytes.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.length(bytes.len());
        self.0.extend_from_slice(bytes);
    }

    /// Packs a number.
    pub fn number(&mut self, number: u64) {
        self.0.extend_from_slice(&number.to_le_bytes());
    }

    /// Packs a number with a sign.
    pub fn signed(&mut self, number: i64) {
        self.0.extend_from_slice(&number.to_le_bytes());
    }

    /// Packs a digest.
    pub fn digest(&mut self, digest: &Digest) {
        self.0.extend_from_slice(digest.as_bytes());
    }

    /// Packs a stamp.
    pub fn stamp(&mut self, stamp: &Stamp) {
        for number in [stamp.device, stamp.inode, stamp.size_bytes] {
            self.number(number);
        }
        for number in [stamp.modified, stamp.changed] {
            self.signed(number);
        }
    }

    /// Packs something that may be absent.
    pub fn option<T>(&mut self, value: Option<T>, pack: impl FnOnce(&mut Self, T)) {
        self.0.push(u8::from(value.is_some()));
        if let Some(value) = value {
            pack(self, value);
        }
    }

    /// Packs a list.
    pub fn list<T>(&mut self, items: impl ExactSizeIterator<Item = T>, mut pack: impl FnMut(&mut Self, T)) {
        self.length(items.len());
        for item in items {
            pack(self, item);
        }
    }
}

impl<'b> Unpacker<'b> {
    /// Returns what takes values out of `bytes`.
    #[must_use]
    pub fn new(bytes: &'b [u8]) -> Self {
        Self { whole: bytes, rest: bytes }
    }

    /// Returns whether everything was taken out.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Takes a length.
    pub fn length(&mut self) -> Option<usize> {
        self.chunk().map(u32::from_le_bytes).and_then(|length| usize::try_from(length).ok())
    }

    /// Takes a text.
    pub fn text(&mut self) -> Option<&'b str> {
        std::str::from_utf8(self.bytes()?).ok()
    }

    /// Takes bytes.
    pub fn bytes(&mut self) -> Option<&'b [u8]> {
        let length = self.length()?;
        let (bytes, rest) = self.rest.split_at_checked(length)?;
        self.rest = rest;
        Some(bytes)
    }

    /// Takes bytes and returns where in the whole they lie.
    pub fn range(&mut self) -> Option<std::ops::Range<usize>> {
        let length = self.bytes()?.len();
        let end = self.whole.len() - self.rest.len();
        Some(end - length..end)
    }

    /// Takes a number.
    pub fn number(&mut self) -> Option<u64> {
        self.chunk().map(u64::from_le_bytes)
    }

    /// Takes a number with a sign.
    pub fn signed(&mut self) -> Option<i64> {
        self.chunk().map(i64::from_le_bytes)
    }

    /// Takes a digest.
    pub fn digest(&mut self) -> Option<Digest> {
        self.chunk().map(Digest::from_bytes)
    }

    /// Takes a stamp.
    pub fn stamp(&mut self) -> Option<Stamp> {
        Some(Stamp {
            device: self.number()?,
            inode: self.number()?,
            size_bytes: self.number()?,
            modified: self.signed()?,
            changed: self.signed()?,
        })
    }

    /// Takes something that may be absent.
    pub fn option<T>(&mut self, take: impl FnOnce(&mut Self) -> Option<T>) -> Option<Option<T>> {
        match self.chunk()? {
            [0] => Some(None),
            [1] => Some(Some(take(self)?)),
            _ => None,
        }
    }

    /// Takes a list.
    pub fn list<T>(&mut self, mut take: impl FnMut(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        let length = self.length()?;
        // An item takes a byte at least: no more room than a wrong length could ask for.
        let mut items = Vec::with_capacity(length.min(self.rest.len()));
        for _ in 0..length {
            items.push(take(self)?);
        }
        Some(items)
    }

    fn chunk<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (chunk, rest) = self.rest.split_first_chunk::<N>()?;
        self.rest = rest;
        Some(*chunk)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_packed_comes_out_in_the_same_order() {
        let stamp = Stamp { device: 1, inode: 2, size_bytes: 3, modified: -4, changed: 5 };
        let mut packer = Packer::default();
        packer.text("ä");
        packer.option(Some(7), Packer::number);
        packer.option(None, Packer::number);
        packer.list([1, -2].into_iter(), Packer::signed);
        packer.bytes(b"xyz");
        packer.stamp(&stamp);
        packer.digest(&Digest::of(b""));
        let bytes = packer.into_bytes();
        let mut unpacker = Unpacker::new(&bytes);
        assert_eq!(unpacker.text(), Some("ä"));
        assert_eq!(unpacker.option(Unpacker::number), Some(Some(7)));
        assert_eq!(unpacker.option(Unpacker::number), Some(None));
        assert_eq!(unpacker.list(Unpacker::signed), Some(vec![1, -2]));
        assert_eq!(unpacker.range().map(|range| &bytes[range]), Some(&b"xyz"[..]));
        assert_eq!(unpacker.stamp(), Some(stamp));
        assert_eq!(unpacker.digest(), Some(Digest::of(b"")));
        assert!(unpacker.is_empty());
        assert_eq!(unpacker.number(), None);
    }

    #[test]
    fn a_changed_cut_or_foreign_file_has_no_body() {
        let sealed = seal(b"format 1\n", b"body");
        assert_eq!(unseal(b"format 1\n", &sealed), Some(&b"body"[..]));
        assert_eq!(unseal(b"format 2\n", &sealed), None);
        for index in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[index] ^= 1;
            assert_eq!(unseal(b"format 1\n", &changed), None, "byte {index}");
            assert_eq!(unseal(b"format 1\n", &sealed[..index]), None, "cut to {index} bytes");
        }
    }
}
