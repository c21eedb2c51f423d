//! Text as outlines, so that a figure looks the same wherever it is opened.
//!
//! The letters are Noto Sans (SIL Open Font License), carried in the binary by the crate `notosans`. A figure stores
//! each letter it uses once and refers to it. `^{…}` raises, `_{…}` lowers.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use skrifa::outline::{DrawSettings, OutlinePen};
use skrifa::prelude::{LocationRef, Size};
use skrifa::{FontRef, GlyphId, MetadataProvider};

use super::svg::number;

/// The weight of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Face {
    /// For everything.
    Regular,
    /// For titles and panel letters.
    Bold,
}

/// Where a text stands relative to its point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Anchor {
    /// The text begins there.
    Start,
    /// The text is centred there.
    Middle,
    /// The text ends there.
    End,
}

/// How much smaller raised and lowered letters are.
const SCRIPT_SCALE: f64 = 0.7;
/// How far they are raised, in units of the size of the text.
const RAISE: f64 = 0.36;
/// How far they are lowered.
const LOWER: f64 = 0.16;

/// The two fonts, and the letters used so far.
pub(super) struct Letters {
    regular: FontRef<'static>,
    bold: FontRef<'static>,
    used: BTreeMap<(Face, u32), String>,
}

/// A letter with its place: offsets in units of the text's size.
struct Placed {
    glyph: GlyphId,
    x: f64,
    y: f64,
    scale: f64,
}

impl Letters {
    pub(super) fn new() -> Self {
        let open = |bytes| FontRef::new(bytes).expect("the fonts in the binary are intact");
        Self { regular: open(notosans::REGULAR_TTF), bold: open(notosans::BOLD_TTF), used: BTreeMap::new() }
    }

    fn font(&self, face: Face) -> &FontRef<'static> {
        match face {
            Face::Regular => &self.regular,
            Face::Bold => &self.bold,
        }
    }

    /// Returns the width of `text` at `size`.
    pub(super) fn width(&self, text: &str, face: Face, size: f64) -> f64 {
        self.place(text, face).1 * size
    }

    /// Returns the letters of `text` with their places, and the whole width, for a size of 1.
    fn place(&self, text: &str, face: Face) -> (Vec<Placed>, f64) {
        let font = self.font(face);
        let charmap = font.charmap();
        let metrics = font.glyph_metrics(Size::new(1.0), LocationRef::default());
        let mut placed = Vec::new();
        let mut x = 0.0;
        for (part, y, scale) in scripts(text) {
            for c in part.chars() {
                let glyph = charmap.map(c).unwrap_or(GlyphId::NOTDEF);
                placed.push(Placed { glyph, x, y, scale });
                x += f64::from(metrics.advance_width(glyph).unwrap_or(0.0)) * scale;
            }
        }
        (placed, x)
    }

    /// Returns the SVG of `text` with its baseline at the origin, coloured by the group around it.
    pub(super) fn draw(&mut self, text: &str, face: Face, size: f64, anchor: Anchor) -> String {
        let (placed, width) = self.place(text, face);
        let start = match anchor {
            Anchor::Start => 0.0,
            Anchor::Middle => -width / 2.0,
            Anchor::End => -width,
        };
        let units = f64::from(self.font(face).metrics(Size::unscaled(), LocationRef::default()).units_per_em);
        let mut svg = String::new();
        for letter in placed {
            let id = letter.glyph.to_u32();
            let font = match face {
                Face::Regular => &self.regular,
                Face::Bold => &self.bold,
            };
            let outline = self.used.entry((face, id)).or_insert_with(|| outline(font, letter.glyph));
            if outline.is_empty() {
                continue;
            }
            let scale = letter.scale * size / units;
            let (x, y) = ((start + letter.x) * size, letter.y * size);
            write!(
                svg,
                "<use href=\"#{}\" transform=\"translate({} {}) scale({scale:.6})\"/>",
                name(face, id),
                number(x),
                number(y)
            )
            .expect("writing to a string");
        }
        svg
    }

    /// Returns the definitions of all letters used, in a fixed order.
    pub(super) fn definitions(&self) -> String {
        let mut svg = String::new();
        for ((face, id), outline) in self.used.iter().filter(|(_, outline)| !outline.is_empty()) {
            writeln!(svg, "<path id=\"{}\" d=\"{outline}\"/>", name(*face, *id)).expect("writing to a string");
        }
        svg
    }
}

