//! The API, the registration of clients, and start and stop.

use std::sync::Arc;

use serde_json::json;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::*;
use crate::simulator::TlsFiles;

#[tokio::test]
async fn only_one_live_token_opens_the_api() {
    let simulator = simulator(Config::default()).await;
    let live = bearer(&simulator).await;
    let path = "GET /rest/2.0/application/info";
    let code = async |headers: &[&str]| {
        let answer = send(&simulator, path, headers, "").await;
        (
            answer.status,
            answer.json()["errorCode"].as_str().map(str::to_owned),
        )
    };
    let refused = |code: &str| (401, Some(code.to_owned()));
    assert_eq!(code(&[&live]).await, (200, None));
    assert_eq!(code(&[]).await, refused("missingToken"));
    assert_eq!(
        code(&["Authorization: Bearer unheard-of"]).await,
        refused("invalidToken")
    );
    assert_eq!(code(&[&live, &live]).await, refused("severalTokens"));
    assert_eq!(
        code(&[&basic("admin", "admin")]).await,
        refused("notBearer")
    );
    let revoked = send(&simulator, "POST /_simulator/revoke", &[], "").await;
    assert_eq!(revoked.json(), json!({ "revoked": 1 }));
    assert_eq!(code(&[&live]).await, refused("expiredToken"));
    let body = send(&simulator, path, &[&live], "").await.json();
    let expected = [
        "errorCode",
        "helpMessage",
        "statusCode",
        "titleMessage",
        "userMessage",
    ];
    assert_eq!(fields(&body), expected);
    let state = simulator.state();
    assert_eq!(
        (state.requests, state.unauthorized, state.token_requests),
        (7, 6, 1)
    );
}

#[tokio::test]
async fn what_arrives_is_told_back_without_the_token() {
    let simulator = simulator(Config::default()).await;
    let live = bearer(&simulator).await;
    let headers = [live.as_str(), "X-Twice: 1", "X-Twice: 2", "X-Empty:"];
    let told = send(&simulator, "PUT /a//b/%2e?q=1&q", &headers, "Wikipedia").await;
    let json = told.json();
    assert_eq!(json["method"], "PUT");
    assert_eq!(json["path"], "/a//b/%2e");
    assert_eq!(json["query"], "q=1&q");
    assert_eq!(json["headers"]["x-twice"], json!(["1", "2"]));
    assert_eq!(json["headers"]["x-empty"], json!([""]));
    assert_eq!(json["headers"]["host"], json!(["acme.example"]));
    assert_eq!(json["headers"].get("authorization"), None);
    assert_eq!(json["body"], json!({ "length": 9 }));
    assert!(told.header("set-cookie").is_some());
}

#[tokio::test]
async fn resources_are_created_changed_found_and_removed() {
    let simulator = simulator(Config {
        rows: 20,
        ..Config::default()
    })
    .await;
    let live = bearer(&simulator).await;
    let call = async |line: &str, body: Value| {
        let body = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        send(&simulator, line, &[&live], &body).await
    };
    let page = call("GET /rest/2.0/assets?offset=15&limit=10", Value::Null)
        .await
        .json();
    assert_eq!(
        (page["total"].as_u64(), page["offset"].as_u64()),
        (Some(20), Some(15))
    );
    assert_eq!(page["results"].as_array().map(Vec::len), Some(5));
    let made = call(
        "POST /rest/2.0/assets",
        json!({ "name": "New", "domainId": "d" }),
    )
    .await;
    assert_eq!(
        (made.status, &made.json()["domain"]["id"]),
        (201, &json!("d"))
    );
    let path = format!("/rest/2.0/assets/{}", made.json()["id"].as_str().unwrap());
    let changed = call(&format!("PATCH {path}"), json!({ "name": "Newer" })).await;
    assert_eq!(
        (changed.status, &changed.json()["name"]),
        (200, &json!("Newer"))
    );
    assert_eq!(
        call(&format!("DELETE {path}"), Value::Null).await.status,
        204
    );
    assert_eq!(call(&format!("GET {path}"), Value::Null).await.status, 404);
    assert_eq!(call("POST /rest/2.0/assets", json!({})).await.status, 400);
}

#[tokio::test]
async fn uploads_are_measured_and_jobs_come_to_an_end() {
    let simulator = simulator(Config::default()).await;
    let live = bearer(&simulator).await;
    let kind = "Content-Type: multipart/form-data; boundary=b";
    let form = format!(
        "--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.csv\"\r\n\r\n{}\r\n--b--\r\n",
        "x".repeat(100_000)
    );
    let files = send(&simulator, "POST /rest/2.0/files", &[&live, kind], &form).await;
    let file = &files.json()[0];
    assert_eq!(
        (files.status, &file["size"], &file["name"]),
        (201, &json!(100_000), &json!("a.csv"))
    );
    let job = send(
        &simulator,
        "POST /rest/2.0/import/csv-job",
        &[&live, kind],
        &form,
    )
    .await
    .json();
    let path = format!("GET /rest/2.0/jobs/{}", job["id"].as_str().unwrap());
    let mut states = Vec::new();
    for _ in 0..3 {
        states.push(send(&simulator, &path, &[&live], "").await.json()["state"].clone());
    }
    assert_eq!(states, ["RUNNING", "RUNNING", "COMPLETED"]);
    let broken = send(
        &simulator,
        "POST /rest/2.0/import/csv-job",
        &[&live, kind],
        "--b\r\n",
    )
    .await;
    assert_eq!(broken.status, 400);
}

