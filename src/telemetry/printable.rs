//! Makes text from outside safe for a terminal, a table or a log line.

use std::borrow::Cow;

/// Returns whether `c` is printable: neither a control character (C0 or C1), nor invisible, nor one
/// that changes the writing direction (Unicode, UAX #9).
#[must_use]
pub fn is_printable(c: char) -> bool {
    // `escape_debug` knows them; it also escapes quotation marks, which are printable
    matches!(c, '"' | '\'' | '\\') || c.escape_debug().nth(1).is_none()
}

/// Returns `text` on one line, with U+FFFD for every unprintable character and line break.
#[must_use]
pub fn clean(text: &str) -> Cow<'_, str> {
    replaced(text, is_printable)
}

/// As [`clean`], but keeps line breaks.
#[must_use]
pub fn clean_lines(text: &str) -> Cow<'_, str> {
    replaced(text, |c| c == '\n' || is_printable(c))
}

/// Returns `json` with escapes for unprintable characters; keeps line breaks.
#[must_use]
pub fn escape_json(json: &str) -> String {
    let mut escaped = String::with_capacity(json.len());
    for c in json.chars() {
        if c == '\n' || is_printable(c) {
            escaped.push(c);
        } else {
            // they occur within strings only
            for unit in c.encode_utf16(&mut [0; 2]) {
                escaped.push_str(&format!("\\u{unit:04x}"));
            }
        }
    }
    escaped
}

fn replaced(text: &str, is_kept: impl Fn(char) -> bool) -> Cow<'_, str> {
    if text.chars().all(&is_kept) {
        return Cow::Borrowed(text);
    }
    let kept = |c| {
        if is_kept(c) {
            c
        } else {
            char::REPLACEMENT_CHARACTER
        }
    };
    text.chars().map(kept).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_obeys_or_hides_is_replaced() {
        for odd in [
            '\0', '\u{7}', '\t', '\r', '\u{1b}', '\u{7f}', '\u{85}', '\u{9b}', '\u{9d}', '\u{ad}',
            '\u{61c}', '\u{200b}', '\u{200f}', '\u{2028}', '\u{202e}', '\u{2066}', '\u{2069}',
            '\u{feff}',
        ] {
            assert_eq!(clean(&format!("a{odd}b")), "a\u{fffd}b", "{odd:?}");
            assert_eq!(clean_lines(&format!("a{odd}b")), "a\u{fffd}b", "{odd:?}");
        }
        assert_eq!(clean("a\nb"), "a\u{fffd}b");
    }

    #[test]
    fn json_stays_json() {
        let text = "x\u{9b}\u{202e}\u{1f600}\u{e0001}";
        let json = serde_json::to_string(text).unwrap();
        let escaped = escape_json(&json);
        assert_eq!(escaped, "\"x\\u009b\\u202e\u{1f600}\\udb40\\udc01\"");
        assert_eq!(serde_json::from_str::<String>(&escaped).unwrap(), text);
    }

    #[test]
    fn what_people_write_stays() {
        let text = "\"it's\" \\ Zürich – 東京 • 5 €\nnext";
        assert!(matches!(clean_lines(text), Cow::Borrowed(kept) if kept == text));
    }
}
