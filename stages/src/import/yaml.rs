//! Reads YAML into a tree that remembers where everything was written.
//!
//! Scalars stay texts until a field says what it expects: YAML 1.1, which the reference reads, takes `20_000` for a
//! number and `1e-3` for a text, YAML 1.2 the other way round, and both are meant as numbers.

use std::collections::BTreeMap;

use saphyr_parser::{Event, Parser, ScalarStyle, Span};
use spdflow_engine::diagnostic::Diagnostic;
use spdflow_engine::value::Origin;

/// How many nodes a file may have once its aliases are written out; a configuration has a hundred.
const MAX_NODES: usize = 100_000;
/// How deep lists and tables may nest.
const MAX_DEPTH: usize = 64;

/// A value with its place.
#[derive(Debug, Clone)]
pub(super) struct Node {
    /// Where it was written.
    pub(super) origin: Origin,
    /// The value itself.
    pub(super) data: Data,
}

/// The data of a [`Node`].
#[derive(Debug, Clone)]
pub(super) enum Data {
    /// Nothing: `null`, `~` or an empty value.
    Null,
    /// A number, truth value or text as it was written.
    Scalar(String),
    /// A list.
    List(Vec<Node>),
    /// A table, in the order of the file.
    Table(Fields),
}

/// The entries of a table, in the order of the file.
pub(super) type Fields = Vec<Field>;

/// One entry of a table.
#[derive(Debug, Clone)]
pub(super) struct Field {
    /// The key.
    pub(super) key: String,
    /// Where the key was written.
    pub(super) key_origin: Origin,
    /// The value.
    pub(super) value: Node,
}

impl Node {
    /// Returns what the node is, in words for messages.
    pub(super) fn described(&self) -> String {
        match &self.data {
            Data::Null => "nothing".to_owned(),
            Data::Scalar(text) => format!("`{text}`"),
            Data::List(_) => "a list".to_owned(),
            Data::Table(_) => "a table".to_owned(),
        }
    }

    fn size(&self) -> usize {
        match &self.data {
            Data::Null | Data::Scalar(_) => 1,
            Data::List(items) => 1 + items.iter().map(Node::size).sum::<usize>(),
            Data::Table(fields) => 1 + fields.iter().map(|field| field.value.size()).sum::<usize>(),
        }
    }
}

/// A list or table whose end has not come yet.
struct Open {
    anchor: usize,
    origin: Origin,
    items: Vec<Node>,
    is_table: bool,
}

/// Returns the one document of `text`. `source` is what the origins will refer to.
///
/// # Errors
/// What is wrong with the text; a parser of YAML cannot go on after its first mistake.
pub(super) fn parse(text: &str, source: usize) -> Result<Node, Diagnostic> {
    let offsets: Vec<usize> = text.char_indices().map(|(byte, _)| byte).chain([text.len()]).collect();
    let byte = |index: usize| offsets[index.min(offsets.len() - 1)];
    let place = |span: Span| Origin { source, span: byte(span.start.index())..byte(span.end.index()) };
    let mut open: Vec<Open> = Vec::new();
    let mut anchors: BTreeMap<usize, Node> = BTreeMap::new();
    let mut document: Option<Node> = None;
    let mut nodes = 0;
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| {
            let at = byte(error.marker().index());
            Diagnostic::new(format!("not YAML: {}", error.info())).at(Some(&Origin { source, span: at..at }))
        })?;
        let origin = place(span);
        let is_alias = matches!(event, Event::Alias(_));
        let (anchor, node) = match event {
            Event::Scalar(text, style, anchor, _) => (anchor, Node { origin, data: scalar(&text, style) }),
            Event::Alias(anchor) => {
                let Some(node) = anchors.get(&anchor) else {
                    return Err(Diagnostic::new("refers to what it is part of").at(Some(&origin)));
                };
                (0, node.clone())
            }
            Event::SequenceStart(anchor, _) | Event::MappingStart(anchor, _) => {
                if open.len() == MAX_DEPTH {
                    let message = format!("lists and tables nest more than {MAX_DEPTH} deep");
                    return Err(Diagnostic::new(message).at(Some(&origin)));
                }
                let is_table = matches!(event, Event::MappingStart(..));
                open.push(Open { anchor, origin, items: Vec::new(), is_table });
                continue;
            }
            Event::SequenceEnd | Event::MappingEnd => {
                let closed = open.pop().expect("the parser pairs starts and ends");
                (closed.anchor, close(closed)?)
            }
            Event::DocumentStart(_) if document.is_some() => {
                return Err(Diagnostic::new("a second document begins here, expected one").at(Some(&origin)));
            }
            _ => continue,
        };
        nodes += if is_alias { node.size() } else { 1 };
        if nodes > MAX_NODES {
            let message = format!("holds more than {MAX_NODES} values, which no configuration does");
            return Err(Diagnostic::new(message).at(Some(&node.origin)));
        }
        if anchor != 0 {
            anchors.insert(anchor, node.clone());
        }
        match open.last_mut() {
            Some(parent) => parent.items.push(node),
            None => document = Some(node),
        }
    }
    document.ok_or_else(|| Diagnostic::new("the file is empty, expected a configuration"))
}

