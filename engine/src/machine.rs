//! Facts about this machine and the present moment, for records. Nothing here may reach an artifact or a key.

use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use spdflow_cache::MachineInfo;

/// Returns a description of this machine.
#[must_use]
pub fn machine_info() -> MachineInfo {
    let read = |path: &str| fs::read_to_string(path).ok();
    let processor = read("/proc/cpuinfo").and_then(|text| {
        let line = text.lines().find(|line| line.starts_with("model name"))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    });
    MachineInfo {
        host: host(),
        platform: format!("{}-{}", std::env::consts::OS, std::env::consts::ARCH),
        processor: processor.unwrap_or_else(|| "unknown".to_owned()),
        cpu_features: cpu_features(),
        processors: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
    }
}

/// Returns the name of this host, or `unknown`.
pub(crate) fn host() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    if name.trim().is_empty() { "unknown".to_owned() } else { name.trim().to_owned() }
}

#[cfg(target_arch = "x86_64")]
fn cpu_features() -> Vec<String> {
    let mut found = Vec::new();
    macro_rules! look_for {
        ($($feature:tt),*) => { $(if std::is_x86_feature_detected!($feature) { found.push($feature.to_owned()); })* };
    }
    look_for!("avx", "avx2", "avx512bw", "avx512dq", "avx512f", "avx512vl", "bmi2", "f16c", "fma", "sse4.2");
    found
}

#[cfg(not(target_arch = "x86_64"))]
fn cpu_features() -> Vec<String> {
    Vec::new()
}

/// Returns the present as `2026-11-21T22:55:53Z`.
#[must_use]
pub fn now_text() -> String {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    time_text(seconds)
}

/// Returns seconds since 1970 as a date and time in UTC.
fn time_text(seconds: u64) -> String {
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    // Years that begin in March put the leap day last; 400 of them have 146 097 days (Howard Hinnant's algorithm).
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", rest / 3600, rest / 60 % 60, rest % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_in_utc() {
        // `date -u -d @N +%FT%TZ`
        assert_eq!(time_text(0), "1970-01-01T00:00:00Z");
        assert_eq!(time_text(951_782_399), "2000-02-28T23:59:59Z");
        assert_eq!(time_text(951_868_799), "2000-02-29T23:59:59Z");
        assert_eq!(time_text(1_795_301_753), "2026-11-21T22:55:53Z");
    }

    #[test]
    fn the_machine_has_a_processor() {
        assert!(machine_info().processors >= 1);
    }
}
