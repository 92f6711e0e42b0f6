//! Denied paths in other spellings, against an origin with every lenient reading: none of them
//! reaches a denied path, whether the proxy denies it or cannot tell.

use super::case::Rig;
use crate::support::lenient;
use crate::support::recorder::DENIED;

/// Spellings of the path between `{` and `}`: `/rest/auth/v1/clients`, or the token endpoint's.
/// `{1}` is its first segment, `{2}` its second, `{3}` the rest.
const SPELLINGS: &[&str] = &[
    "/{1}/{2}/{3}",
    "/{1}/{2}/{3}/",
    "/{1}/{2}/{3}?x",
    "/{1}/{2}/{3}#x",
    "//{1}/{2}/{3}",
    "/{1}//{2}/{3}",
    "/{1}///{2}//{3}",
    "/./{1}/{2}/{3}",
    "/{1}/./{2}/{3}",
    "/{1}/{2}/./{3}",
    "/x/../{1}/{2}/{3}",
    "/../{1}/{2}/{3}",
    "/{1}/x/../{2}/{3}",
    "/{1}/2.0/../{2}/{3}",
    "/{1}/{2}/{3}/..",
    "/{1}/{2}/{3}/.",
    "/{1}/{2}/{3}/../{3}",
    "/{1}/{2}/{3}/x/../../y",
    "/x/..;/{1}/{2}/{3}",
    "/x/..;y=z/{1}/{2}/{3}",
    "/.;/{1}/{2}/{3}",
    "/;/{1}/{2}/{3}",
    "/;x/{1}/{2}/{3}",
    "/{1};/{2}/{3}",
    "/{1};a=b/{2};c/{3}",
    "/{1}/{2}/{3};d=e",
    "/{1}/;a/{2}/{3}",
    "/{1}%3bx/{2}/{3}",
    "/x/..%3bx/{1}/{2}/{3}",
    "/%2e/{1}/{2}/{3}",
    "/x/%2e%2e/{1}/{2}/{3}",
    "/x/.%2e/{1}/{2}/{3}",
    "/x/%252e%252e/{1}/{2}/{3}",
    "/{1}%2f{2}/{3}",
    "/{1}%252f{2}/{3}",
    "/{1}%5c{2}/{3}",
    "/{1}\\{2}/{3}",
    "\\{1}\\{2}\\{3}",
    "/x\\..\\..\\{1}/{2}/{3}",
    "/x/..%5c{1}/{2}/{3}",
    "/x/..%c0%af{1}/{2}/{3}",
    "/x/%c0%ae%c0%ae/{1}/{2}/{3}",
    "/x/%e0%80%ae%e0%80%ae/{1}/{2}/{3}",
    "/x/%u002e%u002e/{1}/{2}/{3}",
    "/{1}%u002f{2}/{3}",
    "/{1}./{2}/{3}",
    "/{1}/{2}./{3}",
    "/{1}/{2}.../{3}",
    "/{1}%20/{2}/{3}",
    "/%20{1}/{2}/{3}",
    "/{1}/{2} /{3}",
    "/{1}/{2}/{3}%00",
    "/{1}/{2}/{3}%00.css",
    "/{1}%00/{2}/{3}",
    "/{1}%0d/{2}/{3}",
    "/{1}%09/{2}/{3}",
    "/{1}/{2}%0a/{3}",
    "/{1 by other letters}/{2}/{3}",
    "/{1}/{2}/{3 by other letters}",
    "/{1 wide}/{2}/{3}",
    "/{1}%EF%BC%8F{2}/{3}",
    "/x/%EF%BC%8E%EF%BC%8E/{1}/{2}/{3}",
    "/%{1 in hex}/{2}/{3}",
    "/%25{1 in hex}/{2}/{3}",
    "http://{host}/{1}/{2}/{3}",
    "http://{host}/x/../{1}//{2}/{3}",
    "http://{origin}/{1}/{2}/{3}",
    "http://{host}//{1}/{2}/{3}",
];

