//! Numbers, times and verbs as people read them.

use std::time::Duration;

use spdflow_engine::cache::Metric;

/// Returns a duration with about three digits: `0.42 s`, `41.2 s`, `3 min 12 s`, `2 h 5 min`.
pub(crate) fn duration(seconds: f64) -> String {
    let whole = seconds.round() as u64;
    if seconds < 9.995 {
        format!("{seconds:.2} s")
    } else if seconds < 99.95 {
        format!("{seconds:.1} s")
    } else if whole < 3600 {
        format!("{} min {} s", whole / 60, whole % 60)
    } else {
        format!("{} h {} min", whole / 3600, whole / 60 % 60)
    }
}

/// Returns a duration of some seconds or more, without fractions: `41 s`, `3 min 12 s`, `2 h 5 min`.
pub(crate) fn whole_duration(seconds: f64) -> String {
    let seconds = seconds.round();
    if seconds < 100.0 { format!("{seconds:.0} s") } else { duration(seconds) }
}

/// Returns a duration as one would say it: `48 s`, `20 min`, `2 h 30 min`, `20 h`.
pub(crate) fn rough_duration(time: Duration) -> String {
    let seconds = time.as_secs();
    let minutes = (seconds + 30) / 60;
    match (minutes / 60, minutes % 60) {
        _ if seconds < 100 => format!("{seconds} s"),
        (0, minutes) => format!("{minutes} min"),
        (hours, 0) => format!("{hours} h"),
        (hours, _) if hours >= 10 => format!("{} h", (seconds + 1800) / 3600),
        (hours, minutes) => format!("{hours} h {minutes} min"),
    }
}

/// Returns a number with at most five significant digits, in powers of ten when it is very small or large.
pub(crate) fn number(value: f64) -> String {
    let size = value.abs();
    if value == 0.0 {
        "0".to_owned()
    } else if !value.is_finite() {
        value.to_string()
    } else if (1e-3..1e5).contains(&size) {
        let before_point = size.log10().floor() as i32 + 1;
        let decimals = usize::try_from(5 - before_point).unwrap_or(0);
        let text = format!("{value:.decimals$}");
        if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
    } else {
        format!("{value:.2e}")
    }
}

/// Returns a metric with its name: `loss 0.0021`.
pub(crate) fn metric(metric: &Metric) -> String {
    format!("{} {}", metric.name, number(metric.value))
}

/// Returns a number of bytes: `812 B`, `1.2 KiB`, `34.0 MiB`.
pub(crate) fn size(bytes: u64) -> String {
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    for unit in ["KiB", "MiB", "GiB"] {
        if value < 1024.0 {
            return format!("{value:.1} {unit}");
        }
        value /= 1024.0;
    }
    format!("{value:.1} TiB")
}

/// The colours of verbs; `anstream` drops them where they do not belong.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Color {
    /// Done well.
    Green,
    /// Going on.
    Cyan,
    /// Worth a look.
    Yellow,
    /// Wrong.
    Red,
}

/// Returns `verb`, right-aligned in twelve columns and bold, and `rest`.
pub(crate) fn line(verb: &str, color: Color, rest: &str) -> String {
    let code = match color {
        Color::Green => 32,
        Color::Cyan => 36,
        Color::Yellow => 33,
        Color::Red => 31,
    };
    format!("\x1b[1;{code}m{verb:>12}\x1b[0m {rest}")
}

/// Returns a warning as a line of its own.
pub(crate) fn warning(text: &str) -> String {
    format!("\x1b[1;33mwarning\x1b[0m: {text}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_keep_about_three_digits() {
        let cases =
            [(0.0, "0.00 s"), (9.99, "9.99 s"), (41.23, "41.2 s"), (192.0, "3 min 12 s"), (7500.0, "2 h 5 min")];
        for (seconds, expected) in cases {
            assert_eq!(duration(seconds), expected);
        }
    }

    #[test]
    fn expected_times_are_rough() {
        let cases =
            [(48, "48 s"), (150, "3 min"), (3599, "1 h"), (9000, "2 h 30 min"), (72_000, "20 h"), (71_500, "20 h")];
        for (seconds, expected) in cases {
            assert_eq!(rough_duration(Duration::from_secs(seconds)), expected);
        }
    }

    #[test]
    fn numbers_keep_five_digits() {
        let cases = [
            (0.0, "0"),
            (5.0, "5"),
            (0.002_134_56, "0.0021346"),
            (123.456_78, "123.46"),
            (99_999.0, "99999"),
            (3.1e-4, "3.10e-4"),
            (-2.5e7, "-2.50e7"),
            (f64::NAN, "NaN"),
        ];
        for (value, expected) in cases {
            assert_eq!(number(value), expected);
        }
    }

    #[test]
    fn sizes_have_units() {
        assert_eq!([size(812), size(1229), size(35_651_584)], ["812 B", "1.2 KiB", "34.0 MiB"]);
    }
}
