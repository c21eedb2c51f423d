//! Reads tables field by field: what a field is called there and here, what it may hold, and what it is if left out.
//!
//! Whoever takes a field makes its name known; what nobody took is an unknown key.

use spdflow_engine::diagnostic::Diagnostic;
use spdflow_engine::suggest::{did_you_mean, listed};
use spdflow_engine::value::Origin;

use super::toml::Toml;
use super::yaml::{Data, Field, Fields, Node};

/// Mistakes found so far.
pub(super) type Mistakes = Vec<Diagnostic>;

/// What a field may hold.
#[derive(Debug, Clone, Copy)]
pub(super) enum Form {
    /// A number.
    Number,
    /// A whole number that is not negative.
    Count,
    /// `true` or `false`.
    Flag,
    /// One of these words, which mean the same here.
    Word(&'static [&'static str]),
    /// A list of texts; nothing is the empty one.
    Texts,
    /// Lists of texts by name; nothing is none.
    Groups,
    /// A table `{ type: …, p: … }` that says how positions are routed.
    Routing,
}

/// What a field means that is left out.
#[derive(Debug, Clone, Copy)]
pub(super) enum Missing {
    /// It must be given.
    Refused,
    /// Nothing is written, and neither is it for this value.
    Means(&'static str),
    /// Nothing is written; any value that is given is.
    Unset,
}

/// A field: what it is called there, what it is called here, what it may hold, and what it is when left out.
pub(super) type Rule = (&'static str, &'static str, Form, Missing);

/// How positions are routed, where a loss works on subsets of sites.
const ROUTING: &[Rule] = &[("p", "p", Form::Number, Missing::Refused)];

/// A table of which fields are taken one by one.
pub(super) struct Table {
    fields: Fields,
    origin: Origin,
    known: Vec<&'static str>,
    /// What the table is, for messages; empty for the whole file.
    what: String,
}

impl Table {
    /// Returns the table that `node` should be.
    pub(super) fn of(node: Node, what: &str, mistakes: &mut Mistakes) -> Option<Self> {
        match node.data {
            Data::Table(fields) => Some(Self { fields, origin: node.origin, known: Vec::new(), what: what.to_owned() }),
            _ => {
                let message =
                    format!("expected {}, found {}", if what.is_empty() { "a table" } else { what }, node.described());
                mistakes.push(Diagnostic::new(message).at(Some(&node.origin)));
                None
            }
        }
    }

    /// Returns the value of a field that somebody else takes.
    pub(super) fn peek(&self, key: &str) -> Option<&Node> {
        self.fields.iter().find(|field| field.key == key).map(|field| &field.value)
    }

    /// Takes a field; one that holds nothing counts as left out.
    pub(super) fn take(&mut self, key: &'static str) -> Option<Field> {
        self.known.push(key);
        let position = self.fields.iter().position(|field| field.key == key)?;
        Some(self.fields.remove(position)).filter(|field| !matches!(field.value.data, Data::Null))
    }

    /// Takes a field that must be there.
    pub(super) fn require(&mut self, key: &'static str, mistakes: &mut Mistakes) -> Option<Node> {
        let given = self.fields.iter().find(|field| field.key == key).map(|field| field.key_origin.clone());
        let taken = self.take(key);
        if taken.is_none() {
            mistakes.push(self.missing(key, given.as_ref()));
        }
        taken.map(|field| field.value)
    }

    fn missing(&self, key: &str, given: Option<&Origin>) -> Diagnostic {
        match given {
            Some(origin) => Diagnostic::new(format!("`{key}` is given without a value")).at(Some(origin)),
            None if self.what.is_empty() => Diagnostic::new(format!("`{key}` is missing")),
            None => Diagnostic::new(format!("`{key}` of {} is missing", self.what)).at(Some(&self.origin)),
        }
    }

    /// Takes the fields of `rules` and returns those that have to be written.
    pub(super) fn convert(&mut self, rules: &[Rule], mistakes: &mut Mistakes) -> Vec<(String, Toml)> {
        let mut written = Vec::new();
        for (theirs, ours, form, missing) in rules {
            let value = match missing {
                Missing::Refused => self.require(theirs, mistakes),
                _ => self.take(theirs).map(|field| field.value),
            };
            let Some(node) = value else { continue };
            match converted(*form, node) {
                Ok(value) if matches!(missing, Missing::Means(default) if value.inline() == *default) => {}
                Ok(value) => written.push(((*ours).to_owned(), value)),
                Err(found) => mistakes.extend(found),
            }
        }
        written
    }

