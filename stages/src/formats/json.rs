//! JSON documents, by the paths of their values: `metrics[0].value`.
//!
//! The order of members and the space between them mean nothing.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use serde_json::{Map, Value};
use spdflow_engine::audit::format::{Difference, Format, Quote, Tolerance, Unreadable};

use super::excerpt::{beginning, excerpts};
use super::number::Number;
use super::reading::{self, unreadable};
use super::tally::{Site, Tally};

/// JSON documents. A tolerance, where one is given, is for all numbers, whole ones too.
///
/// Without one `1` and `1.0` differ: whoever reads the file gets values of different types.
#[derive(Debug, Clone, Default)]
pub struct Json {
    left_out: Vec<Vec<Segment>>,
}

/// A part of the pattern of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Segment {
    Member(String),
    AnyElement,
}

/// A part of a path.
#[derive(Debug, Clone, Copy)]
enum Part<'a> {
    Member(&'a str),
    Element(usize),
}

impl Json {
    /// Returns the format for documents of which some members do not count, whether they are there or not:
    /// `files[*].digest`, where `[*]` stands for every element.
    #[must_use]
    pub fn leaving_out(members: &[&str]) -> Self {
        let segments = |member: &&str| {
            let names = member.split('.').flat_map(|part| {
                let name = part.trim_end_matches("[*]");
                let elements = (part.len() - name.len()) / "[*]".len();
                let member = (!name.is_empty()).then(|| Segment::Member(name.to_owned()));
                member.into_iter().chain(std::iter::repeat_n(Segment::AnyElement, elements))
            });
            names.collect()
        };
        Self { left_out: members.iter().map(segments).collect() }
    }

    fn is_left_out(&self, path: &[Part<'_>]) -> bool {
        let is_of = |(segment, part): (&Segment, &Part<'_>)| match (segment, part) {
            (Segment::Member(name), Part::Member(found)) => name == found,
            (Segment::AnyElement, Part::Element(_)) => true,
            _ => false,
        };
        self.left_out.iter().any(|member| member.len() == path.len() && member.iter().zip(path).all(is_of))
    }
}

impl Format for Json {
    fn compare(&self, recorded: &Path, made: &Path, tolerance: Tolerance) -> Result<Option<Difference>, Unreadable> {
        let (recorded, made) = reading::both(recorded, made)?;
        if recorded == made {
            return Ok(None);
        }
        let recorded: Value = serde_json::from_slice(&recorded).map_err(unreadable(true))?;
        let made: Value = serde_json::from_slice(&made).map_err(unreadable(false))?;
        let mut comparison = Comparison { json: self, tolerance, path: Vec::new(), tally: Tally::new(tolerance) };
        comparison.values(&recorded, &made, None);
        Ok(comparison.tally.finish())
    }

    /// Every member that is a number, under its name; and the `value` of an object that has a `name`, under that.
    fn quotes(&self, file: &Path) -> Result<Vec<Quote>, Unreadable> {
        let bytes = fs::read(file).map_err(unreadable(true))?;
        let document: Value = serde_json::from_slice(&bytes).map_err(unreadable(true))?;
        let mut quotes = Vec::new();
        collect(&document, &mut Vec::new(), &mut quotes);
        Ok(quotes)
    }
}

/// Two documents on the way.
struct Comparison<'a> {
    json: &'a Json,
    tolerance: Tolerance,
    path: Vec<Part<'a>>,
    tally: Tally,
}

impl<'a> Comparison<'a> {
    fn values(&mut self, recorded: &'a Value, made: &'a Value, step: Option<u64>) {
        match (recorded, made) {
            (Value::Object(before), Value::Object(after)) => {
                let step = before.get("step").or(after.get("step")).and_then(Value::as_u64).or(step);
                let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
                for name in names {
                    self.below(Part::Member(name), before.get(name), after.get(name), step);
                }
            }
            (Value::Array(before), Value::Array(after)) => {
                for i in 0..before.len().max(after.len()) {
                    self.below(Part::Element(i), before.get(i), after.get(i), step);
                }
            }
            _ => self.leaves(recorded, made, step),
        }
    }

