//! Turns the JSON Schema of a kind's parameters into something to read: one parameter per paragraph, with type,
//! default and documentation, tables indented.

use serde_json::Value as Json;
use spdflow_engine::value::Value;

/// How deep tables within tables are shown; schemas may refer to themselves.
const MAX_DEPTH: usize = 6;

/// Returns the description of all parameters.
pub(super) fn describe(schema: &Json) -> String {
    let mut writer = Writer { root: schema, text: String::new() };
    writer.fields(schema, 1);
    if writer.text.is_empty() {
        writer.text.push_str("  none\n");
    }
    writer.text
}

struct Writer<'s> {
    root: &'s Json,
    text: String,
}

impl<'s> Writer<'s> {
    /// Follows references and unwraps "this or nothing"; the flag says whether it was unwrapped.
    fn resolved(&self, mut schema: &'s Json) -> (&'s Json, bool) {
        let mut optional = false;
        loop {
            let of_anything = schema["anyOf"].as_array().filter(|options| options.iter().any(is_null));
            if let Some(target) =
                schema["$ref"].as_str().and_then(|path| self.root.pointer(path.trim_start_matches('#')))
            {
                schema = target;
            } else if let Some(some) = of_anything.and_then(|options| options.iter().find(|option| !is_null(option))) {
                (schema, optional) = (some, true);
            } else if let Some([only]) = schema["allOf"].as_array().map(Vec::as_slice) {
                schema = only;
            } else {
                return (schema, optional);
            }
        }
    }

    fn fields(&mut self, schema: &'s Json, depth: usize) {
        let (schema, _) = self.resolved(schema);
        let required: Vec<_> = schema["required"].as_array().into_iter().flatten().filter_map(Json::as_str).collect();
        for (name, field) in schema["properties"].as_object().into_iter().flatten() {
            if field["const"].is_string() {
                continue;
            }
            self.field(name, field, required.contains(&name.as_str()), depth);
        }
    }

    fn field(&mut self, name: &str, field: &'s Json, is_required: bool, depth: usize) {
        let (schema, unwrapped) = self.resolved(field);
        let is_optional = unwrapped || schema["type"].as_array().is_some_and(|types| types.contains(&"null".into()));
        let default = field.get("default").filter(|default| !default.is_null());
        let presence = match default {
            Some(default) => format!(", default {}", self.shown(default, field)),
            None if is_required => ", required".to_owned(),
            None if is_optional => ", optional".to_owned(),
            None => String::new(),
        };
        let indent = "  ".repeat(depth);
        self.text += &format!("{indent}{name}  {}{presence}\n", self.type_name(schema));
        self.documentation(field["description"].as_str().or(schema["description"].as_str()), depth + 2);
        self.contents(schema, depth + 2);
    }

    /// Describes what a table, a list of tables or a choice of tables holds.
    fn contents(&mut self, schema: &'s Json, depth: usize) {
        if depth > 2 * MAX_DEPTH {
            return;
        }
        let (schema, _) = self.resolved(schema);
        if schema["items"].is_object() {
            return self.contents(&schema["items"], depth);
        }
        if schema["additionalProperties"].is_object() {
            return self.contents(&schema["additionalProperties"], depth);
        }
        let Some(variants) = schema["oneOf"].as_array() else { return self.fields(schema, depth) };
        for variant in variants {
            let (variant, _) = self.resolved(variant);
            let indent = "  ".repeat(depth);
            if let Some(kind) = variant["properties"]["kind"]["const"].as_str() {
                self.text += &format!("{indent}kind = \"{kind}\"\n");
            } else if let Some(name) = variant["const"].as_str() {
                self.text += &format!("{indent}\"{name}\"\n");
            } else {
                continue;
            }
            self.documentation(variant["description"].as_str(), depth + 2);
            self.fields(variant, depth + 1);
        }
    }

    fn documentation(&mut self, text: Option<&str>, depth: usize) {
        for line in text.unwrap_or_default().lines().filter(|line| !line.trim().is_empty()) {
            self.text += &format!("{}{}\n", "  ".repeat(depth), line.trim());
        }
    }

