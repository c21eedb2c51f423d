//! Finds the cases, reads their tensors and compares numbers.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use safetensors::{Dtype, SafeTensors};
use serde_json::Value;
use spdflow_stages::matrix::Matrix;

/// A recorded case: `NAME.json` and, if there is one, `NAME.safetensors` beside it.
pub struct Case {
    /// The file's stem: `07b_target_ci`.
    pub name: String,
    /// The whole JSON document.
    pub json: Value,
    tensors: BTreeMap<String, Recorded>,
}

/// A recorded tensor.
#[derive(Debug, Clone)]
pub struct Recorded {
    /// The length of each axis.
    pub shape: Vec<usize>,
    /// Its entries.
    pub data: Entries,
}

/// The entries of a recorded tensor.
#[derive(Debug, Clone)]
pub enum Entries {
    /// Numbers.
    F32(Vec<f32>),
    /// Indices, and booleans as 0 and 1.
    I64(Vec<i64>),
}

/// Returns the folder the cases are in.
pub fn folder() -> PathBuf {
    std::env::var_os("SPDFLOW_FIXTURES")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/reference"), PathBuf::from)
}

/// Returns all cases whose file name starts with `prefix` and ends in `.json`, in the order of their names.
///
/// # Panics
/// If there is none: a test that compares nothing must not pass.
pub fn cases(prefix: &str) -> Vec<Case> {
    let folder = folder();
    let mut names: Vec<String> = fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("cannot list the fixtures in `{}`: {error}", folder.display()))
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter_map(|name| name.strip_suffix(".json").map(str::to_owned))
        .filter(|name| name.starts_with(prefix))
        .collect();
    names.sort();
    assert!(!names.is_empty(), "no fixture `{prefix}*.json` in `{}`", folder.display());
    names.iter().map(|name| Case::read(&folder, name)).collect()
}

impl Case {
    fn read(folder: &Path, name: &str) -> Self {
        let path = folder.join(format!("{name}.json"));
        let text =
            fs::read_to_string(&path).unwrap_or_else(|error| panic!("cannot read `{}`: {error}", path.display()));
        let json = serde_json::from_str(&text).unwrap_or_else(|error| panic!("`{}`: {error}", path.display()));
        let path = folder.join(format!("{name}.safetensors"));
        let tensors = if path.exists() { read_tensors(&path) } else { BTreeMap::new() };
        Self { name: name.to_owned(), json, tensors }
    }

    /// Returns whether there is a tensor called `name`.
    pub fn has(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// Returns the names of all tensors that start with `prefix`, sorted.
    pub fn names(&self, prefix: &str) -> Vec<&str> {
        self.tensors.keys().map(String::as_str).filter(|name| name.starts_with(prefix)).collect()
    }

    /// Returns the tensor called `name`.
    pub fn tensor(&self, name: &str) -> &Recorded {
        self.tensors.get(name).unwrap_or_else(|| panic!("{}: no tensor `{name}`", self.name))
    }

    /// Returns the shape of the tensor called `name`.
    pub fn shape(&self, name: &str) -> &[usize] {
        &self.tensor(name).shape
    }

    /// Returns the numbers of the tensor called `name`.
    pub fn floats(&self, name: &str) -> &[f32] {
        match &self.tensor(name).data {
            Entries::F32(data) => data,
            Entries::I64(_) => panic!("{}: tensor `{name}` holds integers", self.name),
        }
    }

    /// Returns the integers of the tensor called `name`.
    pub fn integers(&self, name: &str) -> &[i64] {
        match &self.tensor(name).data {
            Entries::I64(data) => data,
            Entries::F32(_) => panic!("{}: tensor `{name}` holds floats", self.name),
        }
    }

    /// Returns the tensor called `name`, which has two axes, as a matrix.
    pub fn matrix(&self, name: &str) -> Matrix {
        let [rows, cols] = self.shape(name) else {
            panic!("{}: tensor `{name}` has shape {:?}", self.name, self.shape(name))
        };
        Matrix::new(*rows, *cols, self.floats(name).to_vec())
    }
}

fn read_tensors(path: &Path) -> BTreeMap<String, Recorded> {
    let bytes = fs::read(path).unwrap_or_else(|error| panic!("cannot read `{}`: {error}", path.display()));
    let file = SafeTensors::deserialize(&bytes).unwrap_or_else(|error| panic!("`{}`: {error}", path.display()));
    file.iter()
        .map(|(name, view)| {
            let data = match view.dtype() {
                Dtype::F32 => {
                    Entries::F32(view.data().as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect())
                }
                Dtype::I64 => {
                    Entries::I64(view.data().as_chunks().0.iter().map(|bytes| i64::from_le_bytes(*bytes)).collect())
                }
                other => panic!("`{}`: tensor `{name}` has type {other:?}", path.display()),
            };
            (name.to_owned(), Recorded { shape: view.shape().to_vec(), data })
        })
        .collect()
}

/// Returns a number of a fixture's JSON; numbers that are not finite are written as strings there.
pub fn number(value: &Value) -> f64 {
    match value {
        Value::Number(number) => number.as_f64().expect("a JSON number fits an f64"),
        Value::String(text) => match text.as_str() {
            "NaN" => f64::NAN,
            "Infinity" => f64::INFINITY,
            "-Infinity" => f64::NEG_INFINITY,
            other => panic!("`{other}` is not a number"),
        },
        other => panic!("{other} is not a number"),
    }
}

/// Returns the allowed difference recorded for `key`: `case["tol"][key]["tol_abs"]`.
pub fn tolerance(case: &Value, key: &str) -> f64 {
    let recorded = &case["tol"][key]["tol_abs"];
    recorded.as_f64().unwrap_or_else(|| panic!("no tolerance for `{key}`"))
}

/// Fails unless every `|ours - theirs| <= bound`. NaN is never close. Names the worst place.
#[track_caller]
pub fn assert_close(what: &str, ours: &[f32], theirs: &[f32], bound: f64) {
    assert_eq!(ours.len(), theirs.len(), "{what}: {} numbers, expected {}", ours.len(), theirs.len());
    let mut worst = (0.0_f64, 0);
    for (i, (a, b)) in ours.iter().zip(theirs).enumerate() {
        // Equal infinities are close; their difference would be NaN.
        let error = if a == b { 0.0 } else { (f64::from(*a) - f64::from(*b)).abs() };
        if error.is_nan() || error > worst.0 {
            worst = (error, i);
        }
        if error.is_nan() {
            break;
        }
    }
    let (error, i) = worst;
    assert!(
        error <= bound,
        "{what}: at index {i} found {:e}, expected {:e}: off by {error:e}, {:.0} % of the allowed {bound:e}",
        ours[i],
        theirs[i],
        error / bound * 100.0
    );
}

/// Fails unless `|ours - theirs| <= bound`; NaN is close only to a recorded NaN.
#[track_caller]
pub fn assert_close_scalar(what: &str, ours: f64, theirs: f64, bound: f64) {
    if theirs.is_nan() {
        assert!(ours.is_nan(), "{what}: found {ours:e}, expected NaN");
        return;
    }
    let error = (ours - theirs).abs();
    assert!(
        error <= bound || ours == theirs,
        "{what}: found {ours:e}, expected {theirs:e}: off by {error:e}, {:.0} % of the allowed {bound:e}",
        error / bound * 100.0
    );
}
