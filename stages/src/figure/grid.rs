//! Panels in a grid, filled column by column with at most six rows, as the reference arranges the sites of a model.

use super::{FULL_WIDTH, Figure, ONE_COLUMN, Panel, Row};

const MOST_ROWS: usize = 6;

/// Returns the rows of a grid that is filled column by column.
pub fn column_rows<T>(items: Vec<Option<T>>) -> Vec<Vec<Option<T>>> {
    // As few columns as the rows allow, equally long ones.
    let columns = items.len().div_ceil(MOST_ROWS).max(1);
    let height = items.len().div_ceil(columns);
    let mut rows: Vec<Vec<Option<T>>> = (0..height).map(|_| Vec::new()).collect();
    for (i, item) in items.into_iter().enumerate() {
        rows[i % height].push(item);
    }
    rows
}

/// Returns panels with frames `height` high, filled column by column; the axes are named at the left and the bottom.
pub fn column_grid(panels: Vec<Panel>, height: f64, x_label: &str, y_label: &str) -> Vec<Row> {
    let mut rows = column_rows(panels.into_iter().map(Some).collect());
    label_edges(&mut rows, x_label, y_label);
    rows.into_iter().map(|panels| Row { height, panels }).collect()
}

/// Names the vertical axis of the first column and the horizontal axis where nothing stands below.
pub(super) fn label_edges(rows: &mut [Vec<Option<Panel>>], x_label: &str, y_label: &str) {
    for r in 0..rows.len() {
        for c in 0..rows[r].len() {
            let has_below = rows.get(r + 1).is_some_and(|below| below.get(c).is_some_and(Option::is_some));
            if let Some(panel) = &mut rows[r][c] {
                if c == 0 {
                    panel.y.label = y_label.to_owned();
                }
                if !has_below {
                    panel.x.label = x_label.to_owned();
                }
            }
        }
    }
}

impl Figure {
    /// Returns a figure of these rows, one column of a journal wide if the grid has a single column.
    pub fn grid(title: impl Into<String>, rows: Vec<Row>) -> Self {
        let columns = rows.iter().map(|row| row.panels.len()).max().unwrap_or(0);
        Self::new(title, if columns > 1 { FULL_WIDTH } else { ONE_COLUMN }, rows)
    }
}

#[cfg(test)]
mod tests {
    use super::column_rows;

    #[test]
    fn a_grid_fills_column_by_column() {
        let rows = column_rows((0..7).map(Some).collect());
        assert_eq!(rows.len(), 4);
        assert_eq!((&rows[0][..], &rows[3][..]), (&[Some(0), Some(4)][..], &[Some(3)][..]));
        assert_eq!(column_rows((0..6).map(Some).collect()).len(), 6);
        assert!(column_rows::<u8>(Vec::new()).is_empty());
    }
}