#[tokio::test]
async fn clients_are_registered_used_changed_and_removed() {
    let simulator = simulator(Config::default()).await;
    let admin = basic("admin", "admin");
    let base = "/rest/auth/v1/clients";
    let call = async |line: String, body: &str| send(&simulator, &line, &[&admin], body).await;
    let name = r#"{"client_name":"nightly export","software_id":"x"}"#;
    let made = call(format!("POST {base}"), name).await;
    let json = made.json();
    assert_eq!(made.status, 201);
    let id = json["client_id"].as_str().unwrap();
    assert!(id.starts_with("urn:sys:env:") && json["client_id_issued_at"].is_u64());
    assert_eq!(call(format!("POST {base}"), name).await.status, 400);
    let token = async |secret: &Value| {
        let secret = secret.as_str().unwrap().replace('+', "%2B");
        let body = format!("{GRANT}&client_id={id}&client_secret={secret}");
        let form = "Content-Type: application/x-www-form-urlencoded";
        send(&simulator, "POST /rest/oauth/v2/token", &[form], &body)
            .await
            .status
    };
    assert_eq!(token(&json["client_secret"]).await, 200);
    let one = format!("/rest/auth/v1/platform/clients/{}", id.replace(':', "%3A"));
    let read = call(format!("GET {one}"), "").await.json();
    assert_eq!(read["client_name"], "nightly export");
    assert_eq!(read.get("client_secret"), None);
    let changed = call(format!("PUT {one}"), r#"{"client_name":"renamed"}"#)
        .await
        .json();
    assert_eq!(changed["client_name"], "renamed");
    assert_eq!(changed.get("client_secret"), None);
    assert_eq!(token(&json["client_secret"]).await, 200);
    let all = call(format!("GET {base}"), "").await.json();
    assert_eq!(all["registrations"].as_array().map(Vec::len), Some(2));
    assert_eq!(call(format!("DELETE {one}"), "").await.status, 204);
    assert_eq!(call(format!("GET {one}"), "").await.status, 401);
    assert_eq!(token(&json["client_secret"]).await, 401);
    let stranger = basic("admin", "guess");
    assert_eq!(
        send(&simulator, &format!("GET {base}"), &[&stranger], "")
            .await
            .status,
        401
    );
}

#[tokio::test]
async fn stopping_frees_the_address_and_cuts_what_is_under_way() {
    for by_dropping in [false, true] {
        let simulator = simulator(Config::default()).await;
        let address = simulator.address();
        let live = bearer(&simulator).await;
        let asked = request("GET /_sleep/60000", &[&live], "");
        let waiting = tokio::spawn(async move { exchange(address, &asked).await.0 });
        while simulator.state().requests == 0 {
            tokio::task::yield_now().await;
        }
        if by_dropping {
            drop(simulator);
        } else {
            simulator.shutdown().await;
        }
        assert!(waiting.await.unwrap().is_empty());
        let again = start(Config {
            listen: address,
            ..Config::default()
        })
        .await;
        assert!(again.is_ok());
    }
}

#[tokio::test]
async fn with_a_certificate_it_serves_https() {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let files = TlsFiles {
        cert: folder.path().join("cert"),
        key: folder.path().join("key"),
    };
    std::fs::write(&files.cert, made.cert.pem()).unwrap();
    std::fs::write(&files.key, made.signing_key.serialize_pem()).unwrap();
    let simulator = simulator(Config {
        tls: Some(files.clone()),
        ..Config::default()
    })
    .await;

    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let tcp = TcpStream::connect(simulator.address()).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let mut tls = TlsConnector::from(Arc::new(config))
        .connect(name, tcp)
        .await
        .unwrap();
    tls.write_all(&request("GET /_simulator/state", &[], ""))
        .await
        .unwrap();
    let mut received = Vec::new();
    tls.read_to_end(&mut received).await.unwrap();
    assert!(received.starts_with(b"HTTP/1.1 200 OK\r\n"));

    let swapped = TlsFiles {
        cert: files.key.clone(),
        key: files.cert.clone(),
    };
    let refused = start(Config {
        tls: Some(swapped),
        ..Config::default()
    })
    .await
    .err();
    assert!(
        refused
            .unwrap()
            .to_string()
            .contains("there is no certificate in it")
    );
}
