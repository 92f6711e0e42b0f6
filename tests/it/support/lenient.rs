//! All readings of a request's path by lenient servers: decoded once or twice, parameters removed,
//! dots resolved, slashes of all kinds, case, and other tolerated forms, in any order.
//!
//! No server decodes three times, so a decoded path is decoded at most once more.

use std::collections::BTreeSet;

/// The most readings that are examined: a path with more was not made to be read.
const MOST: usize = 400;

/// All readings of the path of `target`, in lower case, including the unchanged path.
pub(crate) fn readings(target: &str) -> BTreeSet<String> {
    let end = target.find(['?', '#']).unwrap_or(target.len());
    let first = target[..end].to_ascii_lowercase();
    let mut found = BTreeSet::from([(first.clone(), 0)]);
    let mut next = vec![(first, 0)];
    while let Some((path, decodings)) = next.pop() {
        for (nth, way) in WAYS.iter().enumerate() {
            let decodings = decodings + usize::from(nth == 0);
            let read = (way(&path).to_ascii_lowercase(), decodings);
            if decodings <= 2 && found.len() < MOST && found.insert(read.clone()) {
                next.push(read);
            }
        }
    }
    found.into_iter().map(|(path, _)| path).collect()
}

/// The readings of `target` that are `prefix` or below it.
pub(crate) fn at_or_below(target: &str, prefix: &str) -> Vec<String> {
    // only decoding creates letters: this is faster for nearly all paths
    let longest = prefix.split('/').max_by_key(|name| name.len());
    let lower = target.to_ascii_lowercase();
    if !lower.contains('%') && !lower.contains(longest.unwrap_or_default()) {
        return Vec::new();
    }
    let below = |path: &String| {
        let rest = path.strip_prefix(prefix);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    readings(target).into_iter().filter(below).collect()
}

/// Decoding comes first; it is counted.
const WAYS: &[fn(&str) -> String] = &[
    decoded,
    by_other_letters,
    decoded_by_u,
    overlong,
    |path| path.replace('\\', "/"),
    |path| by_segment(path, |s| s.split(';').next().unwrap_or_default()),
    |path| by_segment(path, |s| s.trim_end_matches(['.', ' '])).replace("//", "/"),
    |path| by_segment(path, |s| s.trim_matches([' ', '\t', '\r', '\n'])),
    |path| path.split('\0').next().unwrap_or_default().to_owned(),
    without_double_slashes,
    resolved,
];

fn by_segment(path: &str, cut: impl Fn(&str) -> &str) -> String {
    let segments = path.split('/');
    let kept = segments.map(|s| if matches!(s, "." | "..") { s } else { cut(s) });
    kept.collect::<Vec<_>>().join("/")
}

/// Percent-decodes once, to Latin-1.
fn decoded(path: &str) -> String {
    let mut read = String::new();
    let mut rest = path;
    while let Some((before, after)) = rest.split_once('%') {
        read += before;
        match after.get(..2).map(|code| u8::from_str_radix(code, 16)) {
            Some(Ok(byte)) => {
                read.push(char::from(byte));
                rest = &after[2..];
            }
            _ => {
                read.push('%');
                rest = after;
            }
        }
    }
    read + rest
}

/// Letters whose other case is an ASCII letter, and wide characters, in UTF-8 read as Latin-1.
fn by_other_letters(path: &str) -> String {
    let mut read = path
        .replace("\u{c5}\u{bf}", "s")
        .replace("\u{e2}\u{84}\u{aa}", "k")
        .replace("\u{ef}\u{bc}\u{8e}", ".")
        .replace("\u{ef}\u{bc}\u{8f}", "/");
    for letter in b'a'..=b'z' {
        let wide = format!("\u{ef}\u{bd}{}", char::from(letter - 0x61 + 0x81));
        read = read.replace(&wide, &char::from(letter).to_string());
    }
    read
}

/// Decodes `%u002e`, as old servers do.
fn decoded_by_u(path: &str) -> String {
    let mut read = path.to_owned();
    for (code, plain) in [("%u002e", "."), ("%u002f", "/"), ("%u005c", "\\")] {
        read = read.replace(code, plain);
    }
    read
}

/// Decodes overlong UTF-8, as bytes and in wide forms.
fn overlong(path: &str) -> String {
    let mut read = path.to_owned();
    for (code, plain) in [
        ("\u{c0}\u{ae}", "."),
        ("\u{c0}\u{af}", "/"),
        ("\u{c1}\u{9c}", "\\"),
        ("\u{e0}\u{80}\u{ae}", "."),
        ("\u{e0}\u{80}\u{af}", "/"),
    ] {
        read = read.replace(code, plain);
    }
    read
}

fn without_double_slashes(path: &str) -> String {
    let mut read = path.to_owned();
    while read.contains("//") {
        read = read.replace("//", "/");
    }
    read
}

fn resolved(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    for segment in path.split('/').skip(1) {
        match segment {
            "." => {}
            ".." => drop(kept.pop()),
            _ => kept.push(segment),
        }
    }
    format!("/{}", kept.join("/"))
}

mod of_the_reader_itself {
    use super::*;

    #[test]
    fn each_forgiveness_is_one_of_its_readings() {
        for target in [
            "/a/b",
            "/A/B?x",
            "/%61/b",
            "/%2561/b",
            "/x/../a/b",
            "/x/%2e%2e/a/b",
            "/x/%252e%252e/a/b",
            "/x/..;y/a/b",
            "//a//b",
            "/a\\b",
            "/a%5cb",
            "/a%2fb",
            "/a;x=1/b;y",
            "/a./b.",
            "/a%20/b",
            "/a/b%00.css",
            "/a/b\u{c0}\u{af}c",
            "/x/%c0%ae%c0%ae/a/b",
            "/x/%u002e%u002e/a/b",
            "/%EF%BD%81/b",
            "/x/%EF%BC%8E%ef%bc%8e/a/b",
        ] {
            assert!(!at_or_below(target, "/a/b").is_empty(), "{target}");
        }
        for target in ["/a/bc", "/x/a/b", "/a", "/ab", "/?/a/b"] {
            assert!(at_or_below(target, "/a/b").is_empty(), "{target}");
        }
    }
}
