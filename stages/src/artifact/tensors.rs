//! Named f32 tensors in a safetensors file, so that `safetensors.torch.load_file` opens them.
//!
//! The format sorts tensors by name, so bytes depend only on names, shapes and values.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use spdflow_engine::kind::StageError;

use crate::matrix::Matrix;

/// A tensor: its shape and its entries, last axis fastest.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    /// The length of each axis; empty for a scalar.
    pub shape: Vec<usize>,
    /// The entries.
    pub data: Vec<f32>,
}

impl Tensor {
    /// Returns a tensor.
    ///
    /// # Panics
    /// If `data` does not hold as many numbers as `shape` says.
    #[must_use]
    pub fn new(shape: Vec<usize>, data: Vec<f32>) -> Self {
        let expected: usize = shape.iter().product();
        assert_eq!(data.len(), expected, "shape {shape:?} needs {expected} numbers, found {}", data.len());
        Self { shape, data }
    }
}

impl From<Matrix> for Tensor {
    fn from(matrix: Matrix) -> Self {
        Self { shape: vec![matrix.rows(), matrix.cols()], data: matrix.data().to_vec() }
    }
}

/// The tensors of one file, by name.
#[derive(Debug, Clone)]
pub struct Tensors {
    /// Named in messages.
    path: PathBuf,
    by_name: BTreeMap<String, Tensor>,
}

/// Writes `tensors` to `path`.
///
/// # Errors
/// [`StageError::Io`] if the file cannot be written; [`StageError::Failed`] if a name occurs twice.
pub fn write<'a>(path: &Path, tensors: impl IntoIterator<Item = (&'a str, &'a Tensor)>) -> Result<(), StageError> {
    let bytes = to_bytes(tensors)?;
    fs::write(path, bytes).map_err(StageError::io("write", path))
}

/// Returns the bytes of a safetensors file holding `tensors`.
///
/// # Errors
/// [`StageError::Failed`] if a name occurs twice.
pub fn to_bytes<'a>(tensors: impl IntoIterator<Item = (&'a str, &'a Tensor)>) -> Result<Vec<u8>, StageError> {
    let mut encoded: BTreeMap<&str, (Vec<usize>, Vec<u8>)> = BTreeMap::new();
    for (name, tensor) in tensors {
        let bytes = tensor.data.iter().flat_map(|value| value.to_le_bytes()).collect();
        if encoded.insert(name, (tensor.shape.clone(), bytes)).is_some() {
            return Err(StageError::failed(format!("tensor `{name}` is written twice")));
        }
    }
    let views = encoded.iter().map(|(name, (shape, bytes))| {
        let view = TensorView::new(Dtype::F32, shape.clone(), bytes).expect("a tensor's shape fits its data");
        (*name, view)
    });
    safetensors::serialize(views, None)
        .map_err(|error| StageError::failed(format!("tensors cannot be encoded: {error}")))
}

/// Returns the tensors of the file at `path`.
///
/// # Errors
/// [`StageError::Io`] if the file cannot be read; [`StageError::Failed`] if it is damaged or a tensor is not f32.
pub fn read(path: &Path) -> Result<Tensors, StageError> {
    let bytes = fs::read(path).map_err(StageError::io("read", path))?;
    let file = SafeTensors::deserialize(&bytes).map_err(|error| {
        StageError::failed_with_hint(
            format!("`{}` is not a readable safetensors file: {error}", path.display()),
            "the file is damaged or was cut off; `spdflow cache verify` checks the whole cache",
        )
    })?;
    let mut by_name = BTreeMap::new();
    for (name, view) in file.iter() {
        if view.dtype() != Dtype::F32 {
            return Err(StageError::failed(format!(
                "tensor `{name}` of `{}` has type {:?}, expected F32",
                path.display(),
                view.dtype()
            )));
        }
        let data = view.data().as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
        by_name.insert(name.to_owned(), Tensor::new(view.shape().to_vec(), data));
    }
    Ok(Tensors { path: path.to_path_buf(), by_name })
}

impl FromIterator<(String, Tensor)> for Tensors {
    fn from_iter<I: IntoIterator<Item = (String, Tensor)>>(tensors: I) -> Self {
        Self { path: PathBuf::from("memory"), by_name: tensors.into_iter().collect() }
    }
}

