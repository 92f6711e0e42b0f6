//! How an answer may be quoted in a message: short, printable, and without the secrets that it
//! could repeat.

use crate::secret::Secret;
use crate::telemetry::printable::is_printable;

/// The longest quotation from an answer, in characters.
const MAX_QUOTE: usize = 200;
const REDACTED: &str = "[redacted]";

/// Quotes from answers, all but what is unspeakable.
#[derive(Clone, Debug)]
pub struct Quotation {
    /// Forms in which an answer could repeat a secret, the longest first, so that none is replaced
    /// in part.
    unspeakable: Vec<Secret>,
}

impl Quotation {
    /// Quotes everything but `unspeakable`: each secret, in every form in which it was sent.
    #[must_use]
    pub fn without(mut unspeakable: Vec<Secret>) -> Quotation {
        unspeakable.retain(|secret| !secret.expose().is_empty());
        unspeakable.sort_by(|a, b| {
            let (a, b) = (a.expose(), b.expose());
            b.len().cmp(&a.len()).then_with(|| a.cmp(b))
        });
        unspeakable.dedup();
        Quotation { unspeakable }
    }

    /// `text` from an answer, fit for a message: at most 200 printable characters, secrets
    /// replaced by `[redacted]`.
    #[must_use]
    pub fn quote(&self, text: &str) -> String {
        let printable: String = self
            .redact(text)
            .chars()
            .filter_map(|c| match c {
                '\t' | '\r' | '\n' => Some(' '),
                c => is_printable(c).then_some(c),
            })
            .collect();
        // again: what was taken out may have stood within the secret
        let printable = self.redact(&printable);
        let printable = printable.trim();
        match printable.char_indices().nth(MAX_QUOTE) {
            Some((end, _)) => format!("{}…", &printable[..end]),
            None => printable.to_owned(),
        }
    }

    /// `text` with every secret replaced by `[redacted]`.
    #[must_use]
    pub fn redact(&self, text: &str) -> String {
        self.unspeakable
            .iter()
            .fold(text.to_owned(), |text, secret| {
                text.replace(secret.expose(), REDACTED)
            })
    }
}
