//! Puts panels on paper: measures the room that ticks and labels need, then draws axes and marks.

use super::color::{ColorMap, Rgb, category};
use super::panel::{Axis, Frame, LegendEntry, Mark, Panel, Symbol, Ticks, index_ticks};
use super::scale::{Scale, Tick};
use super::svg::{Rect, Sheet, Stroke, TextStyle};
use super::text::{Anchor, Face};

/// Size of tick labels and legends, in points.
pub(super) const SMALL: f64 = 7.0;
/// Size of axis labels.
pub(super) const NORMAL: f64 = 8.0;
/// Size of panel titles.
pub(super) const TITLE: f64 = 8.0;
/// Height of a capital letter relative to the size of the text.
pub(super) const CAP: f64 = 0.714;
const TICK_LENGTH: f64 = 2.5;
const TICK_GAP: f64 = 2.0;
const AXIS: f64 = 0.6;
/// About how far apart round ticks should stand.
const X_SPACING: f64 = 34.0;
const Y_SPACING: f64 = 15.0;

impl Axis {
    fn all_ticks(&self, length: f64, spacing: f64) -> Vec<Tick> {
        let labelled = |(value, label)| Tick { value, label: Some(label) };
        match &self.ticks {
            Ticks::Hidden => Vec::new(),
            Ticks::At(ticks) => ticks.iter().cloned().map(labelled).collect(),
            // Labels, turned if need be, stand a line apart at least.
            Ticks::Cells(count) => index_ticks(*count, (length / SMALL) as usize).into_iter().map(labelled).collect(),
            Ticks::Auto => {
                let most = ((length / spacing) as usize).clamp(2, 7);
                self.scale.ticks(most)
            }
        }
    }
}

impl Panel {
    /// Returns the room needed left and right of a frame of about `height`.
    pub(super) fn side_margins(&self, sheet: &Sheet, height: f64) -> (f64, f64) {
        let widest = labels(&self.y.all_ticks(height, Y_SPACING))
            .map(|label| sheet.text_width(label, Face::Regular, SMALL))
            .fold(0.0, f64::max);
        let mut left = if widest > 0.0 { widest + TICK_LENGTH + TICK_GAP } else { 2.0 };
        if !self.y.label.is_empty() {
            left += NORMAL * 1.45;
        }
        // The outermost labels under the panel stick out by half their width.
        let (mut before, mut after) = (2.0_f64, 3.0_f64);
        for tick in self.x.all_ticks(120.0, X_SPACING) {
            let half = tick.label.map_or(0.0, |label| sheet.text_width(&label, Face::Regular, SMALL) / 2.0);
            let position = self.x.scale.position(tick.value);
            if position < 0.04 {
                before = before.max(half);
            } else if position > 0.96 {
                after = after.max(half);
            }
        }
        (left.max(before), after + 2.0)
    }

    /// Returns the room needed above and below a frame of `width`.
    pub(super) fn vertical_margins(&self, sheet: &Sheet, width: f64, has_letters: bool) -> (f64, f64) {
        let top = if self.title.is_empty() && !has_letters { 4.0 } else { TITLE * 1.0 + 6.0 };
        let ticks = self.x.all_ticks(width, X_SPACING);
        let mut bottom = if labels(&ticks).next().is_none() {
            2.0
        } else if self.has_turned_labels(sheet, width) {
            labels(&ticks).map(|label| sheet.text_width(label, Face::Regular, SMALL)).fold(0.0, f64::max)
                + TICK_LENGTH
                + TICK_GAP
        } else {
            TICK_LENGTH + TICK_GAP + SMALL
        };
        if !self.x.label.is_empty() {
            bottom += NORMAL * 1.4;
        }
        (top, bottom)
    }

    /// Returns whether the labels under the panel would touch if they were written side by side.
    fn has_turned_labels(&self, sheet: &Sheet, width: f64) -> bool {
        let ticks = self.x.all_ticks(width, X_SPACING);
        let mut end = f64::NEG_INFINITY;
        for tick in ticks.iter().filter(|tick| tick.label.is_some()) {
            let label = tick.label.as_deref().unwrap_or_default();
            let half = sheet.text_width(label, Face::Regular, SMALL) / 2.0;
            let x = self.x.scale.position(tick.value) * width;
            if x - half < end + 2.0 {
                return true;
            }
            end = x + half;
        }
        false
    }

