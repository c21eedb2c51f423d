//! What every kind of stage promises about its parameters, checked for whatever is in the registry.
//!
//! The stages of `fixtures/every_kind.toml` are the examples: they give every parameter, so a kind or a parameter that
//! is missing there fails the first tests of this file and all others then cover it without new code.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use spdflow_engine::cache::Digest;
use spdflow_engine::fingerprint::{Key, to_json};
use spdflow_engine::params::Params;
use spdflow_engine::pipeline::{Instance, Pipeline};
use spdflow_engine::spec::{self, LoadOptions};
use spdflow_engine::value::{Data, Entry, Value};

/// The pipeline with a stage of every kind.
pub(crate) const EVERY_KIND: &str = include_str!("fixtures/every_kind.toml");

/// The program of its `command` stage.
pub(crate) const EVERY_KIND_PROGRAM: &str = include_str!("fixtures/every_kind.sh");

/// Where a value lies in a tree of parameters.
#[derive(Debug, Clone, PartialEq)]
enum Step {
    Key(String),
    Index(usize),
}

fn every_kind() -> Pipeline {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/every_kind.toml");
    let pipeline = spec::load(&path, &LoadOptions::default(), &spdflow_stages::registry());
    pipeline.unwrap_or_else(|report| panic!("{report}"))
}

/// Returns the fingerprint of a stage with these parameters, or nothing if its kind refuses them.
fn fingerprint(instance: &Instance, params: &Value) -> Option<Digest> {
    let resolved = Params::of(&instance.kind.resolve(params).ok()?).expect("no parameter is NaN");
    let info = instance.kind.info();
    let (inputs, numeric_target) = (BTreeMap::new(), "cpu");
    let key = Key { kind: info.name, version: info.version, params: &resolved, inputs: &inputs, numeric_target };
    Some(key.fingerprint())
}

fn value(data: Data) -> Value {
    Value { data, origin: None }
}

fn text(path: &[Step]) -> String {
    let mut text = String::new();
    for step in path {
        match step {
            Step::Key(key) if text.is_empty() => text += key,
            Step::Key(key) => text += &format!(".{key}"),
            Step::Index(index) => text += &format!("[{index}]"),
        }
    }
    text
}

/// Returns the path of every value for which `is_wanted` holds, the whole tree included.
fn paths(tree: &Value, is_wanted: &dyn Fn(&Data) -> bool) -> Vec<Vec<Step>> {
    fn collect(value: &Value, path: &mut Vec<Step>, is_wanted: &dyn Fn(&Data) -> bool, found: &mut Vec<Vec<Step>>) {
        if is_wanted(&value.data) {
            found.push(path.clone());
        }
        let below: Vec<(Step, &Value)> = match &value.data {
            Data::Array(items) => items.iter().enumerate().map(|(i, item)| (Step::Index(i), item)).collect(),
            Data::Table(table) => table.iter().map(|(key, entry)| (Step::Key(key.clone()), &entry.value)).collect(),
            _ => Vec::new(),
        };
        for (step, inner) in below {
            path.push(step);
            collect(inner, path, is_wanted, found);
            path.pop();
        }
    }
    let mut found = Vec::new();
    collect(tree, &mut Vec::new(), is_wanted, &mut found);
    found
}

fn at<'a>(tree: &'a Value, path: &[Step]) -> &'a Value {
    path.iter().fold(tree, |value, step| match (step, &value.data) {
        (Step::Key(key), Data::Table(table)) => &table[key].value,
        (Step::Index(index), Data::Array(items)) => &items[*index],
        _ => panic!("no such path: {}", text(path)),
    })
}

fn at_mut<'a>(tree: &'a mut Value, path: &[Step]) -> &'a mut Value {
    path.iter().fold(tree, |value, step| match (step, &mut value.data) {
        (Step::Key(key), Data::Table(table)) => &mut table.get_mut(key).expect("a key of the table").value,
        (Step::Index(index), Data::Array(items)) => &mut items[*index],
        _ => panic!("no such path: {}", text(path)),
    })
}

fn is_leaf(data: &Data) -> bool {
    !matches!(data, Data::Array(_) | Data::Table(_))
}

/// Returns every text that a schema gives as a choice.
fn choices(schema: &serde_json::Value) -> BTreeSet<String> {
    match schema {
        serde_json::Value::Object(entries) => {
            let own = entries
                .get("const")
                .into_iter()
                .chain(entries.get("enum").and_then(|e| e.as_array()).into_iter().flatten());
            let own = own.filter_map(|text| text.as_str().map(str::to_owned));
            own.chain(entries.values().flat_map(choices)).collect()
        }
        serde_json::Value::Array(items) => items.iter().flat_map(choices).collect(),
        _ => BTreeSet::new(),
    }
}