    fn below(&mut self, part: Part<'a>, recorded: Option<&'a Value>, made: Option<&'a Value>, step: Option<u64>) {
        self.path.push(part);
        if !self.json.is_left_out(&self.path) {
            match (recorded, made) {
                (Some(recorded), Some(made)) => self.values(recorded, made, step),
                (Some(only), None) => self.one_sided(only, step, |text| (text, "nothing".to_owned())),
                (None, Some(only)) => self.one_sided(only, step, |text| ("nothing".to_owned(), text)),
                (None, None) => {}
            }
        }
        self.path.pop();
    }

    /// Takes note of a value that only one of the documents has.
    fn one_sided(&mut self, only: &Value, step: Option<u64>, sides: impl FnOnce(String) -> (String, String)) {
        let count = leaves(only);
        self.tally.expect(count);
        let path = &self.path;
        self.tally.values(Site { part: "", step }, count, false, || {
            let (recorded, made) = sides(shown(only));
            (place(path), recorded, made)
        });
    }

    fn leaves(&mut self, recorded: &Value, made: &Value, step: Option<u64>) {
        let (site, path, tally) = (Site { part: "", step }, &self.path, &mut self.tally);
        let count = leaves(recorded).max(leaves(made));
        tally.expect(count);
        match (number(recorded), number(made)) {
            (Some(before), Some(after)) if !before.is_same(after) => {
                tally.distance(before.distance(after));
                let is_within = !self.tolerance.is_exact() && self.tolerance.admits(before.to_f64(), after.to_f64());
                let remark = if before.to_f64() == after.to_f64() && recorded.is_f64() != made.is_f64() {
                    ", the same number written otherwise"
                } else {
                    ""
                };
                tally.values(site, 1, is_within, || (place(path), before.to_string(), format!("{after}{remark}")));
            }
            (Some(_), Some(_)) => {}
            _ if recorded == made => {}
            _ => tally.values(site, count, false, || match (recorded, made) {
                (Value::String(before), Value::String(after)) => {
                    let found = excerpts(before, after);
                    (place(path), found.recorded, found.made)
                }
                _ => (place(path), shown(recorded), shown(made)),
            }),
        }
    }
}

fn number(value: &Value) -> Option<Number> {
    let Value::Number(number) = value else { return None };
    let whole = number.as_i64().map(i128::from).or(number.as_u64().map(i128::from));
    whole.map(Number::Integer).or(number.as_f64().map(Number::Double))
}

/// Returns how many values a value holds that hold no others.
fn leaves(value: &Value) -> u64 {
    match value {
        Value::Array(elements) => elements.iter().map(leaves).sum::<u64>().max(1),
        Value::Object(members) => members.values().map(leaves).sum::<u64>().max(1),
        _ => 1,
    }
}

fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => beginning(text),
        Value::Array(elements) => format!("a list of {}", elements.len()),
        Value::Object(members) => {
            let names: Vec<_> = members.keys().take(3).map(|name| format!("`{name}`")).collect();
            let more = if members.len() > names.len() { ", …" } else { "" };
            format!("an object of {}{more}", if names.is_empty() { "nothing".to_owned() } else { names.join(", ") })
        }
        _ => value.to_string(),
    }
}

