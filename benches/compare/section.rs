//! The results of a part of the comparison, and their place in `docs/performance.md`.

use std::fs;
use std::path::Path;

use crate::numbers::Table;
use crate::plot::{self, Panel};

const DOCUMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/performance.md");
const FIGURE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/performance.svg");

/// The results of a part.
#[derive(Debug)]
pub(crate) struct Section {
    /// The text, in Markdown.
    pub(crate) text: String,
    /// The panels of the figure; empty if there are none.
    pub(crate) panels: Vec<Panel>,
}

impl Section {
    /// A section with only a table.
    pub(crate) fn of(table: &Table) -> Section {
        Section {
            text: table.to_string(),
            panels: Vec::new(),
        }
    }

    /// Writes it into the document, between the comments `<!-- PART -->` and `<!-- end -->`, with
    /// the environment below it, and draws the figure if it has one.
    pub(crate) fn write(&self, part: &str, measured_on: &str) {
        let document = fs::read_to_string(DOCUMENT).unwrap();
        let begin = format!("<!-- {part} -->\n");
        let (before, rest) = document
            .split_once(&begin)
            .unwrap_or_else(|| panic!("{DOCUMENT} has no line {begin}"));
        let (_, after) = rest
            .split_once("<!-- end -->")
            .unwrap_or_else(|| panic!("{DOCUMENT} has no end of {part}"));
        let text = self.text.trim_end();
        let document = format!("{before}{begin}\n{text}\n\n{measured_on}\n\n<!-- end -->{after}");
        fs::write(DOCUMENT, document).unwrap();
        if !self.panels.is_empty() {
            let title = "What grows, and what does not";
            let subtitle = "One core, TLS to the origin. Sizes by powers of ten.";
            fs::write(Path::new(FIGURE), plot::svg(title, subtitle, &self.panels)).unwrap();
        }
    }
}
