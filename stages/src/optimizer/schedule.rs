//! How a number changes over a run: learning rates (spec section 6.2) and the annealed exponent (5.2).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The shape of a schedule after its warm-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Shape {
    /// Stays at the start value.
    #[default]
    Constant,
    /// Half a cosine wave down to the final value.
    Cosine,
    /// A straight line to the final value.
    Linear,
}

/// A value that changes from step to step.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Schedule {
    /// The value after the warm-up.
    pub start: f64,
    /// How it changes from there.
    #[serde(default)]
    pub schedule: Shape,
    /// The fraction of all steps over which the value rises from zero, in [0, 1].
    #[serde(default)]
    pub warmup_fraction: f64,
    /// The final value as a fraction of the start value; 1 for a constant schedule.
    #[serde(default = "one")]
    pub final_fraction: f64,
}

fn one() -> f64 {
    1.0
}

impl Schedule {
    /// Returns the schedule that stays at `value`.
    #[must_use]
    pub fn constant(value: f64) -> Self {
        Self { start: value, schedule: Shape::Constant, warmup_fraction: 0.0, final_fraction: 1.0 }
    }

    /// Returns the field that is wrong and why, if any.
    #[must_use]
    pub fn mistake(&self) -> Option<(&'static str, String)> {
        // Comparisons are written so that NaN fails them.
        if !(self.start > 0.0 && self.start.is_finite()) {
            Some(("start", format!("must be a positive number, found {}", self.start)))
        } else if !(0.0..=1.0).contains(&self.warmup_fraction) {
            Some(("warmup_fraction", format!("must be in [0, 1], found {}", self.warmup_fraction)))
        } else if !(self.final_fraction >= 0.0 && self.final_fraction.is_finite()) {
            Some(("final_fraction", format!("must not be negative, found {}", self.final_fraction)))
        } else if self.schedule == Shape::Constant && self.final_fraction != 1.0 {
            Some((
                "final_fraction",
                format!("a constant schedule ends where it starts: expected 1, found {}", self.final_fraction),
            ))
        } else {
            None
        }
    }

    /// Returns the value at `step` of `total`.
    ///
    /// The last update, step `total − 1`, gets exactly the final value. Step `total`, which is only logged, overshoots
    /// as in the reference.
    #[must_use]
    pub fn value(&self, step: u64, total: u64) -> f64 {
        let warmup = (total as f64 * self.warmup_fraction) as u64;
        if step < warmup {
            return self.start * step as f64 / warmup as f64;
        }
        let decay = total - warmup;
        if decay <= 1 {
            return self.start;
        }
        let t = (step - warmup) as f64 / (decay - 1) as f64;
        let f = self.final_fraction;
        match self.schedule {
            Shape::Constant => self.start,
            Shape::Linear => self.start * (f + (1.0 - f) * (1.0 - t)),
            Shape::Cosine => self.start * (f + (1.0 - f) * 0.5 * (1.0 + (std::f64::consts::PI * t).cos())),
        }
    }
}

/// Returns the exponent of importance minimality at the fraction `t` of training.
#[must_use]
pub fn annealed_exponent(t: f64, start: f64, anneal_from: f64, anneal_to: f64, end: Option<f64>) -> f64 {
    match end {
        Some(end) if anneal_from < 1.0 && t >= anneal_from => {
            if t >= anneal_to {
                end
            } else {
                start + (end - start) * (t - anneal_from) / (anneal_to - anneal_from)
            }
        }
        _ => start,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(schedule: Schedule, expected: [f64; 11]) {
        for (step, expected) in expected.iter().enumerate() {
            let value = schedule.value(step as u64, 10);
            assert!((value - expected).abs() < 1e-6, "step {step}: {value}, expected {expected}");
        }
    }

    #[test]
    fn schedules_have_the_known_values() {
        // Spec appendix A.2.
        let base = Schedule { start: 1.0, schedule: Shape::Cosine, warmup_fraction: 0.2, final_fraction: 0.1 };
        check(base, [0.0, 0.5, 1.0, 0.955_436, 0.830_57, 0.650_134, 0.449_866, 0.269_43, 0.144_564, 0.1, 0.144_564]);
        let linear = Schedule { schedule: Shape::Linear, warmup_fraction: 0.0, final_fraction: 0.0, ..base };
        check(
            linear,
            [
                1.0, 0.888_889, 0.777_778, 0.666_667, 0.555_556, 0.444_444, 0.333_333, 0.222_222, 0.111_111, 0.0,
                -0.111_111,
            ],
        );
        let cosine = Schedule { schedule: Shape::Cosine, ..linear };
        check(
            cosine,
            [1.0, 0.969_846, 0.883_022, 0.75, 0.586_824, 0.413_176, 0.25, 0.116_978, 0.030_154, 0.0, 0.030_154],
        );
    }

    #[test]
    fn impossible_schedules_are_explained() {
        let constant = Schedule::constant(1.0);
        assert_eq!(constant.mistake(), None);
        let falling = Schedule { final_fraction: 0.5, ..constant };
        assert_eq!(
            falling.mistake(),
            Some(("final_fraction", "a constant schedule ends where it starts: expected 1, found 0.5".to_owned()))
        );
        assert_eq!(Schedule { start: f64::NAN, ..constant }.mistake().map(|(field, _)| field), Some("start"));
        assert_eq!(
            Schedule { warmup_fraction: 1.5, ..constant }.mistake().map(|(field, _)| field),
            Some("warmup_fraction")
        );
    }

    #[test]
    fn the_exponent_anneals_between_its_two_fractions() {
        assert_eq!(annealed_exponent(0.25, 2.0, 0.0, 1.0, Some(0.3)), 1.575);
        assert_eq!(annealed_exponent(0.2, 2.0, 0.3, 0.8, Some(0.4)), 2.0);
        assert_eq!(annealed_exponent(0.9, 2.0, 0.3, 0.8, Some(0.4)), 0.4);
        assert_eq!(annealed_exponent(0.9, 2.0, 0.0, 1.0, None), 2.0);
    }
}