fn place(path: &[Part<'_>]) -> String {
    if path.is_empty() { "the document".to_owned() } else { format!("`{}`", path_text(path)) }
}

fn path_text(path: &[Part<'_>]) -> String {
    let mut text = String::new();
    for part in path {
        let written = match part {
            Part::Element(i) => write!(text, "[{i}]"),
            Part::Member(name) if !is_plain(name) => write!(text, "[{name:?}]"),
            Part::Member(name) if text.is_empty() => write!(text, "{name}"),
            Part::Member(name) => write!(text, ".{name}"),
        };
        written.expect("writing to a string");
    }
    text
}

fn is_plain(name: &str) -> bool {
    !name.is_empty() && name.chars().all(|letter| letter.is_alphanumeric() || matches!(letter, '_' | '-'))
}

fn collect<'a>(value: &'a Value, path: &mut Vec<Part<'a>>, quotes: &mut Vec<Quote>) {
    match value {
        Value::Array(elements) => {
            for (i, element) in elements.iter().enumerate() {
                path.push(Part::Element(i));
                collect(element, path, quotes);
                path.pop();
            }
        }
        Value::Object(members) => {
            for (key, member) in members {
                path.push(Part::Member(key));
                if let Some(value) = quoted(members, key, member) {
                    let name = own_name(members, key).to_owned();
                    quotes.push(Quote { name, value, precision: 0.0, place: format!("`{}`", path_text(path)) });
                }
                collect(member, path, quotes);
                path.pop();
            }
        }
        _ => {}
    }
}

/// Returns the number that a member quotes. JSON has no NaN, so a named value may be a text for it.
fn quoted(members: &Map<String, Value>, key: &str, member: &Value) -> Option<f64> {
    match member.as_str() {
        Some("NaN") if own_name(members, key) != key => Some(f64::NAN),
        Some("inf") if own_name(members, key) != key => Some(f64::INFINITY),
        Some("-inf") if own_name(members, key) != key => Some(f64::NEG_INFINITY),
        _ => member.as_f64(),
    }
}

/// Returns what a member is called: by the object's `name`, if it is its `value`.
fn own_name<'a>(members: &'a Map<String, Value>, key: &'a str) -> &'a str {
    members.get("name").and_then(Value::as_str).filter(|_| key == "value").unwrap_or(key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::testing;

    const NEAR: Tolerance = Tolerance { absolute: 0.5, relative: 0.0 };

    fn compared(recorded: &str, made: &str, tolerance: Tolerance) -> Option<String> {
        testing::compared("json", recorded.as_bytes(), made.as_bytes(), tolerance).unwrap()
    }

    fn exactly(recorded: &str, made: &str) -> Option<String> {
        compared(recorded, made, Tolerance::EXACT)
    }

    #[test]
    fn order_and_space_mean_nothing() {
        assert_eq!(exactly(r#"{"a": 1, "b": [2.0, null]}"#, r#"{"b":[2.00,null],"a":1}"#), None);
    }

    #[test]
    fn a_value_that_differs_is_named_by_its_path() {
        let cases = [
            (
                r#"{"metrics": [{"value": 0.5, "l0/0.1_x": 2}]}"#,
                r#"{"metrics": [{"value": 0.75, "l0/0.1_x": 2}]}"#,
                "`metrics[0].value`: 0.5, now 0.75; 1 of 2 differ, \
                 by at most 2.500e-1 (5.000e-1 of the value, 2251799813685248 ULP)",
            ),
            (
                r#"{"result": {"l0/0.1_x": 2}}"#,
                r#"{"result": {"l0/0.1_x": 3}}"#,
                "`result[\"l0/0.1_x\"]`: 2, now 3; 1 of 1 differ, by at most 1.000e0 (5.000e-1 of the value, 1 ULP)",
            ),
            (r#"["kept"]"#, r#"["kent"]"#, "`[0]`: \"kept\", now \"kent\"; 1 of 1 differ"),
            ("[true, null]", "[false, 0]", "`[0]`: true, now false; 2 of 2 differ"),
            ("3", "[3, 4]", "the document: 3, now a list of 2; 2 of 2 differ"),
            (
                r#"{"a": {"b": 1, "c": 2}, "d": 3}"#,
                r#"{"d": 3}"#,
                "`a`: an object of `b`, `c`, now nothing; 2 of 3 differ",
            ),
            ("[1]", "[1, {}]", "`[1]`: nothing, now an object of nothing; 1 of 2 differ"),
        ];
        for (recorded, made, expected) in cases {
            assert_eq!(exactly(recorded, made).unwrap(), expected);
        }
    }

    #[test]
    fn a_whole_number_is_not_a_float_and_a_zero_has_its_sign() {
        assert_eq!(
            exactly("[1]", "[1.0]").unwrap(),
            "`[0]`: 1, now 1.0, the same number written otherwise; 1 of 1 differ, \
             by at most 0.000e0 (0.000e0 of the value, 0 ULP)"
        );
        assert_eq!(
            exactly("[0.0]", "[-0.0]").unwrap(),
            "`[0]`: 0.0, now -0.0; 1 of 1 differ, by at most 0.000e0 (0.000e0 of the value, 0 ULP)"
        );
        // Both are 2^53 as floats.
        assert!(exactly("[9007199254740992]", "[9007199254740993]").is_some());
    }

    #[test]
    fn a_tolerance_is_for_all_numbers_and_for_nothing_else() {
        let found = |recorded: &str, made: &str| {
            testing::difference("json", recorded.as_bytes(), made.as_bytes(), NEAR).unwrap().unwrap()
        };
        assert!(found("[1, 2.0]", "[1.0, 2.5]").is_within);
        let outside = found("[1.0, 2.0, 3.0]", "[1.5, 2.0, 4.0]");
        assert!(!outside.is_within);
        assert_eq!((&*outside.place, outside.count), ("`[2]`", 2));
        assert!(!found("[1, 1]", "[1.5, null]").is_within);
        assert!(!found("[1]", "[\"1\"]").is_within);
    }

    #[test]
    fn the_smallest_step_is_the_first() {
        let log = |a: f64, b: f64| format!(r#"[{{"step": 20, "loss": {a:?}}}, {{"step": 10, "loss": {b:?}}}]"#);
        let found = testing::difference("json", log(1.0, 1.0).as_bytes(), log(2.0, 3.0).as_bytes(), Tolerance::EXACT);
        let found = found.unwrap().unwrap();
        assert_eq!((&*found.place, found.step), ("`[1].loss`", Some(10)));
    }

    #[test]
    fn members_that_are_left_out_do_not_count() {
        let folder = tempfile::tempdir().unwrap();
        let [left, right] = ["left", "right"].map(|name| folder.path().join(name));
        let format = Json::leaving_out(&["files[*].digest", "files[*].size_bytes", "grid[*][*].x"]);
        let compared = |recorded: &str, made: &str| {
            fs::write(&left, recorded).unwrap();
            fs::write(&right, made).unwrap();
            format.compare(&left, &right, Tolerance::EXACT).unwrap().map(|found| found.place)
        };
        let manifest =
            |digest: &str, path: &str| format!(r#"{{"files": [{{"digest": "{digest}", "path": "{path}"}}]}}"#);
        assert_eq!(compared(&manifest("a", "p"), &manifest("b", "p")), None);
        assert_eq!(compared(&manifest("a", "p"), r#"{"files": [{"path": "p", "size_bytes": 3}]}"#), None);
        assert_eq!(compared(&manifest("a", "p"), &manifest("b", "q")).unwrap(), "`files[0].path`");
        assert_eq!(compared(r#"{"digest": 1}"#, r#"{"digest": 2}"#).unwrap(), "`digest`");
        assert_eq!(compared(r#"{"grid": [[{"x": 1}]]}"#, r#"{"grid": [[{"x": 2}]]}"#), None);
        assert_eq!(compared(r#"{"files": [{"digest": {"a": 1}}]}"#, r#"{"files": [{"digest": 2}]}"#), None);
    }

    #[test]
    fn damage_is_said_with_its_place() {
        let error = testing::compared("json", b"{\"a\": 1}", b"{\"a\": ", Tolerance::EXACT).unwrap_err();
        assert_eq!(error.to_string(), "the file made anew: EOF while parsing a value at line 1 column 6");
        let error = testing::compared("json", b"NaN", b"1", Tolerance::EXACT).unwrap_err();
        assert_eq!(error.to_string(), "the recorded file: expected value at line 1 column 1");
        let deep = "[".repeat(1000);
        assert!(testing::compared("json", deep.as_bytes(), b"1", Tolerance::EXACT).unwrap_err().is_recorded);
    }

    #[test]
    fn members_and_named_values_are_quoted() {
        let text =
            r#"{"result": {"mmcs": 0.5, "title": "x"}, "metrics": [{"name": "loss", "value": "NaN", "step": 3}]}"#;
        let quotes = testing::quotes("json", text.as_bytes());
        let shown: Vec<_> = quotes.iter().map(|quote| (&*quote.name, quote.value, &*quote.place)).collect();
        assert_eq!(shown[0], ("step", 3.0, "`metrics[0].step`"));
        assert!(shown[1].1.is_nan() && (shown[1].0, shown[1].2) == ("loss", "`metrics[0].value`"));
        assert_eq!(shown[2..], [("mmcs", 0.5, "`result.mmcs`")]);
        assert!(quotes.iter().all(|quote| quote.precision == 0.0));
    }
}
