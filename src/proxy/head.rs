//! Checks the bytes of a request's head where the parser is lenient.
//!
//! pingora's parser accepts a bare LF as a line end, and removes `Content-Length` from a request
//! that also has `Transfer-Encoding` before any hook could see it. An intermediary may read such a
//! head differently (RFC 9112, sections 2.2 and 6.3), so both are refused. Pure; one pass.

use super::target::Malformed;

/// Where the head at the start of `read` ends, its empty line included; `None` if it is incomplete.
/// The first `scanned` bytes were searched before; it is updated.
pub fn end(read: &[u8], scanned: &mut usize) -> Option<usize> {
    while let Some(found) = memchr::memchr(b'\n', read.get(*scanned..)?) {
        let after = *scanned + found + 1;
        match read.get(after..)? {
            // a bare LF is refused, but the parser ends a line at it
            [b'\n', ..] => return Some(after + 1),
            [b'\r', b'\n', ..] => return Some(after + 2),
            [] | [b'\r'] => return None,
            _ => *scanned = after,
        }
    }
    // do not search an incomplete line twice
    *scanned = read.len();
    None
}

/// Returns whether the received part can never become a valid head: it is refused at once then.
#[must_use]
pub fn is_hopeless(read: &[u8]) -> bool {
    if read.is_empty() {
        // each request begins so; the fields below are 8 KB to write
        return false;
    }
    let mut fields = [httparse::EMPTY_HEADER; 256];
    match httparse::Request::new(&mut fields).parse(read) {
        Ok(_) => false,
        // the parser of the complete head accepts a target with spaces
        Err(httparse::Error::Token | httparse::Error::Version) => {
            memchr::memmem::find(read, b" HTTP/").is_none()
        }
        Err(_) => true,
    }
}

/// Checks a complete head, its empty line included. Skips empty lines before it, as every server
/// should (RFC 9112, section 2.2).
///
/// # Errors
/// [`Malformed`] says what is ambiguous.
pub fn check(head: &[u8]) -> Result<(), Malformed> {
    let mut lines = head
        .split_inclusive(|byte| *byte == b'\n')
        .skip_while(|line| *line == b"\r\n");
    let (mut length, mut coding) = (false, false);
    let first = whole(lines.next().unwrap_or_default())?;
    // the parser would remove a fragment, and the checked target must be the requested one
    let target = first.iter().position(|byte| *byte == b' ');
    if target.is_some_and(|at| first[at..].contains(&b'#')) {
        return Err(Malformed::TargetForm);
    }
    for line in lines {
        let line = whole(line)?;
        let name = line.split(|byte| *byte == b':').next().unwrap_or_default();
        match name.len() {
            14 => length |= name.eq_ignore_ascii_case(b"content-length"),
            17 => coding |= name.eq_ignore_ascii_case(b"transfer-encoding"),
            _ => {}
        }
    }
    if length && coding {
        return Err(Malformed::Framing);
    }
    Ok(())
}

/// Removes the line end, which must be CRLF and the only one.
fn whole(line: &[u8]) -> Result<&[u8], Malformed> {
    match line.strip_suffix(b"\r\n") {
        Some(line) if !line.contains(&b'\r') => Ok(line),
        _ => Err(Malformed::LineEnd),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_ends_with_its_empty_line_however_it_arrives() {
        let head = b"GET / HTTP/1.1\r\nHost: a\r\n\r\nrest";
        let whole = head.len() - 4;
        let mut scanned = 0;
        for arrived in 0..=head.len() {
            let expected = (arrived >= whole).then_some(whole);
            assert_eq!(end(&head[..arrived], &mut scanned), expected, "{arrived}");
        }
        for (bare, expected) in [
            ("GET /\n\nx", Some(7)),
            ("GET /\r\n\nx", Some(8)),
            ("GET /\n\r\nx", Some(8)),
            ("GET /\r\nA: b\r\n", None),
            ("\n", None),
            ("", None),
        ] {
            assert_eq!(end(bare.as_bytes(), &mut 0), expected, "{bare:?}");
        }
    }

    #[test]
    fn what_can_never_become_a_head_is_told_from_what_can() {
        for hopeless in [
            &b"\x16\x03\x01\x02\x00\x01\x00"[..],
            b"GET / HTTP/1.1\r\nHost: a\r\nb\0c",
            b"{\"json\": true}\r\n",
        ] {
            assert!(is_hopeless(hopeless), "{hopeless:?}");
        }
        for partial in [
            "",
            "G",
            "GET /a b HTTP/1.1\r\nHo",
            "GET / HTTP/1.1\r\nHost: a\r\n",
        ] {
            assert!(!is_hopeless(partial.as_bytes()), "{partial:?}");
        }
    }

    #[test]
    fn a_fragment_is_refused() {
        for head in ["GET /a#b HTTP/1.1\r\n\r\n", "GET /?a#b HTTP/1.1\r\n\r\n"] {
            assert_eq!(check(head.as_bytes()), Err(Malformed::TargetForm));
        }
    }

    #[test]
    fn a_head_as_programs_send_it_passes() {
        for head in [
            "GET / HTTP/1.1\r\n\r\n",
            "GET /a:b HTTP/1.1\r\nHost: a:1\r\nX:\r\nX-Content-Length: 1\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
            "POST / HTTP/1.1\r\nTE: trailers\r\nContent-Length-X: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
            "\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
            "M#THOD / HTTP/1.1\r\nHost: a\r\n\r\n",
        ] {
            assert_eq!(check(head.as_bytes()), Ok(()), "{head:?}");
        }
    }

    #[test]
    fn a_line_that_does_not_end_with_crlf_is_refused() {
        for head in [
            "GET / HTTP/1.1\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\n\n",
            "GET / HTTP/1.1\r\nHost: a\r\n\n",
            "GET / HTTP/1.1\r\nX: a\rY: b\r\n\r\n",
            "GET / HTTP/1.1\r\nX: a\r\r\n\r\n",
            "\nGET / HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1",
            "",
        ] {
            assert_eq!(check(head.as_bytes()), Err(Malformed::LineEnd), "{head:?}");
        }
    }

    #[test]
    fn two_lengths_are_refused_in_either_order_and_any_case() {
        for fields in [
            "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
            "transfer-ENCODING:chunked\r\nX: 1\r\ncontent-LENGTH:5\r\n",
            "Content-Length:\r\nTransfer-Encoding:\r\n",
        ] {
            let head = format!("POST / HTTP/1.1\r\n{fields}\r\n");
            assert_eq!(check(head.as_bytes()), Err(Malformed::Framing), "{head:?}");
        }
    }
}
