//! Numbers that a text quotes: `mmcs = 0.998`, `loss: 1.2×10^{−3}`, `L0 1.02`.

use spdflow_engine::audit::format::Quote;

/// Returns the numbers that a text quotes. Commas and semicolons part what it says.
pub(super) fn quotes_of(text: &str) -> impl Iterator<Item = Quote> + '_ {
    text.split([',', ';', '\n']).filter_map(move |phrase| {
        let (name, number) = phrase_parts(phrase.trim())?;
        let (value, precision) = printed(number)?;
        let name = name.trim();
        let is_name = name.chars().any(char::is_alphabetic);
        is_name.then(|| Quote { name: name.to_owned(), value, precision, place: format!("text `{}`", text.trim()) })
    })
}

/// Parts a phrase into a name and what should be its number.
fn phrase_parts(phrase: &str) -> Option<(&str, &str)> {
    if let Some(parts) = phrase.rsplit_once('=').or_else(|| phrase.rsplit_once(": ")) {
        return Some(parts);
    }
    // Without a sign between them only a single word is a name: `feature 3`, but not `over 3`.
    phrase.split_once(' ').filter(|(name, _)| !name.is_empty())
}

/// Returns the number that a text is, and half a unit of its last digit. The error of a number may follow it.
fn printed(text: &str) -> Option<(f64, f64)> {
    let text = text.split(['±', '(']).next().unwrap_or_default().trim();
    match text {
        "NaN" => return Some((f64::NAN, 0.0)),
        "inf" | "∞" => return Some((f64::INFINITY, 0.0)),
        "-inf" | "−∞" => return Some((f64::NEG_INFINITY, 0.0)),
        _ => {}
    }
    let text = text.replace('−', "-");
    let (mantissa, exponent) = match text.split_once("×10^{") {
        Some((mantissa, rest)) => (mantissa, rest.strip_suffix('}')?),
        None => text.split_once(['e', 'E']).unwrap_or((&text, "0")),
    };
    let is_number = |text: &str| {
        let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
        digits.starts_with(|letter: char| letter.is_ascii_digit())
            && digits.chars().all(|letter| letter.is_ascii_digit() || letter == '.')
    };
    let exponent: i32 = exponent.parse().ok()?;
    let value: f64 =
        Some(mantissa).filter(|text| is_number(text)).map(|_| format!("{mantissa}e{exponent}"))?.parse().ok()?;
    let decimals = mantissa.split_once('.').map_or(0, |(_, decimals)| decimals.len());
    let last = i32::try_from(decimals).ok()?;
    Some((value, 0.5 * 10.0_f64.powi(exponent.checked_sub(last)?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Vec<(String, f64, f64)> {
        quotes_of(text).map(|quote| (quote.name, quote.value, quote.precision)).collect()
    }

    #[test]
    fn numbers_are_found_with_their_names_and_precision() {
        let cases = [
            ("mmcs = 0.998", "mmcs", 0.998, 0.5e-3),
            ("r=0.9998", "r", 0.9998, 0.5e-4),
            ("l0/0.1_linear1: 1.02", "l0/0.1_linear1", 1.02, 0.5e-2),
            ("L0 12", "L0", 12.0, 0.5),
            ("train loss = −1.25×10^{−3}", "train loss", -1.25e-3, 0.5e-5),
            ("loss = 2.5e-7", "loss", 2.5e-7, 0.5e-8),
            ("silhouette = 0.5 ± 0.1", "silhouette", 0.5, 0.05),
            ("loss = 3 (mean)", "loss", 3.0, 0.5),
        ];
        for (text, name, value, precision) in cases {
            let quotes = found(text);
            assert_eq!(quotes.len(), 1, "{text}");
            assert_eq!((&*quotes[0].0, quotes[0].1), (name, value), "{text}");
            assert!((quotes[0].2 / precision - 1.0).abs() < 1e-12, "{text}: {}", quotes[0].2);
        }
        assert_eq!(found("ml2r = inf")[0].1, f64::INFINITY);
        assert!(found("ml2r = NaN")[0].1.is_nan());
    }

    #[test]
    fn one_text_may_quote_several_numbers() {
        assert_eq!(found("seed = 1, mmcs = 0.5; ml2r: 0.25").len(), 3);
        let place = quotes_of("seed = 1, mmcs = 0.5").last().unwrap().place;
        assert_eq!(place, "text `seed = 1, mmcs = 0.5`");
    }

    #[test]
    fn what_is_no_named_number_is_not_quoted() {
        for text in [
            "",
            "0.5",
            "10 20",
            "= 3",
            "loss = ",
            "loss = abc",
            "V of linear1",
            "over 3 sequences",
            "a = 1.2.3",
            "x = 1e",
            "12:30",
            "l = 1e99999999999",
            "−",
        ] {
            assert_eq!(found(text), [], "{text}");
        }
    }
}
