//! Two texts that differ, cut to something readable around the place where they do.

/// How many characters are shown before the first that differs, where a text is long.
const BEFORE: usize = 20;

/// How many characters are shown of a text.
const MOST: usize = 60;

/// Parts of two texts.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Excerpts {
    /// The first character that differs, from 1.
    pub(super) column: usize,
    /// The part of the first, in quotes, with `…` for what was left out.
    pub(super) recorded: String,
    /// The same characters of the second.
    pub(super) made: String,
}

/// Returns what to show of two texts that differ.
pub(super) fn excerpts(recorded: &str, made: &str) -> Excerpts {
    let same = recorded.chars().zip(made.chars()).take_while(|(left, right)| left == right).count();
    let is_short = |text: &str| text.chars().nth(MOST).is_none();
    let from = if is_short(recorded) && is_short(made) { 0 } else { same.saturating_sub(BEFORE) };
    Excerpts { column: same + 1, recorded: cut(recorded, from), made: cut(made, from) }
}

/// Returns the beginning of a text in quotes.
pub(super) fn beginning(text: &str) -> String {
    cut(text, 0)
}

fn cut(text: &str, from: usize) -> String {
    let mut rest = text.chars().skip(from);
    let shown: String = rest.by_ref().take(MOST).collect();
    let (before, after) = (if from > 0 { "…" } else { "" }, if rest.next().is_some() { "…" } else { "" });
    format!("{before}{shown:?}{after}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_texts_are_shown_whole_and_long_ones_around_what_differs() {
        let found = excerpts("loss 0.5", "loss 0.25");
        assert_eq!((found.column, &*found.recorded, &*found.made), (8, "\"loss 0.5\"", "\"loss 0.25\""));
        let long = |end: &str| format!("{}{end}{}", "ü".repeat(100), "z".repeat(100));
        let found = excerpts(&long("a"), &long("b"));
        assert_eq!(found.column, 101);
        assert_eq!(found.recorded, format!("…\"{}a{}\"…", "ü".repeat(20), "z".repeat(39)));
        assert_eq!(found.made, format!("…\"{}b{}\"…", "ü".repeat(20), "z".repeat(39)));
        assert_eq!(beginning(&"x".repeat(61)), format!("\"{}\"…", "x".repeat(60)));
    }

    #[test]
    fn a_text_that_ends_early_is_shown_to_its_end() {
        let found = excerpts(&"x".repeat(90), &"x".repeat(100));
        assert_eq!((found.column, found.recorded), (91, format!("…\"{}\"", "x".repeat(20))));
    }
}