/// Returns other values of the same type, the likeliest to be accepted first.
fn others(data: &Data, choices: &BTreeSet<String>) -> Vec<Data> {
    match data {
        Data::Bool(truth) => vec![Data::Bool(!truth)],
        Data::Integer(number) => {
            // Twice as many last: some counts must be multiples of others.
            let all = [number + 1, number - 1, number * 2];
            all.into_iter().filter(|other| other != number).map(Data::Integer).collect()
        }
        Data::Float(number) => {
            // A step that a f32 can just tell, and larger ones.
            let all = [number * (1.0 + 1e-6), number * 0.5, number + 0.25, number * 2.0];
            all.into_iter().filter(|other| other != number).map(Data::Float).collect()
        }
        Data::String(text) => {
            let own = [format!("{text}*"), "*".to_owned()];
            choices.iter().cloned().chain(own).filter(|other| other != text).map(Data::String).collect()
        }
        Data::Array(_) | Data::Table(_) => Vec::new(),
    }
}

#[test]
fn every_kind_has_an_example() {
    let registry = spdflow_stages::registry();
    let known: BTreeSet<_> = registry.iter().map(|kind| kind.info().name).collect();
    let shown: BTreeSet<_> = every_kind().instances.iter().map(|instance| instance.kind.info().name).collect();
    assert_eq!(shown, known, "each kind needs a small stage in tests/fixtures/every_kind.toml");
}

/// Follows `$ref` and the wrapping of optional and documented types, as far as one type is meant.
fn plain<'a>(root: &'a serde_json::Value, schema: &'a serde_json::Value) -> &'a serde_json::Value {
    if let Some(path) = schema["$ref"].as_str() {
        return plain(root, root.pointer(path.trim_start_matches('#')).expect("a definition of the schema"));
    }
    let is_null = |choice: &&serde_json::Value| choice["type"] == "null";
    match schema["anyOf"].as_array().map(|choices| choices.iter().filter(|choice| !is_null(choice)).collect::<Vec<_>>())
    {
        Some(choices) if choices.len() == 1 => plain(root, choices[0]),
        _ => schema,
    }
}

/// Adds the path of every parameter that `examples` never give.
fn missing(
    root: &serde_json::Value,
    schema: &serde_json::Value,
    path: &str,
    examples: &[&serde_json::Value],
    found: &mut Vec<String>,
) {
    let schema = plain(root, schema);
    for (name, inner) in schema["properties"].as_object().into_iter().flatten() {
        let given: Vec<_> = examples.iter().filter_map(|example| example.get(name)).collect();
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        if given.is_empty() {
            found.push(path);
        } else {
            missing(root, inner, &path, &given, found);
        }
    }
    if schema["type"] == "array" {
        let items: Vec<_> = examples.iter().filter_map(|example| example.as_array()).flatten().collect();
        if items.is_empty() {
            found.push(format!("{path}[0]"));
        } else {
            missing(root, &schema["items"], &format!("{path}[]"), &items, found);
        }
    }
}

#[test]
fn the_examples_give_every_parameter() {
    let pipeline = every_kind();
    for kind in spdflow_stages::registry().iter() {
        let of_kind = pipeline.instances.iter().filter(|instance| instance.kind.info().name == kind.info().name);
        let params: Vec<_> = of_kind.map(|instance| to_json(&instance.params.value())).collect();
        let (schema, mut found) = (kind.params_schema(), Vec::new());
        missing(&schema, &schema, "", &params.iter().collect::<Vec<_>>(), &mut found);
        assert_eq!(found, [""; 0], "give these parameters of `{}` in tests/fixtures/every_kind.toml", kind.info().name);
    }
}

/// Returns a default as a pipeline writes it: serde's `{ "mlp": { … } }` is `{ kind = "mlp", … }` there, and what is
/// null is left out.
fn tagged(shown: &serde_json::Value) -> serde_json::Value {
    let only = shown.as_object().filter(|entries| entries.len() == 1).and_then(|entries| entries.iter().next());
    match only {
        Some((kind, serde_json::Value::Object(fields))) => {
            let mut fields = fields.clone();
            fields.insert("kind".to_owned(), kind.as_str().into());
            fields.into()
        }
        _ => match shown.as_object() {
            Some(entries) => entries.clone().into_iter().filter(|(_, value)| !value.is_null()).collect(),
            None => shown.clone(),
        },
    }
}