    /// Draws the panel with its frame at `frame`.
    pub(super) fn draw(&self, sheet: &mut Sheet, frame: &Rect) {
        let mut fitted = self.clone();
        if self.equal_aspect {
            fitted.equalise(frame);
        }
        let place = Place { frame: *frame, x: fitted.x.scale, y: fitted.y.scale };
        sheet.clipped(frame, |sheet| {
            for mark in self.marks.iter().filter(|mark| mark.is_clipped()) {
                draw_mark(sheet, &place, mark);
            }
        });
        fitted.draw_frame(sheet, frame);
        fitted.draw_x_axis(sheet, frame);
        fitted.draw_y_axis(sheet, frame);
        for mark in self.marks.iter().filter(|mark| !mark.is_clipped()) {
            draw_mark(sheet, &place, mark);
        }
        if !self.title.is_empty() {
            let size = fitted_size(sheet, &self.title, TITLE, frame.width + 10.0);
            let style = TextStyle::new(size, Anchor::Middle);
            sheet.text(&self.title, (frame.x + frame.width / 2.0, frame.y - 4.5), &style);
        }
        draw_inner_legend(sheet, frame, &self.legend);
    }

    /// Widens one of the ranges so that a unit has the same length on both axes.
    fn equalise(&mut self, frame: &Rect) {
        let ((x0, x1), (y0, y1)) = (self.x.scale.range(), self.y.scale.range());
        let unit = ((x1 - x0) / frame.width).max((y1 - y0) / frame.height);
        let around = |low: f64, high: f64, length: f64| {
            let (middle, half) = ((low + high) / 2.0, unit * length / 2.0);
            Scale::Linear { min: middle - half, max: middle + half }
        };
        self.x.scale = around(x0, x1, frame.width);
        self.y.scale = around(y0, y1, frame.height);
    }

    fn draw_frame(&self, sheet: &mut Sheet, frame: &Rect) {
        let stroke = Stroke::new(Rgb::INK, AXIS);
        match self.frame {
            Frame::Hidden => {}
            Frame::Box => sheet.stroke_rect(frame, &stroke),
            Frame::Open => {
                let corners = [(frame.x, frame.y), (frame.x, frame.bottom()), (frame.right(), frame.bottom())];
                sheet.polyline(&corners, &stroke);
            }
        }
    }

    fn draw_x_axis(&self, sheet: &mut Sheet, frame: &Rect) {
        let is_turned = self.has_turned_labels(sheet, frame.width);
        let stroke = Stroke::new(Rgb::INK, AXIS);
        let mut depth: f64 = 0.0;
        for tick in self.x.all_ticks(frame.width, X_SPACING) {
            let x = frame.x + self.x.scale.position(tick.value) * frame.width;
            let length = if tick.label.is_some() { TICK_LENGTH } else { TICK_LENGTH * 0.6 };
            sheet.line((x, frame.bottom()), (x, frame.bottom() + length), &stroke);
            let Some(label) = &tick.label else { continue };
            let y = frame.bottom() + TICK_LENGTH + TICK_GAP;
            if is_turned {
                let style = TextStyle::new(SMALL, Anchor::End).turned(90.0);
                sheet.text(label, (x + SMALL * CAP / 2.0, y), &style);
                depth = depth.max(sheet.text_width(label, Face::Regular, SMALL));
            } else {
                sheet.text(label, (x, y + SMALL * CAP), &TextStyle::new(SMALL, Anchor::Middle));
                depth = SMALL;
            }
        }
        if !self.x.label.is_empty() {
            let ticks = if depth > 0.0 { depth + TICK_LENGTH + TICK_GAP } else { 2.0 };
            let at = (frame.x + frame.width / 2.0, frame.bottom() + ticks + NORMAL * 1.1);
            let size = fitted_size(sheet, &self.x.label, NORMAL, frame.width + 24.0);
            sheet.text(&self.x.label, at, &TextStyle::new(size, Anchor::Middle));
        }
    }

    fn draw_y_axis(&self, sheet: &mut Sheet, frame: &Rect) {
        let stroke = Stroke::new(Rgb::INK, AXIS);
        let mut widest: f64 = 0.0;
        for tick in self.y.all_ticks(frame.height, Y_SPACING) {
            let y = frame.bottom() - self.y.scale.position(tick.value) * frame.height;
            let length = if tick.label.is_some() { TICK_LENGTH } else { TICK_LENGTH * 0.6 };
            sheet.line((frame.x - length, y), (frame.x, y), &stroke);
            if let Some(label) = &tick.label {
                let at = (frame.x - TICK_LENGTH - TICK_GAP, y + SMALL * CAP / 2.0);
                sheet.text(label, at, &TextStyle::new(SMALL, Anchor::End));
                widest = widest.max(sheet.text_width(label, Face::Regular, SMALL));
            }
        }
        if !self.y.label.is_empty() {
            let ticks = if widest > 0.0 { widest + TICK_LENGTH + TICK_GAP } else { 2.0 };
            let at = (frame.x - ticks - NORMAL * 0.5, frame.y + frame.height / 2.0);
            sheet.text(&self.y.label, at, &TextStyle::new(NORMAL, Anchor::Middle).turned(90.0));
        }
    }
}

