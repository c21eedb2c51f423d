//! A sheet of paper: draws shapes, text and images, and becomes an SVG document. Lengths are in points.

use std::fmt::Write as _;

use super::color::Rgb;
use super::raster;
use super::text::{Anchor, Face, Letters};

/// How a line looks.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Stroke {
    pub color: Rgb,
    pub width: f64,
    pub dash: Dash,
    pub opacity: f64,
}

/// The pattern of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Dash {
    /// Without gaps.
    #[default]
    Solid,
    /// Long dashes.
    Dashed,
    /// Dots.
    Dotted,
}

impl Stroke {
    pub(super) fn new(color: Rgb, width: f64) -> Self {
        Self { color, width, dash: Dash::Solid, opacity: 1.0 }
    }

    fn attributes(&self) -> String {
        let mut text = format!(" stroke=\"{}\" stroke-width=\"{}\"", self.color.hex(), number(self.width));
        match self.dash {
            Dash::Solid => {}
            Dash::Dashed => write!(text, " stroke-dasharray=\"{} {}\"", number(3.5), number(2.0)).expect("to a string"),
            Dash::Dotted => write!(text, " stroke-dasharray=\"{} {}\"", number(0.9), number(1.6)).expect("to a string"),
        }
        if self.opacity < 1.0 {
            write!(text, " stroke-opacity=\"{}\"", number(self.opacity)).expect("to a string");
        }
        text
    }
}

/// A rectangle; y points down.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Rect {
    pub x: f64,
    pub y: f64,
    pub width: f64,
    pub height: f64,
}

impl Rect {
    pub(super) fn right(&self) -> f64 {
        self.x + self.width
    }

    pub(super) fn bottom(&self) -> f64 {
        self.y + self.height
    }
}

/// The sheet. What has no place (a coordinate that is not finite) is not drawn.
pub(super) struct Sheet {
    width: f64,
    height: f64,
    body: String,
    letters: Letters,
    clips: usize,
}

impl Sheet {
    pub(super) fn new() -> Self {
        Self { width: 0.0, height: 0.0, body: String::new(), letters: Letters::new(), clips: 0 }
    }

    pub(super) fn resize(&mut self, width: f64, height: f64) {
        (self.width, self.height) = (width, height);
    }

    pub(super) fn text_width(&self, text: &str, face: Face, size: f64) -> f64 {
        self.letters.width(text, face, size)
    }

    fn push(&mut self, svg: std::fmt::Arguments<'_>) {
        self.body.write_fmt(svg).expect("writing to a string");
        self.body.push('\n');
    }

    /// Draws a line through `points`.
    pub(super) fn polyline(&mut self, points: &[(f64, f64)], stroke: &Stroke) {
        if points.len() < 2 || !points.iter().all(has_place) {
            return;
        }
        let d = path(points);
        self.push(format_args!("<path d=\"{d}\" fill=\"none\"{} stroke-linejoin=\"round\"/>", stroke.attributes()));
    }

    /// Draws the area inside `points`.
    pub(super) fn polygon(&mut self, points: &[(f64, f64)], fill: Rgb, opacity: f64) {
        if !points.iter().all(has_place) {
            return;
        }
        let d = path(points);
        self.push(format_args!("<path d=\"{d}Z\" fill=\"{}\" fill-opacity=\"{}\"/>", fill.hex(), number(opacity)));
    }

    pub(super) fn line(&mut self, from: (f64, f64), to: (f64, f64), stroke: &Stroke) {
        self.polyline(&[from, to], stroke);
    }

    pub(super) fn circle(&mut self, center: (f64, f64), radius: f64, fill: Rgb, opacity: f64) {
        if !has_place(&center) {
            return;
        }
        self.push(format_args!(
            "<circle cx=\"{}\" cy=\"{}\" r=\"{}\" fill=\"{}\" fill-opacity=\"{}\"/>",
            number(center.0),
            number(center.1),
            number(radius),
            fill.hex(),
            number(opacity)
        ));
    }

    pub(super) fn fill_rect(&mut self, rect: &Rect, fill: Rgb) {
        if !has_place(&(rect.x + rect.width, rect.y + rect.height)) {
            return;
        }
        self.push(format_args!("<rect {} fill=\"{}\"/>", corners(rect), fill.hex()));
    }

    pub(super) fn stroke_rect(&mut self, rect: &Rect, stroke: &Stroke) {
        self.push(format_args!("<rect {} fill=\"none\"{}/>", corners(rect), stroke.attributes()));
    }

