//! Texts, line by line: the first line that differs, and where in it.
//!
//! Lines are compared by their bytes and by their numbers: after a line too many, all that follow differ. Line and
//! column count from 1, as editors do.

use std::path::Path;
use std::str;

use spdflow_engine::audit::format::{Difference, Format, Tolerance, Unreadable};

use super::excerpt::{beginning, excerpts};
use super::reading;
use super::tally::{Site, Tally};

/// Any text. A tolerance does not apply: what is text may be a name.
#[derive(Debug, Clone, Copy)]
pub struct Text;

impl Format for Text {
    fn compare(&self, recorded: &Path, made: &Path, _: Tolerance) -> Result<Option<Difference>, Unreadable> {
        let (recorded, made) = reading::both(recorded, made)?;
        Ok(compare_lines(&recorded, &made, |_, _| None))
    }
}

/// Compares two texts; `step` says to which training step a pair of lines belongs. It is asked for every pair in order.
pub(super) fn compare_lines(
    recorded: &[u8],
    made: &[u8],
    mut step: impl FnMut(Option<&[u8]>, Option<&[u8]>) -> Option<u64>,
) -> Option<Difference> {
    if recorded == made {
        return None;
    }
    let mut tally = Tally::new(Tolerance::EXACT);
    let (mut before, mut after) = (lines(recorded), lines(made));
    for number in 1.. {
        let pair = (before.next(), after.next());
        if pair == (None, None) {
            break;
        }
        tally.expect(1);
        let step = step(pair.0, pair.1);
        if pair.0 == pair.1 {
            continue;
        }
        let site = Site { part: "", step };
        let shown = || shown(number, pair);
        match step {
            Some(_) => tally.values(site, 1, false, shown),
            // What stands before the first step comes first.
            None => tally.structure(site, 1, shown),
        }
    }
    tally.finish()
}

fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split_inclusive(|byte| *byte == b'\n')
}

/// Returns the place and the two lines, of which one may be missing.
fn shown(number: u64, pair: (Option<&[u8]>, Option<&[u8]>)) -> (String, String, String) {
    let end = || "the end of the file".to_owned();
    let (recorded, made) = match pair {
        (Some(recorded), Some(made)) => (recorded, made),
        (Some(recorded), None) => return (format!("line {number}"), beginning(&readable(recorded)), end()),
        (None, made) => return (format!("line {number}"), end(), beginning(&readable(made.unwrap_or_default()))),
    };
    let (recorded, made) = match (recorded.strip_suffix(b"\n"), made.strip_suffix(b"\n")) {
        (Some(recorded), Some(made)) => (recorded, made),
        // One of them is the last line and has no line break: that is shown.
        _ => (recorded, made),
    };
    let found = match (str::from_utf8(recorded), str::from_utf8(made)) {
        (Ok(recorded), Ok(made)) => excerpts(recorded, made),
        _ => excerpts(&recorded.escape_ascii().to_string(), &made.escape_ascii().to_string()),
    };
    (format!("line {number}, column {}", found.column), found.recorded, found.made)
}

fn readable(line: &[u8]) -> String {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    str::from_utf8(line).map_or_else(|_| line.escape_ascii().to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::testing;

    fn compared(recorded: &[u8], made: &[u8]) -> Option<String> {
        testing::compared("txt", recorded, made, Tolerance { absolute: 1.0, relative: 0.0 }).unwrap()
    }

    #[test]
    fn a_line_that_differs_is_shown_with_its_column() {
        assert_eq!(compared(b"", b""), None);
        assert_eq!(compared(b"one\ntwo\n", b"one\ntwo\n"), None);
        assert_eq!(
            compared(b"one\nloss 0.5\nx\n", b"one\nloss 0.4\ny\n").unwrap(),
            "line 2, column 8: \"loss 0.5\", now \"loss 0.4\"; 2 of 3 differ"
        );
    }

    #[test]
    fn missing_lines_and_line_breaks_are_differences() {
        assert_eq!(compared(b"a\nb\n", b"a\n").unwrap(), "line 2: \"b\", now the end of the file; 1 of 2 differ");
        assert_eq!(compared(b"", b"a\n").unwrap(), "line 1: the end of the file, now \"a\"; 1 of 1 differ");
        assert_eq!(compared(b"a\n", b"a").unwrap(), "line 1, column 2: \"a\\n\", now \"a\"; 1 of 1 differ");
        assert_eq!(compared(b"a\r\n", b"a\n").unwrap(), "line 1, column 2: \"a\\r\", now \"a\"; 1 of 1 differ");
    }

    #[test]
    fn bytes_that_are_no_text_are_shown_as_such() {
        let text = compared(b"a\xff\n", b"a\xfe\n").unwrap();
        assert_eq!(text, "line 1, column 5: \"a\\\\xff\", now \"a\\\\xfe\"; 1 of 1 differ");
    }

    #[test]
    fn a_file_that_is_not_there_is_unreadable() {
        let folder = tempfile::tempdir().unwrap();
        let here = folder.path().join("here");
        std::fs::write(&here, "x").unwrap();
        let error = Text.compare(&here, &folder.path().join("gone"), Tolerance::EXACT).unwrap_err();
        assert!(error.to_string().starts_with("the file made anew: "), "{error}");
    }
}
