//! Parameters in a JSON report, written as a pipeline file writes them: `{ "kind": "mlp", "hidden": [16] }`.
//!
//! For `#[serde(with = "…")]` on a field that holds a kind's parameters.

use serde::de::{DeserializeOwned, Error};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use spdflow_engine::value::Value;

/// Writes parameters in the style of a pipeline file.
///
/// # Errors
/// The serializer's.
pub fn serialize<T: Serialize, S: Serializer>(params: &T, serializer: S) -> Result<S::Ok, S::Error> {
    Value::encode(params).to_json().serialize(serializer)
}

/// Reads parameters in the style of a pipeline file.
///
/// # Errors
/// What does not fit the parameters' type.
pub fn deserialize<'de, T: DeserializeOwned, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
    let json = serde_json::Value::deserialize(deserializer)?;
    Value::from_json(&json).decode().map_err(D::Error::custom)
}
