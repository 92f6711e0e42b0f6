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
    let mut widths: [usize; N] = std::array::from_fn(|column| {
        let cells = lines.iter().map(|line| line[column].width());
        cells.max().unwrap_or(0).max(columns[column].least)
    });
    let mut shown = [true; N];
    if let Some(width) = width {
        shorten(columns, &mut widths, &mut shown, width);
    }
    let line = |cells: &[String; N]| {
        let mut line = String::new();
        for (cell, width) in cells
            .iter()
            .zip(widths)
            .zip(shown)
            .filter_map(|(c, s)| s.then_some(c))
        {
            let cell = cut(cell, width);
            let padding = width - cell.width() + GAP;
            line.push_str(&cell);
            line.push_str(&" ".repeat(padding));
        }
        let line = line.trim_end();
        width.map_or_else(|| line.to_owned(), |width| cut(line, width))
    };
    lines.iter().map(line).collect()
}

/// Leaves out columns, then cuts the widest, until a line fits or nothing more can be cut.
fn shorten<const N: usize>(
    columns: &[Column; N],
    widths: &mut [usize; N],
    shown: &mut [bool; N],
    width: usize,
) {
    let excess = |widths: &[usize; N], shown: &[bool; N]| {
        let those = widths.iter().zip(shown).filter(|(_, shown)| **shown);
        let total: usize = those.map(|(width, _)| width + GAP).sum();
        total.saturating_sub(GAP + width)
    };
    while excess(widths, shown) > 0 {
        let spare = (0..N).filter(|&nth| shown[nth] && columns[nth].spare > 0);
        match spare.max_by_key(|&nth| columns[nth].spare) {
            Some(nth) => shown[nth] = false,
            None => break,
        }
    }
    while excess(widths, shown) > 0 {
        let long = |nth: &usize| shown[*nth] && columns[*nth].is_cut && widths[*nth] > NARROWEST;
        match (0..N).filter(long).max_by_key(|&nth| widths[nth]) {
            Some(nth) => widths[nth] -= 1,
            None => break,
        }
    }
}

/// Returns a complete table, one row per line.
pub(super) fn table<const N: usize>(
    heads: &[&'static str; N],
    rows: impl Iterator<Item = [String; N]>,
) -> String {
    text(&fit(&heads.map(Column::new), rows, None))
}

/// Joins lines, each with its line break.
pub(super) fn text(lines: &[String]) -> String {
    lines.iter().map(|line| format!("{line}\n")).collect()
}

/// Returns `text`, cut to `width` with a mark at its end.
pub(super) fn cut(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let mut left = width.saturating_sub(1);
    let fits = |c: &char| {
        let wide = c.width().unwrap_or(0);
        let fits = wide <= left;
        left = left.saturating_sub(wide);
        fits
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
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let line = lines.last_mut().expect("there is a first");
        let is_empty = line.trim().is_empty();
        if !is_empty && line.width() + 1 + word.width() > width {
            lines.push(format!("{INDENT}{word}"));
        } else {
            if !is_empty {
                line.push(' ');
            }
            line.push_str(word);
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
