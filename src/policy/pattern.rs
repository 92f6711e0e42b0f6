//! Patterns of methods and paths, like `GET /rest/2.0/**`.
//!
//! A path is matched segment by segment: `*` matches any characters within a segment, `**` any
//! number of whole segments, including none; so `/graphql/**` also matches `/graphql`. Without a
//! method, all methods match; `GET` also matches `HEAD`, which asks for less.

use std::fmt;
use std::str::FromStr;

use http::Method;

/// A pattern for requests.
#[derive(Clone, PartialEq, Eq)]
pub struct Pattern {
    /// The original text.
    text: String,
    /// Empty for all.
    methods: Vec<Method>,
    segments: Vec<Segment>,
}

#[derive(Clone, PartialEq, Eq)]
enum Segment {
    /// `**`
    Any,
    /// One segment, in which `*` stands for any characters.
    One(String),
}

/// Whether paths are compared case-sensitively.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Case {
    /// Case-sensitive.
    Counts,
    /// Case-insensitive (ASCII only).
    Ignored,
}

/// Why a text is not a pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPattern {
    /// It has no path.
    #[error("its path does not begin with a slash")]
    NoPath,
    /// The text before the path is not a list of methods.
    #[error("what stands before the path is no method")]
    Method,
    /// It has a character that a read path never contains.
    #[error("its path has a character that is never matched")]
    Character,
    /// `**` next to other characters.
    #[error("`**` stands beside other characters of its segment")]
    Stars,
}

impl InvalidPattern {
    /// What to write instead.
    #[must_use]
    pub fn remedy(self) -> &'static str {
        match self {
            InvalidPattern::NoPath => "write it like \"GET /rest/2.0/**\" or \"/rest/2.0/**\"",
            InvalidPattern::Method => {
                "write methods in capitals, several with commas, like \"GET,POST /graphql\"; or the path alone for all"
            }
            InvalidPattern::Character => {
                "write the path alone and decoded: no query, `%`, `;`, `\\` or dot segment, nor two slashes"
            }
            InvalidPattern::Stars => {
                "write `**` as a segment of its own, or `*` for any characters within one"
            }
        }
    }
}

impl Pattern {
    /// Returns whether a request with `method` and the read `path` matches.
    #[must_use]
    pub fn matches(&self, method: &Method, path: &str, case: Case) -> bool {
        self.matches_method(method) && self.matches_path(path, case)
    }

    fn matches_method(&self, method: &Method) -> bool {
        let named = |method| self.methods.contains(method);
        self.methods.is_empty() || named(method) || (*method == Method::HEAD && named(&Method::GET))
    }

    fn matches_path(&self, path: &str, case: Case) -> bool {
        let same = |a: &u8, b: &u8| match case {
            Case::Counts => a == b,
            Case::Ignored => a.eq_ignore_ascii_case(b),
        };
        let matches_segment = |wanted: &Segment, segment: &&str| match wanted {
            Segment::Any => false,
            Segment::One(one) => matches(one.as_bytes(), segment.bytes(), |b| *b == b'*', same),
        };
        let segments = path.split('/').filter(|segment| !segment.is_empty());
        let is_any = |wanted: &Segment| *wanted == Segment::Any;
        matches(&self.segments, segments, is_any, matches_segment)
    }
}

/// Returns whether `items` match `wanted`, in which a star matches any number of items.
fn matches<W, I: Iterator + Clone>(
    wanted: &[W],
    items: I,
    is_star: impl Fn(&W) -> bool,
    is_match: impl Fn(&W, &I::Item) -> bool,
) -> bool {
    let mut rest = items;
    let mut at = 0;
    // where to continue after a mismatch: after the last star, one item later
    let mut retry = None;
    loop {
        let mut after = rest.clone();
        match (wanted.get(at), after.next()) {
            (Some(star), _) if is_star(star) => {
                at += 1;
                retry = Some((at, rest.clone()));
                continue;
            }
            (Some(one), Some(item)) if is_match(one, &item) => {
                at += 1;
                rest = after;
                continue;
            }
            (None, None) => return true,
            (_, None) => return false,
            _ => {}
        }
        let Some((after_star, later)) = &mut retry else {
            return false;
        };
        later.next();
        at = *after_star;
        rest = later.clone();
    }
}

impl FromStr for Pattern {
    type Err = InvalidPattern;

    fn from_str(text: &str) -> Result<Pattern, InvalidPattern> {
        let trimmed = text.trim();
        let start = trimmed.find('/').ok_or(InvalidPattern::NoPath)?;
        let (before, path) = trimmed.split_at(start);
        let methods = match before.trim_end() {
            "" | "*" if before.is_empty() || before.ends_with(' ') => Vec::new(),
            names if before.ends_with(' ') => {
                let names = names.split(',').map(|name| method(name.trim()));
                names.collect::<Option<_>>().ok_or(InvalidPattern::Method)?
            }
            _ => return Err(InvalidPattern::NoPath),
        };
        let odd = |c: char| c.is_control() || c.is_whitespace() || "%;\\?#".contains(c);
        let segments: Vec<&str> = path[1..].split('/').collect();
        let (last, inner) = segments.split_last().ok_or(InvalidPattern::NoPath)?;
        let empty_inside = inner.iter().any(|segment| segment.is_empty());
        let dots = segments
            .iter()
            .any(|segment| matches!(*segment, "." | ".."));
        if path.contains(odd) || empty_inside || dots {
            return Err(InvalidPattern::Character);
        }
        let named = inner.iter().chain((!last.is_empty()).then_some(last));
        let segments = named.map(|segment| match *segment {
            "**" => Ok(Segment::Any),
            text if text.contains("**") => Err(InvalidPattern::Stars),
            text => Ok(Segment::One(text.to_owned())),
        });
        Ok(Pattern {
            text: trimmed.to_owned(),
            methods,
            segments: segments.collect::<Result<_, _>>()?,
        })
    }
}

