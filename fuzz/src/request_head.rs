//! Fuzz target: the head of a caller's request.

use collibra_auth_proxy::policy::{head, target};

/// Parses `input` as a head, and the text between its first two spaces as a target.
///
/// # Panics
/// If an accepted head can be read in more than one way.
pub fn check(input: &[u8]) {
    if head::check(input).is_ok() {
        assert_one_end_of_line(input);
        assert_one_length(input);
    }
    let first = input.split(|byte| *byte == b'\r').next();
    let mut parts = first.unwrap_or_default().split(|byte| *byte == b' ');
    let Some(asked) = parts.nth(1) else {
        return;
    };
    match target::check_target(asked, |host| host == "localhost") {
        Ok(None) => assert_plain(asked),
        Ok(Some(uri)) => {
            let (host, path) = (b"localhost".as_slice(), uri.path().as_bytes());
            let mut places = asked.windows(host.len());
            assert!(places.any(|place| place.eq_ignore_ascii_case(host)));
            assert_plain(path);
        }
        Err(why) => assert!(!why.to_string().is_empty()),
    }
}

/// Asserts that a parser that ends lines at LF, at CRLF or at CR reads the same lines.
fn assert_one_end_of_line(head: &[u8]) {
    let text: Vec<u8> = head.to_vec();
    let ends = text.windows(2).filter(|pair| pair == b"\r\n").count();
    for byte in *b"\r\n" {
        assert_eq!(text.iter().filter(|it| **it == byte).count(), ends);
    }
    assert!(text.ends_with(b"\r\n"));
}

fn assert_one_length(head: &[u8]) {
    let text = String::from_utf8_lossy(head).to_ascii_lowercase();
    let has = |name: &str| text.contains(&format!("\n{name}:"));
    assert!(!has("content-length") || !has("transfer-encoding"));
}

/// Asserts that no server finds other segments in it, even if it decodes them repeatedly.
fn assert_plain(target: &[u8]) {
    let path = target.split(|byte| *byte == b'?').next();
    let path = std::str::from_utf8(path.unwrap_or_default()).expect("it is judged as text");
    let path = path.to_ascii_lowercase();
    assert!(path.starts_with('/') && !path.starts_with("//"), "{path}");
    for odd in [
        "\\", "%2e", "%2f", "%5c", "%00", "%0d", "%0a", "%7f", "#", "/..;", "/.;", "/..%3b",
    ] {
        assert!(!path.contains(odd), "{odd} in {path}");
    }
    for (at, _) in path.match_indices('%') {
        let code = path.get(at + 1..at + 3);
        assert!(code.is_some_and(|code| code.chars().all(|c| c.is_ascii_hexdigit())));
    }
}
