//! A plain matrix of f32 in row-major order, for code that computes on slices outside the tape.

/// A row-major matrix.
#[derive(Debug, Clone, PartialEq)]
pub struct Matrix {
    rows: usize,
    cols: usize,
    data: Vec<f32>,
}

impl Matrix {
    /// Returns the matrix whose rows lie one after another in `data`.
    ///
    /// # Panics
    /// If `data` does not hold `rows * cols` numbers.
    #[must_use]
    pub fn new(rows: usize, cols: usize, data: Vec<f32>) -> Self {
        assert_eq!(
            data.len(),
            rows * cols,
            "a {rows} x {cols} matrix needs {} numbers, found {}",
            rows * cols,
            data.len()
        );
        Self { rows, cols, data }
    }

    /// Returns a matrix of zeros.
    #[must_use]
    pub fn zeros(rows: usize, cols: usize) -> Self {
        Self { rows, cols, data: vec![0.0; rows * cols] }
    }

    /// Returns the matrix whose entry at (row, column) is `value(row, column)`.
    pub fn from_fn(rows: usize, cols: usize, mut value: impl FnMut(usize, usize) -> f32) -> Self {
        let data = (0..rows * cols).map(|i| value(i / cols, i % cols)).collect();
        Self { rows, cols, data }
    }

    /// Returns the matrix with these rows.
    ///
    /// # Panics
    /// If the rows differ in length.
    #[must_use]
    pub fn from_rows<R: AsRef<[f32]>>(rows: &[R]) -> Self {
        let cols = rows.first().map_or(0, |row| row.as_ref().len());
        let data: Vec<f32> = rows.iter().flat_map(|row| row.as_ref().iter().copied()).collect();
        Self::new(rows.len(), cols, data)
    }

    /// Returns the number of rows.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Returns the number of columns.
    #[must_use]
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Returns the matrix without the rows from `rows` on.
    #[must_use]
    pub fn first_rows(mut self, rows: usize) -> Self {
        self.rows = self.rows.min(rows);
        self.data.truncate(self.rows * self.cols);
        self
    }

    /// Returns all entries, row after row.
    #[must_use]
    pub fn data(&self) -> &[f32] {
        &self.data
    }

    /// Returns all entries for writing, row after row.
    pub fn data_mut(&mut self) -> &mut [f32] {
        &mut self.data
    }

    /// Returns one row.
    #[must_use]
    pub fn row(&self, row: usize) -> &[f32] {
        &self.data[row * self.cols..(row + 1) * self.cols]
    }

    /// Returns one row for writing.
    pub fn row_mut(&mut self, row: usize) -> &mut [f32] {
        &mut self.data[row * self.cols..(row + 1) * self.cols]
    }

    /// Returns the entry at (row, column).
    #[must_use]
    pub fn at(&self, row: usize, col: usize) -> f32 {
        debug_assert!(col < self.cols, "column {col} of {}", self.cols);
        self.data[row * self.cols + col]
    }

    /// Returns a copy of one column.
    #[must_use]
    pub fn column(&self, col: usize) -> Vec<f32> {
        (0..self.rows).map(|row| self.at(row, col)).collect()
    }

    /// Returns the transpose.
    #[must_use]
    pub fn transposed(&self) -> Self {
        Self::from_fn(self.cols, self.rows, |row, col| self.at(col, row))
    }

    /// Returns the matrix whose column `i` is column `order[i]` of this one; columns not in `order` are left out.
    #[must_use]
    pub fn with_columns(&self, order: &[usize]) -> Self {
        Self::from_fn(self.rows, order.len(), |row, col| self.at(row, order[col]))
    }
}

#[cfg(test)]
mod tests {
    use super::Matrix;

    #[test]
    fn rows_columns_and_transpose_agree() {
        let m = Matrix::from_rows(&[[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]);
        assert_eq!((m.rows(), m.cols()), (2, 3));
        assert_eq!(m.row(1), [4.0, 5.0, 6.0]);
        assert_eq!(m.column(2), [3.0, 6.0]);
        assert_eq!(m.transposed().row(2), [3.0, 6.0]);
        assert_eq!(m.with_columns(&[2, 0]).data(), [3.0, 1.0, 6.0, 4.0]);
        assert_eq!(Matrix::zeros(0, 3).transposed().rows(), 3);
    }
}
