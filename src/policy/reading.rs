//! A path as a lenient server might read it: percent-decoded once or twice, with or without
//! resolved dot segments and doubled slashes, without `;parameters` and without dots and spaces
//! around names. Letters are folded to ASCII if they are another case or the full-width form.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

use super::target::Malformed;

/// The most `..` segments of a path. No real program needs more, and each adds a reading.
const MOST_STEPS_BACK: usize = 16;

/// The readings of a path. Nearly every path has one.
#[derive(Debug)]
pub(crate) struct PathReadings<'a> {
    /// The reading of most servers.
    likely: Cow<'a, str>,
    /// The readings of others.
    others: Vec<String>,
    /// The readings of case-insensitive servers. Only what is denied is looked for in these.
    folded: Vec<String>,
}

impl<'a> PathReadings<'a> {
    /// Reads `path`, which has passed the target's checks. Free of cost for a path with one
    /// reading.
    ///
    /// # Errors
    /// [`Malformed`] if it decodes to something that is not text, or has too many `..`.
    pub(crate) fn of(path: &'a str) -> Result<PathReadings<'a>, Malformed> {
        if is_plain(path) {
            let likely = Cow::Borrowed(path);
            return Ok(PathReadings {
                likely,
                others: Vec::new(),
                folded: Vec::new(),
            });
        }
        let once = decoded(path)?;
        let twice = decoded(&once)?;
        let mut others = ways(&once)?;
        if twice != once {
            others.extend(ways(&twice)?);
        }
        let mut folded = Vec::new();
        if !twice.is_ascii() {
            let narrow: String = twice.chars().map(narrow).collect();
            others.extend(ways(&narrow)?);
            folded = ways(&narrow.chars().map(plain_letters).collect::<String>())?;
        }
        let likely = resolved(&once, Names::AsTheyAre);
        others.retain(|other| *other != likely);
        let likely = Cow::Owned(likely);
        Ok(PathReadings {
            likely,
            others,
            folded,
        })
    }

    /// The reading of most servers.
    pub(crate) fn likely(&self) -> &str {
        &self.likely
    }

    /// Returns whether `holds` for at least one reading.
    pub(crate) fn any(&self, holds: impl Fn(&str) -> bool) -> bool {
        let mut others = self.others.iter().chain(&self.folded);
        holds(&self.likely) || others.any(|other| holds(other))
    }

    /// Returns whether `holds` for every reading of a case-sensitive server.
    pub(crate) fn all(&self, holds: impl Fn(&str) -> bool) -> bool {
        holds(&self.likely) && self.others.iter().all(|other| holds(other))
    }
}

/// Returns whether a path has only one reading: no percent-encoding, no parameters, no doubled
/// slashes, and no dots next to a slash.
fn is_plain(path: &str) -> bool {
    let mut before = b'x';
    for byte in path.bytes() {
        match (before, byte) {
            (_, b';' | b'%' | b'\\' | 0x80..) | (b'/' | b'.', b'/') | (b'/', b'.') => return false,
            _ => before = byte,
        }
    }
    before != b'.'
}

fn decoded(path: &str) -> Result<Cow<'_, str>, Malformed> {
    // servers would read other encodings differently
    let decoded = percent_decode_str(path).decode_utf8();
    decoded.map_err(|_| Malformed::AmbiguousPath)
}

/// The ASCII character of the full-width form `c`, as old Windows encodings convert it; else `c`.
fn narrow(c: char) -> char {
    let ascii = match c {
        '\u{ff01}'..='\u{ff5e}' => char::from_u32(u32::from(c) - 0xfee0),
        '\u{3000}' => Some(' '),
        _ => None,
    };
    ascii.unwrap_or(c)
}

/// The ASCII letters that have `c` as another case, like the long s and the Kelvin sign; else `c`.
fn plain_letters(c: char) -> String {
    if c.is_ascii() {
        return c.into();
    }
    let upper = c.to_uppercase().collect::<String>();
    let lower = c.to_lowercase().collect::<String>();
    match c {
        // with a dot above that some servers drop
        '\u{130}' => "i".to_owned(),
        _ if upper.is_ascii() => upper.to_ascii_lowercase(),
        _ if lower.is_ascii() => lower,
        _ => c.into(),
    }
}

