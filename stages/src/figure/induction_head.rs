//! Figures of the induction-head transformer, for `train.induction_head`: its loss, and what its heads look at.

use super::svg::Dash;
use super::{
    Axis, ColorBar, ColorMap, FULL_WIDTH, Figure, LegendEntry, Mark, ONE_COLUMN, Panel, Row, Scale, Symbol, category,
};
use crate::matrix::Matrix;

/// How one head's positions attend to one another, over many sequences.
#[derive(Debug, Clone)]
pub struct AttentionMaps {
    length: usize,
    sum: Vec<f64>,
    largest: Vec<f32>,
    count: usize,
}

impl AttentionMaps {
    /// Returns the maps of no sequence of `length` positions.
    #[must_use]
    pub fn new(length: usize) -> Self {
        Self { length, sum: vec![0.0; length * length], largest: vec![0.0; length * length], count: 0 }
    }

    /// Adds a sequence's map, `[length (from), length (to)]`.
    pub fn add(&mut self, map: &[f32]) {
        self.count += 1;
        for ((sum, largest), weight) in self.sum.iter_mut().zip(&mut self.largest).zip(map) {
            *sum += f64::from(*weight);
            *largest = largest.max(*weight);
        }
    }

    /// Returns the mean over sequences.
    #[must_use]
    pub fn mean(&self) -> Matrix {
        let mean = self.sum.iter().map(|sum| (sum / self.count.max(1) as f64) as f32).collect();
        Matrix::new(self.length, self.length, mean)
    }

    /// Returns the largest of all sequences.
    #[must_use]
    pub fn largest(&self) -> Matrix {
        Matrix::new(self.length, self.length, self.largest.clone())
    }
}

/// Returns the mean and the largest attention of a head side by side.
#[must_use]
pub fn attention(layer: usize, head: usize, maps: &AttentionMaps) -> Figure {
    let range = (0.0, 1.0);
    let panel = |title: &str, matrix: Matrix, is_first: bool| {
        let mut panel = Panel::heat_map(title, matrix, ColorMap::Blues, range);
        panel.x.label = "position attended to".to_owned();
        if is_first {
            panel.y.label = "position".to_owned();
        }
        Some(panel)
    };
    let panels = vec![panel("Mean", maps.mean(), true), panel("Maximum", maps.largest(), false)];
    let title = format!("Attention of layer {layer}, head {head}, over {} sequences", maps.count);
    let mut figure = Figure::new(title, FULL_WIDTH, vec![Row { height: 170.0, panels }]);
    figure.color_bar = Some(ColorBar { map: ColorMap::Blues, range, label: "attention".to_owned() });
    figure
}

/// Returns the training loss by step, with the loss of a guess among the ordinary tokens as a line; `None` for fewer
/// than two records.
#[must_use]
pub fn loss_curve(losses: &[(i64, f64)], guess: f64) -> Option<Figure> {
    let last = losses.last().filter(|_| losses.len() > 1)?.0 as f64;
    let points = losses.iter().map(|(step, loss)| (*step as f64, *loss)).collect();
    let values = losses.iter().map(|(_, loss)| *loss).chain([guess]).filter(|loss| loss.is_finite());
    let x = Axis::new("step", Scale::Linear { min: 0.0, max: last });
    let y = Axis::new("cross entropy of the last token (nats)", Scale::fit_log(values));
    let panel = Panel::new("", x, y)
        .with(Mark::Line {
            points: vec![(0.0, guess), (last, guess)],
            color: category(1),
            width: 0.7,
            dash: Dash::Dashed,
        })
        .with(Mark::Line { points, color: category(0), width: 0.9, dash: Dash::Solid });
    let mut figure = Figure::single("Training loss", ONE_COLUMN, 120.0, panel);
    figure.legend = [("training loss", 0, Dash::Solid), ("guessing a token", 1, Dash::Dashed)]
        .map(|(label, color, dash)| LegendEntry {
            label: label.to_owned(),
            color: category(color),
            symbol: Symbol::Line(dash),
        })
        .to_vec();
    Some(figure)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_are_averaged_and_maximised_over_sequences() {
        let mut maps = AttentionMaps::new(2);
        maps.add(&[1.0, 0.0, 0.25, 0.75]);
        maps.add(&[1.0, 0.0, 0.75, 0.25]);
        assert_eq!(maps.mean().data(), [1.0, 0.0, 0.5, 0.5]);
        assert_eq!(maps.largest().data(), [1.0, 0.0, 0.75, 0.75]);
    }

    #[test]
    fn a_single_record_makes_no_curve() {
        assert!(loss_curve(&[(0, 4.8)], 4.8).is_none());
        assert!(loss_curve(&[(0, 4.8), (10, 2.0)], 4.8).is_some());
    }
}
