//! Turns a configuration of the Python implementation, a YAML file, into a pipeline.
//!
//! `yaml` reads the text; `migrate` brings old configurations into today's form; `config` reads that form by tables of
//! fields (`fields`, and `metrics` for losses and metrics), `targets` knows which model is meant; `write` lays the
//! result out as `toml`, in the look of the shipped pipelines, with a comment for whatever was dropped or assumed.
//! Adding a loss is a line in `metrics`.

mod config;
mod fields;
mod metrics;
mod migrate;
mod targets;
#[cfg(test)]
mod tests;
mod toml;
mod write;
mod yaml;

use spdflow_engine::diagnostic::Report;
use spdflow_engine::pipeline::Source;

use config::Setting;
use fields::Table;
use migrate::Raw;
use yaml::{Data, Node};

/// A configuration to import.
#[derive(Debug, Clone)]
pub struct Configuration<'a> {
    /// The name of its file.
    pub file: &'a str,
    /// Its text.
    pub text: &'a str,
    /// How to call the pipeline.
    pub name: &'a str,
    /// Which shipped experiment's target it decomposes, if the user said so.
    pub target: Option<&'a str>,
}

/// Returns the text of a pipeline that does what the configuration asks for.
///
/// # Errors
/// Every mistake in it, with its place: what is not YAML, unknown keys and classes, values of the wrong form, and what
/// spdflow cannot do.
pub fn import(configuration: &Configuration<'_>) -> Result<String, Report> {
    let Configuration { file, text, name, target } = *configuration;
    let sources = || vec![Source { name: file.to_owned(), text: text.to_owned() }];
    let mut mistakes = Vec::new();
    let mut notes = Vec::new();
    let node = yaml::parse(text, 0).map_err(|mistake| Report::new(vec![mistake], sources()))?;
    let Node { origin, data } = node;
    let fields = match data {
        Data::Table(fields) => {
            let mut raw = Raw { fields, notes: &mut notes, mistakes: &mut mistakes };
            migrate::migrate(&mut raw);
            Data::Table(raw.fields)
        }
        other => other,
    };
    let imported = Table::of(Node { origin, data: fields }, "", &mut mistakes)
        .and_then(|table| config::import(table, &Setting { target, stem: file_stem(file) }, &mut notes, &mut mistakes));
    match imported {
        Some(imported) if mistakes.is_empty() => Ok(write::pipeline(name, file, &imported, &notes)),
        _ => Err(Report::new(mistakes, sources())),
    }
}

fn file_stem(file: &str) -> &str {
    let name = file.rsplit(['/', '\\']).next().unwrap_or(file);
    name.strip_suffix(".yaml").or_else(|| name.strip_suffix(".yml")).unwrap_or(name)
}
