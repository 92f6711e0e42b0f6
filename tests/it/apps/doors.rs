//! Apps that are identified by their connection: a client certificate, or their own socket.

use super::*;
use crate::support::certificate::Authority;
use crate::support::tls::Client;
use crate::support::{Connection, until};

/// Three apps: identified by a certificate with its name, by one with another name, and by a key.
const CERTIFIED: &str = r#"
[app.lineage]
key_env = "LINEAGE_KEY"
[app.reader]
certificate = "reader.internal"
allow = ["GET /rest/2.0/**"]
[app.other]
certificate = "other.internal"
allow = []
"#;

fn asked(connection: &mut Connection, line: &str, headers: &str) -> Answer {
    let request = format!("{line} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n");
    connection.send(&request);
    connection.answer(&request)
}

#[test]
fn an_app_is_known_by_its_certificate() {
    let (authority, apps) = (Authority::new(), Authority::new());
    let files = authority.files("localhost");
    let keys = format!(
        "tls = {{ cert_file = {:?}, key_file = {:?}, client_ca_file = {:?} }}\n{CERTIFIED}",
        files.cert,
        files.key,
        apps.ca_file()
    );
    let simulator = Simulator::start();
    let proxy = Proxy::configured(&simulator.url(), "", &keys)
        .variable("LINEAGE_KEY", KEY)
        .start();
    proxy.has_token();
    let as_whom = |shown| Client::new(&authority, &["http/1.1"], shown).open(proxy.address);

    let mut reader = as_whom(Some((&apps, "reader.internal")));
    assert_eq!(asked(&mut reader, "GET /rest/2.0/assets", "").status, 200);
    asked(&mut reader, "GET /graphql", "").assert_refused(403, "denied");
    // the certificate identifies it, whatever else it presents
    let shown = format!("Authorization: Bearer {KEY}\r\n");
    asked(&mut reader, "GET /graphql", &shown).assert_refused(403, "denied");
    // by default the certificate's name is the app's name
    let mut lineage = as_whom(Some((&apps, "lineage")));
    assert_eq!(asked(&mut lineage, "GET /graphql", "").status, 200);

    let mut nobody = as_whom(Some((&apps, "nobody.internal")));
    asked(&mut nobody, "GET /rest/2.0/assets", "").assert_refused(401, "unknown-app");
    let mut without = as_whom(None);
    asked(&mut without, "GET /rest/2.0/assets", "").assert_refused(401, "unknown-app");
    assert_eq!(asked(&mut without, "GET /graphql", &shown).status, 200);

    // a program with its own client-credentials code may present anything
    let form = "grant_type=client_credentials&client_id=x&client_secret=y";
    let length = form.len();
    let request = format!(
        "POST /rest/oauth/v2/token HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\
         Content-Type: application/x-www-form-urlencoded\r\n\r\n{form}"
    );
    reader.send(&request);
    let granted = reader.answer(&request);
    assert_eq!(granted.status, 200, "{}", granted.text());
    let token = granted.json()["access_token"].as_str().unwrap().to_owned();
    let shown = format!("Authorization: Bearer {token}\r\n");
    assert_eq!(
        asked(&mut reader, "GET /rest/2.0/assets", &shown).status,
        200
    );
    // the token is valid only on connections of that kind
    asked(&mut without, "GET /rest/2.0/assets", &shown).assert_refused(401, "unknown-app");
    simulator.assert_one_token_and_none_unauthorized();
}

#[test]
fn an_app_is_known_by_a_socket_of_its_own() {
    let simulator = Simulator::start();
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("reader.sock");
    let more = format!(
        "{APPS}\n[listener.reader]\naddress = \"unix:{}\"\napp = \"reader\"\n",
        socket.display()
    );
    let proxy = Proxy::configured(&simulator.url(), "", &more)
        .variable("LINEAGE_KEY", KEY)
        .variable("READER_KEY", READER_KEY)
        .start();
    proxy.has_token();
    let mut reader = {
        until("the socket", || socket.exists().then_some(()));
        Connection::open_unix(&socket)
    };
    assert_eq!(asked(&mut reader, "GET /rest/2.0/assets", "").status, 200);
    asked(&mut reader, "GET /rest/catalog/1.0", "").assert_refused(403, "denied");
    // other callers still have to authenticate
    call(&proxy, "GET /rest/2.0/assets", "").assert_refused(401, "unknown-app");
    let counted = "collibra_auth_proxy_requests_total{app=\"reader\",client=\"catalog\",code=\"200\",method=\"GET\"}";
    assert_eq!(proxy.metric(counted), Some(1.0));
}
