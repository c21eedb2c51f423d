//! Finds the instances that STAGE arguments mean: `decompose`, `decompose[seed=0]`, or a glob such as `plot*`.

use crate::diagnostic::Diagnostic;
use crate::pipeline::Pipeline;
use crate::spec::reference::{Reference, position_of};
use crate::suggest::{hint_among, listed};

impl Pipeline {
    /// Returns the indices of the instances that any of the arguments means, in the pipeline's order; without
    /// arguments, all of them.
    ///
    /// # Errors
    /// The first argument that means no instance.
    pub fn select(&self, arguments: &[String]) -> Result<Vec<usize>, Diagnostic> {
        if arguments.is_empty() {
            return Ok((0..self.instances.len()).collect());
        }
        let mut chosen = vec![false; self.instances.len()];
        for argument in arguments {
            for index in self.select_one(argument)? {
                chosen[index] = true;
            }
        }
        Ok((0..chosen.len()).filter(|index| chosen[*index]).collect())
    }

    /// Returns these instances and everything that depends on them, in the pipeline's order.
    #[must_use]
    pub fn downstream(&self, roots: &[usize]) -> Vec<usize> {
        let mut reached = vec![false; self.instances.len()];
        for root in roots {
            reached[*root] = true;
        }
        // Producers come before consumers, so one pass reaches every descendant.
        for (index, instance) in self.instances.iter().enumerate() {
            reached[index] |= instance.parents().any(|parent| reached[parent]);
        }
        (0..reached.len()).filter(|index| reached[*index]).collect()
    }

    fn select_one(&self, argument: &str) -> Result<Vec<usize>, Diagnostic> {
        if argument.contains(['*', '?']) {
            let matches = |index: &usize| {
                let id = &self.instances[*index].id;
                is_match(argument, &id.stage) || is_match(argument, &id.to_string())
            };
            let found: Vec<_> = (0..self.instances.len()).filter(matches).collect();
            return if found.is_empty() {
                Err(Diagnostic::new(format!("no stage matches `{argument}`")).hint_if_any(self.known_stages(argument)))
            } else {
                Ok(found)
            };
        }
        let reference = Reference::parse(argument)
            .map_err(|mistake| Diagnostic::new(mistake).hint("a stage is written `STAGE` or `STAGE[AXIS=VALUE]`"))?;
        let mut found: Vec<_> =
            (0..self.instances.len()).filter(|index| self.instances[*index].id.stage == reference.stage).collect();
        let Some(&first) = found.first() else {
            let hint = self.known_stages(&reference.stage);
            return Err(Diagnostic::new(format!("there is no stage `{}`", reference.stage)).hint_if_any(hint));
        };
        for (axis, value) in &reference.selection {
            let axes = &self.instances[first].id.axes;
            if !axes.contains_key(axis) {
                let hint = hint_among(axis, "its axes", axes.keys().map(String::as_str));
                let message = format!("stage `{}` does not run over axis `{axis}`", reference.stage);
                return Err(Diagnostic::new(message).hint_if_any(hint));
            }
            let mut values: Vec<&str> = Vec::new();
            for value in found.iter().map(|index| self.instances[*index].id.axes[axis].as_str()) {
                if !values.contains(&value) {
                    values.push(value);
                }
            }
            let Some(position) = position_of(value, values.iter().copied()) else {
                let message = format!("stage `{}` has no instance with `{axis}={value}`", reference.stage);
                return Err(Diagnostic::new(message).hint(format!("values of `{axis}`: {}", listed(values))));
            };
            let wanted = values[position].to_owned();
            found.retain(|index| self.instances[*index].id.axes[axis] == wanted);
        }
        Ok(found)
    }

    fn known_stages(&self, name: &str) -> Option<String> {
        let mut names: Vec<&str> = Vec::new();
        for instance in &self.instances {
            if names.last() != Some(&instance.id.stage.as_str()) {
                names.push(&instance.id.stage);
            }
        }
        hint_among(name, "known stages", names)
    }
}

/// Returns whether `text` fits a pattern in which `*` stands for any characters and `?` for one.
pub(crate) fn is_match(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<_>, Vec<_>) = (pattern.chars().collect(), text.chars().collect());
    let (mut p, mut t) = (0, 0);
    // Where to go on when the last `*` must take one more character.
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some('*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(&c) if c == '?' || c == text[t] => {
                p += 1;
                t += 1;
            }
            _ => match star {
                Some((star_at, taken)) => {
                    star = Some((star_at, taken + 1));
                    p = star_at + 1;
                    t = taken + 1;
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

#[cfg(test)]
mod tests {
    use super::is_match;

    #[test]
    fn globs_match_any_run_and_any_one() {
        assert!(is_match("plot*", "plot") && is_match("*", "x") && is_match("d?c*[seed=*]", "decompose[seed=0]"));
        assert!(is_match("a*b*c", "aXbYbZc"));
        assert!(!is_match("plot*", "aplot") && !is_match("?", "") && !is_match("a*b", "abc"));
    }
}
