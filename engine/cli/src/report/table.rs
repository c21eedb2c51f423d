//! Tables of text: columns as wide as their widest cell, numbers on the right.

/// A table under construction.
#[derive(Debug)]
pub(crate) struct Table {
    header: Vec<String>,
    is_number: Vec<bool>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// Returns a table with these columns; a name that begins with `>` marks a column aligned to the right.
    pub(crate) fn new(columns: &[&str]) -> Self {
        let is_number = columns.iter().map(|name| name.starts_with('>')).collect();
        let header = columns.iter().map(|name| name.trim_start_matches('>').to_owned()).collect();
        Self { header, is_number, rows: Vec::new() }
    }

    /// Adds a row.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        let cells: Vec<_> = cells.into_iter().collect();
        assert_eq!(cells.len(), self.header.len(), "a row has as many cells as the table has columns");
        self.rows.push(cells);
    }

    /// Returns the table's text, one line per row, each with its newline.
    pub(crate) fn text(&self) -> String {
        let all = || std::iter::once(&self.header).chain(&self.rows);
        let width = |column: usize| all().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let widths: Vec<_> = (0..self.header.len()).map(width).collect();
        let mut text = String::new();
        for row in all() {
            let cell = |column: usize| {
                let (cell, width) = (&row[column], widths[column]);
                if self.is_number[column] { format!("{cell:>width$}") } else { format!("{cell:width$}") }
            };
            let line = (0..row.len()).map(cell).collect::<Vec<_>>().join("  ");
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Table::new(&["stage", ">time", "digest"]);
        table.row(["a".to_owned(), "12.0 s".to_owned(), "ab".to_owned()]);
        table.row(["decompose[seed=0]".to_owned(), "1 s".to_owned(), String::new()]);
        let expected = "\
stage                time  digest
a                  12.0 s  ab
decompose[seed=0]     1 s
";
        assert_eq!(table.text(), expected);
    }
}