/// The method in other places, as old programs and those behind firewalls send it.
const OVERRIDES: [&str; 4] = [
    "",
    "X-HTTP-Method-Override: GET\n",
    "X-Method-Override: GET\n",
    "X-HTTP-Method: GET\n",
];

fn spelt(spelling: &str, path: &str) -> String {
    let mut parts = path[1..].splitn(3, '/');
    let (one, two, three) = (
        parts.next().unwrap(),
        parts.next().unwrap(),
        parts.next().unwrap(),
    );
    let hex: Vec<String> = one.bytes().map(|byte| format!("{byte:02x}")).collect();
    // the long s and the Kelvin sign, whose other case is an ASCII letter
    let by_other_letters = |text: &str| text.replace('s', "%C5%BF").replace('k', "%e2%84%aa");
    let wide = |text: &str| -> String {
        let letters = text
            .bytes()
            .map(|b| format!("%EF%BD%{:02X}", b - 0x61 + 0x81));
        letters.collect()
    };
    spelling
        .replace("{1 by other letters}", &by_other_letters(one))
        .replace("{3 by other letters}", &by_other_letters(three))
        .replace("{1 wide}", &wide(&one.to_ascii_lowercase()))
        .replace("{1 in hex}", &hex.join("%"))
        .replace("{1}", one)
        .replace("{2}", two)
        .replace("{3}", three)
}

#[test]
fn no_spelling_reaches_what_is_denied() {
    let rig = Rig::start();
    let mut forwarded = Vec::new();
    let mut tried = 0;
    for path in ["/rest/auth/v1/clients", "/Rest/AUTH/V1", DENIED[1]] {
        for spelling in SPELLINGS {
            for (method, more) in [("GET", ""), ("POST", OVERRIDES[1 + tried % 3])] {
                let target = spelt(spelling, path)
                    .replace("{host}", &rig.proxy.address.to_string())
                    .replace("{origin}", &rig.recorder.address.to_string());
                let host = target.split('/').nth(2).filter(|_| target.contains("://"));
                let host = host.unwrap_or("localhost");
                let request = format!("{method} {target} HTTP/1.1\nHost: {host}\n{more}\n");
                let answer = rig.proxy.ask(&request);
                tried += 1;
                match answer.status {
                    200 => forwarded.push(target),
                    400 | 403 => {}
                    status => panic!("{status} to {request}"),
                }
            }
        }
    }
    // by the recorder's check, and by this test's
    rig.recorder.assert_no_faults();
    let reached: Vec<&String> = forwarded
        .iter()
        .filter(|target| {
            DENIED
                .iter()
                .any(|it| !lenient::at_or_below(target, it).is_empty())
        })
        .collect();
    assert!(reached.is_empty(), "{reached:?}");
    assert!(tried > 300 && forwarded.len() < 10, "{forwarded:?}");
}

/// A path that only resembles a denied one is forwarded.
#[test]
fn what_only_looks_like_it_goes_on() {
    let rig = Rig::start();
    for target in [
        "/rest/auth/v10/clients",
        "/rest/auth/v2/clients",
        "/rest/authv1/clients",
        "/rest/2.0/auth/v1/clients",
        "/rest/2.0/assets?path=/rest/auth/v1",
        "/rest/2.0/assets?path=../../rest/auth/v1/clients",
        "/rest/oauth/v2/tokens",
        "/rest/oauth/v2",
        "/x/rest/auth/v1",
        "/rest/2.0/a.b/c..d/...",
        "/rest/2.0/assets/urn:1;v=2",
    ] {
        let answer = rig
            .proxy
            .ask(&format!("GET {target} HTTP/1.1\nHost: localhost\n\n"));
        assert_eq!(answer.status, 200, "{target}: {}", answer.text());
    }
    rig.recorder.assert_no_faults();
}
