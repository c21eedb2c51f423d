//! The common look of a pipeline file.
//!
//! One space around `=` and within braces, no indentation but two spaces for the items of a list over several lines,
//! which then has a comma after the last; lists that would make a line longer than 120 letters are broken; at most one
//! empty line in a row. Lists that are over several lines stay so, comments stay where they are, as do the spaces that
//! align those at the ends of lines.

use toml_edit::{Array, Decor, DocumentMut, InlineTable, Item, RawString, Table, Value};

/// The longest line.
const WIDTH: usize = 120;
const INDENT: &str = "  ";

/// Returns the text in the common look, or nothing if it is not TOML.
pub(super) fn formatted(text: &str) -> Option<String> {
    let mut document: DocumentMut = text.parse().ok()?;
    let trailing = block(raw(document.trailing()));
    document.set_trailing(trailing);
    table(document.as_table_mut(), 0);
    Some(document.to_string().trim_start_matches('\n').trim_end().to_owned() + "\n")
}

/// Returns the comments of a text, in order.
pub(super) fn comments(text: &str) -> Vec<&str> {
    let mut comments = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find(['#', '"', '\'']) {
        rest = &rest[at..];
        if rest.starts_with('#') {
            let end = rest.find('\n').unwrap_or(rest.len());
            comments.push(rest[..end].trim_end());
            rest = &rest[end..];
            continue;
        }
        let quote = &rest[..1];
        let long = quote.repeat(3);
        let fence = if rest.starts_with(&long) { long.as_str() } else { quote };
        rest = after_string(&rest[fence.len()..], fence);
    }
    comments
}

/// Returns what follows the string that ends with `fence`.
fn after_string<'t>(text: &'t str, fence: &str) -> &'t str {
    let mut is_escaped = false;
    for (at, c) in text.char_indices() {
        if is_escaped {
            is_escaped = false;
        } else if c == '\\' && fence.starts_with('"') {
            is_escaped = true;
        } else if text[at..].starts_with(fence) {
            // A long string may end with one or two quotes of its own.
            let after = &text[at + fence.len()..];
            return if fence.len() == 3 { after.trim_start_matches(c) } else { after };
        }
    }
    ""
}

fn raw(text: &RawString) -> &str {
    text.as_str().unwrap_or_default()
}

fn prefix(decor: &Decor) -> &str {
    decor.prefix().map_or("", raw)
}

fn suffix(decor: &Decor) -> &str {
    decor.suffix().map_or("", raw)
}

/// Returns what stands above a line: comments at the margin, empty lines one at a time.
fn block(text: &str) -> String {
    let Some((lines, _)) = text.rsplit_once('\n') else { return String::new() };
    let mut block = String::new();
    let mut was_empty = false;
    for line in lines.split('\n').map(str::trim) {
        if line.is_empty() && was_empty {
            continue;
        }
        was_empty = line.is_empty();
        block += line;
        block.push('\n');
    }
    block
}

/// Returns what stands at the end of a line: its comment with the spaces before it.
fn line_end(text: &str) -> String {
    let text = text.trim_end();
    if text.starts_with('#') { format!(" {text}") } else { text.to_owned() }
}

fn table(table: &mut Table, width: usize) {
    if !table.is_dotted() {
        let (above, end) = (block(prefix(table.decor())), line_end(suffix(table.decor())));
        table.decor_mut().set_prefix(above);
        table.decor_mut().set_suffix(end);
    }
    for (mut key, item) in table.iter_mut() {
        let width = width + key.display_repr().chars().count() + 1;
        if !prefix(key.dotted_decor()).contains('#') && !suffix(key.dotted_decor()).contains('#') {
            *key.dotted_decor_mut() = Decor::new("", "");
        }
        match item {
            Item::Value(value) => {
                let above = block(prefix(key.leaf_decor()));
                *key.leaf_decor_mut() = Decor::new(above, " ");
                let end = line_end(suffix(value.decor()));
                self::value(value, width + 2, 0);
                *value.decor_mut() = Decor::new(" ", end);
            }
            Item::Table(inner) => {
                if !inner.is_dotted() {
                    key.leaf_decor_mut().clear();
                }
                self::table(inner, if inner.is_dotted() { width } else { 0 });
            }
            Item::ArrayOfTables(tables) => {
                key.leaf_decor_mut().clear();
                tables.iter_mut().for_each(|inner| self::table(inner, 0));
            }
            Item::None => {}
        }
    }
}

/// Lays out a value that begins at column `width`, in a list that is `depth` lists deep.
fn value(value: &mut Value, width: usize, depth: usize) {
    match value {
        Value::Array(items) => array(items, width, depth),
        Value::InlineTable(fields) => inline_table(fields),
        _ => {}
    }
}