#[test]
fn writing_every_default_is_the_same_fingerprint() {
    for instance in every_kind().instances {
        let written = &instance.params.value();
        let mut left_out = 0;
        for table in paths(written, &|data| matches!(data, Data::Table(_))) {
            let Data::Table(entries) = &at(written, &table).data else { continue };
            for key in entries.keys() {
                let mut shorter = written.clone();
                let Data::Table(entries) = &mut at_mut(&mut shorter, &table).data else { continue };
                entries.remove(key);
                // Without a default it is refused.
                let Ok(resolved) = instance.kind.resolve(&shorter) else { continue };
                left_out += 1;
                let place = text(&[&table[..], &[Step::Key(key.clone())]].concat());
                assert_eq!(
                    fingerprint(&instance, &shorter),
                    fingerprint(&instance, &resolved),
                    "`{place}` of `{}` left out and written",
                    instance.id
                );
                // The default that `spdflow kinds` shows is the one that is used.
                let schema = instance.kind.params_schema();
                if let (true, Some(shown)) = (table.is_empty(), schema["properties"][key].get("default")) {
                    let used = to_json(&resolved)[key].clone();
                    assert_eq!(used, tagged(shown), "default of `{place}` of `{}`", instance.id);
                }
            }
        }
        assert!(left_out > 0, "`{}` has no parameter with a default", instance.id);
    }
}

#[test]
fn whole_numbers_may_be_written_for_floats() {
    for instance in every_kind().instances {
        let is_whole = |data: &Data| matches!(data, Data::Float(number) if number.fract() == 0.0);
        let written = instance.params.value();
        for path in paths(&written, &is_whole) {
            let mut other = written.clone();
            let Data::Float(number) = at(&other, &path).data else { continue };
            at_mut(&mut other, &path).data = Data::Integer(number as i64);
            let place = text(&path);
            assert_eq!(fingerprint(&instance, &other), fingerprint(&instance, &written), "`{place}`");
        }
    }
}

#[test]
fn every_parameter_moves_the_fingerprint() {
    // By kind and path without positions: what one example fixes (a choice that excludes others), another may vary.
    let (mut seen, mut moved) = (BTreeSet::new(), BTreeSet::new());
    for instance in every_kind().instances {
        let choices = choices(&instance.kind.params_schema());
        let written = instance.params.value();
        let before = fingerprint(&instance, &written).expect("the example is right");
        for path in paths(&written, &is_leaf) {
            let keys: Vec<_> = path.iter().filter(|step| matches!(step, Step::Key(_))).cloned().collect();
            let name = (instance.kind.info().name, text(&keys));
            // Another `kind` needs other keys beside it, and is then refused.
            if path.last() != Some(&Step::Key("kind".to_owned())) {
                seen.insert(name.clone());
            }
            for other in others(&at(&written, &path).data, &choices) {
                let mut changed = written.clone();
                at_mut(&mut changed, &path).data = other.clone();
                let Some(after) = fingerprint(&instance, &changed) else { continue };
                let (place, id) = (text(&path), &instance.id);
                assert_ne!(after, before, "`{place}` of `{id}` changed to {other:?}, the fingerprint did not");
                moved.insert(name.clone());
            }
        }
    }
    // The same holds for a choice written as its bare name, when another example gives it as a table.
    let is_table = |name: &(&str, String)| {
        moved.iter().any(|(kind, path)| *kind == name.0 && path.starts_with(&format!("{}.", name.1)))
    };
    let fixed: Vec<_> = seen.difference(&moved).filter(|name| !is_table(name)).collect();
    assert!(fixed.is_empty(), "tests/fixtures/every_kind.toml lets no other value be tried for {fixed:?}");
}

#[test]
fn every_table_refuses_an_unknown_key() {
    for instance in every_kind().instances {
        let written = instance.params.value();
        for path in paths(&written, &|data| matches!(data, Data::Table(_))) {
            let mut other = written.clone();
            let Data::Table(table) = &mut at_mut(&mut other, &path).data else { continue };
            table.insert("no_such_key".to_owned(), Entry { key_origin: None, value: value(Data::Integer(1)) });
            let found = instance.kind.resolve(&other).err().map(|errors| format!("{errors:?}")).unwrap_or_default();
            let (place, id) = (text(&path), &instance.id);
            assert!(found.contains("no_such_key"), "table `{place}` of `{id}` accepts an unknown key: {found}");
        }
    }
}
