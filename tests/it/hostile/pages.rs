//! A browser's headers about a page, in every combination: requests of another site's page are not
//! forwarded, and no response allows it to read one.

use super::case::Rig;
use crate::support::recorder::{HEADER, mark};

const METHODS: [&str; 7] = ["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH"];

/// Values of a header: the text, and whether it makes the request invalid.
type Values = &'static [(&'static str, bool)];

const HOSTS: Values = &[
    ("127.0.0.1:{port}", false),
    ("localhost", false),
    ("LocalHost:1", false),
    ("evil.example", true),
    ("evil.example:{port}", true),
    ("192.0.2.1", true),
];

const ORIGINS: Values = &[
    ("", false),
    ("http://localhost:{port}", false),
    ("http://127.0.0.1:3000", false),
    ("https://localhost", false),
    ("http://evil.example", true),
    ("http://evil.example:{port}", true),
    ("http://localhost.evil.example", true),
    ("https://192.0.2.1", true),
    ("chrome-extension://abcdefgh", true),
    ("null", true),
];

const SITES: Values = &[
    ("", false),
    ("none", false),
    ("same-origin", false),
    ("same-site", true),
    ("cross-site", true),
    ("Same-Origin", true),
    ("garbage", true),
];

/// The rule, implemented independently: the host first, then the browser's headers.
fn expected(host: bool, origin: bool, site: bool) -> (u16, Option<&'static str>) {
    match (host, origin || site) {
        (true, _) => (421, Some("host")),
        (false, true) => (403, Some("cross-site")),
        (false, false) => (200, None),
    }
}

#[test]
fn a_page_of_another_site_is_kept_out_whatever_it_is_said_to_be() {
    let rig = Rig::start();
    let port = rig.proxy.address.port().to_string();
    let mut connection = rig.proxy.connect();
    let (mut nth, mut went_on) = (0, 0);
    for method in METHODS {
        for (host, foreign_host) in HOSTS {
            for (origin, foreign_origin) in ORIGINS {
                for (site, foreign_site) in SITES {
                    nth += 1;
                    let mut request = format!("{method} /{} HTTP/1.1\nHost: {host}\n", mark(nth));
                    for (name, value) in [("Origin", origin), ("Sec-Fetch-Site", site)] {
                        if !value.is_empty() {
                            request += &format!("{name}: {value}\n");
                        }
                    }
                    if method == "OPTIONS" {
                        request += "Access-Control-Request-Method: POST\n";
                        request += "Access-Control-Request-Headers: content-type\n";
                        request += "Access-Control-Request-Private-Network: true\n";
                    }
                    let bytes = rig.proxy.bytes(&(request.replace("{port}", &port) + "\n"));
                    connection.send(bytes);
                    let answer = connection.answer(&request);
                    let told = answer.header("x-collibra-auth-proxy");
                    let rule = expected(*foreign_host, *foreign_origin, *foreign_site);
                    assert_eq!((answer.status, told), rule, "{request}");
                    let seen = rig.recorder.with_mark(&mark(nth)).len();
                    assert_eq!(seen, usize::from(rule.0 == 200), "{request}");
                    assert_eq!(answer.header(HEADER).is_some(), rule.0 == 200);
                    let lets = |name: &str| name.starts_with("access-control-");
                    assert!(
                        !answer.headers.iter().any(|(name, _)| lets(name)),
                        "{answer:?}"
                    );
                    went_on += seen;
                }
            }
        }
    }
    assert_eq!(nth, 7 * 6 * 10 * 7);
    assert_eq!(went_on, 7 * 3 * 4 * 3);
    rig.recorder.assert_no_faults();
}

#[test]
fn a_header_given_twice_speaks_against_the_request_if_one_of_its_values_does() {
    let rig = Rig::start();
    for lines in [
        "Origin: http://localhost\nOrigin: http://evil.example\n",
        "Origin: http://evil.example\nOrigin: http://localhost\n",
        "Sec-Fetch-Site: same-origin\nSec-Fetch-Site: cross-site\n",
        "Sec-Fetch-Site: same-origin, cross-site\n",
        "Origin: http://localhost http://evil.example\n",
        "Origin: http://localhost\nSec-Fetch-Site: cross-site\n",
        "Origin:\n",
        "Origin: http://127.0.0.1:3000\nConnection: Upgrade\nUpgrade: websocket\n",
    ] {
        let request = format!("GET /x HTTP/1.1\nHost: {{host}}\n{lines}\n");
        rig.proxy.ask(&request).assert_refused(403, "cross-site");
    }
    assert_eq!(rig.recorder.count(), 0);
}
