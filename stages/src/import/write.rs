//! Lays out an imported configuration as the text of a pipeline.

use super::config::{Imported, Params};
use super::toml::{Toml, comment};

/// Returns the text of the pipeline called `name`.
pub(super) fn pipeline(name: &str, file: &str, imported: &Imported, notes: &[String]) -> String {
    let Imported { target, because, path, seed, params, evaluation, dense } = imported;
    let file = file.rsplit(['/', '\\']).next().unwrap_or(file);
    let mut text = comment("# ", "# ", &format!("Made from `{file}` by `spdflow import-config`."));
    if !notes.is_empty() {
        text += "#\n";
        text.extend(notes.iter().map(|note| comment("# * ", "#   ", &format!("{note}."))));
    }
    text += "[pipeline]\n";
    text += &Toml::text(name).lines("name");
    text += &format!("\n[axes]\nseed = [{}]\n\n", seed.inline());

    let meant = path.as_ref().map_or_else(
        || format!("The target is taken to be that of the shipped pipeline `{}`", target.name),
        |path| format!("`{path}` is taken to be the target of the shipped pipeline `{}`", target.name),
    );
    text += &comment("# ", "# ", &format!("{meant}, trained here: {because}."));
    text += &format!("[stage.target]\nuses = \"{}\"\n[stage.target.params]\n{}\n", target.kind, target.params());

    text += "[stage.decompose]\nuses = \"decompose.spd\"\ninputs = { target = \"target\" }\nmatrix = [\"seed\"]\n";
    text += "[stage.decompose.params]\nseed = \"${seed}\"\n";
    text += &lines(params);
    text += "[stage.decompose.params.evaluation]\n";
    text += &lines(evaluation);

    text += "\n[stage.figures]\nuses = \"plot\"\n";
    if !dense.is_empty() {
        let patterns = Toml::List(dense.iter().map(Toml::text).collect());
        text += &Toml::Table(vec![("dense_patterns".to_owned(), patterns)]).lines("params");
    }
    text +=
        "[stage.figures.inputs]\ndecompositions = { from = \"decompose\", over = [\"seed\"] }\ntarget = \"target\"\n";
    text
}

fn lines(params: &Params) -> String {
    params.iter().map(|(key, value)| value.lines(key)).collect()
}
