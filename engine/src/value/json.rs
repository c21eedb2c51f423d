//! Values as plain JSON, in the style of a pipeline file: what reports show of parameters.

use std::collections::BTreeMap;

use serde_json::Value as Json;

use super::{Data, Entry, Value};

impl Value {
    /// Returns the value as JSON, without its places in the text.
    #[must_use]
    pub fn to_json(&self) -> Json {
        match &self.data {
            Data::Bool(value) => Json::from(*value),
            Data::Integer(value) => Json::from(*value),
            Data::Float(value) => Json::from(*value),
            Data::String(value) => Json::from(value.clone()),
            Data::Array(items) => items.iter().map(Self::to_json).collect(),
            Data::Table(entries) => entries.iter().map(|(key, entry)| (key.clone(), entry.value.to_json())).collect(),
        }
    }

    /// Returns the value that `json` shows. Entries that are `null` are left out, as a pipeline file would.
    #[must_use]
    pub fn from_json(json: &Json) -> Self {
        let data = match json {
            Json::Null => Data::Table(BTreeMap::new()),
            Json::Bool(value) => Data::Bool(*value),
            Json::Number(number) => {
                number.as_i64().map_or_else(|| Data::Float(number.as_f64().unwrap_or(f64::NAN)), Data::Integer)
            }
            Json::String(value) => Data::String(value.clone()),
            Json::Array(items) => Data::Array(items.iter().map(Self::from_json).collect()),
            Json::Object(entries) => Data::Table(
                entries
                    .iter()
                    .filter(|(_, value)| !value.is_null())
                    .map(|(key, value)| (key.clone(), Entry { key_origin: None, value: Self::from_json(value) }))
                    .collect(),
            ),
        };
        Self { data, origin: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_survive_json_and_nulls_are_left_out() {
        let json = serde_json::json!({ "a": [1, 2.5, true], "b": { "kind": "mlp", "hidden": [16] }, "c": null });
        let value = Value::from_json(&json);
        let shown = serde_json::json!({ "a": [1, 2.5, true], "b": { "kind": "mlp", "hidden": [16] } });
        assert_eq!(value.to_json(), shown);
        assert_eq!(Value::from_json(&shown).to_json(), shown);
    }
}
