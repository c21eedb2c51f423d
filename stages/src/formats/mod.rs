//! The formats of the files in artifacts, for the audit: where two files differ, and which numbers a file quotes.
//!
//! One file of this folder a format. Each goes through two files and tells a `Tally` what differs; that knows what to say
//! first. What is of none of these formats the engine compares byte by byte.

mod cell;
#[cfg(test)]
mod damage;
mod excerpt;
mod guard;
mod json;
mod jsonl;
mod markup;
mod metadata;
mod number;
mod parquet;
mod png;
mod quoted;
mod reading;
mod safetensors;
mod tally;
#[cfg(test)]
mod testing;
mod text;

use spdflow_engine::MANIFEST;
use spdflow_engine::audit::format::Formats;

pub use guard::is_guarded;
pub use json::Json;
pub use jsonl::JsonLines;
pub use markup::Markup;
pub use parquet::Parquet;
pub use png::Png;
pub use safetensors::SafeTensors;
pub use text::Text;

/// Returns the formats by the names that outputs declare, which for those of a `command` are the ends of their names.
#[must_use]
pub fn formats() -> Formats {
    let mut formats = Formats::default()
        .with("safetensors", SafeTensors)
        .with("parquet", Parquet)
        .with("json", Json::default())
        // The digests and sizes of an artifact's files do not count: the files are compared themselves.
        .with(MANIFEST, Json::leaving_out(&["files[*].digest", "files[*].size_bytes"]))
        .with("jsonl", JsonLines)
        .with("ndjson", JsonLines)
        .with("png", Png)
        .with("svg", Markup)
        .with("html", Markup)
        .with("htm", Markup);
    for text in ["text", "txt", "md", "csv", "tsv", "log", "toml", "yaml", "yml"] {
        formats = formats.with(text, Text);
    }
    formats
}
