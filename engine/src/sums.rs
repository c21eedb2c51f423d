//! The sums by which files are known to others: BLAKE3, by which the cache calls them, and SHA-256, which every system can
//! compute and the formats of attestations ask for.

use std::fmt::Write as _;
use std::io::{self, Read, Write};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use spdflow_cache::Digest;

/// What is known of a file's bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sums {
    /// How many there are.
    pub size_bytes: u64,
    /// Their BLAKE3.
    pub blake3: Digest,
    /// Their SHA-256, 64 hexadecimal digits.
    pub sha256: String,
}

impl Sums {
    /// Returns those of `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        let mut summing = Summing::default();
        summing.add(bytes);
        summing.finish()
    }

    /// Returns those of everything that `reader` gives.
    ///
    /// # Errors
    /// As the reader.
    pub fn of_reader(reader: impl Read) -> io::Result<Self> {
        copy_summed(reader, io::sink())
    }
}

/// Copies everything and returns the sums of it.
///
/// # Errors
/// As the reader and the writer.
pub(crate) fn copy_summed(mut reader: impl Read, mut writer: impl Write) -> io::Result<Sums> {
    let mut summing = Summing::default();
    let mut buffer = vec![0; 1 << 18];
    loop {
        let count = match reader.read(&mut buffer) {
            Ok(0) => return Ok(summing.finish()),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        summing.add(&buffer[..count]);
        writer.write_all(&buffer[..count])?;
    }
}

#[derive(Default)]
struct Summing {
    size_bytes: u64,
    blake3: blake3::Hasher,
    sha256: Sha256,
}

impl Summing {
    fn add(&mut self, bytes: &[u8]) {
        self.size_bytes += bytes.len() as u64;
        self.blake3.update(bytes);
        self.sha256.update(bytes);
    }

    fn finish(self) -> Sums {
        let mut sha256 = String::with_capacity(64);
        for byte in self.sha256.finalize() {
            // A text can always grow.
            let _ = write!(sha256, "{byte:02x}");
        }
        let blake3 = Digest::from_bytes(*self.blake3.finalize().as_bytes());
        Sums { size_bytes: self.size_bytes, blake3, sha256 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_those_of_other_programs() {
        // printf abc | sha256sum
        let sums = Sums::of(b"abc");
        assert_eq!(sums.sha256, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!((sums.size_bytes, sums.blake3), (3, Digest::of(b"abc")));
        let long = vec![7; (1 << 18) + 1];
        assert_eq!(Sums::of_reader(&*long).unwrap(), Sums::of(&long));
    }
}
