//! The configuration without a file.

use std::path::PathBuf;

use super::*;
use crate::store;

fn none(_: &str) -> Option<String> {
    None
}

#[test]
fn the_environment_alone_does() {
    let env = |name: &str| match name {
        "COLLIBRA_URL" => Some("https://acme.example".to_owned()),
        "COLLIBRA_CLIENT_ID" => Some("id".to_owned()),
        "COLLIBRA_CLIENT_SECRET" => Some("s".to_owned()),
        _ => None,
    };
    let config = from_flags(Flags::default(), &env).unwrap();
    assert_eq!(config.warnings, []);
    assert_eq!(config.instances["default"].host, "acme.example");
    assert_eq!(config.clients["default"].oauth.client_secret.expose(), "s");
    assert_eq!(config.listeners[0].address.to_string(), "127.0.0.1:8080");

    let flags = Flags {
        upstream: Some("https://b.example".into()),
        ..Flags::default()
    };
    let config = from_flags(flags, &env).unwrap();
    assert_eq!(
        config.instances["default"].host, "b.example",
        "a flag goes first"
    );
}

#[test]
fn faults_name_the_flag_or_the_variable() {
    insta::assert_snapshot!(from_flags(Flags::default(), &none).unwrap_err(), @"
    command line: --upstream: the instance's address is missing; give --upstream with it, set COLLIBRA_URL, or name a file with --config
    command line: --client-id: it is missing; give --client-id or --client-id-file, or set COLLIBRA_CLIENT_ID
    command line: --client-secret-file: it is missing; give --client-secret-file, or set COLLIBRA_CLIENT_SECRET
    ");

    let flags = Flags {
        client_id: Some("id".into()),
        client_id_file: Some("id".into()),
        listen: value::address("0.0.0.0:9902").ok(),
        pool_capacity: Some(0),
        hosts: vec!["a:80".into()],
        ..Flags::default()
    };
    let env = |name: &str| match name {
        "COLLIBRA_URL" => Some("http://acme.example".to_owned()),
        "COLLIBRA_CLIENT_SECRET" => Some("a\nb".to_owned()),
        _ => None,
    };
    insta::assert_snapshot!(from_flags(flags, &env).unwrap_err(), @r#"
    command line: --client-id: it is given 2 times: `--client-id`, `--client-id-file`; keep one of them
    command line: --pool-capacity: a pool without tokens issues none; write 1 or more; Collibra's pool has 5
    command line: --admin: [listener.local] already listens there; write another port; the default is "127.0.0.1:9902"
    command line: --listen: every program that reaches this port calls Collibra with the token, and other machines can reach it; listen on 127.0.0.1, or write `--allow-unauthenticated` if the network keeps others away
    command line: --host: item 1 is no host name; write it without its port: any port is accepted
    environment: COLLIBRA_URL: http:// would send the secret and the token unencrypted; write https://, or `--allow-insecure` if that is meant
    environment: COLLIBRA_CLIENT_SECRET: the secret has a control character (a line break?) in its middle; it should be one line; give the secret that Collibra showed when the application was registered
    "#);
}

#[test]
fn a_directory_for_tokens_is_all_that_a_store_needs() {
    let env = |name: &str| match name {
        "COLLIBRA_URL" => Some("https://acme.example".to_owned()),
        "COLLIBRA_CLIENT_ID" | "COLLIBRA_CLIENT_SECRET" => Some("x".to_owned()),
        _ => None,
    };
    let with_path = |path: &Path| {
        let flags = Flags {
            store_path: Some(path.to_owned()),
            ..Flags::default()
        };
        from_flags(flags, &env)
    };
    let directory = PathBuf::from("state");
    let config = with_path(&directory).unwrap();
    assert_eq!(config.store, store::Config::File { directory });

    let file = tempfile::NamedTempFile::new().unwrap();
    let faults = with_path(file.path()).unwrap_err();
    insta::assert_snapshot!(faults, @"command line: --store-path: this is a file and no directory; name a directory, which is made if there is none (a relative path counts from the working directory)");
}

#[test]
fn a_variable_that_does_not_count_beside_a_file_is_pointed_out() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let text = with("", "", "").replace(
        "client_secret = \"s\"",
        "client_secret_env = \"COLLIBRA_CLIENT_SECRET\"",
    );
    std::fs::write(file.path(), text).unwrap();
    let env = |name: &str| name.starts_with("COLLIBRA_").then(|| "x".to_owned());
    let config = load(file.path(), &env).unwrap();
    let said: Vec<String> = config.warnings.iter().map(Fault::to_string).collect();
    insta::assert_snapshot!(said.join("\n"), @"
    environment: COLLIBRA_URL: ignored, because a configuration file is used; unset it, or write its value in the file, as an instance's `url`
    environment: COLLIBRA_CLIENT_ID: ignored, because a configuration file is used; unset it, or name it in the file with `client_id_env`
    ");
}

/// What the container image sets, with `listen`.
fn in_the_image(listen: &'static str) -> impl Fn(&str) -> Option<String> {
    move |name| {
        let value = match name {
            "COLLIBRA_URL" => "https://acme.example",
            "COLLIBRA_CLIENT_ID" | "COLLIBRA_CLIENT_SECRET" => "x",
            "COLLIBRA_AUTH_PROXY_LISTEN" => listen,
            "COLLIBRA_AUTH_PROXY_LISTEN_ADMIN" => "0.0.0.0:9902",
            "COLLIBRA_AUTH_PROXY_ALLOW_UNAUTHENTICATED" => "true",
            _ => return None,
        };
        Some(value.to_owned())
    }
}

#[test]
fn an_image_says_by_variables_where_to_listen() {
    let env = in_the_image("0.0.0.0:8080");
    let config = from_flags(Flags::default(), &env).unwrap();
    let (listener, admin) = (&config.listeners[0], &config.admin);
    assert_eq!(listener.address.to_string(), "0.0.0.0:8080");
    assert_eq!(admin.address.to_string(), "0.0.0.0:9902");
    // no app says who it is: the port is for this machine
    assert_eq!(listener.hosts, ["localhost", "127.0.0.1", "[::1]"]);
    let said: Vec<String> = config.warnings.iter().map(Fault::to_string).collect();
    insta::assert_snapshot!(said.join("\n"), @"environment: COLLIBRA_AUTH_PROXY_LISTEN: every program that reaches this port calls Collibra with the token; publish it to this machine only, like docker run --publish 127.0.0.1:8080:8080, or use a configuration file with [app.NAME]");

    let flags = Flags {
        listen: value::address("127.0.0.1:1").ok(),
        admin: value::address("127.0.0.1:2").ok(),
        ..Flags::default()
    };
    let config = from_flags(flags, &env).unwrap();
    assert_eq!(config.listeners[0].address.to_string(), "127.0.0.1:1");
    assert_eq!(config.admin.address.to_string(), "127.0.0.1:2");
}

#[test]
fn a_variable_that_cannot_be_read_is_a_fault() {
    insta::assert_snapshot!(from_flags(Flags::default(), &in_the_image("everywhere")).unwrap_err(), @r#"environment: COLLIBRA_AUTH_PROXY_LISTEN: this is no address to listen on; write an IP address and a port, like "127.0.0.1:8080" or "[::1]:8080", or "unix:" and a path"#);
    let env = |name: &str| match name {
        "COLLIBRA_AUTH_PROXY_ALLOW_UNAUTHENTICATED" => Some("yes".to_owned()),
        _ => in_the_image("0.0.0.0:8080")(name),
    };
    insta::assert_snapshot!(from_flags(Flags::default(), &env).unwrap_err(), @"
    environment: COLLIBRA_AUTH_PROXY_ALLOW_UNAUTHENTICATED: it is neither true nor false; write true, or unset it
    environment: COLLIBRA_AUTH_PROXY_LISTEN: every program that reaches this port calls Collibra with the token, and other machines can reach it; listen on 127.0.0.1, or write `--allow-unauthenticated` if the network keeps others away
    ");
}
