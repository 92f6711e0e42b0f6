//! The settings from valid files.

use super::*;
use crate::oauth::AuthMethod;
use crate::store;

#[test]
fn the_least_that_does() {
    let text = "instance.acme = { url = \"https://acme.example\" }\n\
                client.catalog = { client_id = \"id\", client_secret = \"s\" }";
    let config = read(text).unwrap();
    let instance = &config.instances["acme"];
    assert!(instance.tls);
    assert_eq!(
        (instance.host.as_str(), instance.port),
        ("acme.example", 443)
    );
    assert_eq!(instance.authority, "acme.example");
    assert_eq!(instance.idle_timeout, None);
    let client = &config.clients["catalog"];
    assert_eq!(&*client.instance, "acme");
    let token_url = "https://acme.example/rest/oauth/v2/token";
    assert_eq!(client.oauth.token_url.as_str(), token_url);
    assert_eq!(client.oauth.auth_method, AuthMethod::ClientSecretBasic);
    assert_eq!(client.oauth.scope, None);
    assert_eq!(client.oauth.timeout, Duration::from_secs(10));
    let [listener] = &config.listeners[..] else {
        panic!("{:?}", config.listeners);
    };
    assert_eq!(listener.address.to_string(), "127.0.0.1:8080");
    assert_eq!(listener.hosts, ["localhost", "127.0.0.1", "[::1]"]);
    assert_eq!(config.admin.address.to_string(), "127.0.0.1:9902");
    assert!(config.access_log);
    assert_eq!(config.store, store::Config::Memory);
}

#[test]
fn an_address_is_taken_apart() {
    for (url, tls, host, port, authority) in [
        (
            "https://Acme.Example/",
            true,
            "acme.example",
            443,
            "acme.example",
        ),
        (
            "https://a.example:8443",
            true,
            "a.example",
            8443,
            "a.example:8443",
        ),
        ("http://localhost", false, "localhost", 80, "localhost"),
        (
            "http://127.1.2.3:9400",
            false,
            "127.1.2.3",
            9400,
            "127.1.2.3:9400",
        ),
        ("http://[::1]:9400", false, "::1", 9400, "[::1]:9400"),
    ] {
        let text = with("", "", "").replace("https://acme.example", url);
        let config = read(&text).unwrap();
        let instance = &config.instances["acme"];
        assert_eq!(instance.tls, tls, "{url}");
        assert_eq!((&*instance.host, instance.port), (host, port), "{url}");
        assert_eq!(instance.authority, authority, "{url}");
    }
}

#[test]
fn what_is_written_counts() {
    let text = with(
        "token_path = \"/oauth/token\"\nidle_timeout = \"1h 30m\"",
        "auth_method = \"client_secret_post\"\nscope = \"read\"\nrefresh_at = 0.25\n\
         pool = { refill = \"6s\" }\nwait_for_token = \"0s\"",
        "hosts = [\"Proxy.Internal\", \"::1\"]\nmax_connections = 1_000",
    );
    let config = read(&text).unwrap();
    let instance = &config.instances["acme"];
    assert_eq!(instance.token_path, "/oauth/token");
    assert_eq!(instance.idle_timeout, Some(Duration::from_secs(5400)));
    let client = &config.clients["catalog"];
    assert_eq!(client.oauth.auth_method, AuthMethod::ClientSecretPost);
    assert_eq!(client.oauth.scope.as_deref(), Some("read"));
    assert!((client.schedule.refresh_at - 0.25).abs() < 1e-9);
    assert_eq!(
        client.oauth.timeout,
        Duration::from_secs(1),
        "a sixth of the refill"
    );
    assert_eq!(client.wait_for_token, Duration::ZERO);
    assert_eq!(config.listeners[0].hosts, ["proxy.internal", "[::1]"]);
    assert_eq!(config.listeners[0].max_connections, 1000);
}

