//! SVG and HTML: compared as text, and read for the numbers that they show.
//!
//! Our own figures draw letters as outlines and say the text in `aria-label`; others hold it in elements, or, drawn as
//! outlines, in a comment.

use std::fs;
use std::path::Path;

use spdflow_engine::audit::format::{Difference, Format, Quote, Tolerance, Unreadable};

use super::quoted::quotes_of;
use super::reading::unreadable;
use super::text::Text;
use crate::plot::QUOTED_METRICS;

/// Elements that do not part the text around them.
const INLINE: [&str; 9] = ["tspan", "span", "b", "i", "em", "strong", "code", "small", "a"];

/// Elements that part the text, but not what it says: the cells of a table's row.
const CELLS: [&str; 2] = ["td", "th"];

/// Figures and reports.
#[derive(Debug, Clone, Copy)]
pub struct Markup;

impl Format for Markup {
    fn compare(&self, recorded: &Path, made: &Path, tolerance: Tolerance) -> Result<Option<Difference>, Unreadable> {
        Text.compare(recorded, made, tolerance)
    }

    /// What texts say as NAME = VALUE, NAME: VALUE or NAME VALUE. Where a figure of ours gives a metric another name,
    /// the quote has the metric's.
    fn quotes(&self, file: &Path) -> Result<Vec<Quote>, Unreadable> {
        let document = fs::read_to_string(file).map_err(unreadable(true))?;
        let texts = texts(&document);
        let mut quotes: Vec<Quote> = texts.iter().flat_map(|text| quotes_of(text)).collect();
        for quote in &mut quotes {
            let known = QUOTED_METRICS
                .iter()
                .find(|known| known.shown == quote.name && texts.iter().any(|text| text == known.title));
            if let Some(known) = known {
                known.metric.clone_into(&mut quote.name);
            }
        }
        Ok(quotes)
    }
}

/// Returns the texts of a document, in order.
fn texts(document: &str) -> Vec<String> {
    let mut texts = Vec::new();
    let mut open = String::new();
    let mut rest = document;
    while let Some((text, from)) = split_before(rest, '<') {
        open.push_str(&unescaped(text));
        let tag;
        (tag, rest) = split_after_tag(from);
        if let Some(comment) = tag.strip_prefix("<!--") {
            texts.push(comment.trim_end_matches("-->").to_owned());
            continue;
        }
        if let Some(text) = tag.strip_prefix("<![CDATA[") {
            open.push_str(text.trim_end_matches("]]>"));
            continue;
        }
        let name = tag.trim_start_matches(['<', '/']);
        let name = &name[..name.find(|letter: char| !letter.is_alphanumeric()).unwrap_or(name.len())];
        if CELLS.contains(&name) {
            open.push(' ');
        } else if !INLINE.contains(&name) {
            texts.push(std::mem::take(&mut open));
        }
        texts.extend(label(tag));
        if matches!(name, "style" | "script") && !tag.starts_with("</") {
            let end = rest.find("</").unwrap_or(rest.len());
            rest = &rest[end..];
        }
    }
    texts.push(open + &unescaped(rest));
    let plain = |text: String| text.split_whitespace().collect::<Vec<_>>().join(" ");
    texts.into_iter().map(plain).filter(|text| !text.is_empty()).collect()
}

fn split_before(text: &str, letter: char) -> Option<(&str, &str)> {
    text.find(letter).map(|place| text.split_at(place))
}

/// Parts a text that begins with a tag after that tag; a `>` in quotes does not end it.
fn split_after_tag(text: &str) -> (&str, &str) {
    for (start, end) in [("<!--", "-->"), ("<![CDATA[", "]]>")] {
        if text.starts_with(start) {
            let length = text.find(end).map_or(text.len(), |place| place + end.len());
            return text.split_at(length);
        }
    }
    let mut quote = None;
    for (place, letter) in text.char_indices() {
        match (quote, letter) {
            (None, '>') => return text.split_at(place + 1),
            (None, '"' | '\'') => quote = Some(letter),
            (Some(open), _) if open == letter => quote = None,
            _ => {}
        }
    }
    (text, "")
}

/// Returns what a tag says in `aria-label`.
fn label(tag: &str) -> Option<String> {
    let (_, rest) = tag.split_once("aria-label=")?;
    let quote = rest.chars().next().filter(|letter| matches!(letter, '"' | '\''))?;
    let (text, _) = rest[1..].split_once(quote)?;
    Some(unescaped(text))
}

/// Returns a text with its entities as letters. Those that are not known stay.
fn unescaped(text: &str) -> String {
    let mut whole = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, from)) = split_before(rest, '&') {
        whole.push_str(before);
        let found = from.find(';').and_then(|end| Some((entity(&from[1..end])?, end + 1)));
        let (letter, length) = found.unwrap_or(('&', 1));
        whole.push(letter);
        rest = &from[length..];
    }
    whole + rest
}

