//! What stages, axes and pipelines may be called.
//!
//! Names become folder names and parts of `decompose[seed=0]`, so they must not hold what means something there.

/// Returns what is wrong with a name, if anything.
pub(super) fn mistake_in_name(name: &str) -> Option<String> {
    if name.is_empty() {
        return Some("a name must not be empty".to_owned());
    }
    if let Some(bad) = name.chars().find(|c| !is_name_char(*c)) {
        return Some(format!("a name may hold letters, digits, `_`, `.` and `-`, found `{bad}`"));
    }
    let first = name.chars().next().filter(|first| !(first.is_ascii_alphanumeric() || *first == '_'));
    first.map(|first| format!("a name must begin with a letter, a digit or `_`, found `{first}`"))
}

/// Returns what is wrong with the text form of an axis' value, if anything.
pub(super) fn mistake_in_axis_value(text: &str) -> Option<String> {
    if text.is_empty() || text.chars().all(|c| c == '.') {
        return Some(format!("`{text}` cannot be a folder's name"));
    }
    let bad = text.chars().find(|c| !is_name_char(*c) && *c != '+')?;
    Some(format!("a value of an axis may hold letters, digits, `_`, `.`, `+` and `-`, found `{bad}`"))
}

/// Returns whether a character may stand in a name.
pub(super) fn is_name_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || "_.-".contains(c)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_clear_of_paths_options_and_selections() {
        for good in ["target", "5-2", "a.b", "_x"] {
            assert_eq!(mistake_in_name(good), None, "{good}");
        }
        for bad in ["", ".", "..", ".hidden", "-x", "a/b", "a b", "a[0]", "a=b", "a,b", "ä"] {
            assert!(mistake_in_name(bad).is_some(), "{bad}");
        }
    }
}
