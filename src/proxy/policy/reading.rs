//! A path as a lenient server might read it: percent-decoded, dot segments and doubled slashes
//! resolved, `;parameters` cut.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

use crate::proxy::target::Malformed;

/// The ways in which a path may be read. Nearly every path has one.
#[derive(Debug)]
pub(in crate::proxy) struct Readings<'a> {
    once: Cow<'a, str>,
    /// As a server reads it that decodes what was decoded before.
    twice: Option<String>,
}

impl<'a> Readings<'a> {
    /// Reads `path`, which has passed the checks of a target. Costs nothing for a path that can be
    /// read in one way only.
    ///
    /// # Errors
    /// [`Malformed`] if what it encodes is no text.
    pub(in crate::proxy) fn of(path: &'a str) -> Result<Readings<'a>, Malformed> {
        let plain = !path.contains(['%', ';', '\\']) && !path.contains("//");
        if plain && !path.contains("/.") {
            let once = Cow::Borrowed(path);
            return Ok(Readings { once, twice: None });
        }
        let decoded = decoded(path)?;
        let twice = if decoded.contains('%') {
            let again = self::decoded(&decoded)?;
            (*again != *decoded).then(|| resolved(&again))
        } else {
            None
        };
        let once = Cow::Owned(resolved(&decoded));
        Ok(Readings { once, twice })
    }

    /// As most servers read it.
    pub(in crate::proxy) fn likely(&self) -> &str {
        &self.once
    }

    /// Whether `holds` for one reading at least.
    pub(in crate::proxy) fn any(&self, holds: impl Fn(&str) -> bool) -> bool {
        holds(&self.once) || self.twice.as_deref().is_some_and(holds)
    }

    /// Whether `holds` for every reading.
    pub(in crate::proxy) fn all(&self, holds: impl Fn(&str) -> bool) -> bool {
        holds(&self.once) && self.twice.as_deref().is_none_or(holds)
    }
}

fn decoded(path: &str) -> Result<Cow<'_, str>, Malformed> {
    // other than UTF-8 would be read by one server as this and by another as that
    let decoded = percent_decode_str(path).decode_utf8();
    decoded.map_err(|_| Malformed::AmbiguousPath)
}

fn resolved(path: &str) -> String {
    let mut segments: Vec<&str> = Vec::new();
    for segment in path.split(['/', '\\']) {
        match segment.split(';').next().unwrap_or_default() {
            "" | "." => {}
            ".." => {
                segments.pop();
            }
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
        let readings = Readings::of("/rest/2.0/assets").unwrap();
        assert!(matches!(readings.once, Cow::Borrowed("/rest/2.0/assets")));
        assert!(readings.twice.is_none());
    }

    #[test]
    fn a_path_is_read_as_a_lenient_server_might() {
        for (path, once, twice) in [
            ("/a/./b/../c", "/a/c", None),
            ("/a//b/", "/a/b", None),
            ("/../../a", "/a", None),
            ("/a;x=1/b;y", "/a/b", None),
            ("/%61/b%20c", "/a/b c", None),
            ("/a/%2562", "/a/%62", Some("/a/b")),
            ("/a/%252e%252e/b", "/a/%2e%2e/b", Some("/b")),
            ("/a/100%25", "/a/100%", None),
            ("/a\\..\\b", "/b", None),
        ] {
            let readings = Readings::of(path).unwrap();
            assert_eq!(readings.once, once, "{path}");
            assert_eq!(readings.twice.as_deref(), twice, "{path}");
        }
    }

    #[test]
    fn what_is_no_text_is_refused() {
        for path in ["/a/%c0%ae%c0%ae/b", "/a/%ff", "/a/%25ff"] {
            assert_eq!(
                Readings::of(path).unwrap_err(),
                Malformed::AmbiguousPath,
                "{path}"
            );
        }
    }
}
