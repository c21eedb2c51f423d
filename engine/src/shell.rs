//! Text for shell scripts.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Write;

/// Returns a word that a POSIX shell reads as this text, whatever it holds.
#[must_use]
pub fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// As [`quoted`], but plain words stay as they are: for people to read and to copy.
#[must_use]
pub fn shown(text: &str) -> Cow<'_, str> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-+:@%,=".contains(&byte);
    if !text.is_empty() && text.bytes().all(is_plain) { text.into() } else { quoted(text).into() }
}

/// Returns whether a shell can have a variable of this name.
fn is_variable(name: &str) -> bool {
    let is_letter = |byte: u8| byte.is_ascii_alphabetic() || byte == b'_';
    name.bytes().next().is_some_and(is_letter) && name.bytes().all(|byte| is_letter(byte) || byte.is_ascii_digit())
}

/// The lines with which a script of ours begins: `$spdflow` is the program, and the present folder that of the script.
pub(crate) const SCRIPT_START: &str = "set -eu
spdflow=${SPDFLOW:-spdflow}
case $spdflow in
  /*) ;;
  */*) spdflow=$PWD/$spdflow ;;
esac
CDPATH='' cd -- \"$(dirname -- \"$0\")\"
";

/// Returns the lines of a script that end it with `command`, run with the variables set to their values, and without those
/// that have none.
pub(crate) fn with_variables(variables: &BTreeMap<String, Option<String>>, command: &str) -> String {
    let mut text = String::new();
    for (name, _) in variables.iter().filter(|(name, value)| value.is_none() && is_variable(name)) {
        let _ = writeln!(text, "unset {name}");
    }
    let set = variables.iter().filter_map(|(name, value)| Some(format!("{name}={}", value.as_ref()?)));
    let set: Vec<String> = set.map(|pair| format!("{} ", quoted(&pair))).collect();
    let env = if set.is_empty() { String::new() } else { format!("env {}", set.concat()) };
    let _ = writeln!(text, "exec {env}{command}");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_set_or_unset_before_the_last_command() {
        let variables = [("A", Some("it's")), ("B", None), ("not one", None)];
        let variables = variables.map(|(name, value)| (name.to_owned(), value.map(str::to_owned))).into();
        assert_eq!(with_variables(&variables, "run"), "unset B\nexec env 'A=it'\\''s' run\n");
        assert_eq!(with_variables(&BTreeMap::new(), "run"), "exec run\n");
    }

    #[test]
    fn quotes_close_and_open_around_a_quote() {
        assert_eq!(quoted("a $b\n`c`"), "'a $b\n`c`'");
        assert_eq!(quoted("it's"), r"'it'\''s'");
        assert_eq!(quoted(""), "''");
    }

    #[test]
    fn plain_words_are_shown_without_quotes() {
        assert_eq!(shown("/a-b/c_1.sh"), "/a-b/c_1.sh");
        assert_eq!([shown("/a b"), shown("it's"), shown("~/x"), shown("")], ["'/a b'", r"'it'\''s'", "'~/x'", "''"]);
    }

    #[test]
    fn names_of_variables_are_told_from_others() {
        assert!(is_variable("_A1") && !is_variable("1A") && !is_variable("A-B") && !is_variable(""));
    }
}
