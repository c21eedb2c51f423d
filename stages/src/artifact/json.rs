//! JSON reports: keys sorted, two spaces of indentation, a final line break, numbers that are not finite as `null`.

use std::fs;
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;
use spdflow_engine::kind::StageError;

/// Writes `value` to `path`.
///
/// # Errors
/// [`StageError::Io`] if the file cannot be written.
pub fn write<T: Serialize>(path: &Path, value: &T) -> Result<(), StageError> {
    fs::write(path, to_text(value)).map_err(StageError::io("write", path))
}

/// Returns `value` as JSON text.
///
/// # Panics
/// If the type cannot be expressed in JSON (a map whose keys are no strings): our own mistake.
pub fn to_text<T: Serialize>(value: &T) -> String {
    // Through the value tree: its maps are sorted, and it turns NaN and infinities into null.
    let tree = serde_json::to_value(value).expect("reports are made of types that JSON can express");
    let mut text = serde_json::to_string_pretty(&tree).expect("a JSON tree can be printed");
    text.push('\n');
    text
}

/// Returns the value in the JSON file at `path`.
///
/// # Errors
/// [`StageError::Io`] if the file cannot be read; [`StageError::Failed`] if its content does not fit.
pub fn read<T: DeserializeOwned>(path: &Path) -> Result<T, StageError> {
    let text = fs::read_to_string(path).map_err(StageError::io("read", path))?;
    serde_json::from_str(&text).map_err(|error| {
        StageError::failed(format!("`{}` does not have the expected content: {error}", path.display()))
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs;

    use serde::Serialize;

    use super::{read, to_text, write};

    #[derive(Serialize)]
    struct Report {
        zeta: f64,
        alpha: Vec<f64>,
    }

    #[test]
    fn keys_are_sorted_and_nan_is_null() {
        let report = Report { zeta: f64::NAN, alpha: vec![0.1, f64::INFINITY] };
        assert_eq!(to_text(&report), "{\n  \"alpha\": [\n    0.1,\n    null\n  ],\n  \"zeta\": null\n}\n");
    }

    #[test]
    fn what_was_written_is_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.json");
        let value = BTreeMap::from([("b".to_owned(), 1.0 / 3.0), ("a".to_owned(), -2e-300)]);
        write(&path, &value).unwrap();
        assert_eq!(read::<BTreeMap<String, f64>>(&path).unwrap(), value);
        fs::write(&path, "{\"a\": tru").unwrap();
        let message = read::<BTreeMap<String, f64>>(&path).unwrap_err().to_string();
        assert!(message.contains("x.json` does not have the expected content: "), "{message}");
    }
}