/// The readings of a decoded path: its resolved form, and for a server that resolves no dots, every
/// prefix on its way. Each with names unchanged, and without the dots and spaces around them that
/// some servers remove.
fn ways(path: &str) -> Result<Vec<String>, Malformed> {
    let backwards = path.split(['/', '\\']).filter(|name| *name == "..");
    if backwards.count() > MOST_STEPS_BACK {
        return Err(Malformed::AmbiguousPath);
    }
    let mut ends = vec![path.len()];
    for (at, _) in path.match_indices("..") {
        if path[..at].ends_with(['/', '\\']) {
            ends.push(at);
        }
    }
    let ends = ends.into_iter().map(|end| &path[..end]);
    let mut ways: Vec<String> = ends
        .flat_map(|way| [Names::AsTheyAre, Names::Bare].map(|names| resolved(way, names)))
        .collect();
    ways.sort_unstable();
    ways.dedup();
    Ok(ways)
}

/// How names are read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Names {
    AsTheyAre,
    /// Without spaces around them, and without dots and spaces at their end.
    Bare,
}

fn resolved(path: &str, names: Names) -> String {
    let mut segments: Vec<&str> = Vec::new();
    for segment in path.split(['/', '\\']) {
        let name = segment.split(';').next().unwrap_or_default();
        let bare = names == Names::Bare;
        match if bare { name.trim() } else { name } {
            "" | "." => {}
            ".." => {
                segments.pop();
            }
            name if bare => segments.push(name.trim_end_matches(['.', ' '])),
            name => segments.push(name),
        }
    }
    format!("/{}", segments.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_path_is_read_as_it_stands() {
        let readings = PathReadings::of("/rest/2.0/assets").unwrap();
        assert!(matches!(readings.likely, Cow::Borrowed("/rest/2.0/assets")));
        assert!(readings.others.is_empty());
    }

    #[test]
    fn a_path_is_read_as_a_lenient_server_might() {
        for (path, likely, others) in [
            ("/a//b/", "/a/b", &[][..]),
            ("/a/./b", "/a/b", &[]),
            ("/a/b/../c", "/a/c", &["/a/b"]),
            ("/../../a", "/a", &["/"]),
            ("/a;x=1/b;y", "/a/b", &[]),
            ("/%61/b%20c", "/a/b c", &[]),
            ("/a/%2562", "/a/%62", &["/a/b"]),
            ("/a/%252e%252e/b", "/a/%2e%2e/b", &["/a", "/b"]),
            ("/a/100%25", "/a/100%", &[]),
            ("/a\\..\\b", "/b", &["/a"]),
            ("/a./b", "/a./b", &["/a/b"]),
            ("/a%20/b...", "/a /b...", &["/a/b"]),
            ("/a/..%20/b", "/a/.. /b", &["/a", "/b"]),
        ] {
            let readings = PathReadings::of(path).unwrap();
            assert_eq!(readings.likely, likely, "{path}");
            assert_eq!(readings.others, others, "{path}");
        }
    }

    #[test]
    fn letters_stand_for_those_whose_other_case_they_are() {
        for path in [
            "/re\u{17f}t/token",
            "/re%C5%BFt/to%E2%84%AAen",
            "/re%25C5%25BFt/token",
            "/re\u{fb06}/token",
            "/\u{ff52}est/to\u{212a}en",
            "/rest\u{ff0f}token",
            "/x/\u{ff0e}\u{ff0e}/rest/token",
        ] {
            let readings = PathReadings::of(path).unwrap();
            assert!(readings.any(|path| path == "/rest/token"), "{readings:?}");
        }
        for (letter, plain) in [('\u{131}', "i"), ('\u{130}', "i"), ('\u{df}', "ss")] {
            assert_eq!(plain_letters(letter), plain);
        }
        for other in ['\u{e9}', '\u{416}', '\u{6771}'] {
            assert_eq!(plain_letters(other), other.to_string());
        }
        // what is allowed is allowed as it is written
        let readings = PathReadings::of("/Stra%C3%9Fe").unwrap();
        assert!(readings.all(|path| path == "/Stra\u{df}e"), "{readings:?}");
        assert!(readings.any(|path| path == "/Strasse"), "{readings:?}");
    }

    #[test]
    fn a_path_that_goes_back_and_back_is_refused() {
        let path = |times: usize| format!("/a{}", "/..".repeat(times));
        assert!(PathReadings::of(&path(16)).is_ok());
        let refused = PathReadings::of(&path(17)).unwrap_err();
        assert_eq!(refused, Malformed::AmbiguousPath);
    }

    #[test]
    fn what_is_no_text_is_refused() {
        for path in ["/a/%c0%ae%c0%ae/b", "/a/%ff", "/a/%25ff"] {
            assert_eq!(
                PathReadings::of(path).unwrap_err(),
                Malformed::AmbiguousPath,
                "{path}"
            );
        }
    }
}
