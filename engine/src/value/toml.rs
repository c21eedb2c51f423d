//! Turns TOML text into a [`Value`] that remembers where everything was written.

use std::collections::BTreeMap;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::{Data, Entry, Origin, Value};
use crate::diagnostic::Diagnostic;

/// Returns the table that `text` holds, or every mistake in it. `source` is what the origins will refer to.
///
/// # Errors
/// Syntax errors, several at once, and values that a pipeline cannot hold (dates, infinite numbers).
pub fn parse_document(text: &str, source: usize) -> Result<Value, Vec<Diagnostic>> {
    let (table, errors) = DeTable::parse_recoverable(text);
    let reader = Reader { text, source, offset: 0 };
    if !errors.is_empty() {
        return Err(reader.syntax_errors(&errors));
    }
    let mut diagnostics = Vec::new();
    let value = Value { data: reader.table(table.into_inner(), &mut diagnostics), origin: None };
    if diagnostics.is_empty() { Ok(value) } else { Err(diagnostics) }
}

/// Returns the single value that `text[offset..]` holds, as after the `=` of a line.
///
/// # Errors
/// As [`parse_document`].
pub fn parse_value(text: &str, offset: usize, source: usize) -> Result<Value, Vec<Diagnostic>> {
    let (value, errors) = DeValue::parse_recoverable(&text[offset..]);
    let reader = Reader { text, source, offset };
    if !errors.is_empty() {
        return Err(reader.syntax_errors(&errors));
    }
    let mut diagnostics = Vec::new();
    let value = reader.value(value, &mut diagnostics);
    if diagnostics.is_empty() { Ok(value) } else { Err(diagnostics) }
}

struct Reader<'t> {
    text: &'t str,
    source: usize,
    /// Where in `text` the parsed part begins.
    offset: usize,
}

impl Reader<'_> {
    fn origin(&self, span: std::ops::Range<usize>) -> Origin {
        Origin { source: self.source, span: span.start + self.offset..span.end + self.offset }
    }

    fn table(&self, table: DeTable<'_>, diagnostics: &mut Vec<Diagnostic>) -> Data {
        let entries = table.into_iter().map(|(key, value)| {
            let key_origin = Some(self.origin(key.span()));
            (key.into_inner().into_owned(), Entry { key_origin, value: self.value(value, diagnostics) })
        });
        Data::Table(entries.collect::<BTreeMap<_, _>>())
    }

    fn value(&self, value: Spanned<DeValue<'_>>, diagnostics: &mut Vec<Diagnostic>) -> Value {
        let origin = self.origin(value.span());
        let data = match value.into_inner() {
            DeValue::Boolean(flag) => Data::Bool(flag),
            DeValue::String(text) => Data::String(text.into_owned()),
            DeValue::Array(items) => Data::Array(items.into_iter().map(|item| self.value(item, diagnostics)).collect()),
            DeValue::Table(table) => self.table(table, diagnostics),
            DeValue::Integer(integer) => {
                i64::from_str_radix(integer.as_str(), integer.radix()).map(Data::Integer).unwrap_or_else(|_| {
                    let message = format!(
                        "whole number `{}` is out of range, expected {} to {}",
                        &self.text[origin.span.clone()],
                        i64::MIN,
                        i64::MAX
                    );
                    diagnostics.push(Diagnostic::new(message).at(Some(&origin)));
                    Data::Integer(0)
                })
            }
            DeValue::Float(float) => match float.as_str().parse::<f64>() {
                Ok(number) if number.is_finite() => Data::Float(number),
                _ => {
                    let message = format!("expected a finite number, found `{}`", &self.text[origin.span.clone()]);
                    diagnostics.push(Diagnostic::new(message).at(Some(&origin)));
                    Data::Float(0.0)
                }
            },
            DeValue::Datetime(date) => {
                let message = format!("expected a number, text, list or table, found the date `{date}`");
                let hint = format!("write it as a text: `\"{date}\"`");
                diagnostics.push(Diagnostic::new(message).at(Some(&origin)).hint(hint));
                Data::String(date.to_string())
            }
        };
        Value { data, origin: Some(origin) }
    }

    /// Returns the parser's errors without the ones that only follow from an earlier one.
    fn syntax_errors(&self, errors: &[toml::de::Error]) -> Vec<Diagnostic> {
        let mut errors: Vec<_> = errors.iter().map(|error| (error.span().unwrap_or(0..0), error.message())).collect();
        errors.sort_by_key(|(span, _)| (span.start, span.end));
        // A list or inline table that is never closed makes an error of everything below it.
        let parsed = &self.text[self.offset..];
        let is_unclosed = errors.iter().any(|(_, message)| message.starts_with("unclosed"));
        let unclosed = is_unclosed.then(|| never_closed(parsed)).flatten();
        let mut kept = Vec::new();
        let mut last_line = None;
        for (span, message) in errors {
            let line = parsed[..span.start].matches('\n').count();
            if last_line == Some(line) || unclosed.is_some_and(|open| span.start >= open) {
                continue;
            }
            last_line = Some(line);
            kept.push(self.syntax_error(span, message));
        }
        if let Some(open) = unclosed {
            let bracket = &parsed[open..=open];
            let message = format!("`{bracket}` is never closed");
            kept.push(Diagnostic::new(message).at(Some(&self.origin(open..open + 1))));
        }
        kept
    }

    fn syntax_error(&self, span: std::ops::Range<usize>, message: &str) -> Diagnostic {
        // The parser takes any word for the beginning of a literal and says so; what is missing is quotes.
        let is_about_literal = ["string values must be quoted", "invalid float", "invalid boolean"]
            .iter()
            .any(|start| message.starts_with(start));
        let parsed = &self.text[self.offset..];
        let is_word = |c: char| c.is_alphanumeric() || "_-./".contains(c);
        let start = parsed[..span.start].trim_end_matches(is_word).len();
        let end = parsed.len() - parsed[span.start..].trim_start_matches(is_word).len();
        let word = &parsed[start..end];
        if is_about_literal && word.starts_with(char::is_alphabetic) {
            return Diagnostic::new(format!("expected a value, found `{word}`"))
                .at(Some(&self.origin(start..end)))
                .hint(format!("a text needs quotes: `\"{word}\"`"));
        }
        let is_empty = message.starts_with("string values must be quoted") && span.is_empty();
        let message = if is_empty { "expected a value, found nothing" } else { message };
        Diagnostic::new(message).at(Some(&self.origin(span)))
    }
}

