//! Amounts of memory and disk as people write them: `4GiB`, `500MB`.

/// Names of units and how many bytes they are, the larger before the smaller.
const UNITS: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("TB", 1_000_000_000_000),
    ("GiB", 1 << 30),
    ("GB", 1_000_000_000),
    ("MiB", 1 << 20),
    ("MB", 1_000_000),
    ("KiB", 1 << 10),
    ("KB", 1_000),
    ("B", 1),
];

/// Returns the number of bytes that a text means: `20GiB` and `20 GiB` are 20 × 2^30, `1.5GB` is 1.5 × 10^9; nothing if
/// it is no number with a unit. Whether the unit is written small makes no difference.
#[must_use]
pub fn parse(text: &str) -> Option<u64> {
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    let (number, unit) = (&text[..split], text[split..].trim());
    let (_, bytes) = UNITS.into_iter().find(|(name, _)| name.eq_ignore_ascii_case(unit))?;
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(bytes);
    }
    let size = number.parse::<f64>().ok()? * bytes as f64;
    (size < u64::MAX as f64).then_some(size as u64)
}

/// Returns a number of bytes as [`parse`] reads it, in the largest binary unit it fills: `64GiB`, `15.6GiB`.
#[must_use]
pub fn written(bytes: u64) -> String {
    let binary = UNITS.into_iter().filter(|(name, _)| name.ends_with("iB"));
    let Some((name, unit)) = binary.into_iter().find(|(_, unit)| bytes >= *unit) else { return format!("{bytes}B") };
    let number = format!("{:.1}", bytes as f64 / unit as f64);
    format!("{}{name}", number.strip_suffix(".0").unwrap_or(&number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_binary_and_decimal_units() {
        let cases = [("1.5KiB", 1536), ("20 GiB", 20 << 30), ("3gb", 3_000_000_000), ("2TiB", 2 << 40), ("0B", 0)];
        for (text, bytes) in cases {
            assert_eq!(parse(text), Some(bytes), "{text}");
        }
        for wrong in ["", "20", "GiB", "1.2.3MB", "5 apples", "-1GB", "99999999999TiB", "1e3MB"] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_size_is_written_in_the_unit_it_fills() {
        let cases =
            [(64 << 30, "64GiB"), (16_777_216_000, "15.6GiB"), (1536, "1.5KiB"), (812, "812B"), (3 << 41, "6TiB")];
        for (bytes, text) in cases {
            assert_eq!(written(bytes), text);
        }
    }
}
