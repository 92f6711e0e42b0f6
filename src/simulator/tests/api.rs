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
    for (collection, seeded, sent, field, reference) in [
        (
            "assets",
            20,
            "domainId",
            "domain",
            ("Domain", "Business Glossary"),
        ),
        (
            "domains",
            2,
            "communityId",
            "community",
            ("Community", "Data Governance Council"),
        ),
        (
            "communities",
            1,
            "parentId",
            "parent",
            ("Community", "Parent"),
        ),
    ] {
        let all = format!("/rest/2.0/{collection}");
        let page = call(
            &format!("GET {all}?offset={}&limit=10", seeded - 1),
            Value::Null,
        )
        .await
        .json();
        assert_eq!(
            (&page["total"], &page["offset"], &page["limit"]),
            (&json!(seeded), &json!(seeded - 1), &json!(10))
        );
        assert_eq!(page["results"].as_array().map(Vec::len), Some(1));
        let made = call(&format!("POST {all}"), json!({ "name": "New", sent: "d" })).await;
        let expected = json!({ "id": "d", "resourceType": reference.0, "name": reference.1 });
        assert_eq!((made.status, &made.json()[field]), (201, &expected));
        let path = format!("{all}/{}", made.json()["id"].as_str().unwrap());
        assert_eq!(made.header("location"), Some(&*path));
        assert_eq!(
            call(&format!("GET {path}"), Value::Null).await.json(),
            made.json()
        );
        let changed = call(
            &format!("PATCH {path}"),
            json!({ "name": "Newer", "id": 1 }),
        )
        .await;
        let mut expected = made.json();
        expected["name"] = json!("Newer");
        expected["lastModifiedOn"] = changed.json()["lastModifiedOn"].clone();
        assert_eq!((changed.status, changed.json()), (200, expected));
        let found = call(&format!("GET {all}?name=EWER"), Value::Null).await;
        assert_eq!(found.json()["results"], json!([changed.json()]));
        let several = json!([{ "name": "One", "id": "mine" }, { "name": "Two" }]);
        let bulk = call(&format!("POST {all}/bulk"), several).await;
        assert_eq!((bulk.status, &bulk.json()[1]["name"]), (201, &json!("Two")));
        assert_eq!(
            call(&format!("GET {all}/mine"), Value::Null).await.json(),
            bulk.json()[0]
        );
        let unnamed = json!([{ "name": "Three" }, { "name": "" }]);
        let unnamed = call(&format!("POST {all}/bulk"), unnamed).await;
        assert_eq!(unnamed.status, 400);
        let total = call(&format!("GET {all}"), Value::Null).await.json()["total"].clone();
        assert_eq!(total, seeded + 3, "all of a bulk request or none");
        let removed = call(&format!("DELETE {path}"), Value::Null).await;
        if collection == "domains" {
            assert_eq!(
                (removed.status, &removed.json()["type"]),
                (200, &json!("DOMAIN_REMOVAL"))
            );
        } else {
            assert_eq!((removed.status, removed.body.len()), (204, 0));
        }
        for method in ["GET", "DELETE", "PATCH"] {
            let gone = call(&format!("{method} {path}"), json!({ "name": "x" })).await;
            assert_eq!(gone.status, 404, "{method} {path}");
        }
        assert_eq!(call(&format!("POST {all}"), json!({})).await.status, 400);
        let other = call(&format!("PUT {path}"), Value::Null).await.json();
        assert_eq!(other["method"], "PUT", "an echo");
    }
}