fn name(face: Face, id: u32) -> String {
    match face {
        Face::Regular => format!("r{id}"),
        Face::Bold => format!("b{id}"),
    }
}

/// Returns the parts of `text` with their vertical offset and scale.
fn scripts(text: &str) -> Vec<(&str, f64, f64)> {
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some(start) = rest.find("^{").into_iter().chain(rest.find("_{")).min() {
        let Some(length) = rest[start + 2..].find('}') else { break };
        let y = if rest.as_bytes()[start] == b'^' { -RAISE } else { LOWER };
        parts.push((&rest[..start], 0.0, 1.0));
        parts.push((&rest[start + 2..start + 2 + length], y, SCRIPT_SCALE));
        rest = &rest[start + 3 + length..];
    }
    parts.push((rest, 0.0, 1.0));
    parts
}

fn outline(font: &FontRef<'_>, glyph: GlyphId) -> String {
    let mut pen = SvgPen(String::new());
    if let Some(outline) = font.outline_glyphs().get(glyph) {
        outline
            .draw(DrawSettings::unhinted(Size::unscaled(), LocationRef::default()), &mut pen)
            .expect("the outlines of the fonts in the binary are intact");
    }
    pen.0
}

/// Writes an outline as SVG path data; SVG's y axis points down.
struct SvgPen(String);

impl SvgPen {
    fn push(&mut self, command: char, points: &[(f32, f32)]) {
        self.0.push(command);
        for (i, (x, y)) in points.iter().enumerate() {
            let separator = if i == 0 { "" } else { " " };
            write!(self.0, "{separator}{} {}", number(f64::from(*x)), number(-f64::from(*y)))
                .expect("writing to a string");
        }
    }
}

impl OutlinePen for SvgPen {
    fn move_to(&mut self, x: f32, y: f32) {
        self.push('M', &[(x, y)]);
    }

    fn line_to(&mut self, x: f32, y: f32) {
        self.push('L', &[(x, y)]);
    }

    fn quad_to(&mut self, cx: f32, cy: f32, x: f32, y: f32) {
        self.push('Q', &[(cx, cy), (x, y)]);
    }

    fn curve_to(&mut self, ax: f32, ay: f32, bx: f32, by: f32, x: f32, y: f32) {
        self.push('C', &[(ax, ay), (bx, by), (x, y)]);
    }

    fn close(&mut self) {
        self.0.push('Z');
    }
}

#[cfg(test)]
mod tests {
    use skrifa::MetadataProvider;

    use super::{Anchor, Face, Letters, scripts};

    #[test]
    fn both_fonts_have_every_letter_our_figures_use() {
        let letters = Letters::new();
        for face in [Face::Regular, Face::Bold] {
            for c in "0123456789abcXYZ−×·–…θαβλσΣ°±≤≥[]()/_=%,".chars() {
                assert!(letters.font(face).charmap().map(c).is_some(), "{face:?} lacks `{c}`");
            }
        }
    }

    #[test]
    fn raised_letters_are_narrower_and_braces_are_not_shown() {
        let letters = Letters::new();
        let width = |text| letters.width(text, Face::Regular, 10.0);
        assert!(width("10^{4}") < width("104"));
        assert!(width("10^{4}") > width("10"));
        assert_eq!(scripts("a_{b}c"), [("a", 0.0, 1.0), ("b", super::LOWER, super::SCRIPT_SCALE), ("c", 0.0, 1.0)]);
        assert_eq!(scripts("stochastic_recon"), [("stochastic_recon", 0.0, 1.0)]);
        assert_eq!(scripts("a^{b"), [("a^{b", 0.0, 1.0)]);
    }

    #[test]
    fn each_letter_is_stored_once() {
        let mut letters = Letters::new();
        let svg = letters.draw("aba", Face::Regular, 8.0, Anchor::Middle);
        assert_eq!(svg.matches("<use").count(), 3);
        assert_eq!(letters.definitions().matches("<path").count(), 2);
    }
}
