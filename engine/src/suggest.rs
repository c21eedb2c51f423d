//! Names the user may have meant.

/// Returns "did you mean `steps`?" for the candidate most like `found`, if one is like it at all.
pub fn did_you_mean<'a>(found: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<String> {
    closest(found, candidates).map(|name| format!("did you mean `{name}`?"))
}

/// Returns names in backticks, with commas between; a long list is cut.
pub fn listed<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    const SHOWN: usize = 20;
    let names: Vec<_> = names.into_iter().map(|name| format!("`{name}`")).collect();
    let mut text = names.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(", ");
    if names.len() > SHOWN {
        text += &format!(" and {} more", names.len() - SHOWN);
    }
    text
}

/// Returns a suggestion if a name is close, else the list of what exists: "known keys: `a`, `b`".
pub(crate) fn hint_among<'a, I>(found: &str, what: &str, candidates: I) -> Option<String>
where
    I: IntoIterator<Item = &'a str> + Clone,
{
    did_you_mean(found, candidates.clone()).or_else(|| {
        let names = listed(candidates);
        (!names.is_empty()).then(|| format!("{what}: {names}"))
    })
}

fn closest<'a>(found: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // One edit in three letters is a slip of the finger; more is another word.
    let allowed = (found.chars().count() / 3).clamp(1, 4);
    candidates
        .into_iter()
        .map(|name| (strsim::damerau_levenshtein(&found.to_lowercase(), &name.to_lowercase()), name))
        .filter(|(edits, name)| *edits <= allowed && *edits < name.chars().count())
        .min_by_key(|(edits, _)| *edits)
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_is_recognised_and_another_word_is_not() {
        assert_eq!(did_you_mean("stpes", ["seed", "steps"]), Some("did you mean `steps`?".to_owned()));
        assert_eq!(did_you_mean("c", ["C"]), Some("did you mean `C`?".to_owned()));
        assert_eq!(did_you_mean("losses", ["seed", "steps"]), None);
        assert_eq!(did_you_mean("x", ["y"]), None);
    }
}