/// Returns the size at which `text`, `size` at most, has room: it grows smaller rather than into its neighbour.
fn fitted_size(sheet: &Sheet, text: &str, size: f64, room: f64) -> f64 {
    size * (room / sheet.text_width(text, Face::Regular, size)).clamp(0.6, 1.0)
}

fn labels(ticks: &[Tick]) -> impl Iterator<Item = &str> {
    ticks.iter().filter_map(|tick| tick.label.as_deref())
}

/// Where numbers lie on paper.
struct Place {
    frame: Rect,
    x: Scale,
    y: Scale,
}

impl Place {
    fn x(&self, x: f64) -> f64 {
        self.frame.x + self.x.position(x) * self.frame.width
    }

    fn y(&self, y: f64) -> f64 {
        self.frame.bottom() - self.y.position(y) * self.frame.height
    }

    fn at(&self, point: (f64, f64)) -> (f64, f64) {
        (self.x(point.0), self.y(point.1))
    }
}

impl Mark {
    /// Returns whether the mark ends at the frame. Dots and notes on the frame's edge should stay whole.
    fn is_clipped(&self) -> bool {
        !matches!(self, Self::Points { .. } | Self::Note { .. } | Self::Arrow { .. })
    }
}

fn draw_mark(sheet: &mut Sheet, place: &Place, mark: &Mark) {
    match mark {
        Mark::Line { points, color, width, dash } => {
            let stroke = Stroke { dash: *dash, ..Stroke::new(*color, *width) };
            let on_paper: Vec<(f64, f64)> = points.iter().map(|point| place.at(*point)).collect();
            for piece in on_paper.split(|(x, y)| !x.is_finite() || !y.is_finite()) {
                sheet.polyline(piece, &stroke);
            }
        }
        Mark::Points { points, color, radius, opacity } => {
            for point in points.iter().map(|point| place.at(*point)) {
                if point.0.is_finite() && point.1.is_finite() {
                    sheet.circle(point, *radius, *color, *opacity);
                }
            }
        }
        Mark::Bars { bars, width, base } => {
            let floor = match place.y {
                Scale::Linear { .. } => place.y(*base),
                // A logarithmic axis has no zero: bars stand on its lower end.
                Scale::Log { .. } => place.frame.bottom(),
            };
            for (x, height, color) in bars {
                let (left, right, top) = (place.x(x - width / 2.0), place.x(x + width / 2.0), place.y(*height));
                if top.is_finite() {
                    let rect = Rect { x: left, y: top.min(floor), width: right - left, height: (top - floor).abs() };
                    sheet.fill_rect(&rect, *color);
                }
            }
        }
        Mark::Arrow { from, to, color, width } => draw_arrow(sheet, place.at(*from), place.at(*to), *color, *width),
        Mark::Area { points, color, opacity } => {
            let on_paper: Vec<(f64, f64)> = points.iter().map(|point| place.at(*point)).collect();
            sheet.polygon(&on_paper, *color, *opacity);
        }
        Mark::Cells { matrix, map, range } => {
            let (low, high) = *range;
            let color = |value: &f32| map.at((f64::from(*value) - low) / (high - low));
            let colors: Vec<Rgb> = matrix.data().iter().map(color).collect();
            draw_cells(sheet, place, matrix.rows(), matrix.cols(), &colors);
        }
        Mark::Categories { rows, cols, categories } => {
            let colors: Vec<Rgb> = categories.iter().map(|entry| entry.map_or(Rgb::WHITE, category)).collect();
            draw_cells(sheet, place, *rows, *cols, &colors);
        }
        Mark::HorizontalRule(y) => {
            let y = place.y(*y);
            let stroke = Stroke::new(Rgb::GRID, AXIS);
            sheet.line((place.frame.x, y), (place.frame.right(), y), &stroke);
        }
        Mark::VerticalRule(x) => {
            let x = place.x(*x);
            let stroke = Stroke::new(Rgb::GRID, AXIS);
            sheet.line((x, place.frame.y), (x, place.frame.bottom()), &stroke);
        }
        Mark::Note { at, text, anchor, color } => {
            let (x, y) = place.at(*at);
            sheet.text(text, (x, y + SMALL * CAP / 2.0), &TextStyle::new(SMALL, *anchor).color(*color));
        }
    }
}

