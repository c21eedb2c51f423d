//! Text for shell scripts.

use std::borrow::Cow;

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
pub(crate) fn is_variable(name: &str) -> bool {
    let is_letter = |byte: u8| byte.is_ascii_alphabetic() || byte == b'_';
    name.bytes().next().is_some_and(is_letter) && name.bytes().all(|byte| is_letter(byte) || byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

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
