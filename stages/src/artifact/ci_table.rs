//! The causal importances of the one-hot probe, one entry per row (`ci.parquet`): `site`, `input`, `component`,
//! `lower`, `upper`, `pre_sigmoid`.

use std::path::Path;

use spdflow_engine::kind::StageError;

use super::tables::{self, Column};
use crate::matrix::Matrix;

/// The probe's result at one site; each matrix is [inputs, components].
#[derive(Debug, Clone, PartialEq)]
pub struct SiteCi {
    /// The site's name.
    pub site: String,
    /// Lower leaky-hard sigmoid: what masks are made of.
    pub lower: Matrix,
    /// Upper leaky-hard sigmoid: what importance minimality sees.
    pub upper: Matrix,
    /// Before the sigmoid.
    pub pre_sigmoid: Matrix,
}

/// The probe's result at all sites, in the order of the decomposition.
#[derive(Debug, Clone, PartialEq)]
pub struct CiTable {
    /// Site by site.
    pub sites: Vec<SiteCi>,
}

impl CiTable {
    /// Writes the table to `path`.
    ///
    /// # Errors
    /// [`StageError::Io`] if the file cannot be written.
    ///
    /// # Panics
    /// If the matrices of a site differ in shape: our own mistake.
    pub fn write(&self, path: &Path) -> Result<(), StageError> {
        let (mut site, mut input, mut component) = (Vec::new(), Vec::new(), Vec::new());
        let (mut lower, mut upper, mut pre_sigmoid) = (Vec::new(), Vec::new(), Vec::new());
        for ci in &self.sites {
            let shape = (ci.lower.rows(), ci.lower.cols());
            assert_eq!((ci.upper.rows(), ci.upper.cols()), shape, "upper importances of `{}`", ci.site);
            assert_eq!((ci.pre_sigmoid.rows(), ci.pre_sigmoid.cols()), shape, "logits of `{}`", ci.site);
            for row in 0..shape.0 {
                for col in 0..shape.1 {
                    site.push(ci.site.clone());
                    input.push(i32::try_from(row).expect("fewer than 2^31 inputs"));
                    component.push(i32::try_from(col).expect("fewer than 2^31 components"));
                }
            }
            lower.extend_from_slice(ci.lower.data());
            upper.extend_from_slice(ci.upper.data());
            pre_sigmoid.extend_from_slice(ci.pre_sigmoid.data());
        }
        tables::write(
            path,
            &[
                ("site", Column::Text(site)),
                ("input", Column::Int32(input)),
                ("component", Column::Int32(component)),
                ("lower", Column::Float32(lower)),
                ("upper", Column::Float32(upper)),
                ("pre_sigmoid", Column::Float32(pre_sigmoid)),
            ],
        )
    }

    /// Returns the table at `path`.
    ///
    /// # Errors
    /// As [`tables::read`]; [`StageError::Failed`] if a column is missing or a site's rows do not fill a matrix in
    /// order.
    pub fn read(path: &Path) -> Result<Self, StageError> {
        let table = tables::read(path)?;
        let (site, input, component) = (table.text("site")?, table.int32("input")?, table.int32("component")?);
        let (lower, upper, pre) = (table.float32("lower")?, table.float32("upper")?, table.float32("pre_sigmoid")?);
        let mut sites = Vec::new();
        let mut start = 0;
        while start < table.rows() {
            let end = (start..table.rows()).find(|&i| site[i] != site[start]).unwrap_or(table.rows());
            let cols = (start..end).find(|&i| input[i] != input[start]).unwrap_or(end) - start;
            let rows = (end - start) / cols;
            let in_order = (start..end).all(|i| {
                let place = i - start;
                usize::try_from(input[i]) == Ok(place / cols) && usize::try_from(component[i]) == Ok(place % cols)
            });
            if !in_order || rows * cols != end - start {
                return Err(StageError::failed(format!(
                    "the rows of site `{}` in `{}` are not one per input and component, in order",
                    site[start],
                    path.display()
                )));
            }
            let matrix = |values: &[f32]| Matrix::new(rows, cols, values[start..end].to_vec());
            sites.push(SiteCi {
                site: site[start].clone(),
                lower: matrix(lower),
                upper: matrix(upper),
                pre_sigmoid: matrix(pre),
            });
            start = end;
        }
        Ok(Self { sites })
    }
}

#[cfg(test)]
mod tests {
    use super::{CiTable, SiteCi};
    use crate::artifact::tables::{self, Column};
    use crate::matrix::Matrix;

    fn site(name: &str, rows: usize, cols: usize) -> SiteCi {
        let matrix = |offset: f32| Matrix::from_fn(rows, cols, |r, c| offset + (r * cols + c) as f32);
        SiteCi { site: name.to_owned(), lower: matrix(0.0), upper: matrix(0.5), pre_sigmoid: matrix(-100.0) }
    }

    #[test]
    fn matrices_of_several_sites_are_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ci.parquet");
        let table = CiTable { sites: vec![site("linear1", 2, 3), site("linear2", 4, 1), site("a", 1, 1)] };
        table.write(&path).unwrap();
        assert_eq!(CiTable::read(&path).unwrap(), table);
    }

    #[test]
    fn rows_in_another_order_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ci.parquet");
        let zeros = || Column::Float32(vec![0.0; 3]);
        tables::write(
            &path,
            &[
                ("site", Column::Text(vec!["s".into(); 3])),
                ("input", Column::Int32(vec![0, 0, 1])),
                ("component", Column::Int32(vec![0, 1, 0])),
                ("lower", zeros()),
                ("upper", zeros()),
                ("pre_sigmoid", zeros()),
            ],
        )
        .unwrap();
        let message = CiTable::read(&path).unwrap_err().to_string();
        assert!(message.starts_with("the rows of site `s` in `"), "{message}");
    }
}
