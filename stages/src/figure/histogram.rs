//! Histograms of a hundred bins with a logarithmic axis for counts.

use super::{Axis, Figure, Mark, Panel, Rgb, Scale, column_grid};

const BINS: usize = 100;

/// Counts of values in bins of equal width, from the smallest value to the largest.
#[derive(Debug, Clone, PartialEq)]
pub struct Histogram {
    low: f64,
    width: f64,
    counts: Vec<f64>,
}

impl Histogram {
    /// Returns the histogram of values and how often each occurs; values that are not finite are left out.
    ///
    /// The bins are numpy's: the last one holds its upper end too, and a single value gets a bin range of length one
    /// around it.
    pub fn of(values: impl Iterator<Item = (f64, f64)> + Clone) -> Self {
        let finite = values.filter(|(value, _)| value.is_finite());
        let ends = finite.clone().fold(None, |ends: Option<(f64, f64)>, (value, _)| {
            let (low, high) = ends.unwrap_or((value, value));
            Some((low.min(value), high.max(value)))
        });
        let (low, high) = match ends {
            None => (0.0, 1.0),
            Some((low, high)) if low == high => (low - 0.5, high + 0.5),
            Some(ends) => ends,
        };
        let mut counts = vec![0.0; BINS];
        for (value, count) in finite {
            // Not negative: `value >= low`; the largest value falls into the last bin.
            let bin = ((value - low) / (high - low) * BINS as f64) as usize;
            counts[bin.min(BINS - 1)] += count;
        }
        Self { low, width: (high - low) / BINS as f64, counts }
    }

    /// Returns the lower end and the count of each bin.
    pub fn bins(&self) -> impl Iterator<Item = (f64, f64)> + '_ {
        self.counts.iter().enumerate().map(|(i, count)| (self.low + i as f64 * self.width, *count))
    }

    /// Returns the width of a bin.
    #[must_use]
    pub fn width(&self) -> f64 {
        self.width
    }

    fn panel(&self, title: String) -> Panel {
        let highest = self.counts.iter().fold(1.0_f64, |highest, count| highest.max(*count));
        let end = self.low + BINS as f64 * self.width;
        let x = Axis::new("", Scale::Linear { min: self.low, max: end });
        let y = Axis::new("", Scale::Log { min: 0.5, max: highest * 2.0 });
        let bars = self.bins().map(|(low, count)| (low + self.width / 2.0, count, Rgb::BLUE)).collect();
        Panel::new(title, x, y).with(Mark::Bars { bars, width: self.width, base: 0.0 })
    }
}

/// Returns a figure of named histograms.
pub fn histograms(title: &str, named: Vec<(String, Histogram)>, x_label: &str, y_label: &str) -> Figure {
    let panels = named.into_iter().map(|(name, histogram)| histogram.panel(name)).collect();
    Figure::grid(title, column_grid(panels, 70.0, x_label, y_label))
}

#[cfg(test)]
mod tests {
    use super::Histogram;

    #[test]
    fn bins_span_the_values_and_the_last_is_closed() {
        let values = [(0.0, 1.0), (0.005, 2.0), (0.5, 1.0), (1.0, 3.0), (f64::NAN, 9.0)];
        let histogram = Histogram::of(values.into_iter());
        let bins: Vec<(f64, f64)> = histogram.bins().collect();
        assert_eq!((bins.len(), histogram.width()), (100, 0.01));
        assert_eq!((bins[0], bins[50].1, bins[99].1), ((0.0, 3.0), 1.0, 3.0));
        assert_eq!(bins.iter().map(|(_, count)| count).sum::<f64>(), 7.0);
    }

    #[test]
    fn a_single_value_lies_in_the_middle_and_none_gives_empty_bins() {
        let histogram = Histogram::of([(2.0, 4.0)].into_iter());
        assert_eq!((histogram.bins().next(), histogram.bins().nth(50)), (Some((1.5, 0.0)), Some((2.0, 4.0))));
        assert_eq!(Histogram::of(std::iter::empty()).bins().map(|(_, count)| count).sum::<f64>(), 0.0);
    }
}
