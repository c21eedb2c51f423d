//! Scales: where a number lies along an axis, and which numbers get a tick.

/// How numbers are spread along an axis.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Scale {
    /// Evenly, from `min` to `max`.
    Linear {
        /// At the beginning of the axis.
        min: f64,
        /// At its end.
        max: f64,
    },
    /// By their logarithm; both ends positive.
    Log {
        /// At the beginning of the axis.
        min: f64,
        /// At its end.
        max: f64,
    },
}

/// A mark on an axis.
#[derive(Debug, Clone, PartialEq)]
pub struct Tick {
    /// Where.
    pub value: f64,
    /// What stands there; `None` for the short ticks in between.
    pub label: Option<String>,
}

impl Scale {
    /// Returns a linear scale that shows all finite `values` with a little room.
    pub fn fit_linear(values: impl IntoIterator<Item = f64>) -> Self {
        match finite_range(values) {
            None => Self::Linear { min: 0.0, max: 1.0 },
            Some((min, max)) => {
                let room = if max > min { 0.05 * (max - min) } else { 0.5 * max.abs().max(1.0) };
                Self::Linear { min: min - room, max: max + room }
            }
        }
    }

    /// Returns a logarithmic scale that shows all positive finite `values` with a little room.
    pub fn fit_log(values: impl IntoIterator<Item = f64>) -> Self {
        match finite_range(values.into_iter().filter(|value| *value > 0.0)) {
            None => Self::Log { min: 0.1, max: 10.0 },
            Some((min, max)) => {
                let room = if max > min { (max / min).powf(0.06) } else { 3.0 };
                Self::Log { min: min / room, max: max * room }
            }
        }
    }

    /// Returns both ends.
    #[must_use]
    pub fn range(self) -> (f64, f64) {
        match self {
            Self::Linear { min, max } | Self::Log { min, max } => (min, max),
        }
    }

    /// Returns where `value` lies: 0 at the beginning, 1 at the end. Not finite if it has no place.
    #[must_use]
    pub fn position(self, value: f64) -> f64 {
        match self {
            Self::Linear { min, max } => (value - min) / (max - min),
            Self::Log { min, max } => (value / min).ln() / (max / min).ln(),
        }
    }

    /// Returns the ticks, at most about `most` of them labelled.
    #[must_use]
    pub fn ticks(self, most: usize) -> Vec<Tick> {
        match self {
            Self::Linear { min, max } => linear_ticks(min, max, most.max(2)),
            Self::Log { min, max } => log_ticks(min, max, most.max(2)),
        }
    }
}

fn finite_range(values: impl IntoIterator<Item = f64>) -> Option<(f64, f64)> {
    values.into_iter().filter(|value| value.is_finite()).fold(None, |range, value| {
        let (min, max) = range.unwrap_or((value, value));
        Some((min.min(value), max.max(value)))
    })
}

fn linear_ticks(min: f64, max: f64, most: usize) -> Vec<Tick> {
    let rough = (max - min) / most as f64;
    let decade = 10.0_f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].into_iter().map(|m| m * decade).find(|step| *step >= rough * 0.999);
    let step = step.expect("ten times the decade is above the rough step");
    // A hair of tolerance, so that an end that is a tick is not lost to rounding.
    let first = (min / step - 1e-9).ceil() as i64;
    let last = (max / step + 1e-9).floor() as i64;
    let largest = min.abs().max(max.abs());
    (first..=last)
        .map(|i| i as f64 * step)
        .map(|value| Tick { value, label: Some(plain(value, step, largest)) })
        .collect()
}

/// Returns `value` with as many decimals as `step` needs; very large and very small numbers in powers of ten.
fn plain(value: f64, step: f64, largest: f64) -> String {
    if value == 0.0 {
        return "0".to_owned();
    }
    if !(1e-3..1e6).contains(&largest) {
        let exponent = largest.log10().floor();
        let scaled_step = step / 10.0_f64.powf(exponent);
        let mantissa = value / 10.0_f64.powf(exponent);
        return format!("{}×10^{{{}}}", minus(&decimals(mantissa, scaled_step)), minus(&format!("{exponent:.0}")));
    }
    minus(&decimals(value, step))
}

fn decimals(value: f64, step: f64) -> String {
    let count = (-step.log10().floor() + 1e-9).max(0.0) as usize;
    format!("{value:.count$}")
}

