//! The texts that files hold beside their values: `__metadata__` of safetensors, the key-value pairs of Parquet.

use std::collections::{BTreeMap, BTreeSet};

use super::excerpt::{beginning, excerpts};
use super::tally::{Site, Tally};

/// Compares the texts of two files. Comes after their values: a text explains nothing if a value differs.
pub(super) fn compare_metadata(
    recorded: &BTreeMap<String, String>,
    made: &BTreeMap<String, String>,
    tally: &mut Tally,
) {
    for key in recorded.keys().chain(made.keys()).collect::<BTreeSet<_>>() {
        tally.expect(1);
        let (before, after) = (recorded.get(key), made.get(key));
        if before == after {
            continue;
        }
        tally.values(Site { part: "metadata", step: None }, 1, false, || {
            let (recorded, made) = match (before, after) {
                (Some(before), Some(after)) => {
                    let found = excerpts(before, after);
                    (found.recorded, found.made)
                }
                _ => (alone(before), alone(after)),
            };
            (format!("metadata `{key}`"), recorded, made)
        });
    }
}

fn alone(text: Option<&String>) -> String {
    text.map_or("nothing".to_owned(), |text| beginning(text))
}
