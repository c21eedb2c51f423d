//! `spdflow pipelines`: lists the pipelines that come with the binary.

use std::path::Path;

use spdflow_engine::spec::{self, LoadOptions};

use crate::args::OutputArgs;
use crate::failure::{Exit, Failure};
use crate::registry::registry;
use crate::shipped::{self, SHIPPED};

/// Prints name and description of every shipped pipeline.
pub(super) fn pipelines(style: &OutputArgs) -> Result<Exit, Failure> {
    let options = LoadOptions { files: &shipped::Files, ..LoadOptions::default() };
    let registry = registry();
    let mut described = Vec::new();
    for shipped in SHIPPED {
        let pipeline = spec::load(Path::new(&shipped::shipped_path(shipped.name)), &options, &registry)?;
        described.push((shipped.name, pipeline.description));
    }
    if style.json {
        let pipelines: Vec<_> = described
            .iter()
            .map(|(name, description)| serde_json::json!({ "name": name, "description": description }))
            .collect();
        super::print_json(serde_json::json!({ "pipelines": pipelines }));
    } else {
        let pairs: Vec<_> = described.iter().map(|(name, description)| (*name, description.as_str())).collect();
        super::print_pairs(&pairs);
    }
    Ok(Exit::Done)
}