fn log_ticks(min: f64, max: f64, most: usize) -> Vec<Tick> {
    let (low, high) = ((min.log10() - 1e-9).ceil() as i32, (max.log10() + 1e-9).floor() as i32);
    let decades = high - low + 1;
    let in_range = |value: &f64| *value >= min * (1.0 - 1e-9) && *value <= max * (1.0 + 1e-9);
    let multiples = |exponent: i32| (2..10).map(move |m| f64::from(m) * 10.0_f64.powi(exponent));
    let mut ticks = Vec::new();
    if decades >= 2 {
        let stride = (decades as usize).div_ceil(most) as i32;
        for exponent in low - 1..=high {
            if exponent >= low {
                let label = (exponent.rem_euclid(stride) == 0).then(|| power(exponent));
                ticks.push(Tick { value: 10.0_f64.powi(exponent), label });
            }
            if stride == 1 {
                ticks.extend(multiples(exponent).filter(in_range).map(|value| Tick { value, label: None }));
            }
        }
    } else {
        // Less than two powers of ten in sight: label some multiples as well.
        let exponents = (min.log10().floor() as i32)..=(max.log10().floor() as i32);
        for exponent in exponents {
            for m in 1..10 {
                let value = f64::from(m) * 10.0_f64.powi(exponent);
                if in_range(&value) {
                    let is_labelled = matches!(m, 1 | 2 | 5) || max / min < 3.0;
                    let label = is_labelled.then(|| {
                        if (-3..4).contains(&exponent) {
                            plain(value, 10.0_f64.powi(exponent), value)
                        } else if m == 1 {
                            power(exponent)
                        } else {
                            format!("{m}×{}", power(exponent))
                        }
                    });
                    ticks.push(Tick { value, label });
                }
            }
        }
    }
    ticks
}

fn power(exponent: i32) -> String {
    match exponent {
        0 => "1".to_owned(),
        1 => "10".to_owned(),
        _ => format!("10^{{{}}}", minus(&exponent.to_string())),
    }
}

/// Returns `text` with a proper minus sign instead of a hyphen.
fn minus(text: &str) -> String {
    text.replace('-', "−")
}

#[cfg(test)]
mod tests {
    use super::Scale;

    fn labels(scale: Scale, most: usize) -> Vec<String> {
        scale.ticks(most).into_iter().filter_map(|tick| tick.label).collect()
    }

    #[test]
    fn linear_ticks_are_round_numbers_inside_the_range() {
        assert_eq!(labels(Scale::Linear { min: 0.0, max: 1.0 }, 5), ["0", "0.2", "0.4", "0.6", "0.8", "1.0"]);
        assert_eq!(labels(Scale::Linear { min: -0.3, max: 0.31 }, 4), ["−0.2", "0", "0.2"]);
        assert_eq!(labels(Scale::Linear { min: 0.0, max: 10_000.0 }, 3), ["0", "5000", "10000"]);
        assert_eq!(labels(Scale::Linear { min: 0.0, max: 2e-5 }, 2), ["0", "1×10^{−5}", "2×10^{−5}"]);
    }

    #[test]
    fn log_ticks_are_powers_of_ten_with_short_ticks_between() {
        let scale = Scale::Log { min: 0.5e-3, max: 20.0 };
        assert_eq!(labels(scale, 6), ["10^{−3}", "10^{−2}", "10^{−1}", "1", "10"]);
        assert!(scale.ticks(6).iter().any(|tick| tick.label.is_none() && (tick.value - 6e-4).abs() < 1e-9));
        assert_eq!(labels(Scale::Log { min: 1e-12, max: 1.0 }, 4), ["10^{−12}", "10^{−8}", "10^{−4}", "1"]);
        assert_eq!(labels(Scale::Log { min: 0.15, max: 0.9 }, 4), ["0.2", "0.5"]);
    }

    #[test]
    fn positions_run_from_zero_to_one() {
        let log = Scale::Log { min: 0.01, max: 100.0 };
        assert!((log.position(1.0) - 0.5).abs() < 1e-12);
        assert!(!log.position(0.0).is_finite());
        assert_eq!(Scale::Linear { min: -1.0, max: 3.0 }.position(1.0), 0.5);
    }

    #[test]
    fn fitted_scales_ignore_what_has_no_place() {
        let (min, max) = Scale::fit_log([f64::NAN, 0.0, -1.0, 0.1, 10.0, f64::INFINITY]).range();
        assert!(min < 0.1 && min > 0.05 && max > 10.0 && max < 20.0);
        assert_eq!(Scale::fit_linear([]).range(), (0.0, 1.0));
        let (min, max) = Scale::fit_linear([5.0]).range();
        assert!(min < 5.0 && max > 5.0);
    }
}
