//! What a place has to do to be a remote: keep named sequences of bytes.

use std::fmt;
use std::io;
use std::path::Path;

use super::Stop;

/// A place that keeps objects by name. Names have `/` between their parts.
pub(super) trait Objects: fmt::Debug + Send + Sync {
    /// Returns how many bytes the object has, or `None` if there is none.
    fn size(&self, name: &str, stop: Stop<'_>) -> Result<Option<u64>, Trouble>;

    /// Hands the object's bytes to `take`, piece by piece, and returns whether there is such an object.
    fn read(&self, name: &str, stop: Stop<'_>, take: &mut dyn FnMut(&[u8]) -> io::Result<()>) -> Result<bool, Trouble>;

    /// Puts an object in place so that it is there whole or as it was before.
    fn write(&self, name: &str, body: Body<'_>, stop: Stop<'_>) -> Result<(), Trouble>;

    /// Returns the name of something that shows that the place is somebody else's.
    fn foreign(&self) -> Result<Option<String>, Trouble> {
        Ok(None)
    }
}

/// The bytes of an object to write.
#[derive(Debug, Clone, Copy)]
pub(super) enum Body<'a> {
    Bytes(&'a [u8]),
    File(&'a Path),
}

/// Why an object could not be read or written.
#[derive(Debug)]
#[cfg_attr(not(feature = "remotes"), expect(dead_code, reason = "a folder is always reached"))]
pub(super) enum Trouble {
    /// There was no answer.
    Unreachable(String),
    /// We may not, or did not say who we are.
    Denied(String),
    /// There is no bucket or container of that name.
    NoPlace(String),
    /// Anything else that the remote said.
    Other(String),
    /// Not the remote, but a file of ours: what `take` said, or the body could not be read.
    Local(io::Error),
    /// The user wants to stop.
    Stopped,
}
