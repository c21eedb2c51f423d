//! Panics of a library on damaged files become errors.
//!
//! The Parquet reader checks much of what it reads, but a footer with a negative offset, or a page that says it is
//! encoded by a dictionary that is not there, makes it panic. For the audit these are damaged files like any other.

use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};

thread_local! {
    static IS_GUARDED: Cell<bool> = const { Cell::new(false) };
}

/// Returns whether this thread reads a file whose damage may make a library panic, which is then an error that is
/// reported as one. A hook that ends the program on a panic has to let these pass.
#[must_use]
pub fn is_guarded() -> bool {
    IS_GUARDED.get()
}

/// Returns what `read` returns; the message of a panic if it panics. What it worked on must not be used after that.
pub(super) fn guarded<T>(read: impl FnOnce() -> T) -> Result<T, String> {
    let before = IS_GUARDED.replace(true);
    let result = catch_unwind(AssertUnwindSafe(read));
    IS_GUARDED.set(before);
    result.map_err(|panic| format!("reading it failed: {}", message(&*panic)))
}

fn message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or(panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_an_error_and_the_guard_ends_with_it() {
        assert_eq!(guarded(|| 3), Ok(3));
        assert!(!is_guarded());
        assert_eq!(guarded(is_guarded), Ok(true));
        let failed = guarded(|| -> u32 { panic!("{} of {}", 4, 3) });
        assert_eq!(failed, Err("reading it failed: 4 of 3".to_owned()));
        assert!(!is_guarded());
        assert_eq!(guarded(|| -> u32 { std::panic::panic_any(7) }), Err("reading it failed: no message".to_owned()));
    }
}
