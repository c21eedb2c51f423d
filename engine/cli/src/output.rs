//! Prints, and does not mind when nobody reads any more.
//!
//! The printing macros panic when a pipe is closed (`spdflow graph tms | head -1`), which would be reported as our
//! bug. Styles are stripped by `anstream` where they do not belong.

use std::io::{self, Write};

use crate::failure::Exit;

/// Prints data to stdout, flushed. A closed pipe swallows it: the reader has what it wanted.
pub(crate) fn data(text: &str) {
    let mut stdout = anstream::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            message(&format!("error: cannot write to standard output: {error}\n"));
            std::process::exit(i32::from(Exit::Input.code()));
        }
        _ => {}
    }
}

/// Prints a message to stderr; if that is closed there is nobody left to tell.
pub(crate) fn message(text: &str) {
    let _ = anstream::stderr().lock().write_all(text.as_bytes());
}
