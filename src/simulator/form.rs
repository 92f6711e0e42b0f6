//! Strict decoding of `application/x-www-form-urlencoded` (RFC 6749, appendix B).

use std::borrow::Cow;

use percent_encoding::percent_decode;

/// A percent sign without two hexadecimal digits, or bytes that are not UTF-8.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("a % that is not followed by two hexadecimal digits, or bytes that are not UTF-8")]
pub(super) struct Malformed;

/// Decodes a name or value of a form: `+` is a space.
///
/// # Errors
/// [`Malformed`], where a lenient decoder would guess.
pub(super) fn decode(text: &[u8]) -> Result<String, Malformed> {
    let spaced = text.iter().map(|byte| match byte {
        b'+' => b' ',
        byte => *byte,
    });
    decode_segment(&spaced.collect::<Vec<u8>>())
}

/// Decodes a segment of a path: `+` is a plus sign (RFC 3986, section 3.3).
///
/// # Errors
/// [`Malformed`], for every `%XX` that is not complete.
pub(super) fn decode_segment(text: &[u8]) -> Result<String, Malformed> {
    let complete = text.split(|byte| *byte == b'%').skip(1).all(|after| {
        let digits = after.get(..2).unwrap_or_default();
        digits.len() == 2 && digits.iter().all(u8::is_ascii_hexdigit)
    });
    let decoded = percent_decode(text).decode_utf8().ok().filter(|_| complete);
    decoded.map(Cow::into_owned).ok_or(Malformed)
}

/// Decodes a form or query into its pairs, in order, including repeated names.
///
/// # Errors
/// [`Malformed`].
pub(super) fn pairs(text: &[u8]) -> Result<Vec<(String, String)>, Malformed> {
    text.split(|byte| *byte == b'&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let mut halves = pair.splitn(2, |byte| *byte == b'=');
            let name = halves.next().unwrap_or_default();
            let value = halves.next().unwrap_or_default();
            Ok((decode(name)?, decode(value)?))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_vector_of_rfc_6749_appendix_b() {
        assert_eq!(
            decode(b"+%25%26%2B%C2%A3%E2%82%AC").as_deref(),
            Ok(" %&+£€")
        );
    }

    #[test]
    fn guesses_nothing() {
        for text in ["%", "%4", "100%", "%zz", "%+1", "%ff"] {
            assert_eq!(decode(text.as_bytes()), Err(Malformed), "{text}");
        }
    }

    #[test]
    fn pairs_keep_their_order_and_empty_values() {
        let found = pairs(b"a=1&b=&c&a=2%3D3&&d=x=y").unwrap();
        let found: Vec<(&str, &str)> = found
            .iter()
            .map(|(name, value)| (&**name, &**value))
            .collect();
        assert_eq!(
            found,
            [("a", "1"), ("b", ""), ("c", ""), ("a", "2=3"), ("d", "x=y")]
        );
    }

    #[test]
    fn a_plus_in_a_path_is_a_plus() {
        assert_eq!(decode_segment(b"a+b%3Ac").as_deref(), Ok("a+b:c"));
    }
}