fn method(name: &str) -> Option<Method> {
    let is_plain = !name.is_empty() && name.bytes().all(|b| b.is_ascii_uppercase() || b == b'-');
    is_plain.then(|| Method::from_bytes(name.as_bytes()).ok())?
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.text, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn matches(pattern: &str, path: &str) -> bool {
        let pattern: Pattern = pattern.parse().unwrap();
        pattern.matches(&Method::GET, path, Case::Counts)
    }

    #[test]
    fn paths_are_matched_segment_by_segment() {
        for (pattern, path) in [
            ("/", "/"),
            ("/**", "/"),
            ("/**", "/a/b"),
            ("/a/**", "/a"),
            ("/a/**", "/a/"),
            ("/a/**", "/a/b/c"),
            ("/a/*/c", "/a/b/c"),
            ("/a/*", "/a/b"),
            ("/a/b*d", "/a/bcd"),
            ("/a/*.json", "/a/x.y.json"),
            ("/**/c", "/a/b/c"),
            ("/**/c", "/c"),
            ("/a/**/c/**/e", "/a/b/c/c/d/e"),
            ("/a/", "/a"),
        ] {
            assert!(matches(pattern, path), "{pattern} {path}");
        }
        for (pattern, path) in [
            ("/", "/a"),
            ("/a", "/ab"),
            ("/a/**", "/ab"),
            ("/a/*", "/a"),
            ("/a/*", "/a/b/c"),
            ("/a/*/c", "/a/c"),
            ("/**/c", "/a/b"),
            ("/a/**/c/**/e", "/a/c/d"),
            ("/a/b*d", "/a/bc"),
            ("/A", "/a"),
        ] {
            assert!(!matches(pattern, path), "{pattern} {path}");
        }
    }

    #[test]
    fn methods_are_named_or_all() {
        let allows = |text: &str, method: Method| {
            let pattern: Pattern = text.parse().unwrap();
            pattern.matches(&method, "/a", Case::Counts)
        };
        for pattern in ["/a", "* /a", "GET /a", "POST, GET /a"] {
            assert!(allows(pattern, Method::GET), "{pattern}");
            assert!(allows(pattern, Method::HEAD), "{pattern}");
        }
        assert!(!allows("POST /a", Method::GET));
        assert!(!allows("HEAD /a", Method::GET));
        assert!(allows("/a", Method::DELETE));
        assert!(allows(
            "VERSION-CONTROL /a",
            Method::from_bytes(b"VERSION-CONTROL").unwrap()
        ));
    }

    #[test]
    fn case_may_be_ignored() {
        let pattern: Pattern = "/rest/Auth*".parse().unwrap();
        assert!(pattern.matches(&Method::GET, "/REST/aUTHx", Case::Ignored));
        assert!(!pattern.matches(&Method::GET, "/REST/aUTHx", Case::Counts));
    }

    #[test]
    fn what_could_never_match_is_no_pattern() {
        for (text, why) in [
            ("", InvalidPattern::NoPath),
            ("GET", InvalidPattern::NoPath),
            ("rest/2.0/**", InvalidPattern::NoPath),
            ("https://acme.example/x", InvalidPattern::NoPath),
            ("get /x", InvalidPattern::Method),
            ("GET,, /x", InvalidPattern::Method),
            ("GET POST /x", InvalidPattern::Method),
            ("/a?b=c", InvalidPattern::Character),
            ("/a%20b", InvalidPattern::Character),
            ("/a b", InvalidPattern::Character),
            ("/a//b", InvalidPattern::Character),
            ("/a/../b", InvalidPattern::Character),
            ("/a/**b", InvalidPattern::Stars),
        ] {
            assert_eq!(text.parse::<Pattern>().unwrap_err(), why, "{text:?}");
        }
    }

    proptest! {
        /// Compared with the simplest implementation: one star at a time, trying every split.
        #[test]
        fn stars_match_as_by_trying_every_split(
            wanted in proptest::collection::vec("[ab*]{1,4}|\\*\\*", 0..5),
            path in proptest::collection::vec("[ab]{1,4}", 0..6),
        ) {
            let usable = wanted.iter().all(|segment| segment == "**" || !segment.contains("**"));
            prop_assume!(usable);
            let found = matches(&format!("/{}", wanted.join("/")), &format!("/{}", path.join("/")));
            let wanted: Vec<&str> = wanted.iter().map(String::as_str).collect();
            let path: Vec<&str> = path.iter().map(String::as_str).collect();
            prop_assert_eq!(found, plainly(&wanted, &path));
        }
    }

    fn plainly(wanted: &[&str], path: &[&str]) -> bool {
        match (wanted.split_first(), path.split_first()) {
            (None, None) => true,
            (None, Some(_)) => false,
            (Some((&"**", rest)), _) => (0..=path.len()).any(|n| plainly(rest, &path[n..])),
            (Some(_), None) => false,
            (Some((one, rest)), Some((segment, further))) => {
                one_plainly(one.as_bytes(), segment.as_bytes()) && plainly(rest, further)
            }
        }
    }

    fn one_plainly(wanted: &[u8], text: &[u8]) -> bool {
        match wanted.split_first() {
            None => text.is_empty(),
            Some((b'*', rest)) => (0..=text.len()).any(|n| one_plainly(rest, &text[n..])),
            Some((a, rest)) => text
                .split_first()
                .is_some_and(|(b, further)| a == b && one_plainly(rest, further)),
        }
    }
}
