//! `[stage.NAME.resources]`, `retries` and `timeout`: what a stage may use; never part of its fingerprint.

use std::time::Duration;

use serde::Deserialize;

use super::Mistakes;
use crate::diagnostic::Diagnostic;
use crate::pipeline::{Policy, Resources};
use crate::size;
use crate::spec::read::Entries;
use crate::value::{DecodeError, Value};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    threads: Option<Threads>,
    memory: Option<Memory>,
    #[serde(default)]
    gpus: usize,
    time: Option<Time>,
}

#[derive(Deserialize)]
#[serde(try_from = "usize")]
struct Threads(usize);

impl TryFrom<usize> for Threads {
    type Error = &'static str;

    fn try_from(count: usize) -> Result<Self, Self::Error> {
        if count > 0 { Ok(Self(count)) } else { Err("expected a whole number of at least 1, found `0`") }
    }
}

#[derive(Deserialize)]
#[serde(try_from = "String")]
struct Memory(u64);

impl TryFrom<String> for Memory {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let bytes = size::parse(&text).filter(|bytes| *bytes > 0);
        bytes
            .map(Self)
            .ok_or_else(|| format!("expected an amount of memory like `\"4GiB\"` or `\"500MB\"`, found `\"{text}\"`"))
    }
}

#[derive(Deserialize)]
#[serde(try_from = "String")]
struct Time(Duration);

impl TryFrom<String> for Time {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        time(&text).map(Self)
    }
}

/// Returns the time that a text like `1h30m` means.
///
/// # Errors
/// What was expected instead.
pub fn time(text: &str) -> Result<Duration, String> {
    duration(text)
        .ok_or_else(|| format!("expected a time like `\"90s\"`, `\"30m\"` or `\"1h30m\"`, found `\"{text}\"`"))
}

/// Returns the resources of `stage`.
pub(super) fn resources(stage: &str, value: &Value, mistakes: &mut Mistakes) -> Resources {
    let origin = |key: &str| value.get(key).and_then(|value| value.origin.clone());
    match value.decode_all::<Written>() {
        Ok(written) => Resources {
            threads: written.threads.map(|threads| threads.0),
            memory_bytes: written.memory.map(|memory| memory.0),
            memory_origin: origin("memory"),
            gpus: written.gpus,
            gpus_origin: origin("gpus"),
            time: written.time.map(|time| time.0),
        },
        Err(errors) => {
            mistakes.extend(errors.into_iter().map(|error| {
                let what = if error.path.is_empty() { String::new() } else { format!(" `{}`", error.path) };
                mistake(&format!("resources{what} of stage `{stage}`"), error)
            }));
            Resources::default()
        }
    }
}

/// Returns what is to be done when `stage` fails or takes long.
pub(super) fn policy(stage: &str, entries: &Entries, mistakes: &mut Mistakes) -> Policy {
    let mut policy = Policy::default();
    let mut wrong = |key: &str, errors: Vec<DecodeError>| {
        mistakes.extend(errors.into_iter().map(|error| mistake(&format!("`{key}` of stage `{stage}`"), error)));
    };
    if let Some(entry) = entries.get("retries") {
        entry.value.decode_all().map_or_else(|errors| wrong("retries", errors), |retries| policy.retries = retries);
    }
    if let Some(entry) = entries.get("timeout") {
        let timeout = entry.value.decode_all::<Time>();
        timeout.map_or_else(|errors| wrong("timeout", errors), |timeout| policy.timeout = Some(timeout.0));
    }
    policy
}

fn mistake(what: &str, error: DecodeError) -> Diagnostic {
    Diagnostic::new(format!("{what}: {}", error.message)).at(error.origin.as_ref()).hint_if_any(error.hint)
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
