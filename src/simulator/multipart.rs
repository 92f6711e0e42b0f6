//! Multipart bodies, parsed as they arrive and never kept (RFC 7578; RFC 2046, section 5.1).

/// The largest header of a part, in bytes.
const HEADER: usize = 16 << 10;

/// The body does not match its `Content-Type`.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the body is not well-formed multipart/form-data")]
pub(super) struct Malformed;

/// One part of a form.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Part {
    /// The field's name.
    pub(super) name: String,
    /// The file's name, if it is a file.
    pub(super) file_name: Option<String>,
    /// The media type, if given.
    pub(super) content_type: Option<String>,
    /// The length in bytes.
    pub(super) size: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Expect {
    Delimiter { in_part: bool },
    AfterDelimiter,
    Header,
    Nothing,
}

/// Parses a multipart body piece by piece.
pub(super) struct Reader {
    delimiter: Vec<u8>,
    unread: Vec<u8>,
    expect: Expect,
    parts: Vec<Part>,
}

impl Reader {
    /// Returns a reader for a body of this `Content-Type`; `None` if it is not multipart.
    pub(super) fn for_content_type(content_type: &str) -> Option<Self> {
        let mut pieces = content_type.split(';').map(str::trim);
        let essence = pieces.next()?;
        if !essence.get(..10)?.eq_ignore_ascii_case("multipart/") {
            return None;
        }
        let boundary = pieces.find_map(|piece| {
            let (name, value) = piece.split_once('=')?;
            name.eq_ignore_ascii_case("boundary")
                .then(|| value.trim_matches('"'))
        })?;
        Some(Self {
            delimiter: format!("\r\n--{boundary}").into_bytes(),
            // the first delimiter may be at the very start
            unread: b"\r\n".to_vec(),
            expect: Expect::Delimiter { in_part: false },
            parts: Vec::new(),
        })
    }

    /// Parses the next piece of the body.
    ///
    /// # Errors
    /// [`Malformed`].
    pub(super) fn take(&mut self, piece: &[u8]) -> Result<(), Malformed> {
        self.unread.extend_from_slice(piece);
        while self.step()? {}
        Ok(())
    }

    /// The parts, after the end of the body.
    ///
    /// # Errors
    /// [`Malformed`] if the last delimiter is missing.
    pub(super) fn finish(self) -> Result<Vec<Part>, Malformed> {
        if self.expect == Expect::Nothing {
            Ok(self.parts)
        } else {
            Err(Malformed)
        }
    }

    /// Parses one step; `false` if it needs more data.
    fn step(&mut self) -> Result<bool, Malformed> {
        match self.expect {
            Expect::Delimiter { in_part } => {
                let found = find(&self.unread, &self.delimiter);
                let content = found
                    .unwrap_or_else(|| self.unread.len().saturating_sub(self.delimiter.len() - 1));
                if in_part && let Some(part) = self.parts.last_mut() {
                    part.size += content as u64;
                }
                let delimiter = found.map_or(0, |_| self.delimiter.len());
                self.unread.drain(..content + delimiter);
                if found.is_some() {
                    self.expect = Expect::AfterDelimiter;
                }
                Ok(found.is_some())
            }
            Expect::AfterDelimiter => {
                self.expect = match self.unread.get(..2) {
                    Some(b"--") => Expect::Nothing,
                    Some(b"\r\n") => Expect::Header,
                    Some(_) => return Err(Malformed),
                    None => return Ok(false),
                };
                Ok(true)
            }
            Expect::Header => {
                // the line end before it is still at the front
                let Some(end) = find(&self.unread, b"\r\n\r\n") else {
                    return if self.unread.len() > HEADER {
                        Err(Malformed)
                    } else {
                        Ok(false)
                    };
                };
                let header = String::from_utf8_lossy(&self.unread[..end]).into_owned();
                self.unread.drain(..end + 4);
                self.parts.push(Part::from_header(&header));
                self.expect = Expect::Delimiter { in_part: true };
                Ok(true)
            }
            Expect::Nothing => {
                self.unread.clear();
                Ok(false)
            }
        }
    }
}

impl Part {
    fn from_header(header: &str) -> Self {
        let mut part = Self::default();
        for line in header.lines() {
            let Some((name, value)) = line.split_once(':') else {
                continue;
            };
            if name.eq_ignore_ascii_case("content-type") {
                part.content_type = Some(value.trim().to_owned());
            } else if name.eq_ignore_ascii_case("content-disposition") {
                part.name = parameter(value, "name").unwrap_or_default();
                part.file_name = parameter(value, "filename");
            }
        }
        part
    }
}

/// The parameter `name` of a header value: `; name="value"`.
fn parameter(value: &str, name: &str) -> Option<String> {
    value.split(';').find_map(|piece| {
        let (key, value) = piece.trim().split_once('=')?;
        key.eq_ignore_ascii_case(name)
            .then(|| value.trim_matches('"').to_owned())
    })
}

/// The first position of `needle`, which starts with a carriage return, in `haystack`.
fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    let mut from = 0;
    loop {
        let at = from
            + haystack
                .get(from..)?
                .iter()
                .position(|byte| *byte == b'\r')?;
        if haystack[at..].starts_with(needle) {
            return Some(at);
        }
        from = at + 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TYPE: &str = "multipart/form-data; boundary=\"XyZ\"";
    const BODY: &[u8] = b"--XyZ\r\nContent-Disposition: form-data; name=\"file\"; \
        filename=\"a.csv\"\r\nContent-Type: text/csv\r\n\r\n1,2\r\n--Xy\r\n3,4\r\n\
        --XyZ\r\nContent-Disposition: form-data; name=\"sendNotification\"\r\n\r\ntrue\r\n--XyZ--\r\n";

    fn read(body: &[u8], step: usize) -> Result<Vec<Part>, Malformed> {
        let mut reader = Reader::for_content_type(TYPE).unwrap();
        body.chunks(step).try_for_each(|piece| reader.take(piece))?;
        reader.finish()
    }

    #[test]
    fn parts_and_their_sizes_do_not_depend_on_how_the_body_is_cut() {
        for step in 1..=BODY.len() {
            let parts = read(BODY, step).unwrap();
            assert_eq!(parts.len(), 2, "{step}");
            assert_eq!(parts[0].file_name.as_deref(), Some("a.csv"));
            assert_eq!(parts[0].content_type.as_deref(), Some("text/csv"));
            assert_eq!((parts[0].size, parts[1].size), (14, 4), "{step}");
            assert_eq!(parts[1].name, "sendNotification");
        }
    }

    #[test]
    fn a_body_that_breaks_off_is_malformed() {
        for end in 0..BODY.len() - 4 {
            assert_eq!(read(&BODY[..end], 7), Err(Malformed), "{end}");
        }
        assert_eq!(read(b"--XyZabc", 3), Err(Malformed));
    }

    #[test]
    fn memory_stays_small_within_a_part() {
        let mut reader = Reader::for_content_type(TYPE).unwrap();
        reader
            .take(b"--XyZ\r\nContent-Disposition: form-data; name=\"f\"\r\n\r\n")
            .unwrap();
        for _ in 0..100 {
            reader.take(&[b'\r'; 10_000]).unwrap();
            assert!(reader.unread.len() < reader.delimiter.len());
        }
        reader.take(b"\r\n--XyZ--").unwrap();
        assert_eq!(reader.finish().unwrap()[0].size, 1_000_000);
    }

    #[test]
    fn other_content_types_are_not_read() {
        for other in ["application/json", "multipart/form-data", "multi", ""] {
            assert!(Reader::for_content_type(other).is_none(), "{other}");
        }
    }
}
