//! Quotes responses in messages: short, printable, and without the secrets that they could repeat.

use crate::secret::Secret;
use crate::telemetry::printable::is_printable;

/// The longest quotation, in characters.
const MAX_QUOTE: usize = 200;
const REDACTED: &str = "[redacted]";

/// Quotes text with secrets redacted.
#[derive(Clone, Debug)]
pub struct Quotation {
    /// The forms in which a response could repeat a secret, longest first, so that none is replaced
    /// in part.
    secrets: Vec<Secret>,
}

impl Quotation {
    /// Redacts `secrets`: each secret in every form in which it was sent.
    #[must_use]
    pub fn without(mut secrets: Vec<Secret>) -> Quotation {
        secrets.retain(|secret| !secret.expose().is_empty());
        secrets.sort_by(|a, b| {
            let (a, b) = (a.expose(), b.expose());
            b.len().cmp(&a.len()).then_with(|| a.cmp(b))
        });
        secrets.dedup();
        Quotation { secrets }
    }

    /// Quotes `text` from a response in a message: at most 200 printable characters, secrets
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
        // again: the removed characters may have been inside the secret
        let printable = self.redact(&printable);
        let printable = printable.trim();
        match printable.char_indices().nth(MAX_QUOTE) {
            Some((end, _)) => format!("{}…", &printable[..end]),
            None => printable.to_owned(),
        }
    }

    /// Replaces every secret in `text` by `[redacted]`.
    #[must_use]
    pub fn redact(&self, text: &str) -> String {
        self.secrets.iter().fold(text.to_owned(), |text, secret| {
            text.replace(secret.expose(), REDACTED)
        })
    }
}
