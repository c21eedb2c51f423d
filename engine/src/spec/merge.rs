//! Lays one tree over another: tables deep, everything else replaced.

use crate::value::{Data, KIND, Value};

/// Returns `upper` laid over `lower`.
///
/// Two tables are merged key by key, except when both name a `kind` and these differ: the fields of one kind mean
/// nothing to another. A merged table keeps the place of the lower one, so that overriding a stage does not move it.
pub(super) fn over(lower: Value, upper: Value) -> Value {
    // An explicit stack instead of recursion would buy nothing: the parser bounds the depth of tables.
    match (lower.data, upper.data) {
        (Data::Table(mut below), Data::Table(above)) => {
            let kind = |entries: &std::collections::BTreeMap<String, crate::value::Entry>| {
                entries.get(KIND).and_then(|entry| entry.value.as_str().map(str::to_owned))
            };
            if let (Some(below_kind), Some(above_kind)) = (kind(&below), kind(&above))
                && below_kind != above_kind
            {
                return Value { data: Data::Table(above), origin: upper.origin };
            }
            for (key, entry) in above {
                match below.remove(&key) {
                    Some(mut existing) => {
                        existing.value = over(existing.value, entry.value);
                        below.insert(key, existing);
                    }
                    None => drop(below.insert(key, entry)),
                }
            }
            Value { data: Data::Table(below), origin: lower.origin.or(upper.origin) }
        }
        (_, data) => Value { data, origin: upper.origin },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::toml::parse_document;

    fn merged(lower: &str, upper: &str) -> String {
        over(parse_document(lower, 0).expect("valid"), parse_document(upper, 1).expect("valid")).to_string()
    }

    #[test]
    fn tables_merge_deep_and_lists_are_replaced() {
        let lower = "a = { x = 1, y = { z = 2 } }\nb = [1, 2]";
        let upper = "a = { y = { w = 3 } }\nb = [3]";
        assert_eq!(merged(lower, upper), "{ a = { x = 1, y = { w = 3, z = 2 } }, b = [3] }");
    }

    #[test]
    fn a_table_of_another_kind_replaces_the_whole_table() {
        let lower = "ci = { kind = \"mlp\", hidden = [16] }";
        assert_eq!(merged(lower, "ci = { kind = \"linear\" }"), "{ ci = { kind = \"linear\" } }");
        assert_eq!(
            merged(lower, "ci = { kind = \"mlp\", bias = true }"),
            "{ ci = { bias = true, hidden = [16], kind = \"mlp\" } }"
        );
    }
}
