//! Collects where two files differ, and makes one [`Difference`] of it.
//!
//! The first place is the one that explains most: what is outside the tolerance before what is within, the shape of the
//! file before its values, an early training step before a later one, and then the order in which the format goes
//! through the file.

use std::cmp::Reverse;

use spdflow_engine::audit::format::{Difference, Largest, Tolerance};

use super::number::Number;

/// At most as many parts of a file are named.
const MOST_PARTS: usize = 8;

/// What is known so far of how two files differ.
#[derive(Debug)]
pub(super) struct Tally {
    tolerance: Tolerance,
    first: Option<First>,
    count: u64,
    total: u64,
    largest: Option<Largest>,
    /// Names, and whether all that differs there is within the tolerance; in the order of the file.
    parts: Vec<(String, bool)>,
    earliest: Option<u64>,
}

/// A place that differs.
#[derive(Debug)]
struct First {
    order: (bool, bool, Reverse<bool>, u64),
    place: String,
    recorded: String,
    made: String,
    step: Option<u64>,
}

/// Where something stands in a file.
#[derive(Debug, Clone, Copy)]
pub(super) struct Site<'a> {
    /// A tensor, a column; empty if the file has no parts.
    pub(super) part: &'a str,
    /// The training step it belongs to.
    pub(super) step: Option<u64>,
}

impl Tally {
    pub(super) fn new(tolerance: Tolerance) -> Self {
        Self { tolerance, first: None, count: 0, total: 0, largest: None, parts: Vec::new(), earliest: None }
    }

    /// Says that the files hold `count` more values.
    pub(super) fn expect(&mut self, count: u64) {
        self.total += count;
    }

    /// Returns the earliest step at which a value is outside the tolerance.
    pub(super) fn earliest(&self) -> Option<u64> {
        self.earliest
    }

    /// Compares two numbers.
    pub(super) fn numbers(&mut self, site: Site<'_>, place: impl FnOnce() -> String, recorded: Number, made: Number) {
        if recorded.is_same(made) {
            return;
        }
        let is_within = recorded.admits(made, self.tolerance);
        self.distance(recorded.distance(made));
        self.note(site, (is_within, true), 1, || (place(), recorded.to_string(), made.to_string()));
    }

    /// Takes note of how far two numbers are from each other.
    pub(super) fn distance(&mut self, found: Largest) {
        let largest = self.largest.get_or_insert_default();
        largest.absolute = largest.absolute.max(found.absolute);
        largest.relative = largest.relative.max(found.relative);
        largest.ulps = largest.ulps.max(found.ulps);
    }

    /// Takes note of `count` values that differ, of which the format knows whether they are near enough: place, what
    /// stood there, what stands there now.
    pub(super) fn values(
        &mut self,
        site: Site<'_>,
        count: u64,
        is_within: bool,
        shown: impl FnOnce() -> (String, String, String),
    ) {
        self.note(site, (is_within, true), count, shown);
    }

    /// Takes note of something that differs in the shape of the file: a tensor or column that is missing, of another
    /// type, of another length.
    pub(super) fn structure(&mut self, site: Site<'_>, count: u64, shown: impl FnOnce() -> (String, String, String)) {
        self.note(site, (false, false), count, shown);
    }

    fn note(
        &mut self,
        site: Site<'_>,
        (is_within, is_value): (bool, bool),
        count: u64,
        shown: impl FnOnce() -> (String, String, String),
    ) {
        self.count += count;
        // From the end: values come part by part.
        match self.parts.iter_mut().rev().find(|(name, _)| name == site.part) {
            Some((_, is_all_within)) => *is_all_within &= is_within,
            None if site.part.is_empty() => {}
            None => self.parts.push((site.part.to_owned(), is_within)),
        }
        if let Some(step) = site.step.filter(|_| !is_within && is_value) {
            self.earliest = Some(self.earliest.map_or(step, |known| known.min(step)));
        }
        let order = (is_within, is_value, Reverse(site.step.is_some()), site.step.unwrap_or(0));
        if self.first.as_ref().is_none_or(|first| order < first.order) {
            let (place, recorded, made) = shown();
            self.first = Some(First { order, place, recorded, made, step: site.step });
        }
    }

    /// Returns how the files differ; `None` if they do not.
    pub(super) fn finish(self) -> Option<Difference> {
        let Self { first, count, total, largest, mut parts, .. } = self;
        let First { order: (is_within, ..), place, recorded, made, step } = first?;
        parts.sort_by_key(|(_, is_within)| *is_within);
        let parts = parts.into_iter().map(|(name, _)| name).take(MOST_PARTS).collect();
        Some(Difference { is_within, place, recorded, made, step, count, total, largest, parts })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn site(part: &str, step: Option<u64>) -> Site<'_> {
        Site { part, step }
    }

    fn tally() -> Tally {
        Tally::new(Tolerance { absolute: 0.5, relative: 0.0 })
    }

    fn pair(tally: &mut Tally, part: &str, step: Option<u64>, made: f64) {
        tally.expect(1);
        tally.numbers(site(part, step), || part.to_owned(), Number::Double(1.0), Number::Double(made));
    }

    #[test]
    fn what_is_outside_comes_before_what_is_within_and_early_steps_before_late_ones() {
        let mut tally = tally();
        pair(&mut tally, "a", Some(1), 1.25);
        pair(&mut tally, "b", Some(30), 3.0);
        pair(&mut tally, "c", Some(20), 2.0);
        pair(&mut tally, "d", Some(20), 5.0);
        pair(&mut tally, "e", None, 5.0);
        pair(&mut tally, "f", Some(1), 1.0);
        assert_eq!(tally.earliest(), Some(20));
        let found = tally.finish().unwrap();
        assert!(!found.is_within);
        assert_eq!((&*found.place, found.step, found.count, found.total), ("c", Some(20), 5, 6));
        assert_eq!(found.parts, ["b", "c", "d", "e", "a"]);
        assert_eq!(found.largest.unwrap().absolute, 4.0);
    }

    #[test]
    fn the_shape_of_a_file_comes_before_its_values() {
        let mut tally = tally();
        pair(&mut tally, "a", Some(1), 9.0);
        let shown = || ("rows".to_owned(), "1".to_owned(), "2".to_owned());
        tally.structure(site("", Some(7)), 1, shown);
        let found = tally.finish().unwrap();
        assert_eq!((&*found.place, found.step, found.count), ("rows", Some(7), 2));
        assert_eq!(found.parts, ["a"]);
    }

    #[test]
    fn nothing_but_small_differences_are_within_and_at_most_eight_parts_are_named() {
        let mut tally = tally();
        for part in ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"] {
            pair(&mut tally, part, None, 1.5);
        }
        pair(&mut tally, "k", None, 2.0);
        assert_eq!(tally.finish().unwrap().parts, ["k", "a", "b", "c", "d", "e", "f", "g"]);
        let mut tally = self::tally();
        pair(&mut tally, "a", None, 1.5);
        assert!(tally.finish().unwrap().is_within);
        let mut tally = self::tally();
        pair(&mut tally, "a", None, 1.0);
        assert_eq!(tally.finish(), None);
    }
}
