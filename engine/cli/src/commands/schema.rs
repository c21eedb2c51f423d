//! `spdflow schema`: a JSON Schema of pipeline files, for editors that complete and check TOML.

use serde_json::{Map, Value as Json, json};
use spdflow_engine::kind::StageKind;

use crate::args::OutputArgs;
use crate::failure::{Exit, Failure};
use crate::output;
use crate::registry::registry;

/// Prints the schema.
pub(super) fn schema(_: &OutputArgs) -> Result<Exit, Failure> {
    output::data(&format!("{:#}\n", document()));
    Ok(Exit::Done)
}

/// Returns the schema of a pipeline file with the kinds of this program.
fn document() -> Json {
    let mut definitions = Map::new();
    let mut variants = Vec::new();
    let registry = registry();
    let mut names = Vec::new();
    for kind in registry.iter() {
        let name = kind.info().name;
        names.push(name);
        let schema = params(kind.as_ref(), &mut definitions);
        definitions.insert(format!("{name}.params"), schema);
        variants.push(json!({
            "if": { "properties": { "uses": { "const": name } }, "required": ["uses"] },
            "then": { "properties": {
                "params": { "$ref": format!("#/$defs/{name}.params") },
                "inputs": inputs(kind.as_ref()),
            } },
        }));
    }
    definitions.insert("stage".to_owned(), stage(&names, &variants));
    definitions.insert("changes".to_owned(), changes());
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "spdflow pipeline",
        "type": "object",
        "additionalProperties": false,
        "properties": {
            "base": { "type": "string", "description": "A pipeline file that this one lies over." },
            "pipeline": {
                "type": "object",
                "additionalProperties": false,
                "properties": {
                    "name": { "type": "string", "description": "Results appear under out/NAME/." },
                    "description": { "type": "string", "description": "One line about the pipeline." },
                    "expected_time": { "type": "string", "description": "How long the whole takes on a laptop: \"90s\", \"1h30m\"." },
                },
            },
            "axes": {
                "type": "object",
                "description": "Values to repeat stages over.",
                "additionalProperties": { "anyOf": [
                    { "type": "array", "minItems": 1, "items": { "type": ["number", "string", "boolean"] } },
                    { "type": "object", "additionalProperties": false, "required": ["range"], "properties": {
                        "range": { "type": "array", "items": { "type": "integer" }, "minItems": 2, "maxItems": 3 },
                    } },
                ] },
            },
            "params": {
                "type": "object",
                "description": "Tables of parameters that stages take with `with`.",
                "additionalProperties": { "type": "object" },
            },
            "stage": { "type": "object", "additionalProperties": { "$ref": "#/$defs/stage" } },
            "profile": {
                "type": "object",
                "description": "Changes that --profile NAME applies.",
                "additionalProperties": {
                    "type": "object",
                    "additionalProperties": false,
                    "properties": { "set": { "$ref": "#/$defs/changes" } },
                },
            },
            "sweep": {
                "type": "object",
                "description": "Values of parameters that --sweep NAME tries.",
                "additionalProperties": {
                    "type": "object",
                    "additionalProperties": false,
                    "properties": {
                        "samples": { "type": "integer", "minimum": 1, "description": "Draw so many points; all combinations without it." },
                        "seed": { "type": "integer", "minimum": 0 },
                        "stage": { "type": "object" },
                        "params": { "type": "object" },
                    },
                },
            },
        },
        "$defs": definitions,
    })
}

fn changes() -> Json {
    json!({ "type": "object", "description": "Paths in quotes and their values.", "additionalProperties": true })
}

