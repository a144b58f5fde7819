//! Aligned tables for people.

use std::fmt;

/// A table with headings. Columns are as wide as their widest cell.
pub struct Table<const N: usize> {
    rows: Vec<[String; N]>,
}

impl<const N: usize> Table<N> {
    /// Creates a table with these headings.
    pub fn new(headings: [&str; N]) -> Self {
        Self { rows: vec![headings.map(str::to_owned)] }
    }

    /// Adds a row. A newline in a cell would break the table and becomes a space; an empty cell becomes `-`.
    pub fn row(&mut self, cells: [String; N]) {
        let cell =
            |text: String| if text.is_empty() { "-".into() } else { text.replace('\n', " ") };
        self.rows.push(cells.map(cell));
    }
}

impl<const N: usize> fmt::Display for Table<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = |column: usize| {
            self.rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default()
        };
        let widths: [usize; N] = std::array::from_fn(width);
        for row in &self.rows {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(widths) {
                line.push_str(&format!("{cell:width$}  "));
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_without_trailing_spaces() {
        let mut table = Table::new(["NAME", "ROLE", "ID"]);
        table.row(["Ersatzschlüssel".into(), "sub".into(), "1f".into()]);
        table.row(["two\nlines".into(), String::new(), "2e".into()]);
        assert_eq!(
            table.to_string(),
            "NAME             ROLE  ID\n\
             Ersatzschlüssel  sub   1f\n\
             two lines        -     2e\n"
        );
    }
}