#[test]
fn a_listener_on_one_address_is_called_by_it_too() {
    let text = with("", "", "allow_unauthenticated = true");
    let on = |address: &str| {
        let config = read(&text.replace("127.0.0.1:8080", address)).unwrap();
        config.listeners[0].hosts.clone()
    };
    assert_eq!(
        on("10.1.2.3:80"),
        ["localhost", "127.0.0.1", "[::1]", "10.1.2.3"]
    );
    assert_eq!(
        on("[fd00::1]:80"),
        ["localhost", "127.0.0.1", "[::1]", "[fd00::1]"]
    );
    assert_eq!(on("0.0.0.0:80"), ["localhost", "127.0.0.1", "[::1]"]);
}

#[test]
fn files_count_from_the_files_directory() {
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, content: &str| {
        std::fs::write(directory.path().join(name), content).unwrap();
    };
    write("id", "urn:x\n");
    write("secret", "from the file\n");
    write(
        "both.json",
        r#"{"client_id": "urn:y", "client_secret": "both", "name": "n"}"#,
    );
    write(
        "proxy.toml",
        "instance.acme = { url = \"https://acme.example\" }\n\
         client.a = { client_id_file = \"id\", client_secret_file = \"secret\" }\n\
         client.b = { credentials_file = \"both.json\" }\n\
         client.c = { client_id = \"urn:z\", client_secret_env = \"S\" }\n\
         listener.a = { address = \"127.0.0.1:1\", client = \"a\" }\n\
         store = { kind = \"file\", path = \"state\" }\n",
    );
    let env = |name: &str| (name == "S").then(|| "from the environment".to_owned());
    let config = load(&directory.path().join("proxy.toml"), &env).unwrap();
    let secret = |name: &str| config.clients[name].oauth.client_secret.expose();
    assert_eq!(secret("a"), "from the file");
    assert_eq!(secret("b"), "both");
    assert_eq!(secret("c"), "from the environment");
    assert_eq!(config.clients["b"].oauth.client_id.as_str(), "urn:y");
    let state = directory.path().join("state");
    assert_eq!(config.store, store::Config::File { directory: state });
}

#[test]
fn the_url_of_a_server_says_where_it_is_and_who_logs_in() {
    let of = |url: &str| {
        let text = with("", "", "") + "[store]\nkind = \"redis\"\nurl = \"" + url + "\"\n";
        let config = read(&text).unwrap();
        let warnings: Vec<_> = config.warnings.iter().map(ToString::to_string).collect();
        let warned = warnings.iter().filter(|w| w.contains("store.url")).count();
        match config.store {
            store::Config::Redis(redis) => {
                let password = redis.password.map(|p| p.expose().to_owned());
                let server = redis.server.to_string();
                (server, redis.user, password, redis.database, warned)
            }
            other => panic!("{other:?}"),
        }
    };
    let some = |text: &str| Some(text.to_owned());
    let server = |server: &str| server.to_owned();
    for (url, expected) in [
        (
            "redis://localhost",
            (server("redis://localhost:6379"), None, None, 0, 0),
        ),
        (
            "rediss://a.example:1/3",
            (server("rediss://a.example:1"), None, None, 3, 0),
        ),
        (
            "rediss://me:p%40ss@a.example",
            (
                server("rediss://a.example:6379"),
                some("me"),
                some("p@ss"),
                0,
                1,
            ),
        ),
        (
            "redis+sentinel://localhost,127.0.0.1:1/main/2",
            (
                server("redis+sentinel://localhost:26379,127.0.0.1:1/main"),
                None,
                None,
                2,
                0,
            ),
        ),
        (
            "rediss+cluster://me:p%40ss@a.example,b.example:7000",
            (
                server("rediss+cluster://a.example:6379,b.example:7000"),
                some("me"),
                some("p@ss"),
                0,
                1,
            ),
        ),
        (
            "redis+cluster://a.example",
            (server("redis+cluster://a.example:6379"), None, None, 0, 1),
        ),
        (
            "redis://:p@[::1]:1",
            (server("redis://::1:1"), None, some("p"), 0, 1),
        ),
        // in the clear, and beyond this machine
        (
            "redis://:p@a.example",
            (server("redis://a.example:6379"), None, some("p"), 0, 2),
        ),
        (
            "unix:///run/a%20b.sock?db=2&user=me",
            (server("unix:///run/a b.sock"), some("me"), None, 2, 0),
        ),
    ] {
        assert_eq!(of(url), expected, "{url}");
    }
}