fn stage(kinds: &[&str], variants: &[Json]) -> Json {
    let names = json!({ "type": "array", "items": { "type": "string" } });
    let points = json!({ "type": "array", "items": { "type": "object", "minProperties": 1 } });
    json!({
        "type": "object",
        // A pipeline over a base may give a stage in part, so nothing is required.
        "properties": {
            "uses": { "enum": kinds, "description": "The kind of the stage." },
            "params": { "type": "object" },
            "inputs": { "type": "object" },
            "matrix": {
                "description": "The axes to repeat the stage over.",
                "anyOf": [names, {
                    "type": "object",
                    "additionalProperties": false,
                    "required": ["axes"],
                    "properties": { "axes": names, "include": points, "exclude": points },
                }],
            },
            "with": { "type": "array", "items": { "type": "string" }, "description": "Shared tables, merged left to right." },
            "retries": { "type": "integer", "minimum": 0, "description": "How often the stage is tried again." },
            "timeout": { "type": "string", "description": "How long one attempt may take: \"90s\", \"1h30m\"." },
            "tolerances": {
                "type": "object",
                "description": "What files may depart by when an audit makes them again, by name or glob.",
                "additionalProperties": { "anyOf": [
                    { "enum": ["exact", "any"] },
                    { "type": "object", "additionalProperties": false, "properties": {
                        "absolute": { "type": "number", "minimum": 0 },
                        "relative": { "type": "number", "minimum": 0 },
                    } },
                ] },
            },
            "resources": {
                "type": "object",
                "additionalProperties": false,
                "description": "What the stage takes of the machine; never changes a result.",
                "properties": {
                    "threads": { "type": "integer", "minimum": 1 },
                    "memory": { "type": "string", "description": "Set aside for the stage: \"4GiB\", \"500MB\"." },
                    "gpus": { "type": "integer", "minimum": 0 },
                    "time": { "type": "string", "description": "Expected time: \"90s\", \"1h30m\"." },
                },
            },
        },
        "allOf": variants,
    })
}

/// Returns the schema of a kind's `inputs`.
fn inputs(kind: &dyn StageKind) -> Json {
    let reference = json!({ "type": "string", "description": "`STAGE` or `STAGE[AXIS=VALUE]`" });
    let gather = json!({
        "type": "object",
        "additionalProperties": false,
        "required": ["from", "over"],
        "properties": { "from": reference, "over": { "type": "array", "items": { "type": "string" } } },
    });
    let mut properties = Map::new();
    let mut takes_any = false;
    for slot in kind.info().inputs {
        let schema = if slot.many {
            json!({ "description": slot.summary, "anyOf": [reference, gather,
                { "type": "array", "items": { "anyOf": [reference, gather] } }] })
        } else {
            json!({ "description": slot.summary, "type": "string" })
        };
        if slot.name == "*" {
            takes_any = true;
        } else {
            properties.insert(slot.name.to_owned(), schema);
        }
    }
    json!({ "type": "object", "properties": properties, "additionalProperties": takes_any })
}

/// Returns the schema of a kind's parameters as a file may write them, its definitions moved to `definitions`.
fn params(kind: &dyn StageKind, definitions: &mut Map<String, Json>) -> Json {
    let prefix = kind.info().name;
    let mut schema = kind.params_schema();
    if let Some(table) = schema.as_object_mut() {
        table.remove("$schema");
        table.remove("title");
        if let Some(Json::Object(own)) = table.remove("$defs") {
            for (name, mut definition) in own {
                as_written(&mut definition, prefix);
                definitions.insert(format!("{prefix}.{name}"), definition);
            }
        }
        // Tables taken with `with` may hold what is required.
        table.remove("required");
    }
    as_written(&mut schema, prefix);
    schema
}

/// Lets `"${name}"` stand for any value, a variant without fields be its name alone, and references lead to the
/// definitions of the kind.
fn as_written(schema: &mut Json, prefix: &str) {
    match schema {
        Json::Array(items) => items.iter_mut().for_each(|item| as_written(item, prefix)),
        Json::Object(table) => {
            if let Some(Json::String(reference)) = table.get_mut("$ref")
                && let Some(name) = reference.strip_prefix("#/$defs/")
            {
                *reference = format!("#/$defs/{prefix}.{name}");
            }
            for value in table.values_mut() {
                as_written(value, prefix);
            }
            if let Some(Json::Object(properties)) = table.get_mut("properties") {
                for (name, property) in properties {
                    let is_name = name == "kind" && property.get("const").is_some();
                    if !is_name {
                        let documentation = property.get("description").cloned();
                        let default = property.get("default").cloned();
                        let mut either =
                            json!({ "anyOf": [property.take(), { "type": "string", "pattern": "\\$\\{" }] });
                        for (key, value) in [("description", documentation), ("default", default)] {
                            if let Some(value) = value {
                                either[key] = value;
                            }
                        }
                        *property = either;
                    }
                }
            }
            if let Some(Json::Array(variants)) = table.get_mut("oneOf") {
                let names: Vec<Json> = variants.iter().filter_map(bare_variant).collect();
                if !names.is_empty() {
                    variants.push(json!({ "enum": names }));
                }
            }
        }
        _ => {}
    }
}

/// Returns the name of a variant that needs no fields.
fn bare_variant(variant: &Json) -> Option<Json> {
    let name = variant["properties"]["kind"].get("const")?;
    let needs_more =
        variant["required"].as_array().is_some_and(|required| required.iter().any(|field| field != "kind"));
    (!needs_more).then(|| name.clone())
}