fn scalar(text: &str, style: ScalarStyle) -> Data {
    let is_nothing = style == ScalarStyle::Plain && matches!(text, "" | "~" | "null" | "Null" | "NULL");
    if is_nothing { Data::Null } else { Data::Scalar(text.to_owned()) }
}

fn close(closed: Open) -> Result<Node, Diagnostic> {
    let Open { origin, items, is_table, .. } = closed;
    if !is_table {
        return Ok(Node { origin, data: Data::List(items) });
    }
    let mut fields = Fields::new();
    let mut items = items.into_iter();
    while let (Some(key), Some(value)) = (items.next(), items.next()) {
        let name = match key.data {
            Data::Scalar(name) => name,
            _ => {
                let message = format!("expected a text as key, found {}", key.described());
                return Err(Diagnostic::new(message).at(Some(&key.origin)));
            }
        };
        if let Some(first) = fields.iter().find(|field| field.key == name) {
            return Err(Diagnostic::new(format!("key `{name}` is given twice"))
                .at(Some(&key.origin))
                .label(Some(&first.key_origin), "first here"));
        }
        fields.push(Field { key: name, key_origin: key.origin, value });
    }
    Ok(Node { origin, data: Data::Table(fields) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(node: &Node) -> String {
        match &node.data {
            Data::Null => "null".to_owned(),
            Data::Scalar(text) => text.clone(),
            Data::List(items) => format!("[{}]", items.iter().map(text).collect::<Vec<_>>().join(", ")),
            Data::Table(fields) => {
                let fields: Vec<_> =
                    fields.iter().map(|field| format!("{}: {}", field.key, text(&field.value))).collect();
                format!("{{{}}}", fields.join(", "))
            }
        }
    }

    #[test]
    fn scalars_stay_as_they_were_written_and_aliases_are_written_out() {
        let node = parse("a: &x [1e-3, 20_000, '~', ~]\nb: *x\nc:\n- d: yes\n", 0).expect("YAML");
        assert_eq!(text(&node), "{a: [1e-3, 20_000, ~, null], b: [1e-3, 20_000, ~, null], c: [{d: yes}]}");
    }

    #[test]
    fn places_count_bytes() {
        let source = "ü: 1\nsteps: 20\n";
        let Data::Table(fields) = parse(source, 0).expect("YAML").data else { panic!("not a table") };
        assert_eq!(&source[fields[1].key_origin.span.clone()], "steps");
        assert_eq!(&source[fields[1].value.origin.span.clone()], "20");
    }

    #[test]
    fn what_is_not_one_table_of_different_keys_is_refused() {
        let message = |text: &str| parse(text, 0).expect_err("a mistake").message;
        assert_eq!(message(""), "the file is empty, expected a configuration");
        assert_eq!(message("a: 1\na: 2\n"), "key `a` is given twice");
        assert_eq!(message("a: 1\n---\nb: 2\n"), "a second document begins here, expected one");
        assert_eq!(message("[1]: 2\n"), "expected a text as key, found a list");
        assert_eq!(message("a: &x [*x]\n"), "refers to what it is part of");
        assert_eq!(message(&"[".repeat(65)), "lists and tables nest more than 64 deep");
        assert!(message("a: [1\n").starts_with("not YAML: "));
        // Doubles twenty times.
        let doubling: String = (1..20)
            .map(|i| format!("a{i}: &a{i} [*a{}, *a{}]\n", i - 1, i - 1))
            .fold("a0: &a0 [1]\n".to_owned(), |t, l| t + &l);
        assert_eq!(message(&doubling), "holds more than 100000 values, which no configuration does");
    }
}