/// Returns the position of the outermost bracket or brace that is still open at the end of the text.
fn never_closed(text: &str) -> Option<usize> {
    let mut open = Vec::new();
    let mut rest = text;
    while let Some(character) = rest.chars().next() {
        let position = text.len() - rest.len();
        let skipped = match character {
            '#' => rest.find('\n').unwrap_or(rest.len()),
            '"' | '\'' => string_length(rest, character),
            '[' | '{' => {
                open.push(position);
                1
            }
            ']' | '}' => {
                open.pop();
                1
            }
            other => other.len_utf8(),
        };
        rest = &rest[skipped..];
    }
    open.first().copied()
}

/// Returns the length of the string, quotes included, that `text` begins with; one that is not closed ends its line.
fn string_length(text: &str, quote: char) -> usize {
    let triple = [quote; 3].iter().collect::<String>();
    if text.starts_with(&triple) {
        return text[3..].find(&triple).map_or(text.len(), |end| end + 6);
    }
    let mut escaped = false;
    for (position, character) in text.char_indices().skip(1) {
        match character {
            '\n' => return position,
            _ if escaped => escaped = false,
            '\\' => escaped = quote == '"',
            other if other == quote => return position + 1,
            _ => {}
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at<'t>(text: &'t str, origin: Option<&Origin>) -> &'t str {
        &text[origin.expect("written in the text").span.clone()]
    }

    #[test]
    fn keys_values_and_tables_know_where_they_were_written() {
        let text = "[stage.target]\nuses = \"train.tms\"\nlosses = [{ coeff = 1e-3 }]\n";
        let value = parse_document(text, 0).expect("valid");
        let target = value.get("stage").and_then(|stage| stage.get("target")).expect("present");
        assert_eq!(at(text, target.origin.as_ref()), "[stage.target]");
        let Data::Table(entries) = &target.data else { panic!("not a table") };
        assert_eq!(at(text, entries["uses"].key_origin.as_ref()), "uses");
        assert_eq!(at(text, entries["uses"].value.origin.as_ref()), "\"train.tms\"");
        let Data::Array(losses) = &entries["losses"].value.data else { panic!("not a list") };
        assert_eq!(at(text, losses[0].get("coeff").expect("present").origin.as_ref()), "1e-3");
    }

    #[test]
    fn several_syntax_errors_are_found_at_once() {
        let errors = parse_document("a = \nb = 1\nc = no\n", 0).expect_err("invalid");
        let messages: Vec<_> = errors.iter().map(|error| error.message.as_str()).collect();
        assert_eq!(messages, ["expected a value, found nothing", "expected a value, found `no`"]);
    }

    #[test]
    fn an_unclosed_list_is_one_error() {
        let text = "z = \"[\" # [\na = [1,\nb = 2\nc = 3\n[x]\nd = 4\n";
        let errors = parse_document(text, 0).expect_err("invalid");
        assert_eq!(errors.len(), 1, "{errors:?}");
        assert_eq!(errors[0].message, "`[` is never closed");
        assert_eq!(errors[0].labels[0].origin.span, text.find("[1").map_or(0..0, |at| at..at + 1));
    }

    #[test]
    fn numbers_that_are_no_parameters_are_refused() {
        let errors =
            parse_document("a = nan\nb = -inf\nc = 99999999999999999999\nd = 2024-01-01", 0).expect_err("invalid");
        let messages: Vec<_> = errors.iter().map(|error| error.message.as_str()).collect();
        assert_eq!(
            messages,
            [
                "expected a finite number, found `nan`",
                "expected a finite number, found `-inf`",
                "whole number `99999999999999999999` is out of range, expected -9223372036854775808 to 9223372036854775807",
                "expected a number, text, list or table, found the date `2024-01-01`",
            ]
        );
    }
}
