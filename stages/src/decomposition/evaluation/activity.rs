//! Sums over positions behind L0, densities and mean importances, on plain slices `[components, rows]`.

/// The causal importances of one site on one batch.
#[derive(Debug, Clone, Copy)]
pub struct SiteImportances<'a> {
    /// `[components, rows]`.
    pub values: &'a [f32],
    /// The number of components.
    pub components: usize,
    /// How many positions each row stands for; one each when absent.
    pub row_counts: Option<&'a [f32]>,
}

impl SiteImportances<'_> {
    /// Returns for each component the sum over positions of `f(importance)`.
    ///
    /// # Panics
    /// If the values do not fill `components` rows of equal length.
    pub fn sums(&self, f: impl Fn(f32) -> f64) -> Vec<f64> {
        let rows = self.values.len() / self.components.max(1);
        assert_eq!(self.values.len(), rows * self.components, "{} components", self.components);
        let sum = |component: usize| {
            let values = &self.values[component * rows..(component + 1) * rows];
            match self.row_counts {
                None => values.iter().map(|value| f(*value)).sum(),
                Some(counts) => values.iter().zip(counts).map(|(value, count)| f(*value) * f64::from(*count)).sum(),
            }
        };
        (0..self.components).map(sum).collect()
    }

    /// Returns for each component on how many positions it is more important than `threshold`.
    #[must_use]
    pub fn alive(&self, threshold: f32) -> Vec<f64> {
        self.sums(|value| f64::from(u8::from(value > threshold)))
    }
}

/// Sums for every component over several batches, to be divided by the number of positions.
#[derive(Debug, Clone, Default)]
pub struct ComponentMeans {
    sums: Vec<f64>,
    positions: f64,
}

impl ComponentMeans {
    /// Adds a batch's sums over `positions` positions.
    pub fn add(&mut self, sums: &[f64], positions: usize) {
        self.sums.resize(sums.len(), 0.0);
        self.sums.iter_mut().zip(sums).for_each(|(total, sum)| *total += sum);
        self.positions += positions as f64;
    }

    /// Returns the means.
    #[must_use]
    pub fn means(&self) -> Vec<f64> {
        self.sums.iter().map(|sum| sum / self.positions).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counted_rows_weigh_as_much_as_repeated_ones() {
        let repeated = SiteImportances { values: &[0.5, 0.2, 0.2, 0.0, 1.0, 1.0], components: 2, row_counts: None };
        let counted = SiteImportances { values: &[0.5, 0.2, 0.0, 1.0], components: 2, row_counts: Some(&[1.0, 2.0]) };
        assert_eq!(repeated.alive(0.1), [3.0, 2.0]);
        assert_eq!(counted.alive(0.1), [3.0, 2.0]);
        assert_eq!(counted.alive(0.2), [1.0, 2.0], "the threshold itself is not above the threshold");
        let mut means = ComponentMeans::default();
        means.add(&counted.sums(f64::from), 3);
        means.add(&[0.0, 1.0], 1);
        assert_eq!(means.means(), [(0.5 + 2.0 * f64::from(0.2_f32)) / 4.0, 0.75]);
    }
}
