//! JSON Lines: texts whose lines are JSON values, each perhaps with the training step it was written at.

use std::path::Path;

use serde::Deserialize;
use spdflow_engine::audit::format::{Difference, Format, Tolerance, Unreadable};

use super::reading;
use super::text::compare_lines;

/// Logs of one JSON value per line, compared as text. The line of the smallest `step` is the first; a line that names
/// no step belongs to the one above it.
#[derive(Debug, Clone, Copy)]
pub struct JsonLines;

impl Format for JsonLines {
    fn compare(&self, recorded: &Path, made: &Path, _: Tolerance) -> Result<Option<Difference>, Unreadable> {
        let (recorded, made) = reading::both(recorded, made)?;
        let mut last = None;
        Ok(compare_lines(&recorded, &made, |recorded, made| {
            let own = [recorded, made].into_iter().flatten().filter_map(step).min();
            last = own.or(last);
            last
        }))
    }
}

/// Returns the step that a line names.
fn step(line: &[u8]) -> Option<u64> {
    #[derive(Deserialize)]
    struct Line {
        step: u64,
    }
    serde_json::from_slice(line).ok().map(|line: Line| line.step)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::testing;

    fn compared(recorded: &str, made: &str) -> Option<String> {
        testing::compared("jsonl", recorded.as_bytes(), made.as_bytes(), Tolerance::EXACT).unwrap()
    }

    #[test]
    fn the_smallest_step_that_differs_is_the_first() {
        let recorded = "{\"step\": 200, \"loss\": 1}\n{\"step\": 100, \"loss\": 2}\nend\n";
        let made = "{\"step\": 200, \"loss\": 3}\n{\"step\": 100, \"loss\": 4}\nEnd\n";
        assert_eq!(compared(recorded, recorded), None);
        assert_eq!(
            compared(recorded, made).unwrap(),
            "line 2, column 23, step 100: \"{\\\"step\\\": 100, \\\"loss\\\": 2}\", \
             now \"{\\\"step\\\": 100, \\\"loss\\\": 4}\"; 3 of 3 differ"
        );
    }

    #[test]
    fn lines_without_a_step_belong_to_the_one_above_and_a_heading_comes_first() {
        let log = |heading: &str, end: &str| format!("{heading}\n{{\"step\": 0}}\n{{\"step\": 7}}\n{end}\n");
        assert_eq!(
            compared(&log("a", "b"), &log("a", "c")).unwrap(),
            "line 4, column 1, step 7: \"b\", now \"c\"; 1 of 4 differ"
        );
        assert_eq!(
            compared(&log("a", "b"), &log("A", "c")).unwrap(),
            "line 1, column 1: \"a\", now \"A\"; 2 of 4 differ"
        );
        assert_eq!(
            compared("{\"step\": 5}\n", "").unwrap(),
            "line 1, step 5: \"{\\\"step\\\": 5}\", now the end of the file; 1 of 1 differ"
        );
    }
}
