//! Why a stage must run: how its key differs from that of an earlier result, field by field.
//!
//! The earlier result is the one that lies in the stage's place, else the most similar one of its kind that the cache
//! has. Records keep the preimage of their key verbatim, so the answer is exact.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;
use serde_json::Value as Json;
use spdflow_cache::{Cache, Digest, Lookup, Record};

use crate::fingerprint::Preimage;

/// How many records are looked through for a similar one.
const MOST_RECORDS: usize = 2000;

/// A result that differs in more fields is not similar.
const MOST_DIFFERENCES: usize = 8;

/// How many differences a sentence names.
const NAMED: usize = 3;

/// One field in which two keys differ.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Difference {
    /// `params.lr.start`, `inputs.target`, `version`; items of a list are named by their `kind` if that is enough.
    pub field: String,
    /// What the earlier key has; nothing if it has no such field.
    pub before: Option<Json>,
    /// What the new key has; nothing if it has no such field.
    pub after: Option<Json>,
    /// For inputs: the instances that make them now.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub producers: Vec<String>,
}

/// An earlier result and how its key differs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Comparison {
    /// The earlier result's fingerprint.
    pub earlier: Digest,
    /// The instance and the run that made it.
    pub instance: String,
    /// See `instance`.
    pub run: String,
    /// In the order of the fields' names; never empty.
    pub differences: Vec<Difference>,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { field, before, after, producers } = self;
        if let Some(slot) = field.strip_prefix("inputs.") {
            return match (before, after) {
                (None, _) => write!(f, "input `{slot}` is new"),
                (_, None) => write!(f, "input `{slot}` is gone"),
                _ => {
                    let by: Vec<_> = producers.iter().take(NAMED).map(|producer| format!("`{producer}`")).collect();
                    let more = if producers.len() > NAMED { ", …" } else { "" };
                    write!(f, "input `{slot}`: different bytes, produced by {}{more}", by.join(", "))
                }
            };
        }
        match (before, after) {
            (Some(before), Some(after)) => write!(f, "`{field}` {} → {}", short(before), short(after)),
            (None, Some(after)) => write!(f, "`{field}` is new: {}", short(after)),
            (Some(before), None) => write!(f, "`{field}` is gone, it was {}", short(before)),
            (None, None) => write!(f, "`{field}`"),
        }
    }
}

/// The differences in one sentence, the first few by name.
impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, difference) in self.differences.iter().take(NAMED).enumerate() {
            write!(f, "{}{difference}", if position > 0 { "; " } else { "" })?;
        }
        match self.differences.len().saturating_sub(NAMED) {
            0 => Ok(()),
            more => write!(f, "; and {more} more"),
        }
    }
}

/// Returns a value as it may stand in a sentence: long ones are cut.
fn short(value: &Json) -> String {
    const LONGEST: usize = 60;
    let text = value.to_string();
    match text.char_indices().nth(LONGEST) {
        None => text,
        Some((at, _)) => format!("{}…", &text[..at]),
    }
}

/// Returns how `after` differs from `before`; `producers` names who makes the inputs of a slot now.
pub(crate) fn differences(
    before: &Preimage,
    after: &Preimage,
    producers: &dyn Fn(&str) -> Vec<String>,
) -> Vec<Difference> {
    let mut found = Vec::new();
    let mut compare = |field: &str, before: Json, after: Json| walk(field, Some(&before), Some(&after), &mut found);
    compare("kind", before.kind.clone().into(), after.kind.clone().into());
    compare("version", before.version.into(), after.version.into());
    compare("numeric_target", before.numeric_target.clone().into(), after.numeric_target.clone().into());
    walk("params", Some(&before.params), Some(&after.params), &mut found);
    let mut slots: Vec<&String> = before.inputs.keys().chain(after.inputs.keys()).collect();
    slots.sort_unstable();
    slots.dedup();
    for slot in slots {
        let (old, new) = (before.inputs.get(slot), after.inputs.get(slot));
        if old != new {
            let json = |digests: Option<&Vec<Digest>>| digests.map(|digests| serde_json::json!(digests));
            found.push(Difference {
                field: format!("inputs.{slot}"),
                before: json(old),
                after: json(new),
                producers: producers(slot),
            });
        }
    }
    found
}