fn entity(name: &str) -> Option<char> {
    Some(match name {
        "amp" => '&',
        "lt" => '<',
        "gt" => '>',
        "quot" => '"',
        "apos" => '\'',
        "nbsp" => ' ',
        "minus" => '−',
        "plusmn" => '±',
        "times" => '×',
        _ => {
            let number = name.strip_prefix('#')?;
            let code = match number.strip_prefix(['x', 'X']) {
                Some(number) => u32::from_str_radix(number, 16),
                None => number.parse(),
            };
            char::from_u32(code.ok()?)?
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figure::resid_mlp::{contribution_scatter, scatter_figure};
    use crate::figure::{Anchor, Axis, Figure, Mark, Panel, Rgb, Scale};
    use crate::formats::testing;
    use crate::matrix::Matrix;

    fn quoted(format: &str, document: &str) -> Vec<(String, f64)> {
        testing::quotes(format, document.as_bytes()).into_iter().map(|quote| (quote.name, quote.value)).collect()
    }

    #[test]
    fn numbers_in_our_own_figures_are_quoted() {
        let axis = || Axis::new("x", Scale::Linear { min: 0.0, max: 1.0 });
        let text = "mmcs = 0.998, a < b & ml2r = −0.5".to_owned();
        let note = Mark::Note { at: (0.5, 0.5), text, anchor: Anchor::Start, color: Rgb::INK };
        let figure = Figure::single("Dots", 200.0, 100.0, Panel::new("seed = 3", axis(), axis()).with(note));
        let quotes = testing::quotes("svg", figure.to_svg().as_bytes());
        let shown: Vec<_> = quotes.iter().map(|quote| (&*quote.name, quote.value, quote.precision)).collect();
        assert_eq!(shown, [("mmcs", 0.998, 0.5e-3), ("a < b & ml2r", -0.5, 0.05), ("seed", 3.0, 0.5)]);
        assert_eq!(quotes[0].place, "text `mmcs = 0.998, a < b & ml2r = −0.5`");
    }

    #[test]
    fn a_metric_that_a_figure_of_ours_calls_otherwise_has_its_own_name() {
        let layers = vec![(0, Matrix::from_fn(2, 2, |r, c| (r + c) as f32))];
        let panel = contribution_scatter("seed = 0", &layers, &layers, 0.98765);
        let figure = |title: &str| scatter_figure(title, vec![panel.clone()], [0].into_iter()).to_svg();
        let name = "neuron_contribution_correlation".to_owned();
        let known = quoted("svg", &figure(QUOTED_METRICS[0].title));
        assert!(known.contains(&(name, 0.9877)) && known.contains(&("seed".to_owned(), 0.0)), "{known:?}");
        assert!(quoted("svg", &figure("Something else")).contains(&("r".to_owned(), 0.9877)));
    }

    #[test]
    fn texts_of_elements_comments_and_tables_are_read() {
        let svg = "<?xml version=\"1.0\"?><svg><style>a = 1 > 0</style><text>loss = <tspan>0.5</tspan></text>\
                   <!-- l0 = 3 --><g id=\"a>b\" aria-label='x: 2'/><desc><![CDATA[y = 4]]></desc></svg>";
        let expected = [("loss", 0.5), ("l0", 3.0), ("x", 2.0), ("y", 4.0)];
        assert_eq!(quoted("svg", svg), expected.map(|(name, value)| (name.to_owned(), value)));
        let html = "<table><tr><td>mmcs</td><td>0.99</td></tr><tr><th>a</th><td>1</td><td>2</td></tr></table>\
                    <p>ml2r:&nbsp;<b>&minus;1</b></p><script>var z = 1</script>";
        let expected = [("mmcs", 0.99), ("ml2r", -1.0)];
        assert_eq!(quoted("html", html), expected.map(|(name, value)| (name.to_owned(), value)));
    }

    #[test]
    fn documents_cut_off_anywhere_are_read_without_a_panic() {
        let svg = "<svg><text a='é'>a &#x41; &amp = <tspan>0.5</tspan><!-- é --><![CDATA[ü]]></text aria-label=\"";
        for (length, _) in svg.char_indices() {
            assert!(texts(&svg[..length]).len() < 10);
        }
    }

    #[test]
    fn documents_are_compared_line_by_line() {
        let found = testing::compared("svg", b"<svg>\n<a/>\n</svg>\n", b"<svg>\n<b/>\n</svg>\n", Tolerance::EXACT);
        assert_eq!(found.unwrap().unwrap(), "line 2, column 2: \"<a/>\", now \"<b/>\"; 1 of 3 differ");
    }
}
