//! References to instances: `target`, `decompose[seed=0]`.

use super::names;

/// A stage and perhaps a point of its matrix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reference {
    /// The stage's name.
    pub(crate) stage: String,
    /// Axes held fixed, in the order written.
    pub(crate) selection: Vec<(String, String)>,
}

impl Reference {
    /// Returns the reference that `text` writes, or what is wrong with it.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let (stage, selection) = match text.split_once('[') {
            None => (text, None),
            Some((stage, rest)) => {
                (stage, Some(rest.strip_suffix(']').ok_or_else(|| format!("`{text}` has no closing `]`"))?))
            }
        };
        if let Some(mistake) = names::mistake_in_name(stage) {
            return Err(format!("`{text}` names no stage: {mistake}"));
        }
        let mut pairs: Vec<(String, String)> = Vec::new();
        for part in selection.into_iter().flat_map(|inside| inside.split(',')) {
            let (axis, value) = part
                .split_once('=')
                .map(|(axis, value)| (axis.trim(), value.trim()))
                .filter(|(axis, value)| !axis.is_empty() && !value.is_empty())
                .ok_or_else(|| format!("expected `axis=value` in the brackets of `{text}`, found `{part}`"))?;
            if pairs.iter().any(|(other, _)| other == axis) {
                return Err(format!("`{text}` fixes axis `{axis}` twice"));
            }
            pairs.push((axis.to_owned(), value.to_owned()));
        }
        Ok(Self { stage: stage.to_owned(), selection: pairs })
    }
}

/// Returns the position of the value that `text` means: the same text, else the same number (`1e-3` for `0.001`).
pub(crate) fn position_of<'a>(text: &str, values: impl Iterator<Item = &'a str> + Clone) -> Option<usize> {
    values.clone().position(|value| value == text).or_else(|| {
        let number: f64 = text.parse().ok()?;
        values.into_iter().position(|value| value.parse() == Ok(number))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_read_as_written() {
        let reference = Reference::parse("decompose[seed=0, lr=1e-3]").expect("valid");
        assert_eq!(reference.stage, "decompose");
        assert_eq!(reference.selection, [("seed".into(), "0".into()), ("lr".into(), "1e-3".into())]);
        assert_eq!(Reference::parse("a.b-c").map(|reference| reference.selection.len()), Ok(0));
    }

    #[test]
    fn broken_references_are_refused() {
        for text in ["", "a[", "a[]", "a[seed]", "a[seed=]", "a[seed=0,seed=1]", "a b", "a[seed=0]x"] {
            assert!(Reference::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_number_is_found_whichever_way_it_is_written() {
        let values = ["0.001", "1.0", "x"];
        assert_eq!(position_of("1e-3", values.into_iter()), Some(0));
        assert_eq!(position_of("1", values.into_iter()), Some(1));
        assert_eq!(position_of("x", values.into_iter()), Some(2));
        assert_eq!(position_of("2", values.into_iter()), None);
    }
}
