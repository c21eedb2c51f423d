//! The parameters of a command, their checks, and what they say after a look outside the pipeline.

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use spdflow_engine::MANIFEST;
use spdflow_engine::kind::ParamIssue;
use spdflow_engine::outside::{Outside, OutsideFiles};
use spdflow_engine::suggest::{did_you_mean, listed};

use super::contents::{Contents, Scalar, below};
use super::folder;
use super::template::{Piece, Template};

/// Parameters of `command`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CommandParams {
    /// The program and its arguments; no shell is involved. `{in.NAME}` stands for the folder of an input,
    /// `{out.NAME}` for the path of an output, `{value.NAME}` for one of `values`, `{threads}` for the number of
    /// threads it may use; `{{` and `}}` for braces.
    pub run: Vec<String>,
    /// What the program makes: by name, a file or folder below the artifact's folder.
    #[serde(default)]
    pub outputs: BTreeMap<String, String>,
    /// Files and folders that the program is made of or reads, relative to the pipeline file. They lie at the same
    /// relative places when it starts. A table gives the digest that each file must have.
    #[serde(default)]
    pub code: Contents,
    /// Environment variables; placeholders as in `run`.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Names of environment variables that are passed on, with their values, if they are set. A table gives the value
    /// that each must have.
    #[serde(default)]
    pub pass_env: Contents,
    /// Numbers, texts and truth values for `{value.NAME}`.
    #[serde(default)]
    pub values: BTreeMap<String, Scalar>,
}

impl CommandParams {
    /// Returns the templates of `run` and `env`, each with its path.
    fn templates(&self) -> impl Iterator<Item = (String, &str)> {
        let run = self.run.iter().enumerate().map(|(index, text)| (format!("run[{index}]"), text.as_str()));
        run.chain(self.env.iter().map(|(name, text)| (below("env", name), text.as_str())))
    }
}

/// Returns what is wrong with the parameters, as far as they alone tell.
pub(super) fn validate(params: &CommandParams) -> Vec<ParamIssue> {
    let mut issues = Vec::new();
    if params.run.is_empty() {
        let issue = ParamIssue::new("run", "expected a program and its arguments, found an empty list");
        issues.push(issue.with_hint("for example `[\"python\", \"plot.py\", \"{out.figure}\"]`"));
    }
    let mut used = BTreeSet::new();
    for (path, text) in params.templates() {
        if text.contains('\0') {
            issues.push(ParamIssue::new(&path, "must not hold the character of code 0"));
        }
        let pieces = match Template::parse(text) {
            Ok(template) => template.0,
            Err(mistake) => {
                issues.push(ParamIssue::new(path, mistake));
                continue;
            }
        };
        for piece in pieces {
            match piece {
                Piece::Out(name) if !params.outputs.contains_key(&name) => {
                    issues.push(unknown(&path, "output", &name, "outputs", params.outputs.keys()));
                }
                Piece::Value(name) if !params.values.contains_key(&name) => {
                    issues.push(unknown(&path, "value", &name, "values", params.values.keys()));
                }
                Piece::Value(name) => {
                    used.insert(name);
                }
                _ => {}
            }
        }
    }
    for name in params.values.keys().filter(|name| !used.contains(*name)) {
        let message = format!("nothing asks for it: `{{value.{name}}}` stands neither in `run` nor in `env`");
        issues.push(ParamIssue::new(below("values", name), message));
    }
    for (name, path) in &params.outputs {
        let problem = output_problem(path).map(str::to_owned).or_else(|| {
            let holds = |other: &str| path == other || path.starts_with(&format!("{other}/"));
            let above =
                params.outputs.iter().find(|(other, above)| *other != name && holds(above.trim_end_matches('/')));
            above.map(|(other, _)| format!("lies in output `{other}`"))
        });
        if let Some(problem) = problem {
            issues.push(ParamIssue::new(below("outputs", name), format!("`{path}` {problem}")));
        }
    }
    let passed = params.pass_env.entries("pass_env");
    let passed_names = passed.iter().map(|(path, name, _)| (path.clone(), *name));
    for (path, name) in params.env.keys().map(|name| (below("env", name), name.as_str())).chain(passed_names) {
        if name.is_empty() || name.contains(['=', '\0']) {
            issues.push(ParamIssue::new(path, format!("`{name}` cannot be the name of a variable")));
        }
    }
    for (path, name, _) in passed.into_iter().filter(|(_, name, _)| params.env.contains_key(*name)) {
        issues.push(ParamIssue::new(path, format!("variable `{name}` has a value in `env` already")));
    }
    for (path, file, _) in params.code.entries("code") {
        if let Err(problem) = folder::code_place(file) {
            issues.push(ParamIssue::new(path, format!("`{file}` {problem}")));
        }
    }
    issues
}

