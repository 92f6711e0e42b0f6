//! Plain text tables that fit the screen: first the least important columns are left out, then long
//! cells are cut.

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use crate::telemetry::printable::clean;

/// The spaces between two columns.
const GAP: usize = 2;

/// The least width to which a column is cut.
const NARROWEST: usize = 6;

/// One column of a table.
#[derive(Clone, Copy, Debug)]
pub(super) struct Column {
    head: &'static str,
    /// The priority for leaving the column out, highest first; 0 for never.
    spare: u8,
    /// Whether its cells may be cut.
    is_cut: bool,
    /// The minimum width, so that a table does not move when it is redrawn.
    least: usize,
}

impl Column {
    /// Returns a column that is never left out.
    pub(super) const fn new(head: &'static str) -> Column {
        Column {
            head,
            spare: 0,
            is_cut: false,
            least: 0,
        }
    }

    /// Sets the minimum width.
    pub(super) const fn least(self, least: usize) -> Column {
        Column { least, ..self }
    }

    /// Lets the column be left out when space is short; higher values of `spare` go first.
    pub(super) const fn spare(self, spare: u8) -> Column {
        Column { spare, ..self }
    }

    /// Lets cells be cut.
    pub(super) const fn cut(self) -> Column {
        Column {
            is_cut: true,
            ..self
        }
    }
}

/// Returns the lines of a table, head first, each at most `width` wide. Cells must contain only
/// printable characters.
pub(super) fn fit<const N: usize>(
    columns: &[Column; N],
    rows: impl Iterator<Item = [String; N]>,
    width: Option<usize>,
) -> Vec<String> {
    let mut lines = vec![columns.map(|column| column.head.to_owned())];
    lines.extend(rows.map(|row| row.map(|cell| clean(&cell).into_owned())));
    // `None`: the column is left out
    let mut widths: [Option<usize>; N] = std::array::from_fn(|column| {
        let cells = lines.iter().map(|line| line[column].width());
        cells.max().max(Some(columns[column].least))
    });
    if let Some(width) = width {
        shorten(columns, &mut widths, width);
    }
    let line = |cells: &[String; N]| {
        let cells = cells.iter().zip(widths).filter_map(|(cell, width)| {
            let (cell, width) = (cut(cell, width?), width?);
            Some(format!("{cell}{}", " ".repeat(width - cell.width() + GAP)))
        });
        fitted(cells.collect::<String>().trim_end(), width)
    };
    lines.iter().map(line).collect()
}

/// Leaves out columns, then cuts the widest, until a line fits or nothing more can be cut.
fn shorten<const N: usize>(columns: &[Column; N], widths: &mut [Option<usize>; N], width: usize) {
    let is_too_wide = |widths: &[Option<usize>; N]| {
        let total: usize = widths.iter().flatten().map(|width| width + GAP).sum();
        total > width + GAP
    };
    while is_too_wide(widths) {
        let spare = (0..N).filter(|&nth| widths[nth].is_some() && columns[nth].spare > 0);
        let Some(spare) = spare.max_by_key(|&nth| columns[nth].spare) else {
            break;
        };
        widths[spare] = None;
    }
    while is_too_wide(widths) {
        let long = widths
            .iter_mut()
            .zip(columns)
            .filter(|(_, column)| column.is_cut);
        let long = long.filter_map(|(width, _)| width.as_mut().filter(|it| **it > NARROWEST));
        let Some(widest) = long.max() else {
            break;
        };
        *widest -= 1;
    }
}

/// Joins lines, each with its line break.
pub(super) fn text(lines: &[String]) -> String {
    lines.iter().map(|line| format!("{line}\n")).collect()
}

/// Returns `text`, cut to `width` if there is one.
pub(super) fn fitted(text: &str, width: Option<usize>) -> String {
    width.map_or_else(|| text.to_owned(), |width| cut(text, width))
}

/// Returns `text`, cut to `width` with a mark at its end.
pub(super) fn cut(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let mut used = 0;
    let fits = |c: &char| {
        used += c.width().unwrap_or(0);
        used < width
    };
    let mut short: String = text.chars().take_while(fits).collect();
    if width > 0 {
        short.push('…');
    }
    short
}

/// Wraps `text` to lines of at most `width`, between words; all but the first are indented.
pub(super) fn wrap(text: &str, width: Option<usize>) -> Vec<String> {
    const INDENT: &str = "  ";
    let Some(width) = width else {
        return vec![text.to_owned()];
    };
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            None => lines.push(word.to_owned()),
            Some(line) if line.width() + 1 + word.width() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            Some(_) => lines.push(format!("{INDENT}{word}")),
        }
    }
    lines.iter().map(|line| cut(line, width)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: [Column; 4] = [
        Column::new("NAME").cut(),
        Column::new("A").spare(1),
        Column::new("B").spare(2),
        Column::new("ADDRESS").cut(),
    ];

    fn lines(width: usize) -> Vec<String> {
        let row = ["a-long-name", "11", "222", "127.0.0.1:8080"].map(str::to_owned);
        fit(&COLUMNS, [row].into_iter(), Some(width))
    }

    #[test]
    fn what_matters_least_is_left_out_first_and_then_the_widest_is_cut() {
        assert_eq!(
            lines(40),
            [
                "NAME         A   B    ADDRESS",
                "a-long-name  11  222  127.0.0.1:8080"
            ]
        );
        assert_eq!(lines(33)[1], "a-long-name  11  127.0.0.1:8080");
        assert_eq!(lines(27)[1], "a-long-name  127.0.0.1:8080");
        assert_eq!(lines(22)[1], "a-long-na…  127.0.0.1…");
    }

    #[test]
    fn no_line_is_wider_than_the_screen_however_narrow_it_is() {
        for width in 0..60 {
            assert!(
                lines(width).iter().all(|line| line.width() <= width),
                "{width}"
            );
            let text = "catalog: Collibra says 残高不足 that the pool is empty, 1234567890";
            let wrapped = wrap(text, Some(width));
            assert!(
                wrapped.iter().all(|line| line.width() <= width),
                "{width}: {wrapped:?}"
            );
        }
    }

    #[test]
    fn text_is_broken_between_words() {
        assert_eq!(wrap("one two three", Some(8)), ["one two", "  three"]);
        assert_eq!(wrap("one two three", None), ["one two three"]);
    }
}
