//! Web pages have no access: a listener on localhost accepts only its own names, and no page of
//! another site.

use crate::support::pair;

#[test]
fn a_page_of_another_site_and_a_rebound_name_are_refused() {
    let (simulator, proxy) = pair();
    let port = proxy.address.port();
    let local = format!("localhost:{port}");
    let mut let_in = 0;
    for (host, headers, status) in [
        ("127.0.0.1", String::new(), 200),
        (local.as_str(), String::new(), 200),
        ("LOCALHOST", String::new(), 200),
        ("[::1]:99", String::new(), 200),
        ("attacker.example", String::new(), 421),
        ("localhost.attacker.example", String::new(), 421),
        ("127.0.0.1.", String::new(), 421),
        ("0.0.0.0", String::new(), 421),
        ("attacker.example", format!("Origin: http://{local}\n"), 421),
        ("localhost", format!("Origin: http://{local}\n"), 200),
        ("localhost", "Origin: null\n".to_owned(), 403),
        (
            "localhost",
            "Origin: https://evil.example\n".to_owned(),
            403,
        ),
        (
            "localhost",
            format!("Origin: http://{local}\nOrigin: https://evil.example\n"),
            403,
        ),
        ("localhost", "Sec-Fetch-Site: none\n".to_owned(), 200),
        ("localhost", "Sec-Fetch-Site: same-origin\n".to_owned(), 200),
        ("localhost", "Sec-Fetch-Site: same-site\n".to_owned(), 403),
        ("localhost", "Sec-Fetch-Site: cross-site\n".to_owned(), 403),
        (
            "localhost",
            format!("Origin: http://{local}\nSec-Fetch-Site: cross-site\n"),
            403,
        ),
    ] {
        let answer = proxy.ask(&format!("GET /x HTTP/1.1\nHost: {host}\n{headers}\n"));
        assert_eq!(answer.status, status, "{host} {headers}: {}", answer.text());
        match status {
            421 => answer.assert_refused(421, "host"),
            403 => answer.assert_refused(403, "cross-site"),
            _ => let_in += 1,
        }
    }
    assert_eq!(simulator.count("requests"), let_in);
}
