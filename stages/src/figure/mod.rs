//! Scientific figures: our own small SVG writer, and PNG made from the same document.
//!
//! A [`Figure`] is a grid of [`Panel`]s. Its columns share the room that tick labels need, so frames line up; text is
//! drawn as outlines, so it looks the same everywhere. One style for all figures: 7 to 8 point Noto Sans, thin axes,
//! colours that colour-blind readers can tell apart. Equal figures give equal bytes.

mod color;
mod draw;
mod grid;
mod heat_maps;
mod histogram;
pub mod induction_head;
mod panel;
mod raster;
pub mod resid_mlp;
mod scale;
mod svg;
mod text;
pub mod tms;

use std::fs;
use std::path::Path;

use spdflow_engine::kind::{StageError, Summary};

pub use color::{ColorMap, Rgb, category};
pub use grid::{column_grid, column_rows};
pub use heat_maps::{importance_maps, weight_maps};
pub use histogram::{Histogram, histograms};
pub use panel::{Axis, Frame, LegendEntry, Mark, Panel, Symbol, Ticks};
pub use scale::{Scale, Tick};
pub use svg::Dash;
pub use text::{Anchor, Face};

use draw::{NORMAL, draw_color_bar, draw_legend_entry, legend_entry_width};
use svg::{Rect, Sheet, TextStyle};

/// The width of a figure across one column of a journal, in points.
pub const ONE_COLUMN: f64 = 255.0;
/// The width of a figure across a whole page.
pub const FULL_WIDTH: f64 = 518.0;

const EDGE: f64 = 5.0;
const GAP: f64 = 9.0;
const COLOR_BAR_ROOM: f64 = 46.0;
const LETTER: f64 = 9.5;

/// A grid of panels.
#[derive(Debug, Clone)]
pub struct Figure {
    /// What the figure shows: the document's title, for screen readers and browser tabs.
    pub title: String,
    /// In points.
    pub width: f64,
    /// From the top.
    pub rows: Vec<Row>,
    /// How wide the columns are relative to each other; 1 for those not given.
    pub column_weights: Vec<f64>,
    /// Whether panels are lettered a, b, c, …
    pub has_letters: bool,
    /// Explained above the panels.
    pub legend: Vec<LegendEntry>,
    /// The colour scale of all heat maps, right of the panels.
    pub color_bar: Option<ColorBar>,
}

/// A row of panels.
#[derive(Debug, Clone)]
pub struct Row {
    /// The height of the frames, in points.
    pub height: f64,
    /// From the left; `None` leaves a place empty.
    pub panels: Vec<Option<Panel>>,
}

/// What the colours of heat maps mean.
#[derive(Debug, Clone)]
pub struct ColorBar {
    /// The colours.
    pub map: ColorMap,
    /// What has the first and the last colour.
    pub range: (f64, f64),
    /// Beside the bar.
    pub label: String,
}

/// The places of frames, from the left and from the top.
struct Layout {
    columns: Vec<(f64, f64)>,
    rows: Vec<(f64, f64)>,
    /// Left edges of columns, where panel letters stand.
    starts: Vec<f64>,
    height: f64,
}

impl Figure {
    /// Returns a figure of these rows.
    pub fn new(title: impl Into<String>, width: f64, rows: Vec<Row>) -> Self {
        Self {
            title: title.into(),
            width,
            rows,
            column_weights: Vec::new(),
            has_letters: false,
            legend: Vec::new(),
            color_bar: None,
        }
    }

    /// Returns a figure of one panel whose frame is `height` high.
    pub fn single(title: impl Into<String>, width: f64, height: f64, panel: Panel) -> Self {
        Self::new(title, width, vec![Row { height, panels: vec![Some(panel)] }])
    }

    /// Returns the figure as an SVG document.
    #[must_use]
    pub fn to_svg(&self) -> String {
        let mut sheet = Sheet::new();
        let legend_lines = self.legend_lines(&sheet);
        let legend_height = if legend_lines.is_empty() { 0.0 } else { 11.0 * legend_lines.len() as f64 + 3.0 };
        let layout = self.layout(&sheet, EDGE + legend_height);
        sheet.resize(self.width, layout.height);
        for (i, line) in legend_lines.iter().enumerate() {
            let mut x = layout.columns.first().map_or(EDGE, |column| column.0);
            for entry in line {
                x += draw_legend_entry(&mut sheet, (x, EDGE + 5.0 + 11.0 * i as f64), entry) + 12.0;
            }
        }
        let mut letter = b'a';
        for (row, &(y, height)) in self.rows.iter().zip(&layout.rows) {
            for (c, panel) in row.panels.iter().enumerate() {
                let Some(panel) = panel else { continue };
                let (x, width) = layout.columns[c];
                panel.draw(&mut sheet, &Rect { x, y, width, height });
                if self.has_letters && letter <= b'z' {
                    let style = TextStyle::new(LETTER, Anchor::Start).bold();
                    sheet.text(&char::from(letter).to_string(), (layout.starts[c], y - 4.5), &style);
                    letter += 1;
                }
            }
        }
        if let (Some(bar), Some(&(top, _)), Some(&(last, last_height))) =
            (&self.color_bar, layout.rows.first(), layout.rows.last())
        {
            let whole = last + last_height - top;
            let height = whole.min(110.0);
            let x = self.width - EDGE - COLOR_BAR_ROOM + 8.0;
            let rect = Rect { x, y: top + (whole - height) / 2.0, width: 7.0, height };
            draw_color_bar(&mut sheet, &rect, bar.map, bar.range, &bar.label);
        }
        sheet.finish(&self.title)
    }

