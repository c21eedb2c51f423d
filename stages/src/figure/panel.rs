//! One panel of a figure: two axes and the marks between them. Pure description; `draw.rs` puts it on paper.

use super::color::{ColorMap, Rgb};
use super::scale::Scale;
use super::svg::Dash;
use super::text::Anchor;
use crate::matrix::Matrix;

/// A panel.
#[derive(Debug, Clone)]
pub struct Panel {
    /// Above the panel; empty for none.
    pub title: String,
    /// The horizontal axis.
    pub x: Axis,
    /// The vertical axis.
    pub y: Axis,
    /// What is drawn, first at the bottom.
    pub marks: Vec<Mark>,
    /// Which lines surround it.
    pub frame: Frame,
    /// Whether one unit is equally long on both axes; the ranges then grow to fill the panel.
    pub equal_aspect: bool,
    /// Explained inside the panel, in its upper right corner.
    pub legend: Vec<LegendEntry>,
}

/// An axis.
#[derive(Debug, Clone)]
pub struct Axis {
    /// Beside the axis; empty for none.
    pub label: String,
    /// Where numbers lie.
    pub scale: Scale,
    /// Which numbers are marked.
    pub ticks: Ticks,
}

/// Which numbers an axis marks.
#[derive(Debug, Clone)]
pub enum Ticks {
    /// Round ones.
    Auto,
    /// None.
    Hidden,
    /// These, with these texts.
    At(Vec<(f64, String)>),
    /// The middles of so many cells: every one, or every round number of them when there are many.
    Cells(usize),
}

/// Which lines surround a panel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Frame {
    /// Left and bottom.
    Open,
    /// All four.
    Box,
    /// None.
    Hidden,
}

/// A thing drawn in a panel, in the units of its axes.
#[derive(Debug, Clone)]
pub enum Mark {
    /// A line through points; interrupted where a point has no place.
    Line {
        /// In order.
        points: Vec<(f64, f64)>,
        /// Of the line.
        color: Rgb,
        /// In points.
        width: f64,
        /// Its pattern.
        dash: Dash,
    },
    /// Dots.
    Points {
        /// In any order; the last lies on top.
        points: Vec<(f64, f64)>,
        /// Of all dots.
        color: Rgb,
        /// In points.
        radius: f64,
        /// From 0, invisible, to 1.
        opacity: f64,
    },
    /// Bars that stand on `base`.
    Bars {
        /// Middle, height and colour of each.
        bars: Vec<(f64, f64, Rgb)>,
        /// In units of the x axis.
        width: f64,
        /// Where they stand.
        base: f64,
    },
    /// A line with a head at its end.
    Arrow {
        /// Where it begins.
        from: (f64, f64),
        /// Where it points.
        to: (f64, f64),
        /// Of line and head.
        color: Rgb,
        /// In points.
        width: f64,
    },
    /// A filled area.
    Area {
        /// Its corners in order.
        points: Vec<(f64, f64)>,
        /// Of the area.
        color: Rgb,
        /// From 0, invisible, to 1.
        opacity: f64,
    },
    /// A matrix as a heat map: column c between x = c and c + 1, row r between y = r and r + 1.
    Cells {
        /// The numbers.
        matrix: Matrix,
        /// Their colours.
        map: ColorMap,
        /// What has the first and the last colour of the map.
        range: (f64, f64),
    },
    /// A matrix of categories: where an entry is `Some(i)`, the cell has the i-th colour.
    Categories {
        /// Rows of the matrix.
        rows: usize,
        /// Columns of the matrix.
        cols: usize,
        /// Row after row.
        categories: Vec<Option<usize>>,
    },
    /// A thin horizontal line across the panel.
    HorizontalRule(f64),
    /// A thin vertical line across the panel.
    VerticalRule(f64),
    /// A text.
    Note {
        /// Its baseline.
        at: (f64, f64),
        /// What it says.
        text: String,
        /// Where it stands relative to its place.
        anchor: Anchor,
        /// Of the letters.
        color: Rgb,
    },
}

/// A line of a legend.
#[derive(Debug, Clone)]
pub struct LegendEntry {
    /// What it stands for.
    pub label: String,
    /// Its colour.
    pub color: Rgb,
    /// How it is shown.
    pub symbol: Symbol,
}

/// How a legend shows a colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Symbol {
    /// A piece of line.
    Line(Dash),
    /// A dot.
    Dot,
    /// A small square.
    Square,
}

impl Axis {
    /// Returns an axis with round ticks.
    pub fn new(label: impl Into<String>, scale: Scale) -> Self {
        Self { label: label.into(), scale, ticks: Ticks::Auto }
    }

    /// Returns a linear axis without label and ticks.
    #[must_use]
    pub fn bare(min: f64, max: f64) -> Self {
        Self { label: String::new(), scale: Scale::Linear { min, max }, ticks: Ticks::Hidden }
    }

    /// Marks these numbers instead of round ones.
    #[must_use]
    pub fn with_ticks(mut self, ticks: Ticks) -> Self {
        self.ticks = ticks;
        self
    }
}

impl Panel {
    /// Returns an empty panel.
    pub fn new(title: impl Into<String>, x: Axis, y: Axis) -> Self {
        Self {
            title: title.into(),
            x,
            y,
            marks: Vec::new(),
            frame: Frame::Open,
            equal_aspect: false,
            legend: Vec::new(),
        }
    }

    /// Adds a mark on top of the others.
    #[must_use]
    pub fn with(mut self, mark: Mark) -> Self {
        self.marks.push(mark);
        self
    }

    /// Returns a heat map of `matrix` with row 0 at the top, in the colours of `map` from `range.0` to `range.1`.
    pub fn heat_map(title: impl Into<String>, matrix: Matrix, map: ColorMap, range: (f64, f64)) -> Self {
        let axis = |label: &str, count: usize, is_down: bool| {
            let (min, max) = if is_down { (count as f64, 0.0) } else { (0.0, count as f64) };
            Axis::new(label, Scale::Linear { min, max }).with_ticks(Ticks::Cells(count))
        };
        let (x, y) = (axis("", matrix.cols(), false), axis("", matrix.rows(), true));
        let mut panel = Self::new(title, x, y).with(Mark::Cells { matrix, map, range });
        panel.frame = Frame::Box;
        panel
    }
}

/// Returns ticks in the middle of `count` cells: every index, or every round number of indices, at most `most` or ten of
/// them.
pub(super) fn index_ticks(count: usize, most: usize) -> Vec<(f64, String)> {
    let most = most.clamp(1, 10);
    let round = (0..).flat_map(|exponent| [1, 2, 5].map(|digit| digit * 10_usize.pow(exponent)));
    let stride = round.into_iter().find(|stride| count <= stride * most).expect("round numbers have no end");
    (0..count).step_by(stride).map(|i| (i as f64 + 0.5, i.to_string())).collect()
}

#[cfg(test)]
mod tests {
    use super::index_ticks;

    #[test]
    fn index_ticks_stand_in_the_middle_of_cells_and_stay_few() {
        assert_eq!(index_ticks(3, 99), [(0.5, "0".to_owned()), (1.5, "1".to_owned()), (2.5, "2".to_owned())]);
        assert_eq!(index_ticks(20, 10).len(), 10);
        assert!(index_ticks(4096, 10).len() <= 10);
        assert_eq!(index_ticks(500, 5).len(), 5);
        assert_eq!(index_ticks(1_000_000, 3).len(), 2);
        assert_eq!(index_ticks(7, 0).len(), 1);
    }
}