fn draw_cells(sheet: &mut Sheet, place: &Place, rows: usize, cols: usize, colors: &[Rgb]) {
    if rows == 0 || cols == 0 {
        return;
    }
    let (x0, x1) = (place.x(0.0), place.x(cols as f64));
    let (y0, y1) = (place.y(0.0), place.y(rows as f64));
    sheet.cells(&Rect { x: x0, y: y0.min(y1), width: x1 - x0, height: (y1 - y0).abs() }, rows, cols, colors);
}

fn draw_arrow(sheet: &mut Sheet, from: (f64, f64), to: (f64, f64), color: Rgb, width: f64) {
    let (dx, dy) = (to.0 - from.0, to.1 - from.1);
    let length = dx.hypot(dy);
    // Shorter than the line is wide: a dot says that there is (almost) nothing.
    if length.is_nan() || length <= 1.0 {
        sheet.circle(from, width * 0.7, Rgb::MUTED, 1.0);
        return;
    }
    let head = (width * 4.2).min(length);
    let (ux, uy) = (dx / length, dy / length);
    let neck = (to.0 - ux * head, to.1 - uy * head);
    let half = head * 0.38;
    // The line ends inside the head, so that its square end does not show at the tip.
    let end = (to.0 - ux * head * 0.8, to.1 - uy * head * 0.8);
    sheet.line(from, end, &Stroke::new(color, width));
    sheet.polygon(
        &[to, (neck.0 - uy * half, neck.1 + ux * half), (neck.0 + uy * half, neck.1 - ux * half)],
        color,
        1.0,
    );
}

/// Draws one entry with its left end at `at` (the middle of the line of text); returns the width it took.
pub(super) fn draw_legend_entry(sheet: &mut Sheet, at: (f64, f64), entry: &LegendEntry) -> f64 {
    let (x, y) = at;
    match entry.symbol {
        Symbol::Line(dash) => {
            let stroke = Stroke { dash, ..Stroke::new(entry.color, 1.4) };
            sheet.line((x, y), (x + 12.0, y), &stroke);
        }
        Symbol::Dot => sheet.circle((x + 6.0, y), 2.0, entry.color, 1.0),
        Symbol::Square => {
            sheet.fill_rect(&Rect { x: x + 3.0, y: y - 3.0, width: 6.0, height: 6.0 }, entry.color);
        }
    }
    sheet.text(&entry.label, (x + 15.0, y + SMALL * CAP / 2.0), &TextStyle::new(SMALL, Anchor::Start));
    legend_entry_width(sheet, entry)
}

pub(super) fn legend_entry_width(sheet: &Sheet, entry: &LegendEntry) -> f64 {
    15.0 + sheet.text_width(&entry.label, Face::Regular, SMALL)
}

fn draw_inner_legend(sheet: &mut Sheet, frame: &Rect, legend: &[LegendEntry]) {
    let widest = legend.iter().map(|entry| legend_entry_width(sheet, entry)).fold(0.0, f64::max);
    for (i, entry) in legend.iter().enumerate() {
        let y = frame.y + 5.0 + 9.5 * i as f64;
        draw_legend_entry(sheet, (frame.right() - widest - 3.0, y), entry);
    }
}

/// Draws a colour bar with ticks and label to its right.
pub(super) fn draw_color_bar(sheet: &mut Sheet, rect: &Rect, map: ColorMap, range: (f64, f64), label: &str) {
    const STEPS: usize = 128;
    let colors: Vec<Rgb> = (0..STEPS).map(|i| map.at(1.0 - i as f64 / (STEPS - 1) as f64)).collect();
    sheet.cells(rect, STEPS, 1, &colors);
    sheet.stroke_rect(rect, &Stroke::new(Rgb::INK, AXIS));
    let scale = Scale::Linear { min: range.0, max: range.1 };
    let mut widest: f64 = 0.0;
    for tick in scale.ticks(((rect.height / 20.0) as usize).clamp(2, 5)) {
        let y = rect.bottom() - scale.position(tick.value) * rect.height;
        sheet.line((rect.right(), y), (rect.right() + TICK_LENGTH, y), &Stroke::new(Rgb::INK, AXIS));
        let text = tick.label.unwrap_or_default();
        let at = (rect.right() + TICK_LENGTH + TICK_GAP, y + SMALL * CAP / 2.0);
        sheet.text(&text, at, &TextStyle::new(SMALL, Anchor::Start));
        widest = widest.max(sheet.text_width(&text, Face::Regular, SMALL));
    }
    let at = (rect.right() + TICK_LENGTH + TICK_GAP + widest + NORMAL * 1.15, rect.y + rect.height / 2.0);
    sheet.text(label, at, &TextStyle::new(NORMAL, Anchor::Middle).turned(90.0));
}
