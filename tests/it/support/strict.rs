//! Parses a request as the strictest server: RFC 9112 to the letter, without tolerance. Shares no
//! code with the other readers of the tests or the program.

/// A request without ambiguity.
#[derive(Clone, Debug)]
pub(crate) struct Strict {
    pub(crate) method: String,
    /// Latin-1, so that every byte counts.
    pub(crate) target: String,
    /// In order; names in lower case, values in Latin-1.
    pub(crate) fields: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

/// The state of the bytes so far.
#[derive(Debug)]
pub(crate) enum Read {
    /// The start of a request; `true` if its head is complete.
    Part(bool),
    /// A request, and its length in bytes.
    Whole(Strict, usize),
}

/// Parses one request from the start of `bytes`.
///
/// # Errors
/// What a strict server rejects.
pub(crate) fn read(bytes: &[u8]) -> Result<Read, String> {
    let Some(end) = find(bytes, b"\r\n\r\n") else {
        // bytes that cannot become a valid head are rejected at once
        let bare = bytes.windows(2).any(|w| w[1] == b'\n' && w[0] != b'\r');
        return if bare || bytes.first() == Some(&b'\n') {
            Err("a bare LF in a head".to_owned())
        } else {
            Ok(Read::Part(false))
        };
    };
    let mut request = head(&bytes[..end])?;
    let start = end + 4;
    let length = match (
        request.values("content-length")[..].to_vec(),
        request.values("transfer-encoding")[..].to_vec(),
    ) {
        (lengths, codings) if lengths.is_empty() && codings.is_empty() => 0,
        (lengths, codings) if lengths.len() == 1 && codings.is_empty() => decimal(&lengths[0])?,
        (lengths, codings) if lengths.is_empty() && codings == ["chunked"] => {
            return Ok(match chunks(&bytes[start..])? {
                None => Read::Part(true),
                Some((body, taken)) => {
                    request.body = body;
                    Read::Whole(request, start + taken)
                }
            });
        }
        (lengths, codings) => return Err(format!("lengths {lengths:?} and codings {codings:?}")),
    };
    match bytes.get(start..start + length) {
        None => Ok(Read::Part(true)),
        Some(body) => {
            request.body = body.to_vec();
            Ok(Read::Whole(request, start + length))
        }
    }
}

impl Strict {
    /// All values of a field, in their order.
    pub(crate) fn values(&self, name: &str) -> Vec<String> {
        let same = self.fields.iter().filter(|(n, _)| n == name);
        same.map(|(_, value)| value.clone()).collect()
    }
}

fn head(bytes: &[u8]) -> Result<Strict, String> {
    let text: String = bytes.iter().copied().map(char::from).collect();
    let mut lines = text.split("\r\n");
    let first = lines.next().unwrap_or_default();
    if text.replace("\r\n", "").contains(['\r', '\n', '\0']) {
        return Err(format!("CR, LF or NUL inside a line: {text:?}"));
    }
    let parts: Vec<&str> = first.split(' ').collect();
    let [method, target, "HTTP/1.1"] = parts[..] else {
        return Err(format!("request line {first:?}"));
    };
    if method.is_empty() || !method.chars().all(is_token) {
        return Err(format!("method {method:?}"));
    }
    let visible = |c: char| c > ' ' && c != '\x7f';
    if !target.starts_with('/') || !target.chars().all(visible) || target.contains('#') {
        return Err(format!("target {target:?}"));
    }
    let mut fields = Vec::new();
    for line in lines {
        let (name, value) = line.split_once(':').ok_or(format!("no colon: {line:?}"))?;
        let clean = value
            .chars()
            .all(|c| c == '\t' || (c >= ' ' && c != '\x7f'));
        if name.is_empty() || !name.chars().all(is_token) || !clean {
            return Err(format!("field {line:?}"));
        }
        let value = value.trim_matches([' ', '\t']);
        fields.push((name.to_ascii_lowercase(), value.to_owned()));
    }
    Ok(Strict {
        method: method.to_owned(),
        target: target.to_owned(),
        fields,
        body: Vec::new(),
    })
}

/// `token` of RFC 9110, section 5.6.2.
fn is_token(c: char) -> bool {
    c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c)
}

fn decimal(text: &str) -> Result<usize, String> {
    let plain = !text.is_empty() && text.len() < 12 && text.chars().all(|c| c.is_ascii_digit());
    let number = text.parse().ok().filter(|_| plain);
    number.ok_or(format!("content-length {text:?}"))
}

/// Parses a chunked body; returns it and its length, or `None` if more must come.
fn chunks(bytes: &[u8]) -> Result<Option<(Vec<u8>, usize)>, String> {
    let mut body = Vec::new();
    let mut at = 0;
    loop {
        let Some(end) = find(&bytes[at..], b"\r\n") else {
            return Ok(None);
        };
        let digits = String::from_utf8_lossy(&bytes[at..at + end]).into_owned();
        let plain =
            !digits.is_empty() && digits.len() < 9 && digits.chars().all(|c| c.is_ascii_hexdigit());
        let size = usize::from_str_radix(&digits, 16).ok().filter(|_| plain);
        let size = size.ok_or(format!("chunk size {digits:?}"))?;
        at += end + 2;
        let Some(piece) = bytes.get(at..at + size + 2) else {
            return Ok(None);
        };
        if !piece.ends_with(b"\r\n") {
            return Err(format!("a chunk of {size} does not end there"));
        }
        body.extend_from_slice(&piece[..size]);
        at += size + 2;
        if size == 0 {
            return Ok(Some((body, at)));
        }
    }
}

fn find(bytes: &[u8], mark: &[u8]) -> Option<usize> {
    bytes.windows(mark.len()).position(|w| w == mark)
}

mod of_the_reader_itself {
    use super::*;

    fn whole(text: &str) -> Strict {
        match read(text.as_bytes()) {
            Ok(Read::Whole(request, taken)) => {
                assert_eq!(taken, text.len());
                request
            }
            other => panic!("{text:?}: {other:?}"),
        }
    }

    #[test]
    fn plain_requests_are_read() {
        assert_eq!(whole("GET /x HTTP/1.1\r\nA: b\r\n\r\n").values("a"), ["b"]);
        let counted = whole("PUT / HTTP/1.1\r\nContent-Length: 2\r\n\r\nab");
        assert_eq!(counted.body, b"ab");
        let chunked =
            whole("PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n");
        assert_eq!(chunked.body, b"ab");
    }

    #[test]
    fn nothing_is_forgiven() {
        for text in [
            "GET /x HTTP/1.1\nA: b\r\n\r\n",
            "GET  /x HTTP/1.1\r\n\r\n",
            "GET x HTTP/1.1\r\n\r\n",
            "GET /x HTTP/1.0\r\n\r\n",
            "GET /x HTTP/1.1\r\nA : b\r\n\r\n",
            "GET /x HTTP/1.1\r\nA: b\r\n c\r\n\r\n",
            "GET /x HTTP/1.1\r\nA: \0\r\n\r\n",
            "GET /x HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\na",
            "GET /x HTTP/1.1\r\nContent-Length: +1\r\n\r\na",
            "GET /x HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "GET /x HTTP/1.1\r\nTransfer-Encoding: Chunked\r\n\r\n0\r\n\r\n",
            "GET /x HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0x1\r\na\r\n0\r\n\r\n",
            "GET /x HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab\r\n0\r\n\r\n",
        ] {
            assert!(read(text.as_bytes()).is_err(), "{text:?}");
        }
    }
}
