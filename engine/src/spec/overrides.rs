//! Changes on top of the file: the profile, then the `--set` arguments.
//!
//! `--set stage.target.params.steps=500` replaces a value of the tree. `--set lr=3e-4`, a path of a single name,
//! gives the value that `${lr}` stands for.

use std::collections::BTreeMap;

use super::{LoadOptions, Mistakes, SET_ARGUMENT};
use crate::diagnostic::Diagnostic;
use crate::pipeline::Source;
use crate::suggest::hint_among;
use crate::value::{Data, Entry, KeyPath, Origin, Step, Value, toml};

/// The sections whose values can be set.
const SETTABLE: [&str; 4] = ["axes", "params", "pipeline", "stage"];
/// Values given for `${name}`.
#[derive(Debug, Default)]
pub(super) struct Variables(pub(super) BTreeMap<String, Entry>);

/// Applies the profile and the `--set` arguments to the tree and returns the values for `${name}`.
pub(super) fn apply(
    root: &mut Value,
    options: &LoadOptions<'_>,
    sources: &mut Vec<Source>,
    mistakes: &mut Mistakes,
) -> Variables {
    let mut variables = Variables::default();
    apply_profile(root, options.profile.as_deref(), &mut variables, mistakes);
    for argument in &options.set {
        let source = sources.len();
        sources.push(Source { name: SET_ARGUMENT.to_owned(), text: argument.clone() });
        if let Some((path, entry)) = read_argument(argument, source, mistakes) {
            set(root, &path, entry, &mut variables, mistakes);
        }
    }
    variables
}

fn apply_profile(root: &mut Value, wanted: Option<&str>, variables: &mut Variables, mistakes: &mut Mistakes) {
    let Data::Table(sections) = &mut root.data else { return };
    // The section has no other meaning and leaves the tree here.
    let profiles = match sections.remove("profile").map(|entry| entry.value) {
        None => BTreeMap::new(),
        Some(Value { data: Data::Table(profiles), .. }) => profiles,
        Some(other) => return super::read::expected("a table", "`profile`", &other, mistakes),
    };
    for (name, entry) in &profiles {
        if let Some(entries) = super::read::table(&entry.value, &format!("profile `{name}`"), mistakes) {
            super::read::refuse_unknown_keys(entries, &["set"], &format!("in profile `{name}`"), mistakes);
        }
    }
    if let Some(wanted) = wanted
        && !profiles.contains_key(wanted)
    {
        let hint = hint_among(wanted, "known profiles", profiles.keys().map(String::as_str))
            .unwrap_or_else(|| "the file has no profiles; a profile is a table `[profile.NAME.set]`".to_owned());
        mistakes.push(Diagnostic::new(format!("there is no profile `{wanted}`")).hint(hint));
    }
    for (name, profile) in profiles {
        let Some(changes) = profile.value.get("set") else { continue };
        let Some(changes) = super::read::table(changes, &format!("`set` of profile `{name}`"), mistakes) else {
            continue;
        };
        for (key, entry) in changes {
            if SETTABLE.contains(&key.as_str()) {
                // `stage.target.params.steps = 500` without quotes is a table `stage`, not a path.
                let message = format!("expected a path in quotes in `set` of profile `{name}`, found the key `{key}`");
                let hint = "write the whole path in quotes: `\"stage.NAME.params.KEY\" = VALUE`";
                mistakes.push(Diagnostic::new(message).at(entry.place()).hint(hint));
                continue;
            }
            match KeyPath::parse(key) {
                Ok(path) if wanted == Some(name.as_str()) => set(root, &path, entry.clone(), variables, mistakes),
                // A profile that is not asked for must still say something meaningful.
                Ok(path) => mistakes.extend(mistake_in_target(root, &path).map(|mistake| mistake.at(entry.place()))),
                Err(mistake) => {
                    mistakes.push(Diagnostic::new(format!("`{key}` is no path: {mistake}")).at(entry.place()));
                }
            }
        }
    }
}

/// Reads `KEY=VALUE`.
fn read_argument(argument: &str, source: usize, mistakes: &mut Mistakes) -> Option<(KeyPath, Entry)> {
    let origin = |start: usize, end: usize| Origin { source, span: start..end };
    let Some((key, value)) = argument.split_once('=') else {
        let message = format!("expected `KEY=VALUE` after `--set`, found `{argument}`");
        mistakes.push(Diagnostic::new(message).at(Some(&origin(0, argument.len()))));
        return None;
    };
    let key_origin = origin(0, key.len());
    let path = match KeyPath::parse(key.trim()) {
        Ok(path) => path,
        Err(mistake) => {
            mistakes.push(Diagnostic::new(format!("`{key}` is no path: {mistake}")).at(Some(&key_origin)));
            return None;
        }
    };
    let start = argument.len() - value.trim_start().len();
    let text = value.trim();
    if text.is_empty() {
        let diagnostic = Diagnostic::new(format!("expected a value after `{key}=`, found nothing"));
        mistakes.push(diagnostic.at(Some(&origin(0, argument.len()))).hint(format!("an empty text is `{key}=\"\"`")));
        return None;
    }
    // The end of the argument is trimmed so that the value is all there is to parse.
    let value = match toml::parse_value(&argument[..start + text.len()], start, source) {
        Ok(value) => value,
        Err(_) if is_bare_word(text) => {
            Value { data: Data::String(text.to_owned()), origin: Some(origin(start, start + text.len())) }
        }
        Err(errors) => {
            mistakes.extend(errors.into_iter().map(|mut error| {
                error.message = format!("the value of `{key}` is not TOML: {}", error.message);
                error
            }));
            return None;
        }
    };
    Some((path, Entry { key_origin: Some(key_origin), value }))
}

