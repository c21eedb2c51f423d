//! Texts with placeholders: `{in.NAME}`, `{out.NAME}`, `{value.NAME}`, `{threads}`.
//!
//! `{{` and `}}` stand for single braces. `${name}` was replaced before, when the pipeline was read.

/// A text that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Template(pub(super) Vec<Piece>);

/// A part of a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Piece {
    /// As it stands.
    Text(String),
    /// The folder of an input.
    In(String),
    /// The path of an output.
    Out(String),
    /// One of `values`.
    Value(String),
    /// How many threads the program may use.
    Threads,
}

const KNOWN: &str = "`{in.NAME}`, `{out.NAME}`, `{value.NAME}` or `{threads}`";

impl Template {
    /// Returns the template that `text` writes, or what is wrong with it.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut pieces = Vec::new();
        let mut plain = String::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            plain.push_str(&rest[..at]);
            let brace = &rest[at..at + 1];
            rest = &rest[at + 1..];
            if let Some(after) = rest.strip_prefix(brace) {
                plain.push_str(brace);
                rest = after;
                continue;
            }
            if brace == "}" {
                return Err("`}` closes nothing; a literal brace is written `}}`".to_owned());
            }
            let Some((inside, after)) = rest.split_once('}') else {
                return Err("`{` is not closed; a literal brace is written `{{`".to_owned());
            };
            if !plain.is_empty() {
                pieces.push(Piece::Text(std::mem::take(&mut plain)));
            }
            pieces.push(Self::piece(inside)?);
            rest = after;
        }
        plain.push_str(rest);
        if !plain.is_empty() {
            pieces.push(Piece::Text(plain));
        }
        Ok(Self(pieces))
    }

    fn piece(inside: &str) -> Result<Piece, String> {
        match inside.split_once('.') {
            None if inside == "threads" => Ok(Piece::Threads),
            Some(("in", name)) if !name.is_empty() => Ok(Piece::In(name.to_owned())),
            Some(("out", name)) if !name.is_empty() => Ok(Piece::Out(name.to_owned())),
            Some(("value", name)) if !name.is_empty() => Ok(Piece::Value(name.to_owned())),
            _ => Err(format!("expected {KNOWN}, found `{{{inside}}}`; literal braces are written `{{{{` and `}}}}`")),
        }
    }

    /// Returns the name of the input if the whole text is `{in.NAME}`, which may then stand for several folders.
    pub(super) fn whole_input(&self) -> Option<&str> {
        match self.0.as_slice() {
            [Piece::In(name)] => Some(name),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_texts_and_doubled_braces_are_told_apart() {
        let text = |text: &str| Piece::Text(text.to_owned());
        let parsed = Template::parse("--a={in.x}/y.json{{{out.f.g}}}{threads}");
        let expected = vec![
            text("--a="),
            Piece::In("x".to_owned()),
            text("/y.json{"),
            Piece::Out("f.g".to_owned()),
            text("}"),
            Piece::Threads,
        ];
        assert_eq!(parsed, Ok(Template(expected)));
        assert_eq!(Template::parse(""), Ok(Template(Vec::new())));
        assert_eq!(Template::parse("{value.lr}"), Ok(Template(vec![Piece::Value("lr".to_owned())])));
    }

    #[test]
    fn broken_texts_are_refused() {
        let cases = [
            ("a{", "`{` is not closed; a literal brace is written `{{`"),
            ("a}", "`}` closes nothing; a literal brace is written `}}`"),
            (
                "{fig}",
                "expected `{in.NAME}`, `{out.NAME}`, `{value.NAME}` or `{threads}`, found `{fig}`; literal braces are \
                 written `{{` and `}}`",
            ),
        ];
        for (text, expected) in cases {
            assert_eq!(Template::parse(text), Err(expected.to_owned()));
        }
        for text in ["{in.}", "{}", "{in}", "{ threads }"] {
            assert!(Template::parse(text).is_err(), "{text}");
        }
    }
}