    /// Reports the fields that nobody took.
    pub(super) fn finish(self, mistakes: &mut Mistakes) {
        for field in &self.fields {
            let place = if self.what.is_empty() { String::new() } else { format!(" of {}", self.what) };
            let hint = did_you_mean(&field.key, self.known.iter().copied()).unwrap_or_else(|| {
                let mut known = self.known.clone();
                known.sort_unstable();
                format!("known keys: {}", listed(known))
            });
            let message = format!("unknown key `{}`{place}", field.key);
            mistakes.push(Diagnostic::new(message).at(Some(&field.key_origin)).hint(hint));
        }
    }
}

/// Returns a value as it is written here.
pub(super) fn converted(form: Form, node: Node) -> Result<Toml, Mistakes> {
    let value = match form {
        Form::Number => number(&node).map(Toml::float),
        Form::Count => count(&node).map(Toml::integer),
        Form::Flag => flag(&node).map(Toml::bool),
        Form::Word(words) => word(&node, words).map(Toml::text),
        Form::Texts => texts(node),
        Form::Groups => return groups(node),
        Form::Routing => return routing(node),
    };
    value.map_err(|mistake| vec![mistake])
}

fn texts(node: Node) -> Result<Toml, Diagnostic> {
    let texts = items(node, "texts")?;
    Ok(Toml::List(texts.iter().map(|item| text(item).map(Toml::text)).collect::<Result<_, _>>()?))
}

fn groups(node: Node) -> Result<Toml, Mistakes> {
    let mut mistakes = Mistakes::new();
    let Some(table) = Table::of(node, "lists of patterns by name", &mut mistakes) else { return Err(mistakes) };
    let mut groups = Vec::new();
    for field in table.fields {
        match texts(field.value) {
            Ok(patterns) => groups.push((field.key, patterns)),
            Err(mistake) => mistakes.push(mistake),
        }
    }
    if mistakes.is_empty() { Ok(Toml::Table(groups)) } else { Err(mistakes) }
}

fn routing(node: Node) -> Result<Toml, Mistakes> {
    let mut mistakes = Mistakes::new();
    let Some(mut table) = Table::of(node, "`routing`", &mut mistakes) else { return Err(mistakes) };
    let kind = table.require("type", &mut mistakes);
    let kind = kind.map(|node| word(&node, &["uniform_k_subset", "static_probability"]));
    let fields = match &kind {
        Some(Ok("static_probability")) => table.convert(ROUTING, &mut mistakes),
        _ => Vec::new(),
    };
    match kind {
        Some(Ok(kind)) => {
            table.finish(&mut mistakes);
            if mistakes.is_empty() { Ok(Toml::variant(kind, fields)) } else { Err(mistakes) }
        }
        Some(Err(mistake)) => Err(vec![mistake]),
        None => Err(mistakes),
    }
}

fn expected(what: &str, node: &Node) -> Diagnostic {
    Diagnostic::new(format!("expected {what}, found {}", node.described())).at(Some(&node.origin))
}

/// Returns the items of a list; nothing is the empty one.
pub(super) fn items(node: Node, of: &str) -> Result<Vec<Node>, Diagnostic> {
    match node.data {
        Data::List(items) => Ok(items),
        Data::Null => Ok(Vec::new()),
        _ => Err(expected(&format!("a list of {of}"), &node)),
    }
}

/// Returns a text.
pub(super) fn text(node: &Node) -> Result<&str, Diagnostic> {
    match &node.data {
        Data::Scalar(text) => Ok(text),
        _ => Err(expected("a text", node)),
    }
}

/// Returns one of `words`.
pub(super) fn word(node: &Node, words: &[&'static str]) -> Result<&'static str, Diagnostic> {
    let found = match &node.data {
        Data::Scalar(text) => words.iter().find(|word| **word == text.as_str()),
        _ => None,
    };
    found.copied().ok_or_else(|| {
        let hint = match &node.data {
            Data::Scalar(text) => did_you_mean(text, words.iter().copied()),
            _ => None,
        };
        expected(&format!("one of {}", listed(words.iter().copied())), node).hint_if_any(hint)
    })
}

/// Returns a number; both `1e-3` and `20_000` are numbers.
pub(super) fn number(node: &Node) -> Result<f64, Diagnostic> {
    let Data::Scalar(text) = &node.data else { return Err(expected("a number", node)) };
    let digits = ungrouped(text).ok_or_else(|| expected("a number", node))?;
    let looks_like_one = digits.chars().all(|c| c.is_ascii_digit() || "+-.eE".contains(c));
    match digits.parse::<f64>() {
        Ok(number) if looks_like_one && number.is_finite() && !is_octal(&digits) => Ok(number),
        _ => Err(expected("a number", node)),
    }
}

/// Returns a whole number that is not negative.
pub(super) fn count(node: &Node) -> Result<u64, Diagnostic> {
    const LARGEST: f64 = (1_u64 << 53) as f64;
    match number(node) {
        Ok(number) if number >= 0.0 && number.fract() == 0.0 && number <= LARGEST => Ok(number as u64),
        _ => Err(expected("a whole number that is not negative", node)),
    }
}

/// Returns a truth value, in the words of YAML 1.1.
pub(super) fn flag(node: &Node) -> Result<bool, Diagnostic> {
    let word = match &node.data {
        Data::Scalar(text) => text.to_ascii_lowercase(),
        _ => String::new(),
    };
    match word.as_str() {
        "true" | "yes" | "on" => Ok(true),
        "false" | "no" | "off" => Ok(false),
        _ => Err(expected("`true` or `false`", node)),
    }
}

/// Returns a number without the underscores between its digits, or nothing if they stand elsewhere.
fn ungrouped(text: &str) -> Option<String> {
    let bytes = text.as_bytes();
    let is_digit = |at: Option<usize>| at.and_then(|at| bytes.get(at)).is_some_and(u8::is_ascii_digit);
    let stray =
        (0..bytes.len()).any(|at| bytes[at] == b'_' && !(is_digit(at.checked_sub(1)) && is_digit(at.checked_add(1))));
    (!stray).then(|| text.replace('_', ""))
}

/// Returns whether YAML 1.1 reads the number to the base of eight.
fn is_octal(digits: &str) -> bool {
    let digits = digits.trim_start_matches(['+', '-']);
    digits.len() > 1 && digits.starts_with('0') && digits.chars().all(|c| c.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::super::yaml::parse;
    use super::*;

    fn read(form: Form, text: &str) -> String {
        match converted(form, parse(text, 0).expect("YAML")) {
            Ok(value) => value.inline(),
            Err(mistakes) => mistakes.iter().map(|mistake| mistake.message.clone()).collect::<Vec<_>>().join("; "),
        }
    }

    #[test]
    fn both_spellings_of_numbers_are_numbers() {
        for (text, number) in [
            ("1e-3", "1e-3"),
            ("'1e-3'", "1e-3"),
            ("1.0e-3", "1e-3"),
            ("20_000", "20000.0"),
            ("3", "3.0"),
            (".5", "0.5"),
        ] {
            assert_eq!(read(Form::Number, text), number, "{text}");
        }
        for (text, count) in [("20_000", "20_000"), ("1e4", "10_000"), ("7", "7"), ("2.0", "2")] {
            assert_eq!(read(Form::Count, text), count, "{text}");
        }
        for text in ["_1", "1_", "1__0", "0x10", "010", "nan", ".inf", "inf", "1:30", "''", "[1]", "~"] {
            let message = read(Form::Number, text);
            assert!(message.starts_with("expected a number, found "), "{text}: {message}");
        }
        assert_eq!(read(Form::Count, "2.5"), "expected a whole number that is not negative, found `2.5`");
        assert_eq!(read(Form::Count, "-1"), "expected a whole number that is not negative, found `-1`");
    }

    #[test]
    fn truth_values_have_the_words_of_the_old_standard() {
        assert_eq!(read(Form::Flag, "Yes"), "true");
        assert_eq!(read(Form::Flag, "off"), "false");
        assert_eq!(read(Form::Flag, "1"), "expected `true` or `false`, found `1`");
    }

    #[test]
    fn routing_is_a_table_with_a_type() {
        assert_eq!(read(Form::Routing, "type: uniform_k_subset"), "\"uniform_k_subset\"");
        assert_eq!(
            read(Form::Routing, "{type: static_probability, p: 0.5}"),
            "{ kind = \"static_probability\", p = 0.5 }"
        );
        assert_eq!(read(Form::Routing, "{type: static_probability}"), "`p` of `routing` is missing");
        assert_eq!(read(Form::Routing, "{type: uniform_k_subset, p: 1}"), "unknown key `p` of `routing`");
        assert_eq!(
            read(Form::Routing, "{type: uniform}"),
            "expected one of `uniform_k_subset`, `static_probability`, found `uniform`"
        );
    }
}