impl Tensors {
    /// Returns the names in sorted order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.by_name.keys().map(String::as_str)
    }

    /// Returns names and tensors in the order of the names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.by_name.iter().map(|(name, tensor)| (name.as_str(), tensor))
    }

    /// Returns the tensor called `name`.
    ///
    /// # Errors
    /// [`StageError::Failed`] if the file has none of that name.
    pub fn get(&self, name: &str) -> Result<&Tensor, StageError> {
        self.by_name.get(name).ok_or_else(|| {
            let have = self.names().collect::<Vec<_>>().join("`, `");
            StageError::failed(format!("`{}` has no tensor `{name}`; it holds `{have}`", self.path.display()))
        })
    }

    /// Returns whether there is a tensor called `name`.
    #[must_use]
    pub fn contains(&self, name: &str) -> bool {
        self.by_name.contains_key(name)
    }

    /// Returns the tensor called `name` as a matrix.
    ///
    /// # Errors
    /// [`StageError::Failed`] if there is none of that name or it does not have two axes.
    pub fn matrix(&self, name: &str) -> Result<Matrix, StageError> {
        let tensor = self.get(name)?;
        match tensor.shape[..] {
            [rows, cols] => Ok(Matrix::new(rows, cols, tensor.data.clone())),
            _ => Err(StageError::failed(format!(
                "tensor `{name}` of `{}` has shape {:?}, expected two axes",
                self.path.display(),
                tensor.shape
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::{Tensor, read, to_bytes, write};

    fn sample() -> Vec<(&'static str, Tensor)> {
        vec![
            ("b", Tensor::new(vec![2, 3], vec![1.0, -0.0, f32::MIN_POSITIVE, 4.0, 5.0, f32::INFINITY])),
            ("a.weight", Tensor::new(vec![], vec![7.5])),
            ("empty", Tensor::new(vec![0, 4], vec![])),
        ]
    }

    #[test]
    fn what_was_written_is_read_back_bit_for_bit() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.safetensors");
        write(&path, sample().iter().map(|(name, tensor)| (*name, tensor))).unwrap();
        let back = read(&path).unwrap();
        assert_eq!(back.names().collect::<Vec<_>>(), ["a.weight", "b", "empty"]);
        for (name, tensor) in sample() {
            let bits = |t: &Tensor| t.data.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
            assert_eq!(back.get(name).unwrap().shape, tensor.shape);
            assert_eq!(bits(back.get(name).unwrap()), bits(&tensor));
        }
        assert_eq!(back.matrix("b").unwrap().row(1), [4.0, 5.0, f32::INFINITY]);
    }

    #[test]
    fn bytes_do_not_depend_on_the_order_given() {
        let tensors = sample();
        let forward = to_bytes(tensors.iter().map(|(name, tensor)| (*name, tensor))).unwrap();
        let backward = to_bytes(tensors.iter().rev().map(|(name, tensor)| (*name, tensor))).unwrap();
        assert_eq!(forward, backward);
    }

    #[test]
    fn a_name_written_twice_is_refused() {
        let tensor = Tensor::new(vec![1], vec![0.0]);
        let error = to_bytes([("w", &tensor), ("w", &tensor)]).unwrap_err();
        assert_eq!(error.to_string(), "tensor `w` is written twice");
    }

    #[test]
    fn a_file_cut_off_anywhere_gives_an_error_that_names_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.safetensors");
        let bytes = to_bytes(sample().iter().map(|(name, tensor)| (*name, tensor))).unwrap();
        for length in 0..bytes.len() {
            fs::write(&path, &bytes[..length]).unwrap();
            let message = read(&path).unwrap_err().to_string();
            assert!(
                message.starts_with(&format!("`{}` is not a readable safetensors file", path.display())),
                "{message}"
            );
        }
    }

    #[test]
    fn missing_tensors_and_wrong_shapes_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.safetensors");
        write(&path, sample().iter().map(|(name, tensor)| (*name, tensor))).unwrap();
        let back = read(&path).unwrap();
        let shown = path.display();
        assert_eq!(
            back.get("c").unwrap_err().to_string(),
            format!("`{shown}` has no tensor `c`; it holds `a.weight`, `b`, `empty`")
        );
        assert_eq!(
            back.matrix("a.weight").unwrap_err().to_string(),
            format!("tensor `a.weight` of `{shown}` has shape [], expected two axes")
        );
    }
}
