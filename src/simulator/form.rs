//! Strict decoding of `application/x-www-form-urlencoded` (RFC 6749, appendix B).

/// A percent sign without two hexadecimal digits, or bytes that are not UTF-8.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("a % that is not followed by two hexadecimal digits, or bytes that are not UTF-8")]
pub(super) struct Malformed;

/// Decodes a name or value of a form: `+` is a space.
///
/// # Errors
/// [`Malformed`], where a lenient decoder would guess.
pub(super) fn decode(text: &[u8]) -> Result<String, Malformed> {
    unescape(text, true)
}

/// Decodes a segment of a path: `+` is a plus sign (RFC 3986, section 3.3).
///
/// # Errors
/// [`Malformed`].
pub(super) fn decode_segment(text: &str) -> Result<String, Malformed> {
    unescape(text.as_bytes(), false)
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

/// The first value of `name` in a query, if the query is well-formed and has it.
pub(super) fn query_value(query: Option<&str>, name: &str) -> Option<String> {
    let pairs = pairs(query?.as_bytes()).ok()?;
    pairs
        .into_iter()
        .find(|(key, _)| key == name)
        .map(|(_, value)| value)
}

fn unescape(text: &[u8], plus_is_space: bool) -> Result<String, Malformed> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.iter().copied();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let high = hex(rest.next())?;
                let low = hex(rest.next())?;
                high << 4 | low
            }
            b'+' if plus_is_space => b' ',
            other => other,
        });
    }
    String::from_utf8(bytes).map_err(|_| Malformed)
}

fn hex(digit: Option<u8>) -> Result<u8, Malformed> {
    let value = digit
        .and_then(|digit| char::from(digit).to_digit(16))
        .ok_or(Malformed)?;
    u8::try_from(value).map_err(|_| Malformed)
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
        assert_eq!(decode_segment("a+b%3Ac").as_deref(), Ok("a+b:c"));
    }
}