    /// Draws `text` with its baseline at `at`, turned by `degrees` counter-clockwise.
    pub(super) fn text(&mut self, text: &str, at: (f64, f64), style: &TextStyle) {
        if text.is_empty() || !has_place(&at) {
            return;
        }
        let letters = self.letters.draw(text, style.face, style.size, style.anchor);
        let turn = if style.degrees == 0.0 { String::new() } else { format!(" rotate({})", number(-style.degrees)) };
        self.push(format_args!(
            "<g transform=\"translate({} {}){turn}\" fill=\"{}\" aria-label=\"{}\">{letters}</g>",
            number(at.0),
            number(at.1),
            style.color.hex(),
            escape(text)
        ));
    }

    /// Draws a matrix of colours, row by row, each cell a sharp rectangle.
    pub(super) fn cells(&mut self, rect: &Rect, rows: usize, cols: usize, colors: &[Rgb]) {
        let data = raster::data_uri(rows, cols, colors);
        self.push(format_args!(
            "<image {} preserveAspectRatio=\"none\" image-rendering=\"optimizeSpeed\" \
             style=\"image-rendering:pixelated\" href=\"{data}\"/>",
            corners(rect)
        ));
    }

    /// Lets `draw` draw only inside `rect`.
    pub(super) fn clipped(&mut self, rect: &Rect, draw: impl FnOnce(&mut Self)) {
        let id = self.clips;
        self.clips += 1;
        self.push(format_args!("<clipPath id=\"c{id}\"><rect {}/></clipPath>", corners(rect)));
        self.push(format_args!("<g clip-path=\"url(#c{id})\">"));
        draw(self);
        self.push(format_args!("</g>"));
    }

    /// Returns the document.
    pub(super) fn finish(self, title: &str) -> String {
        let (width, height) = (number(self.width), number(self.height));
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}pt\" height=\"{height}pt\" \
             viewBox=\"0 0 {width} {height}\" role=\"img\">\n<title>{}</title>\n\
             <rect width=\"{width}\" height=\"{height}\" fill=\"#ffffff\"/>\n<defs>\n{}</defs>\n{}</svg>\n",
            escape(title),
            self.letters.definitions(),
            self.body
        )
    }
}

/// How a text looks.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct TextStyle {
    pub face: Face,
    pub size: f64,
    pub anchor: Anchor,
    pub color: Rgb,
    pub degrees: f64,
}

impl TextStyle {
    pub(super) fn new(size: f64, anchor: Anchor) -> Self {
        Self { face: Face::Regular, size, anchor, color: Rgb::INK, degrees: 0.0 }
    }

    pub(super) fn bold(self) -> Self {
        Self { face: Face::Bold, ..self }
    }

    pub(super) fn turned(self, degrees: f64) -> Self {
        Self { degrees, ..self }
    }

    pub(super) fn color(self, color: Rgb) -> Self {
        Self { color, ..self }
    }
}

fn has_place(point: &(f64, f64)) -> bool {
    point.0.is_finite() && point.1.is_finite()
}

fn corners(rect: &Rect) -> String {
    format!(
        "x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\"",
        number(rect.x),
        number(rect.y),
        number(rect.width),
        number(rect.height)
    )
}

fn path(points: &[(f64, f64)]) -> String {
    let mut d = String::new();
    for (i, (x, y)) in points.iter().enumerate() {
        write!(d, "{}{} {}", if i == 0 { 'M' } else { 'L' }, number(*x), number(*y)).expect("writing to a string");
    }
    d
}

/// Returns a length with at most two decimals: a hundredth of a point is far below what can be seen.
pub(super) fn number(value: f64) -> String {
    let text = format!("{value:.2}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text == "-0" || text.is_empty() { "0".to_owned() } else { text.to_owned() }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::{escape, number};

    #[test]
    fn numbers_are_short_and_never_minus_zero() {
        let cases = [(0.0, "0"), (-0.001, "0"), (1.5, "1.5"), (100.0, "100"), (-2.346, "-2.35"), (10.10, "10.1")];
        for (value, text) in cases {
            assert_eq!(number(value), text);
        }
    }

    #[test]
    fn text_cannot_break_the_document() {
        assert_eq!(escape("a<b & \"c\">"), "a&lt;b &amp; &quot;c&quot;&gt;");
    }
}
