//! What editors, shells and manual readers get.

use serde_json::Value;

use crate::support::Bench;

fn schema() -> Value {
    let outcome = Bench::new().run(&["schema"]);
    assert_eq!((outcome.code, outcome.stderr.as_str()), (Some(0), ""));
    serde_json::from_str(&outcome.stdout).expect("one JSON document")
}

/// Calls `visit` with every table of a document.
fn tables<'v>(value: &'v Value, visit: &mut dyn FnMut(&'v serde_json::Map<String, Value>)) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| tables(item, visit)),
        Value::Object(table) => {
            visit(table);
            table.values().for_each(|value| tables(value, visit));
        }
        _ => {}
    }
}

#[test]
fn the_schema_knows_every_kind_and_refers_only_to_what_it_defines() {
    let schema = schema();
    let kinds: Value = serde_json::from_str(&Bench::new().run(&["kinds", "--json"]).stdout).expect("one JSON document");
    let known = schema["$defs"]["stage"]["properties"]["uses"]["enum"].as_array().expect("a list");
    for kind in kinds["kinds"].as_array().expect("a list") {
        assert!(known.contains(&kind["name"]), "{}", kind["name"]);
    }
    let mut references = 0;
    tables(&schema, &mut |table| {
        if let Some(Value::String(reference)) = table.get("$ref") {
            let pointer = reference.strip_prefix('#').expect("a place in the document");
            assert!(schema.pointer(pointer).is_some(), "{reference}");
            references += 1;
        }
    });
    assert!(references > 50, "{references}");
}

#[test]
fn the_schema_documents_parameters_and_allows_placeholders() {
    let schema = schema();
    let steps = &schema["$defs"]["decompose.spd.params"]["properties"]["steps"];
    assert!(steps["description"].as_str().is_some_and(|text| !text.is_empty()));
    assert_eq!(steps["anyOf"][0]["type"], "integer");
    assert_eq!(steps["anyOf"][1]["pattern"], "\\$\\{");
    assert_eq!(schema["$defs"]["decompose.spd.params"]["additionalProperties"], false);
}

#[test]
fn every_shell_gets_completions_and_the_manual_has_every_command() {
    let bench = Bench::new();
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let outcome = bench.run(&["completions", shell]);
        assert_eq!(outcome.code, Some(0));
        assert!(outcome.stdout.contains("keep-going") && outcome.stdout.contains("metrics"), "{shell}");
    }
    let manual = bench.run(&["man"]).stdout;
    for command in ["run", "plan", "metrics", "lock", "schema"] {
        assert!(manual.contains(&format!("spdflow {command}")), "{command}");
    }
}
