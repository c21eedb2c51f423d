//! `spdflow pipelines`: lists the pipelines that come with the binary.

use std::path::Path;

use spdflow_engine::spec::{self, LoadOptions};

use crate::args::OutputArgs;
use crate::failure::{Exit, Failure};
use crate::registry::registry;
use crate::report::text;
use crate::shipped::{self, SHIPPED};

/// Prints name, expected time on a laptop's CPU and description of every shipped pipeline.
pub(super) fn pipelines(style: &OutputArgs) -> Result<Exit, Failure> {
    let options = LoadOptions { files: &shipped::Files, ..LoadOptions::default() };
    let registry = registry();
    let mut described = Vec::new();
    for shipped in SHIPPED {
        let pipeline = spec::load(Path::new(&shipped::shipped_path(shipped.name)), &options, &registry)?;
        described.push((shipped.name, pipeline.expected_time, pipeline.description));
    }
    if style.json {
        let pipelines: Vec<_> = described
            .iter()
            .map(|(name, time, description)| {
                let seconds = time.map(|time| time.as_secs());
                serde_json::json!({ "name": name, "description": description, "expected_seconds": seconds })
            })
            .collect();
        super::print_json(serde_json::json!({ "pipelines": pipelines }));
    } else {
        let times: Vec<String> =
            described.iter().map(|(_, time, _)| time.map(text::rough_duration).unwrap_or_default()).collect();
        let width = times.iter().map(String::len).max().unwrap_or(0);
        let lines: Vec<(&str, String)> = described
            .iter()
            .zip(&times)
            .map(|((name, _, description), time)| (*name, format!("{time:>width$}  {description}")))
            .collect();
        let pairs: Vec<_> = lines.iter().map(|(name, line)| (*name, line.as_str())).collect();
        super::print_pairs(&pairs);
    }
    Ok(Exit::Done)
}
