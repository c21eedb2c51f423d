//! Paths into a [`Value`], as users write them: `stage.decompose.params.losses[1].coeff`.
//!
//! A key that holds a point or a bracket is quoted: `stage."a.b".uses`.

use super::{Data, Origin, Value};

/// A path that was read from text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KeyPath(pub(crate) Vec<Step>);

/// One step into a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    /// To the value under a key.
    Key(String),
    /// To the item at a position, counted from 0.
    Item(usize),
}

/// How many steps a path may have; deeper values than any kind has would only exhaust the stack.
const MAX_STEPS: usize = 64;

impl KeyPath {
    /// Returns the path that `text` writes, or what is wrong with it.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut steps = Vec::new();
        let mut rest = text;
        loop {
            if let Some(quoted) = rest.strip_prefix('"') {
                let (key, after) = quoted.split_once('"').ok_or("a quote is not closed")?;
                steps.push(Step::Key(key.to_owned()));
                rest = after;
            } else {
                let end = rest.find(['.', '[']).unwrap_or(rest.len());
                let key = &rest[..end];
                if key.is_empty() || !key.chars().all(|c| c.is_ascii_alphanumeric() || "-_".contains(c)) {
                    return Err(format!("expected a key of letters, digits, `-` and `_`, found `{key}`"));
                }
                steps.push(Step::Key(key.to_owned()));
                rest = &rest[end..];
            }
            while let Some(bracketed) = rest.strip_prefix('[') {
                let (position, after) = bracketed.split_once(']').ok_or("a bracket is not closed")?;
                let position =
                    position.parse().map_err(|_| format!("expected a position in brackets, found `{position}`"))?;
                steps.push(Step::Item(position));
                rest = after;
            }
            if steps.len() > MAX_STEPS {
                return Err(format!("it has more than {MAX_STEPS} steps"));
            }
            match rest.strip_prefix('.') {
                Some(after) => rest = after,
                None if rest.is_empty() => return Ok(Self(steps)),
                None => return Err(format!("expected `.` or `[`, found `{rest}`")),
            }
        }
    }
}

/// Returns where the value at `path` was written, or the nearest enclosing value that was written anywhere.
pub(crate) fn origin_of<'v>(root: &'v Value, path: &str) -> Option<&'v Origin> {
    let mut origin = root.origin.as_ref();
    let mut value = root;
    for step in KeyPath::parse(path).map(|path| path.0).unwrap_or_default() {
        let (next, key_origin) = match (&value.data, &step) {
            (Data::Table(entries), Step::Key(key)) => match entries.get(key) {
                Some(entry) => (&entry.value, entry.key_origin.as_ref()),
                None => break,
            },
            (Data::Array(items), Step::Item(position)) => match items.get(*position) {
                Some(item) => (item, None),
                None => break,
            },
            _ => break,
        };
        value = next;
        origin = value.origin.as_ref().or(key_origin).or(origin);
    }
    origin
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> Step {
        Step::Key(name.to_owned())
    }

    #[test]
    fn paths_are_read_as_written() {
        assert_eq!(KeyPath::parse("a.b-c[1].d"), Ok(KeyPath(vec![key("a"), key("b-c"), Step::Item(1), key("d")])));
        assert_eq!(KeyPath::parse("stage.\"a.b\".uses"), Ok(KeyPath(vec![key("stage"), key("a.b"), key("uses")])));
    }

    #[test]
    fn broken_paths_are_refused() {
        for text in ["", ".", "a..b", "a.", "a[", "a[x]", "a b", "a]", "\"a"] {
            assert!(KeyPath::parse(text).is_err(), "{text}");
        }
        assert!(KeyPath::parse(&"a.".repeat(20_000)).is_err());
        assert!(KeyPath::parse(&format!("a{}", "[0]".repeat(20_000))).is_err());
    }
}