#[tokio::test]
async fn search_graphql_and_the_catalog_answer() {
    let simulator = simulator(Config {
        rows: 20,
        ..Config::default()
    })
    .await;
    let live = bearer(&simulator).await;
    let call = async |line: &str, body: &str| send(&simulator, line, &[&live], body).await;
    let search = async |body: &str| call("POST /rest/2.0/search", body).await.json();
    let found = search(r#"{"keywords":"asset 2*"}"#).await;
    let names: Vec<&Value> = found["results"]
        .as_array()
        .unwrap()
        .iter()
        .map(|hit| &hit["resource"]["name"])
        .collect();
    assert_eq!(
        (&found["total"], names),
        (&json!(2), vec![&json!("Asset 2"), &json!("Asset 20")])
    );
    let found = search(r#"{"keywords":"*","offset":15,"limit":3}"#).await;
    assert_eq!(
        (&found["total"], &found["results"][2]["resource"]["name"]),
        (&json!(20), &json!("Asset 18"))
    );
    assert_eq!(found["results"].as_array().map(Vec::len), Some(3));
    for path in ["/graphql", "/graphql/knowledgeGraph/v1"] {
        let line = format!("POST {path}");
        let query = r#"{"query":"{ assets { id } }","variables":null}"#;
        let told = call(&line, query).await.json();
        let assets = told["data"]["assets"].as_array().unwrap();
        assert_eq!(
            (assets.len(), &assets[9]["displayName"]),
            (10, &json!("Asset 10"))
        );
        assert_eq!(fields(&assets[0]), ["displayName", "id"]);
        let refused = call(&line, "{}").await;
        assert_eq!(refused.status, 400);
        assert!(refused.json()["errors"][0]["message"].is_string());
    }
    let catalog = call("GET /rest/catalog/1.0/profiling/x", "").await.json();
    assert_eq!(
        (&catalog["total"], &catalog["results"]),
        (&json!(0), &json!([]))
    );
}

#[tokio::test]
async fn a_session_is_opened_shown_and_ended() {
    let simulator = simulator(Config::default()).await;
    let live = bearer(&simulator).await;
    let call = async |line: &str| {
        let line = line.replace(' ', " /rest/2.0/auth/sessions");
        send(&simulator, &line, &[&live], "").await
    };
    let opened = call("POST ").await;
    assert!(opened.json()["csrfToken"].is_string() && opened.header("set-cookie").is_some());
    let current = call("GET /current").await;
    assert_eq!(current.json()["userName"], "simulated-application");
    let heartbeat = call("GET /heartbeat").await;
    assert_eq!((heartbeat.status, heartbeat.body.len()), (200, 0));
    assert!(heartbeat.header("set-cookie").is_some());
    assert_eq!(call("DELETE /current").await.status, 204);
}

#[tokio::test]
async fn a_post_may_stand_for_another_method_and_head_for_get() {
    let simulator = simulator(Config::default()).await;
    let live = bearer(&simulator).await;
    let made = send(
        &simulator,
        "POST /rest/2.0/assets",
        &[&live],
        r#"{"name":"a"}"#,
    )
    .await;
    let path = made.header("location").unwrap();
    let head = send(&simulator, &format!("HEAD {path}"), &[&live], "").await;
    let length = made.header("content-length");
    assert_eq!((head.status, head.header("content-length")), (200, length));
    let line = format!("POST {path}");
    let meant = |method: &str| format!("X-HTTP-Method-Override: {method}");
    let headers = [&live, &*meant("PATCH")];
    let changed = send(&simulator, &line, &headers, r#"{"name":"b"}"#).await;
    assert_eq!(changed.json()["name"], "b");
    let removed = send(&simulator, &line, &[&live, &meant("DELETE")], "").await;
    assert_eq!(removed.status, 204);
}

/// The header of a form, and one with a file and a field.
fn form() -> (&'static str, String) {
    let file = "x".repeat(100_000);
    let form = format!(
        "--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.csv\"\r\n\
         Content-Type: text/csv\r\n\r\n{file}\r\n\
         --b\r\nContent-Disposition: form-data; name=\"x\"\r\n\r\ntrue\r\n--b--\r\n"
    );
    ("Content-Type: multipart/form-data; boundary=b", form)
}

#[tokio::test]
async fn files_are_uploaded_downloaded_and_removed() {
    let simulator = simulator(Config::default()).await;
    let live = bearer(&simulator).await;
    let (kind, form) = form();
    let files = send(&simulator, "POST /rest/2.0/files", &[&live, kind], &form).await;
    let files_json = files.json();
    let [file] = &files_json.as_array().unwrap()[..] else {
        panic!("{files:?}");
    };
    let expected = json!({
        "id": file["id"],
        "name": "a.csv",
        "contentType": "text/csv",
        "size": 100_000,
        "extension": "csv",
    });
    assert_eq!((files.status, file), (201, &expected));
    let path = format!("/rest/2.0/files/{}", file["id"].as_str().unwrap());
    let call = async |method: &str, more: &str| {
        send(&simulator, &format!("{method} {path}{more}"), &[&live], "").await
    };
    assert_eq!(call("GET", "/info").await.json(), *file);
    let down = call("GET", "").await;
    assert_eq!(down.body, b"0123456789abcdef".repeat(6250));
    assert_eq!(
        [
            down.header("content-length"),
            down.header("content-disposition")
        ],
        [Some("100000"), Some("attachment; filename=\"a.csv\"")]
    );
    assert_eq!(call("DELETE", "").await.status, 204);
    for (method, more) in [("GET", ""), ("GET", "/info"), ("DELETE", "")] {
        assert_eq!(call(method, more).await.status, 404, "{method} {more}");
    }
}

#[tokio::test]
async fn jobs_come_to_an_end() {
    let simulator = simulator(Config::default()).await;
    let live = bearer(&simulator).await;
    let (kind, form) = form();
    let line = "POST /rest/2.0/import/csv-job";
    let import = async || send(&simulator, line, &[&live, kind], &form).await.json();
    let call = async |line: &str| send(&simulator, line, &[&live], "").await;
    let job = import().await;
    assert_eq!(job["message"], "Received 100004 bytes in 2 parts.");
    let path = format!("/rest/2.0/jobs/{}", job["id"].as_str().unwrap());
    let mut states = Vec::new();
    for _ in 0..4 {
        let job = call(&format!("GET {path}")).await.json();
        states.push(job["state"].clone());
        let has_ended = job["state"] == "COMPLETED";
        assert_eq!(has_ended, job["progressPercentage"] == 100.0, "{job}");
        assert_eq!(has_ended, job["result"] == "SUCCESS", "{job}");
        assert_eq!(has_ended, job["endDate"] != 0, "{job}");
        assert_eq!(has_ended, job["cancelable"] == false, "{job}");
    }
    assert_eq!(states, ["RUNNING", "RUNNING", "COMPLETED", "COMPLETED"]);
    let other = import().await["id"].as_str().unwrap().to_owned();
    let canceled = call(&format!("POST /rest/2.0/jobs/{other}/canceled")).await;
    assert_eq!(canceled.status, 200);
    let jobs = call("GET /rest/2.0/jobs").await.json();
    let states: Vec<&Value> = jobs["results"]
        .as_array()
        .unwrap()
        .iter()
        .map(|job| &job["state"])
        .collect();
    assert_eq!(states, ["COMPLETED", "CANCELED"]);
    assert_eq!(call("GET /rest/2.0/jobs/none").await.status, 404);
    let broken = send(&simulator, line, &[&live, kind], "--b\r\n").await;
    assert_eq!(broken.status, 400);
}

#[tokio::test]
async fn views_are_exported_in_every_format() {
    let simulator = simulator(Config {
        rows: 3,
        ..Config::default()
    })
    .await;
    let live = bearer(&simulator).await;
    let call = async |format: &str| {
        let line = format!("POST /rest/2.0/outputModule/export/{format}");
        send(&simulator, &line, &[&live], "{}").await
    };
    for (format, content_type, row) in [
        ("json", "application/json", "\"name\":\"Asset "),
        ("csv", "text/csv; charset=utf-8", ",Asset "),
        ("excel", "text/csv; charset=utf-8", ",Asset "),
        ("xml", "application/xml", "name=\"Asset "),
    ] {
        for (query, rows) in [("", 3), ("?rows=2500", 2500)] {
            let export = call(&format!("{format}{query}")).await;
            assert_eq!(export.header("content-type"), Some(content_type));
            assert_eq!(export.header("transfer-encoding"), Some("chunked"));
            let text = String::from_utf8(export.body).unwrap();
            assert_eq!(text.matches(row).count(), rows, "{format}{query}");
        }
        let job = call(&format!("{format}-job?rows=7")).await.json();
        assert_eq!(
            (&job["state"], &job["message"]),
            (&json!("RUNNING"), &json!("Exports 7 rows."))
        );
        let file = call(&format!("{format}-file?rows=700")).await.json();
        assert_eq!(file["name"], format!("export.{format}"));
        let path = format!("GET /rest/2.0/files/{}", file["id"].as_str().unwrap());
        let down = send(&simulator, &path, &[&live], "").await;
        assert_eq!(down.body.len(), 700);
    }
    for unknown in ["pdf", "csv-fax"] {
        assert_eq!(call(unknown).await.json()["method"], "POST", "an echo");
    }
}

#[tokio::test]
async fn clients_are_registered_used_changed_and_removed() {
    for rotates in [false, true] {
        registered_used_changed_and_removed(rotates).await;
    }
}

async fn registered_used_changed_and_removed(rotates: bool) {
    let config = Config {
        update_rotates_secret: rotates,
        ..Config::default()
    };
    let simulator = simulator(config).await;
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
    assert_eq!(changed.get("client_secret").is_some(), rotates);
    let secret = changed
        .get("client_secret")
        .unwrap_or(&json["client_secret"]);
    assert_eq!(token(secret).await, 200);
    let old = token(&json["client_secret"]).await;
    assert_eq!(old, if rotates { 401 } else { 200 });
    let all = call(format!("GET {base}"), "").await.json();
    assert_eq!(all["registrations"].as_array().map(Vec::len), Some(2));
    assert_eq!(call(format!("DELETE {one}"), "").await.status, 204);
    assert_eq!(call(format!("GET {one}"), "").await.status, 401);
    assert_eq!(token(secret).await, 401);
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