/// Adds the differences of two values at `field`, at the deepest places that differ.
fn walk(field: &str, before: Option<&Json>, after: Option<&Json>, found: &mut Vec<Difference>) {
    if before == after {
        return;
    }
    match (before, after) {
        (Some(Json::Object(old)), Some(Json::Object(new))) if old.get("kind") == new.get("kind") => {
            let mut keys: Vec<&String> = old.keys().chain(new.keys()).collect();
            keys.sort_unstable();
            keys.dedup();
            for key in keys {
                walk(&format!("{field}.{key}"), old.get(key), new.get(key), found);
            }
        }
        (Some(Json::Array(old)), Some(Json::Array(new))) => items(field, old, new, found),
        _ => found.push(Difference {
            field: field.to_owned(),
            before: before.cloned(),
            after: after.cloned(),
            producers: Vec::new(),
        }),
    }
}

/// Compares the items of two lists: by their kinds if no kind comes twice, else one after the other.
fn items(field: &str, old: &[Json], new: &[Json], found: &mut Vec<Difference>) {
    match (by_kind(old), by_kind(new)) {
        // Their order may differ too, which names would not show.
        (Some(before), Some(after)) if in_same_order(old, new) => {
            let mut kinds: Vec<&&str> = before.keys().chain(after.keys()).collect();
            kinds.sort_unstable();
            kinds.dedup();
            for kind in kinds {
                walk(&format!("{field}.{kind}"), before.get(*kind).copied(), after.get(*kind).copied(), found);
            }
        }
        _ => {
            for index in 0..old.len().max(new.len()) {
                walk(&format!("{field}[{index}]"), old.get(index), new.get(index), found);
            }
        }
    }
}

fn kind_of(item: &Json) -> Option<&str> {
    item.get("kind").and_then(Json::as_str)
}

fn by_kind(items: &[Json]) -> Option<BTreeMap<&str, &Json>> {
    let by_kind: BTreeMap<&str, &Json> = items.iter().filter_map(|item| Some((kind_of(item)?, item))).collect();
    (by_kind.len() == items.len()).then_some(by_kind)
}

/// Returns whether the kinds that both lists have come in the same order.
fn in_same_order(old: &[Json], new: &[Json]) -> bool {
    let common = |items: &[Json], others: &[Json]| -> Vec<String> {
        let is_common = |kind: &&str| others.iter().any(|other| kind_of(other) == Some(kind));
        items.iter().filter_map(kind_of).filter(is_common).map(str::to_owned).collect()
    };
    common(old, new) == common(new, old)
}

/// Finds earlier results; reads the cache's records at most once.
#[derive(Debug)]
pub(crate) struct Earlier<'a> {
    cache: &'a Cache,
    records: Option<Vec<(Preimage, Record)>>,
}

impl<'a> Earlier<'a> {
    pub(crate) fn new(cache: &'a Cache) -> Self {
        Self { cache, records: None }
    }

    /// Returns how `wanted` differs from the result `in_place`, else from the most similar one of its kind.
    pub(crate) fn compare(
        &mut self,
        wanted: &Preimage,
        instance: &str,
        in_place: Option<Digest>,
        producers: &dyn Fn(&str) -> Vec<String>,
    ) -> Option<Comparison> {
        let comparison = |record: &Record, preimage: &Preimage| {
            let differences = differences(preimage, wanted, producers);
            (!differences.is_empty()).then(|| Comparison {
                earlier: record.fingerprint,
                instance: record.instance.clone(),
                run: record.run.clone(),
                differences,
            })
        };
        if let Some(Lookup::Hit(record)) = in_place.and_then(|fingerprint| self.cache.read_record(&fingerprint).ok())
            && let Ok(preimage) = serde_json::from_value(record.preimage.clone())
        {
            return comparison(&record, &preimage);
        }
        let of_kind = self.records().iter().filter(|(preimage, _)| preimage.kind == wanted.kind);
        // The fewest differences; among equals the same instance, then the latest.
        let nearest = of_kind.filter_map(|(preimage, record)| {
            let found = comparison(record, preimage).filter(|found| found.differences.len() <= MOST_DIFFERENCES)?;
            let rank = (found.differences.len(), record.instance != instance);
            Some((rank, std::cmp::Reverse(record.times.started.clone()), found))
        });
        nearest.min_by(|a, b| (a.0, &a.1).cmp(&(b.0, &b.1))).map(|(_, _, found)| found)
    }

