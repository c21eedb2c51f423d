//! `[stage.NAME.resources]`: what a stage may use; never part of its fingerprint.

use std::time::Duration;

use serde::Deserialize;

use super::Mistakes;
use crate::diagnostic::Diagnostic;
use crate::pipeline::Resources;
use crate::value::Value;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    threads: Option<usize>,
    #[serde(default)]
    gpus: usize,
    time: Option<String>,
}

/// Returns the resources of `stage`.
pub(super) fn resources(stage: &str, value: &Value, mistakes: &mut Mistakes) -> Resources {
    let written: Written = match value.decode_all() {
        Ok(written) => written,
        Err(errors) => {
            mistakes.extend(errors.into_iter().map(|error| {
                let what = if error.path.is_empty() { String::new() } else { format!(" `{}`", error.path) };
                Diagnostic::new(format!("resources{what} of stage `{stage}`: {}", error.message))
                    .at(error.origin.as_ref())
                    .hint_if_any(error.hint)
            }));
            return Resources::default();
        }
    };
    let origin = |key: &str| value.get(key).and_then(|value| value.origin.as_ref());
    if written.threads == Some(0) {
        let message =
            format!("resources `threads` of stage `{stage}`: expected a whole number of at least 1, found `0`");
        mistakes.push(Diagnostic::new(message).at(origin("threads")));
    }
    let time = written.time.as_deref().and_then(|text| {
        let duration = duration(text);
        if duration.is_none() {
            let message = format!("resources `time` of stage `{stage}`: expected a time like `\"90s\"`, `\"30m\"` or `\"1h30m\"`, found `\"{text}\"`");
            mistakes.push(Diagnostic::new(message).at(origin("time")));
        }
        duration
    });
    Resources { threads: written.threads, gpus: written.gpus, time }
}

/// Returns the time that `1h30m` and the like mean: whole numbers of `d`, `h`, `m` and `s`.
fn duration(text: &str) -> Option<Duration> {
    let mut seconds: u64 = 0;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let count: u64 = rest[..digits].parse().ok()?;
        let unit = match rest.as_bytes()[digits] {
            b'd' => 86_400,
            b'h' => 3_600,
            b'm' => 60,
            b's' => 1,
            _ => return None,
        };
        seconds = seconds.checked_add(count.checked_mul(unit)?)?;
        rest = &rest[digits + 1..];
    }
    (seconds > 0).then(|| Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_sums_of_whole_units() {
        assert_eq!(duration("30m"), Some(Duration::from_secs(1_800)));
        assert_eq!(duration("1d2h3m4s"), Some(Duration::from_secs(93_784))); // 86400 + 7200 + 180 + 4
        for bad in ["", "30", "m", "1.5h", "0s", "-1s", "30 m", "99999999999999999999s", "3ä"] {
            assert_eq!(duration(bad), None, "{bad}");
        }
    }
}