/// Returns whether a text is certainly not meant as TOML: `cosine`, `data/words.txt`, but not `[1, 2`, `nan` or `1 2`.
fn is_bare_word(text: &str) -> bool {
    let begins_as_word = text.starts_with(|c: char| c.is_alphabetic() || "_./~".contains(c));
    let is_number_word = matches!(text, "nan" | "inf");
    begins_as_word && !is_number_word && !text.contains(['"', '\'', '[', ']', '{', '}', '#', '=', ',', '\n'])
}

/// Puts a value at a path of the tree, or among the variables.
fn set(root: &mut Value, path: &KeyPath, entry: Entry, variables: &mut Variables, mistakes: &mut Mistakes) {
    let place = entry.key_origin.clone();
    if let Some(mistake) = mistake_in_target(root, path) {
        mistakes.push(mistake.at(place.as_ref()));
    } else if let [Step::Key(name)] = path.0.as_slice() {
        variables.0.insert(name.clone(), entry);
    } else if let Err(message) = put(root, &path.0, entry) {
        mistakes.push(Diagnostic::new(message).at(place.as_ref()));
    }
}

/// Returns why nothing can be set at a path, as far as its first two names tell.
fn mistake_in_target(root: &Value, path: &KeyPath) -> Option<Diagnostic> {
    let [Step::Key(section), rest @ ..] = path.0.as_slice() else {
        return Some(Diagnostic::new("a path begins with a name"));
    };
    let Some(first) = rest.first() else {
        if root.get("axes").is_some_and(|axes| axes.get(section).is_some()) {
            let hint = format!("set the whole axis: `axes.{section}=[…]`");
            return Some(Diagnostic::new(format!("`{section}` is an axis and has its values from there")).hint(hint));
        }
        let is_section = SETTABLE.contains(&section.as_str()) || matches!(section.as_str(), "profile" | "base");
        return is_section.then(|| Diagnostic::new(format!("`{section}` cannot be set as a whole")));
    };
    let thing = match section.as_str() {
        "axes" => "axis",
        "params" => "shared parameter table",
        "stage" => "stage",
        "pipeline" => return None,
        _ => {
            let hint = hint_among(section, "settable sections", SETTABLE);
            return Some(Diagnostic::new(format!("a path cannot begin with `{section}`")).hint_if_any(hint));
        }
    };
    // These tables are named by the user; without this check a wrong name would make a new one.
    let Step::Key(name) = first else {
        return Some(Diagnostic::new(format!("`{section}` is a table and has no items in brackets")));
    };
    let known: Vec<&str> = match root.get(section).map(|section| &section.data) {
        Some(Data::Table(entries)) => entries.keys().map(String::as_str).collect(),
        _ => Vec::new(),
    };
    if known.contains(&name.as_str()) {
        return None;
    }
    let hint = hint_among(name, &format!("known names under `{section}`"), known.iter().copied());
    Some(Diagnostic::new(format!("there is no {thing} `{name}`")).hint_if_any(hint))
}

/// Replaces the value at `steps`, making tables on the way.
fn put(root: &mut Value, steps: &[Step], entry: Entry) -> Result<(), String> {
    let mut value = root;
    let mut walked = String::new();
    for step in steps {
        let what = if walked.is_empty() { "the pipeline".to_owned() } else { format!("`{walked}`") };
        let found = value.described();
        value = match (step, &mut value.data) {
            (Step::Key(key), Data::Table(entries)) => {
                walked = if walked.is_empty() { key.clone() } else { format!("{walked}.{key}") };
                let new = || Entry {
                    key_origin: entry.key_origin.clone(),
                    value: Value { data: Data::Table(BTreeMap::new()), origin: entry.key_origin.clone() },
                };
                &mut entries.entry(key.clone()).or_insert_with(new).value
            }
            (Step::Item(position), Data::Array(items)) => {
                walked = format!("{walked}[{position}]");
                let count = items.len();
                items.get_mut(*position).ok_or_else(|| format!("{what} has length {count}, there is no `{walked}`"))?
            }
            (Step::Key(key), _) => return Err(format!("{what} is {found} and has no key `{key}`")),
            (Step::Item(position), _) => return Err(format!("{what} is {found} and has no item {position}")),
        };
    }
    *value = entry.value;
    Ok(())
}