    fn records(&mut self) -> &[(Preimage, Record)] {
        self.records.get_or_insert_with(|| {
            let fingerprints = self.cache.fingerprints(MOST_RECORDS);
            let read = fingerprints.iter().filter_map(|fingerprint| match self.cache.read_record(fingerprint) {
                Ok(Lookup::Hit(record)) => Some((serde_json::from_value(record.preimage.clone()).ok()?, *record)),
                _ => None,
            });
            read.collect()
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn preimage(params: Json, inputs: &[(&str, &[u8])]) -> Preimage {
        let inputs = inputs.iter().map(|(slot, bytes)| ((*slot).to_owned(), vec![Digest::of(bytes)])).collect();
        Preimage { kind: "decompose.spd".to_owned(), version: 3, params, inputs, numeric_target: "cpu".to_owned() }
    }

    fn said(before: &Preimage, after: &Preimage) -> Vec<String> {
        let producers = |_: &str| vec!["target".to_owned()];
        differences(before, after, &producers).iter().map(Difference::to_string).collect()
    }

    #[test]
    fn a_difference_is_named_at_its_deepest_place() {
        let before = preimage(
            json!({ "lr": { "start": 1e-3, "end": 0 }, "steps": 10, "old": true,
                "losses": [{ "kind": "price", "coeff": 1.0 }, { "kind": "recon", "coeff": 1.0 }] }),
            &[("target", b"a"), ("gone", b"x")],
        );
        let after = preimage(
            json!({ "lr": { "start": 3e-4, "end": 0 }, "steps": 10, "new": [1],
                "losses": [{ "kind": "price", "coeff": 2.0 }, { "kind": "recon", "coeff": 1.0 }, { "kind": "more" }] }),
            &[("target", b"b")],
        );
        assert_eq!(
            said(&before, &after),
            [
                "`params.losses.more` is new: {\"kind\":\"more\"}",
                "`params.losses.price.coeff` 1.0 → 2.0",
                "`params.lr.start` 0.001 → 0.0003",
                "`params.new` is new: [1]",
                "`params.old` is gone, it was true",
                "input `gone` is gone",
                "input `target`: different bytes, produced by `target`",
            ]
        );
        assert_eq!(said(&before, &before), [""; 0]);
    }

    #[test]
    fn versions_targets_and_kinds_inside_are_told() {
        let before = preimage(json!({ "ci": { "kind": "mlp", "hidden": [16] } }), &[]);
        let after = preimage(json!({ "ci": { "kind": "shared", "width": 3 } }), &[]);
        let after = Preimage { version: 4, numeric_target: "cuda".to_owned(), ..after };
        assert_eq!(
            said(&before, &after),
            [
                "`version` 3 → 4",
                "`numeric_target` \"cpu\" → \"cuda\"",
                "`params.ci` {\"hidden\":[16],\"kind\":\"mlp\"} → {\"kind\":\"shared\",\"width\":3}",
            ]
        );
    }

    #[test]
    fn lists_whose_order_changed_or_that_repeat_a_kind_are_compared_by_position() {
        let list = |items: Json| preimage(json!({ "losses": items }), &[]);
        let (a, b) = (json!({ "kind": "a" }), json!({ "kind": "b" }));
        let swapped = said(&list(json!([a, b])), &list(json!([b, a])));
        assert_eq!(swapped.len(), 2);
        assert_eq!(swapped[0], "`params.losses[0]` {\"kind\":\"a\"} → {\"kind\":\"b\"}");
        let twice = said(&list(json!([a, a])), &list(json!([a])));
        assert_eq!(twice, ["`params.losses[1]` is gone, it was {\"kind\":\"a\"}"]);
    }
}