    fn type_name(&self, schema: &'s Json) -> String {
        let (schema, _) = self.resolved(schema);
        if let Some(names) = schema["enum"].as_array() {
            return names.iter().filter(|name| !name.is_null()).map(Json::to_string).collect::<Vec<_>>().join(" | ");
        }
        if let Some(variants) = schema["oneOf"].as_array() {
            let names: Vec<_> = variants.iter().filter_map(|variant| variant["const"].as_str()).collect();
            let all_plain = names.len() == variants.len();
            return if all_plain { "one of".to_owned() } else { "one of these tables".to_owned() };
        }
        let name = match &schema["type"] {
            Json::Array(types) => types.iter().filter_map(Json::as_str).find(|name| *name != "null"),
            other => other.as_str(),
        };
        match name {
            Some("integer") => "whole number".to_owned(),
            Some("number") => "number".to_owned(),
            Some("string") => "string".to_owned(),
            Some("boolean") => "true or false".to_owned(),
            Some("array") if schema["items"].is_object() => format!("list of {}", self.plural(&schema["items"])),
            Some("array") => "list".to_owned(),
            Some("object") if schema["additionalProperties"].is_object() => {
                format!("table of {}", self.plural(&schema["additionalProperties"]))
            }
            Some("object") => "table".to_owned(),
            _ => match schema["anyOf"].as_array() {
                Some(options) => options.iter().map(|option| self.type_name(option)).collect::<Vec<_>>().join(" or "),
                None => "any value".to_owned(),
            },
        }
    }

    fn plural(&self, schema: &'s Json) -> String {
        match self.type_name(schema).as_str() {
            "true or false" => "truth values".to_owned(),
            "one of" => "these".to_owned(),
            "one of these tables" => "these tables".to_owned(),
            list if list.starts_with("list of ") => list.replacen("list", "lists", 1),
            name if name.contains('|') => name.to_owned(),
            name => format!("{name}s"),
        }
    }

    /// Returns a default as one would write it in a pipeline.
    fn shown(&self, default: &Json, schema: &'s Json) -> String {
        Value::encode(&self.tagged(default, schema)).to_string()
    }

    /// Schemas state defaults as serde writes them; a pipeline names an enum's variant under `kind`.
    fn tagged(&self, default: &Json, schema: &'s Json) -> Json {
        let (schema, _) = self.resolved(schema);
        let variants = schema["oneOf"].as_array().map_or(&[][..], Vec::as_slice);
        match default {
            Json::Object(entries) if !variants.is_empty() && entries.len() == 1 => {
                let (name, content) = entries.iter().next().expect("one entry");
                let variant = variants
                    .iter()
                    .map(|variant| self.resolved(variant).0)
                    .find(|variant| variant["properties"]["kind"]["const"].as_str() == Some(name));
                let Some(variant) = variant else { return default.clone() };
                let mut tagged = self.tagged_fields(content, variant);
                tagged["kind"] = name.as_str().into();
                tagged
            }
            Json::Object(_) => self.tagged_fields(default, schema),
            Json::Array(items) => items.iter().map(|item| self.tagged(item, &schema["items"])).collect(),
            Json::Number(number) => shortest(number),
            other => other.clone(),
        }
    }

    fn tagged_fields(&self, table: &Json, schema: &'s Json) -> Json {
        let Json::Object(entries) = table else { return table.clone() };
        let fields = entries.iter().map(|(key, value)| (key.clone(), self.tagged(value, &schema["properties"][key])));
        Json::Object(fields.collect())
    }
}

/// Undoes the widening of an f32: 0.10000000149011612 was written as 0.1.
fn shortest(number: &serde_json::Number) -> Json {
    let Some(wide) = number.as_f64().filter(|_| number.is_f64()) else { return Json::Number(number.clone()) };
    #[allow(clippy::cast_possible_truncation)]
    let narrow = wide as f32;
    if f64::from(narrow) == wide { narrow.to_string().parse::<f64>().unwrap_or(wide).into() } else { wide.into() }
}

fn is_null(schema: &Json) -> bool {
    schema["type"] == "null"
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_parameter_shows_type_default_and_documentation() {
        let schema = json!({
            "properties": {
                "steps": { "type": "integer", "default": 10_000, "description": "Updates of the weights." },
                "lr": { "type": "number", "default": f64::from(0.1_f32) },
                "sites": { "type": "array", "items": { "$ref": "#/$defs/Site" } },
                "clip": { "type": ["number", "null"] },
                "ci": { "$ref": "#/$defs/Ci", "default": { "mlp": { "hidden": [16] } } },
            },
            "required": ["sites"],
            "$defs": {
                "Site": { "type": "object", "properties": { "pattern": { "type": "string" } }, "required": ["pattern"] },
                "Ci": { "oneOf": [{
                    "type": "object",
                    "description": "One network per component.",
                    "properties": {
                        "kind": { "const": "mlp" },
                        "hidden": { "type": "array", "items": { "type": "integer" } },
                    },
                    "required": ["kind", "hidden"],
                }] },
            },
        });
        let expected = "  ci  one of these tables, default { hidden = [16], kind = \"mlp\" }
      kind = \"mlp\"
          One network per component.
        hidden  list of whole numbers, required
  clip  number, optional
  lr  number, default 0.1
  sites  list of tables, required
      pattern  string, required
  steps  whole number, default 10000
      Updates of the weights.
";
        assert_eq!(describe(&schema), expected);
    }
}
