//! Site patterns in the style of a Unix shell: `*`, `?`, `[abc]`, `[a-z]`, `[!abc]`.
//!
//! As in Python's `fnmatch`, which the reference uses: dots and slashes are ordinary characters, the whole name must
//! match, and a `[` without its `]` stands for itself.

/// Returns whether `name` as a whole matches `pattern`.
#[must_use]
pub fn matches(pattern: &str, name: &str) -> bool {
    let pattern: Vec<char> = pattern.chars().collect();
    let name: Vec<char> = name.chars().collect();
    let (mut p, mut n) = (0, 0);
    // Where to go on when a match fails: after the last `*`, with one more character given to it.
    let mut retry: Option<(usize, usize)> = None;
    loop {
        if p < pattern.len() && pattern[p] == '*' {
            retry = Some((p + 1, n));
            p += 1;
            continue;
        }
        if n == name.len() {
            if p == pattern.len() {
                return true;
            }
        } else if let Some(length) = match_one(&pattern[p..], name[n]) {
            p += length;
            n += 1;
            continue;
        }
        match retry {
            Some((after_star, start)) if start < name.len() => {
                (p, n) = (after_star, start + 1);
                retry = Some((after_star, start + 1));
            }
            _ => return false,
        }
    }
}

/// Returns how many pattern characters the first element of `pattern` has, if that element matches `c`.
fn match_one(pattern: &[char], c: char) -> Option<usize> {
    match *pattern.first()? {
        '?' => Some(1),
        '[' => match set_length(pattern) {
            None => (c == '[').then_some(1),
            Some(length) => set_contains(&pattern[1..length - 1], c).then_some(length),
        },
        literal => (literal == c).then_some(1),
    }
}

/// Returns the length of the `[…]` that `pattern` starts with; a `]` in first place belongs to the set.
fn set_length(pattern: &[char]) -> Option<usize> {
    let negated = usize::from(pattern.get(1) == Some(&'!'));
    let first = 1 + negated;
    let after_first = first + 1;
    pattern.get(after_first..)?.iter().position(|&c| c == ']').map(|i| after_first + i + 1)
}

fn set_contains(set: &[char], c: char) -> bool {
    let (negated, set) = match set {
        ['!', rest @ ..] => (true, rest),
        _ => (false, set),
    };
    let mut found = false;
    let mut i = 0;
    while i < set.len() {
        if i + 2 < set.len() && set[i + 1] == '-' {
            found |= (set[i]..=set[i + 2]).contains(&c);
            i += 3;
        } else {
            found |= set[i] == c;
            i += 1;
        }
    }
    found != negated
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn agrees_with_pythons_fnmatch() {
        // Each line: pattern, name, what `fnmatch.fnmatchcase(name, pattern)` of Python 3.13 returns.
        let cases = [
            ("linear1", "linear1", true),
            ("linear1", "linear10", false),
            ("linear*", "linear10", true),
            ("*", "", true),
            ("?", "", false),
            ("layers.*.mlp_in", "layers.0.mlp_in", true),
            ("layers.*.mlp_in", "layers.0.1.mlp_in", true),
            ("layers.*.mlp_in", "layers.0.mlp_out", false),
            ("layersX*", "layers.0", false),
            ("h.?.attn", "h.3.attn", true),
            ("h.?.attn", "h.13.attn", false),
            ("h.[0-3].*", "h.2.mlp", true),
            ("h.[0-3].*", "h.4.mlp", false),
            ("h.[!0-3].*", "h.4.mlp", true),
            ("h.[!0-3].*", "h.2.mlp", false),
            ("[]a]", "]", true),
            ("[]a]", "a", true),
            ("[!]a]", "]", false),
            ("[!]a]", "b", true),
            ("[abc", "[abc", true),
            ("[abc", "a", false),
            ("[a-]", "-", true),
            ("[-a]", "-", true),
            ("[z-a]", "m", false),
            ("*a*b*", "xxaxxbxx", true),
            ("*a*b", "xxaxxbxx", false),
            ("a**b", "ab", true),
            ("*.*", "linear1", false),
        ];
        for (pattern, name, expected) in cases {
            assert_eq!(matches(pattern, name), expected, "pattern `{pattern}`, name `{name}`");
        }
    }

    #[test]
    fn many_stars_take_no_exponential_time() {
        assert!(!matches(&"*a".repeat(40), &"a".repeat(39)));
        assert!(matches(&"*a".repeat(40), &"a".repeat(4000)));
    }
}