fn unknown<'a>(
    path: &str,
    what: &str,
    name: &str,
    table: &str,
    known: impl Iterator<Item = &'a String> + Clone,
) -> ParamIssue {
    let known: Vec<_> = known.map(String::as_str).collect();
    let hint = did_you_mean(name, known.iter().copied()).unwrap_or_else(|| match known.is_empty() {
        true => format!("declare it in `{table}`"),
        false => format!("`{table}` has {}", listed(known.iter().copied())),
    });
    ParamIssue::new(path, format!("there is no {what} `{name}`")).with_hint(hint)
}

fn output_problem(path: &str) -> Option<&'static str> {
    let plain = path.strip_suffix('/').unwrap_or(path);
    if plain == MANIFEST {
        Some("is the name of the file that describes the artifact")
    } else if plain.split('/').any(|part| matches!(part, "" | "." | "..")) || plain.contains(['\\', '\0']) {
        Some("is not a plain path below the artifact's folder")
    } else {
        None
    }
}

/// Puts digests of code and values of variables into the parameters, and checks that inputs exist.
pub(super) fn complete(
    mut params: CommandParams,
    outside: &Outside<'_>,
) -> Result<(CommandParams, OutsideFiles), Vec<ParamIssue>> {
    let mut issues = input_issues(&params, outside);
    let (mut files, mut digests) = (OutsideFiles::new(), BTreeMap::new());
    for (path, file, expected) in params.code.entries("code") {
        match outside.read(&path, file) {
            Ok(found) if found.is_empty() => issues.push(ParamIssue::new(path, format!("folder `{file}` is empty"))),
            Ok(found) => {
                for (file, content) in found {
                    // Whatever the spelling, a file has one place and one name in the key.
                    let place = folder::code_place(&file).map_or(file, |place| place.to_string());
                    let digest = content.digest.to_string();
                    if let Some(expected) = expected.filter(|expected| *expected != digest) {
                        let message = format!("expected digest `{expected}`, found `{digest}`");
                        issues.push(ParamIssue::new(&path, message));
                    }
                    digests.insert(place.clone(), digest);
                    files.insert(place, content);
                }
            }
            Err(problem) => {
                let hint = "`code` is relative to the folder of the pipeline file";
                issues.push(ParamIssue::new(path, problem).with_hint(hint));
            }
        }
    }
    params.code = Contents::Known(digests);
    let mut passed = BTreeMap::new();
    for (path, name, expected) in params.pass_env.entries("pass_env") {
        match outside.variable(name) {
            Ok(value) if expected.is_some() && value.as_deref() != expected => {
                let found = value.map_or("it is not set".to_owned(), |value| format!("found `{value}`"));
                let message =
                    format!("expected `{}` as the value of variable `{name}`, {found}", expected.unwrap_or(""));
                issues.push(ParamIssue::new(path, message));
            }
            Ok(value) => passed.extend(value.map(|value| (name.to_owned(), value))),
            Err(problem) => issues.push(ParamIssue::new(path, problem)),
        }
    }
    params.pass_env = Contents::Known(passed);
    if issues.is_empty() { Ok((params, files)) } else { Err(issues) }
}

fn input_issues(params: &CommandParams, outside: &Outside<'_>) -> Vec<ParamIssue> {
    let mut issues = Vec::new();
    for (path, text) in params.templates() {
        let Ok(template) = Template::parse(text) else { continue };
        let may_be_many = path.starts_with("run") && template.whole_input().is_some();
        for piece in &template.0 {
            let Piece::In(name) = piece else { continue };
            match outside.artifacts(name) {
                None => {
                    let hint = did_you_mean(name, outside.inputs())
                        .unwrap_or_else(|| format!("add it to the stage's `inputs`: `{name} = \"STAGE\"`"));
                    issues.push(ParamIssue::new(&path, format!("there is no input `{name}`")).with_hint(hint));
                }
                Some(count) if count > 1 && !may_be_many => {
                    let message = format!("`{{in.{name}}}` stands for {count} folders here");
                    let hint = "an argument that is nothing else becomes one argument for each";
                    issues.push(ParamIssue::new(&path, message).with_hint(hint));
                }
                Some(_) => {}
            }
        }
    }
    issues
}
