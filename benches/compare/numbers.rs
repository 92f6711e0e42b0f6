//! Medians, and tables that are readable in a terminal and in Markdown.

use std::fmt;

/// The median; `NaN` if there are no values.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut values: Vec<f64> = values.iter().copied().filter(|v| v.is_finite()).collect();
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        odd if odd % 2 == 1 => values[odd / 2],
        even => f64::midpoint(values[even / 2 - 1], values[even / 2]),
    }
}

/// The median with this number of decimals; a dash if there are no values.
pub(crate) fn middle(values: &[f64], digits: usize) -> String {
    let middle = median(values);
    match middle.is_finite() {
        true => format!("{middle:.digits$}"),
        false => "–".to_owned(),
    }
}

/// The smallest and the largest value: `1.38–1.45`; a dash if there are none.
pub(crate) fn range(values: &[f64], digits: usize) -> String {
    let finite = values.iter().copied().filter(|value| value.is_finite());
    match (finite.clone().reduce(f64::min), finite.reduce(f64::max)) {
        (Some(least), Some(most)) => format!("{least:.digits$}–{most:.digits$}"),
        _ => "–".to_owned(),
    }
}

/// A Markdown table.
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// Returns a table with these headings.
    pub(crate) fn new(headings: &[&str]) -> Table {
        Table {
            rows: vec![headings.iter().map(ToString::to_string).collect()],
        }
    }

    /// Adds a row with one cell per heading.
    pub(crate) fn row(&mut self, cells: &[&str]) {
        assert_eq!(cells.len(), self.rows[0].len());
        self.rows
            .push(cells.iter().map(ToString::to_string).collect());
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = |column: usize| {
            let cells = self.rows.iter().map(|row| row[column].chars().count());
            cells.max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.rows[0].len()).map(width).collect();
        for (nth, row) in self.rows.iter().enumerate() {
            for (cell, width) in row.iter().zip(&widths) {
                write!(f, "| {cell:width$} ")?;
            }
            writeln!(f, "|")?;
            if nth == 0 {
                for width in &widths {
                    write!(f, "|{}", "-".repeat(width + 2))?;
                }
                writeln!(f, "|")?;
            }
        }
        Ok(())
    }
}