    /// Returns the figure as the bytes of a PNG file, 200 pixels per inch.
    ///
    /// # Errors
    /// [`StageError::Failed`] if it cannot be drawn.
    pub fn to_png(&self) -> Result<Vec<u8>, StageError> {
        raster::to_png(&self.to_svg())
    }

    /// Writes `name.svg` and `name.png` into `folder` and lists them in `summary`.
    ///
    /// # Errors
    /// [`StageError::Io`] if a file cannot be written; [`StageError::Failed`] if the figure cannot be drawn.
    pub fn write(&self, folder: &Path, name: &str, summary: &mut Summary) -> Result<(), StageError> {
        let svg = self.to_svg();
        let png = raster::to_png(&svg)?;
        for (format, bytes) in [("svg", svg.into_bytes()), ("png", png)] {
            let file = format!("{name}.{format}");
            let path = folder.join(&file);
            fs::write(&path, bytes).map_err(StageError::io("write", &path))?;
            summary.file(file, format, self.title.clone());
        }
        Ok(())
    }

    fn layout(&self, sheet: &Sheet, top: f64) -> Layout {
        let count = self.rows.iter().map(|row| row.panels.len()).max().unwrap_or(0);
        let (mut left, mut right) = (vec![0.0_f64; count], vec![0.0_f64; count]);
        for row in &self.rows {
            for (c, panel) in row.panels.iter().enumerate() {
                if let Some(panel) = panel {
                    let (l, r) = panel.side_margins(sheet, row.height);
                    // Room for the letter beside a centred title.
                    let l = if self.has_letters { l.max(LETTER) } else { l };
                    (left[c], right[c]) = (left[c].max(l), right[c].max(r));
                }
            }
        }
        let bar = if self.color_bar.is_some() { COLOR_BAR_ROOM } else { 0.0 };
        let taken: f64 =
            left.iter().chain(&right).sum::<f64>() + GAP * count.saturating_sub(1) as f64 + 2.0 * EDGE + bar;
        let weight = |c: usize| self.column_weights.get(c).copied().unwrap_or(1.0);
        let unit = (self.width - taken).max(10.0) / (0..count).map(weight).sum::<f64>();
        let (mut columns, mut starts) = (Vec::new(), Vec::new());
        let mut x = EDGE;
        for c in 0..count {
            starts.push(x);
            columns.push((x + left[c], unit * weight(c)));
            x += left[c] + unit * weight(c) + right[c] + GAP;
        }
        let mut rows = Vec::new();
        let mut y = top;
        for row in &self.rows {
            let (mut above, mut below) = (0.0_f64, 0.0_f64);
            for (panel, column) in row.panels.iter().zip(&columns) {
                if let Some(panel) = panel {
                    let (a, b) = panel.vertical_margins(sheet, column.1, self.has_letters);
                    (above, below) = (above.max(a), below.max(b));
                }
            }
            rows.push((y + above, row.height));
            y += above + row.height + below + GAP;
        }
        Layout { columns, rows, starts, height: y - GAP + EDGE }
    }

    /// Returns the entries of the legend in lines that fit the width.
    fn legend_lines(&self, sheet: &Sheet) -> Vec<Vec<&LegendEntry>> {
        let room = self.width - 2.0 * EDGE - 4.0 * NORMAL;
        let mut lines: Vec<Vec<&LegendEntry>> = Vec::new();
        let mut used = f64::INFINITY;
        for entry in &self.legend {
            let width = legend_entry_width(sheet, entry) + 12.0;
            if used + width > room {
                lines.push(Vec::new());
                used = 0.0;
            }
            lines.last_mut().expect("a line was begun").push(entry);
            used += width;
        }
        lines
    }
}

#[cfg(test)]
pub(crate) mod tests;