fn array(items: &mut Array, width: usize, depth: usize) {
    let text = items.to_string();
    let last = items.len().saturating_sub(1);
    // The last value may have no comma; then what follows it belongs to the end of the list.
    let end = items.get(last).map_or("", |item| suffix(item.decor())).to_owned();
    if end.contains('#') && !items.trailing_comma() {
        if let Some(item) = items.get_mut(last) {
            item.decor_mut().set_suffix("");
        }
        items.set_trailing(end + raw(items.trailing()));
    }
    // A comment between a value and its comma has no better place.
    if items.iter().any(|item| suffix(item.decor()).contains('#')) {
        return;
    }
    let is_over_lines =
        items.iter().any(|item| prefix(item.decor()).contains('\n')) || raw(items.trailing()).contains('\n');
    for item in items.iter_mut() {
        value(item, 0, depth + 1);
    }
    if !is_over_lines {
        one_line(items);
        let is_longer = width + items.to_string().trim().chars().count() > WIDTH;
        if !is_longer || items.is_empty() || text.contains('\n') {
            return;
        }
    }
    if items.is_empty() && !raw(items.trailing()).contains('#') {
        items.set_trailing("");
        return;
    }
    let margin = format!("\n{}", INDENT.repeat(depth + 1));
    for item in items.iter_mut() {
        let before = between(prefix(item.decor()), &margin) + &margin;
        *item.decor_mut() = Decor::new(before, "");
    }
    let end = between(raw(items.trailing()), &margin) + "\n" + &INDENT.repeat(depth);
    items.set_trailing(end);
    items.set_trailing_comma(true);
}

fn one_line(items: &mut Array) {
    for (position, item) in items.iter_mut().enumerate() {
        *item.decor_mut() = Decor::new(if position == 0 { "" } else { " " }, "");
    }
    items.set_trailing("");
    items.set_trailing_comma(false);
}

/// Returns the comments before an item: the one at the end of the line before, and those on lines of their own.
fn between(text: &str, margin: &str) -> String {
    let mut lines = text.split('\n');
    let end = line_end(lines.next().unwrap_or_default());
    let comments = lines.map(str::trim).filter(|line| !line.is_empty());
    [end].into_iter().chain(comments.map(|comment| format!("{margin}{comment}"))).collect()
}

fn inline_table(fields: &mut InlineTable) {
    // Over several lines, or with comments: a table of another look.
    if is_over_lines(fields) {
        return;
    }
    if fields.is_empty() {
        fields.set_trailing("");
        return;
    }
    spaced(fields, true);
    fields.set_trailing("");
    fields.set_trailing_comma(false);
}

fn is_over_lines(fields: &InlineTable) -> bool {
    fields.to_string().contains('\n')
}

fn spaced(fields: &mut InlineTable, is_outermost: bool) {
    let last = fields.len().saturating_sub(1);
    for (position, (mut key, value)) in fields.iter_mut().enumerate() {
        *key.dotted_decor_mut() = Decor::new("", "");
        match value {
            Value::InlineTable(inner) if inner.is_dotted() => spaced(inner, is_outermost && position == last),
            _ => {
                *key.leaf_decor_mut() = Decor::new(" ", " ");
                self::value(value, 0, 0);
                *value.decor_mut() = Decor::new(" ", if is_outermost && position == last { " " } else { "" });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &str) {
        let found = formatted(text).expect("TOML");
        assert_eq!(found, expected);
        assert_eq!(formatted(&found).as_deref(), Some(expected), "formatting twice changes nothing more");
        assert_eq!(comments(text), comments(expected));
    }

    #[test]
    fn spaces_and_empty_lines_are_set_right() {
        check(
            "\n\n#  first\n  [ a . b ]   # head\nx=1   # one\n\n\n\n   # two\ny   =  {p=1,q = [ 1,2 , ] }\na . b=3\n\n\n# end\n\n",
            "#  first\n[a.b]   # head\nx = 1   # one\n\n# two\ny = { p = 1, q = [1, 2] }\na.b = 3\n\n# end\n",
        );
    }

    #[test]
    fn lists_over_several_lines_stay_so_and_keep_their_comments() {
        check(
            "l = [ # head\n      1,   # one\n  # before two\n 2 # two\n]\nempty = [\n]\nshort = [ ]\n",
            "l = [ # head\n  1,   # one\n  # before two\n  2, # two\n]\nempty = []\nshort = []\n",
        );
    }

    #[test]
    fn lists_that_are_too_long_are_broken() {
        let item = format!("\"{}\"", "x".repeat(57));
        check(&format!("l = [{item},{item}]\n"), &format!("l = [\n  {item},\n  {item},\n]\n"));
        let item = format!("\"{}\"", "x".repeat(54));
        check(&format!("l = [{item},{item}]\n"), &format!("l = [{item}, {item}]\n"));
    }

    #[test]
    fn texts_are_left_alone() {
        let text = "a = \"x  #  y\\\"\"\nb = '''\n  # no comment \"\n\n\n''''\nc = \"\"\"\\\n  z\"\"\"\n";
        check(text, text);
        assert!(comments(text).is_empty());
    }

    #[test]
    fn comments_are_told_from_texts() {
        assert_eq!(comments("a = '#' # b \nc = \"\\\"#\" #d\n#e"), ["# b", "#d", "#e"]);
    }
}
