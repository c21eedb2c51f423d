//! Values as they are written into a pipeline, in the look of the shipped ones: lines of at most 120 letters, short
//! lists on one line, tables in lists always on one.

/// The longest line.
const WIDTH: usize = 120;

/// A value of a pipeline file.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Toml {
    /// A number or truth value, as written.
    Raw(String),
    /// A text.
    Text(String),
    /// A list.
    List(Vec<Toml>),
    /// A table, its keys in this order.
    Table(Vec<(String, Toml)>),
}

impl Toml {
    /// Returns a text.
    pub(super) fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }

    /// Returns a whole number; thousands are set apart from five digits on.
    pub(super) fn integer(number: u64) -> Self {
        let digits = number.to_string();
        if digits.len() < 5 {
            return Self::Raw(digits);
        }
        let mut grouped = String::new();
        for (position, digit) in digits.chars().enumerate() {
            if position > 0 && (digits.len() - position).is_multiple_of(3) {
                grouped.push('_');
            }
            grouped.push(digit);
        }
        Self::Raw(grouped)
    }

    /// Returns a number with a point or an exponent.
    pub(super) fn float(number: f64) -> Self {
        let size = number.abs();
        let is_plain = size == 0.0 || (0.01..1e5).contains(&size);
        Self::Raw(if is_plain { format!("{number:?}") } else { format!("{number:e}") })
    }

    /// Returns a truth value.
    pub(super) fn bool(value: bool) -> Self {
        Self::Raw(value.to_string())
    }

    /// Returns a table `{ kind = "…", … }`, or the kind alone if there is nothing more to say.
    pub(super) fn variant(kind: &str, fields: Vec<(String, Toml)>) -> Self {
        if fields.is_empty() {
            return Self::text(kind);
        }
        Self::Table([("kind".to_owned(), Self::text(kind))].into_iter().chain(fields).collect())
    }

    /// Returns the value on one line.
    pub(super) fn inline(&self) -> String {
        match self {
            Self::Raw(text) => text.clone(),
            Self::Text(text) => quoted(text),
            Self::List(items) => format!("[{}]", items.iter().map(Self::inline).collect::<Vec<_>>().join(", ")),
            Self::Table(fields) if fields.is_empty() => "{}".to_owned(),
            Self::Table(fields) => {
                let fields: Vec<_> = fields.iter().map(|(key, value)| assignment(key, value)).collect();
                format!("{{ {} }}", fields.join(", "))
            }
        }
    }

    /// Returns the lines `key = value`; a list that does not fit into one has an item on each.
    pub(super) fn lines(&self, key: &str) -> String {
        let line = assignment(key, self);
        match self {
            Self::List(items) if line.chars().count() > WIDTH => {
                let items: String = items.iter().map(|item| format!("  {},\n", item.inline())).collect();
                format!("{} = [\n{items}]\n", bare_or_quoted(key))
            }
            _ => line + "\n",
        }
    }
}

fn assignment(key: &str, value: &Toml) -> String {
    format!("{} = {}", bare_or_quoted(key), value.inline())
}

fn bare_or_quoted(key: &str) -> String {
    let is_bare = !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
    if is_bare { key.to_owned() } else { quoted_as_is(key) }
}

/// Returns a text in quotes that a pipeline reads as that text: `${` would ask for a value there.
fn quoted(text: &str) -> String {
    quoted_as_is(&text.replace("${", "$${"))
}

fn quoted_as_is(text: &str) -> String {
    let mut quoted = String::from('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c.is_control() => quoted += &format!("\\u{:04X}", u32::from(c)),
            c => quoted.push(c),
        }
    }
    quoted + "\""
}

/// Returns `text` as comment lines, broken between words; `first` begins the first line, `rest` the others.
pub(super) fn comment(first: &str, rest: &str, text: &str) -> String {
    let mut lines = String::new();
    let mut line = first.to_owned();
    let mut is_bare = true;
    for word in text.split_whitespace() {
        if !is_bare && line.chars().count() + 1 + word.chars().count() > WIDTH {
            lines += &line;
            lines.push('\n');
            rest.clone_into(&mut line);
            is_bare = true;
        }
        if !is_bare {
            line.push(' ');
        }
        line += word;
        is_bare = false;
    }
    lines + &line + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_people_write_them() {
        let floats = [3e-3, 0.01, 0.05, 0.0, 2.0, 100.0, 1e6, 1e-12, 3.5e-4, -0.5];
        let written: Vec<_> = floats.into_iter().map(|number| Toml::float(number).inline()).collect();
        assert_eq!(written, ["3e-3", "0.01", "0.05", "0.0", "2.0", "100.0", "1e6", "1e-12", "3.5e-4", "-0.5"]);
        let written: Vec<_> = [0, 4096, 10_000, 1_000_000].into_iter().map(|n| Toml::integer(n).inline()).collect();
        assert_eq!(written, ["0", "4096", "10_000", "1_000_000"]);
    }

    #[test]
    fn texts_mean_what_they_say() {
        assert_eq!(Toml::text("a\"b\\c\nd${x}").inline(), r#""a\"b\\c\u000Ad$${x}""#);
        assert_eq!(Toml::Table(vec![("a b".to_owned(), Toml::bool(true))]).inline(), r#"{ "a b" = true }"#);
    }

    #[test]
    fn a_list_that_does_not_fit_has_an_item_on_each_line() {
        let item = Toml::variant("stochastic_recon", vec![("coeff".to_owned(), Toml::float(1.0))]);
        let text = r#"{ kind = "stochastic_recon", coeff = 1.0 }"#;
        assert_eq!(Toml::List(vec![item.clone(); 2]).lines("losses"), format!("losses = [{text}, {text}]\n"));
        assert_eq!(
            Toml::List(vec![item; 3]).lines("losses"),
            format!("losses = [\n  {text},\n  {text},\n  {text},\n]\n")
        );
    }
}
