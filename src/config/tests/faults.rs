//! Every fault is reported, with its place and what to write instead.

use super::*;

#[test]
fn all_at_once() {
    let text = r#"
colour = "blue"

[instance.acme]
url = "http://acme.example"
token_path = "rest/oauth/v2/token"
ca_file = "missing.pem"
connect_timout = "5s"
connect_timeout = 5

[instance.dev]
url = "https://me:pass@dev.example/rest"
idle_timeout = "soon"

[client.catalog]
instance = "acmee"
client_id = "id"
client_id_env = "CATALOG_ID"
client_secret_file = "missing"
auth_method = "basic"
refresh_at = 1
refresh_jitter = "little"
pool = { capacity = 0, refil = "60s" }
token_timeout = "0s"

[client.lineage]
client_secret_env = "LINEAGE_SECRET"

[client."two words"]
instance = "dev"

[listener.local]
address = "0.0.0.0:9902"
client = "catalogue"
hosts = ["*.example", "a:80"]
max_header_bytes = 10

[listener.other]
address = "localhost:8080"
allow_unauthenticated = "yes"
max_connections = -1

[server]
drain = 20

[store]
kind = "etcd"
"#;
    insta::assert_snapshot!(report(text), @r#"
    proxy.toml: admin.address: [listener.local] already listens there; write another port; the default is "127.0.0.1:9902"
    proxy.toml:2: colour: this key is unknown; known here: `instance`, `client`, `listener`, `app`, `policy`, `server`, `admin`, `log`, `store`, `trace`, `ca`
    proxy.toml:5: instance.acme.url: http:// would send the secret and the token unencrypted; write https://, or `allow_insecure = true` if that is meant
    proxy.toml:6: instance.acme.token_path: it does not begin with a slash; write a path like "/rest/oauth/v2/token", or leave the key out
    proxy.toml:7: instance.acme.ca_file: the file cannot be read: No such file or directory (os error 2); name a PEM file with your authority's certificate (a relative path counts from /nonexistent)
    proxy.toml:8: instance.acme.connect_timout: this key is unknown; write `connect_timeout`
    proxy.toml:9: instance.acme.connect_timeout: the number has no unit; write the unit too, in quotes, like "90s", "5m" or "250ms"
    proxy.toml:12: instance.dev.url: it has a user's name or password in it; write the whole of it, like "https://acme.collibra.com"; a client's id and secret belong in [client.NAME]
    proxy.toml:13: instance.dev.idle_timeout: this is no duration; write a number with its unit, like "90s", "5m" or "250ms"
    proxy.toml:15: client.catalog.client_id: it is given 2 times: `client_id`, `client_id_env`; keep one of them
    proxy.toml:16: client.catalog.instance: there is no [instance.NAME] of this name; write "acme"
    proxy.toml:19: client.catalog.client_secret_file: the file cannot be read: No such file or directory (os error 2); name a file that this user can read (a relative path counts from /nonexistent)
    proxy.toml:20: client.catalog.auth_method: there is no such method; write "client_secret_basic" or "client_secret_post"
    proxy.toml:21: client.catalog.refresh_at: it is not between 0 and 1; write the share of a token's life after which it is renewed, like 0.5
    proxy.toml:22: client.catalog.refresh_jitter: this should be a number, and is a string; write a number, like 0.5, without quotes
    proxy.toml:23: client.catalog.pool.refil: this key is unknown; write `refill`
    proxy.toml:23: client.catalog.pool.capacity: a pool without tokens issues none; write 1 or more; Collibra's pool has 5
    proxy.toml:24: client.catalog.token_timeout: it is zero; write a longer one; the default is "10s"
    proxy.toml:26: client.lineage.instance: there are several of [instance.NAME], and this does not say which; write one of `acme`, `dev`
    proxy.toml:26: client.lineage.client_id: it is missing; write `client_id_file`, `client_id_env` or `credentials_file`, or `client_id` itself
    proxy.toml:27: client.lineage.client_secret_env: the environment variable that it names is not set; set it, or write the name of another; the name only, without `$`
    proxy.toml:29: client."two words": the name cannot be used; name it with at most 63 letters, digits, `-` and `_`
    proxy.toml:29: client."two words".client_id: it is missing; write `client_id_file`, `client_id_env` or `credentials_file`, or `client_id` itself
    proxy.toml:29: client."two words".client_secret: it is missing; write `client_secret_file`, `client_secret_env` or `credentials_file`
    proxy.toml:33: listener.local.address: every program that reaches this port calls Collibra with the token, and other machines can reach it; listen on 127.0.0.1, add [app.NAME] so that callers must authenticate, or write `allow_unauthenticated = true` if the network keeps others away
    proxy.toml:34: listener.local.client: there is no [client.NAME] of this name; write "catalog"
    proxy.toml:35: listener.local.hosts: item 1 is no host name; write each name in full: a wildcard would let any website in; ["*"] alone is for a listener whose callers all authenticate, by [app.NAME]
    proxy.toml:35: listener.local.hosts: item 2 is no host name; write it without its port: any port is accepted
    proxy.toml:36: listener.local.max_header_bytes: it is out of bounds; write a number of bytes from 1024 to 1048576; the default is 65536
    proxy.toml:38: listener.other.client: there are several of [client.NAME], and this does not say which; write one of `catalog`, `lineage`, `two words`
    proxy.toml:39: listener.other.address: this is no address to listen on; write an IP address and a port, like "127.0.0.1:8080" or "[::1]:8080", or "unix:" and a path
    proxy.toml:40: listener.other.allow_unauthenticated: this should be true or false, and is a string; write true or false, without quotes
    proxy.toml:41: listener.other.max_connections: the number is below zero or far too large; write a whole number, 0 or above
    proxy.toml:44: server.drain: the number has no unit; write the unit too, in quotes, like "90s", "5m" or "250ms"
    proxy.toml:47: store.kind: there is no such store; known are `memory`, `file`, `redis`, `kubernetes`
    "#);
}

#[test]
fn every_fault_of_the_syntax() {
    let text = "[instance.acme]\nurl = https://acme.example\n\n[client.catalog\nclient_id = \"a\nx";
    insta::assert_snapshot!(report(text), @"
    proxy.toml:2: this is not TOML: string values must be quoted, expected literal string; fix the line; strings and durations need quotes
    proxy.toml:4: this is not TOML: unclosed table, expected `]`; fix the line; strings and durations need quotes
    proxy.toml:6: this is not TOML: key with no value, expected `=`; fix the line; strings and durations need quotes
    ");
}

#[test]
fn an_empty_file() {
    insta::assert_snapshot!(report(""), @r#"
    proxy.toml: instance: no instance is configured, so requests have no destination; write `instance.acme = { url = "https://acme.collibra.com" }`
    proxy.toml: client: no client is configured, so the proxy cannot request a token; write `client.catalog = { client_id = "…", client_secret_file = "…" }`
    "#);
}

#[test]
fn tables_of_the_wrong_form() {
    let text = "instance = \"https://acme.example\"\nserver = 3\n[[client]]\nclient_id = \"a\"\n\
                [listener]\naddress = \"127.0.0.1:80\"\n[colour.x]\n[clients.b]\n";
    insta::assert_snapshot!(report(text), @"
    proxy.toml:1: instance: this should be a table of named tables, and is a string; write [instance.NAME] and the keys below it, with a name of your own
    proxy.toml:2: server: this should be a table, and is a whole number; write `server = { threads = … }`, or [server]
    proxy.toml:3: client: this should be a table of named tables, and is a list; write [client.NAME] and the keys below it, with a name of your own
    proxy.toml:6: listener.address: this should be a named table, and is a string; write [listener.NAME] and the keys below it, with a name of your own
    proxy.toml:7: colour: this key is unknown; known here: `instance`, `client`, `listener`, `app`, `policy`, `server`, `admin`, `log`, `store`, `trace`, `ca`
    proxy.toml:8: clients: this key is unknown; write `client`
    ");
}

#[test]
fn urls() {
    for (url, said) in [
        (
            "acme.example",
            "this is no URL: relative URL without a base",
        ),
        ("acme.example:443", "no URL of a web server"),
        ("ftp://acme.example", "no URL of a web server"),
        ("https://", "this is no URL: empty host"),
        ("https://u@acme.example", "a user's name or password"),
        ("https://acme.example/rest", "cut what follows the host"),
        ("https://acme.example/?a", "cut what follows the host"),
        ("https://acme.example/#a", "cut what follows the host"),
        ("http://acme.example", "or `allow_insecure = true`"),
        ("http://127.example", "or `allow_insecure = true`"),
        ("http://[::2]", "or `allow_insecure = true`"),
    ] {
        let report = report(&with("", "", "").replace("https://acme.example", url));
        assert!(
            report.starts_with("proxy.toml:2: instance.acme.url: "),
            "{url}: {report}"
        );
        assert!(report.contains(said), "{url}: {report}");
        assert_eq!(report.lines().count(), 1, "{report}");
    }
    let text = with("allow_insecure = true", "", "").replace("https:", "http:");
    assert!(
        report(&text).contains("travel to this host unencrypted"),
        "{}",
        report(&text)
    );
}

#[test]
fn numbers_and_durations_out_of_bounds() {
    for (table, key, values) in [
        (
            0,
            "token_path",
            &["\"x\"", "\"/\"", "\"//x\"", "\"/a b\"", "\"/a?b\""][..],
        ),
        (
            0,
            "connect_timeout",
            &["\"0s\"", "\"5\"", "5", "\"-1s\"", "\"31days\"", "true"],
        ),
        (0, "resolve_ttl_max", &["\"0s\""]),
        (
            1,
            "refresh_at",
            &["0", "1", "0.0", "1.0", "-0.5", "nan", "inf", "\"half\""],
        ),
        (1, "refresh_jitter", &["1.1", "-0.1", "nan"]),
        (
            1,
            "pool",
            &[
                "5",
                "{ capacity = 0 }",
                "{ refill = \"0s\" }",
                "{ capacity = -1 }",
            ],
        ),
        (1, "token_timeout", &["\"0s\""]),
        (1, "auth_method", &["\"basic\"", "1"]),
        (2, "header_timeout", &["\"0s\""]),
        (2, "max_header_bytes", &["1023", "1048577", "99999999999"]),
        (2, "max_connections", &["0", "1.5"]),
        (
            2,
            "hosts",
            &["[]", "\"localhost\"", "[1]", "[\"a:80\"]", "[\"http://a\"]"],
        ),
    ] {
        for value in values {
            let mut tables = [String::new(), String::new(), String::new()];
            tables[table] = format!("{key} = {value}");
            let said = report(&with(&tables[0], &tables[1], &tables[2]));
            assert!(said.contains(&format!(".{key}")), "{key} = {value}: {said}");
            let only_warnings = read(&with(&tables[0], &tables[1], &tables[2])).is_ok();
            assert!(!only_warnings, "{key} = {value} is accepted");
        }
    }
}

#[test]
fn references_that_lead_nowhere_or_to_several() {
    let text = with("", "", "") + "[instance.dev]\nurl = \"https://dev.example\"\n";
    insta::assert_snapshot!(report(&text), @"proxy.toml:4: client.catalog.instance: there are several of [instance.NAME], and this does not say which; write one of `acme`, `dev`");
    let text = with("", "", "client = \"x\"");
    insta::assert_snapshot!(report(&text), @"proxy.toml:10: listener.local.client: there is no [client.NAME] of this name; write one of `catalog`");
    let text = "instance.acme = { url = \"https://acme.example\" }\n\
                client.a = { client_id = \"a\", client_secret = \"s\" }\n\
                client.b = { client_id = \"b\", client_secret = \"s\" }\n";
    insta::assert_snapshot!(report(text), @"proxy.toml: listener.local.client: there are several of [client.NAME], and this does not say which; write one of `a`, `b`");
}

#[test]
fn one_pool_has_one_client() {
    let text = with("", "", "client = \"catalog\"")
        + "[client.again]\nclient_id = \"id\"\nclient_secret = \"t\"\n";
    insta::assert_snapshot!(report(&text), @"proxy.toml:11: client.again: it has the same instance and id as [client.catalog], and so the same pool of tokens; keep one of the two; any number of listeners can name it");
}

#[test]
fn sources_of_the_secret() {
    let text = |client: &str| with("", "", "").replace("client_secret = \"s\"", client);
    insta::assert_snapshot!(report(&text("")), @"proxy.toml:4: client.catalog.client_secret: it is missing; write `client_secret_file`, `client_secret_env` or `credentials_file`");
    insta::assert_snapshot!(report(&text("client_secret = \"\"")), @"proxy.toml:6: client.catalog.client_secret: the secret is empty; give the secret that Collibra showed when the application was registered");
    insta::assert_snapshot!(report(&text("client_secret_env = \"NO_SUCH\"")), @"proxy.toml:6: client.catalog.client_secret_env: the environment variable that it names is not set; set it, or write the name of another; the name only, without `$`");
    insta::assert_snapshot!(report(&text("client_secret_file = \"none\"")), @"proxy.toml:6: client.catalog.client_secret_file: the file cannot be read: No such file or directory (os error 2); name a file that this user can read (a relative path counts from /nonexistent)");
    insta::assert_snapshot!(report(&text("credentials_file = \"none\"")), @"
    proxy.toml:4: client.catalog.client_id: it is given 2 times: `client_id`, `credentials_file`; keep one of them
    proxy.toml:6: client.catalog.credentials_file: the file cannot be read: No such file or directory (os error 2); name a file that this user can read (a relative path counts from /nonexistent)
    ");
    insta::assert_snapshot!(
        report(&text("client_secret_env = \"A\"\nclient_secret_file = \"b\"")), @"proxy.toml:4: client.catalog.client_secret: it is given 2 times: `client_secret_file`, `client_secret_env`; keep one of them");
}

#[test]
fn what_listens_twice() {
    let text = with("", "", "")
        + "[listener.again]\naddress = \"127.0.0.1:8080\"\n[admin]\naddress = \"127.0.0.1:8080\"\n";
    insta::assert_snapshot!(report(&text), @r#"
    proxy.toml:12: listener.again.address: [listener.local] already listens there; write another port
    proxy.toml:14: admin.address: [listener.local] already listens there; write another port; the default is "127.0.0.1:9902"
    proxy.toml:14: admin.address: [listener.again] already listens there; write another port; the default is "127.0.0.1:9902"
    "#);
}

#[test]
fn stores() {
    let text = |store: &str| with("", "", "") + "[store]\n" + store;
    insta::assert_snapshot!(report(&text("kind = \"files\"\npath = \"a\"")), @r#"proxy.toml:12: store.kind: there is no such store; write "file""#);
    #[cfg(feature = "kubernetes")]
    insta::assert_snapshot!(report(&text("kind = \"kubernetes\"")), @"proxy.toml:11: store.kubeconfig: this is not a pod, and no kubeconfig file is named: KUBERNETES_SERVICE_HOST and KUBECONFIG are not set; write the path of a kubeconfig file");
    #[cfg(not(feature = "kubernetes"))]
    insta::assert_snapshot!(report(&text("kind = \"kubernetes\"")), @"proxy.toml:11: store.kind: this program was built without the feature `kubernetes`; take a build that has it, or another kind of store");
    insta::assert_snapshot!(report(&text("kind = \"file\"")), @r#"proxy.toml:11: store.path: it is missing; write the directory to keep tokens in, like `path = "/var/lib/collibra-auth-proxy"`"#);
    insta::assert_snapshot!(report(&text("kind = \"file\"\npath = \"\"")), @"proxy.toml:13: store.path: the path is empty; write a file's path, or leave the key out");
    insta::assert_snapshot!(report(&text("kind = 1\npath = \"a\"")), @r#"proxy.toml:12: store.kind: this should be a string, and is a whole number; write it in quotes, like "…""#);
    insta::assert_snapshot!(report(&text("path = \"a\"")), @r#"proxy.toml:12: store.path: it applies only with `kind = "file"`; write that too, or leave this key out"#);
    insta::assert_snapshot!(report(&text("kind = \"memory\"\npath = \"a\"")), @r#"proxy.toml:13: store.path: it applies only with `kind = "file"`; write that too, or leave this key out"#);
    insta::assert_snapshot!(report(&text("kind = \"file\"\npth = \"a\"")), @r#"
    proxy.toml:11: store.path: it is missing; write the directory to keep tokens in, like `path = "/var/lib/collibra-auth-proxy"`
    proxy.toml:13: store.pth: this key is unknown; write `path`
    "#);

    let redis = |keys: &str| report(&text(&format!("kind = \"redis\"\n{keys}")));
    insta::assert_snapshot!(redis("path = \"a\"\nkey_prefix = \"{a}\""), @r#"
    proxy.toml:11: store.url: the server's address is missing; write one like "rediss://redis.example:6379", "unix:///run/redis/redis.sock", "rediss+sentinel://a.example,b.example/primary" or "rediss+cluster://a.example,b.example"
    proxy.toml:13: store.path: it applies only with `kind = "file"`; write that too, or leave this key out
    proxy.toml:14: store.key_prefix: the prefix is invalid; write up to 100 ASCII letters, digits and signs, without spaces and braces
    "#);
    let url = |url: &str| redis(&format!("url = \"{url}\""));
    for (faulty, problem) in [
        ("redis", "this is no URL"),
        ("https://a", "it begins with none of"),
        ("redis+proxy://a", "what follows the + is neither"),
        ("redis+sentinel://a,b", "after the sentinels stands no name"),
        ("redis+sentinel://a,/main", "it has no host, or one"),
        ("redis+sentinel://a/main/one", "its path is not the number"),
        ("redis+cluster://a/1", "a cluster has one database"),
        ("redis+cluster://a?db=1", "it has a query"),
        ("redis://", "it has no host"),
        ("redis:///1", "it has no host"),
        ("redis://a/one", "its path is not the number"),
        ("redis://a/?db=1", "it has a query"),
        ("redis://:p#w@a", "it has a fragment"),
        ("redis://a,b", "it has no host, or one"),
        ("redis://a#w", "it has a fragment"),
        ("redis://u:%ff@a", "it is not UTF-8"),
        ("unix://run/a.sock", "it names no socket"),
        ("unix:///", "it names no socket"),
        ("unix:///a?pass=p", "its query"),
        ("unix:///a?db=-1", "its path is not the number"),
    ] {
        let said = url(faulty);
        assert!(
            said.contains(&format!("store.url: {problem}")),
            "{faulty}: {said}"
        );
    }
    insta::assert_snapshot!(redis("url = \"redis://localhost\"\nca_file = \"/dev/null\"\npassword_file = \"missing\""), @"
    proxy.toml:14: store.ca_file: it is no regular file: pipes, sockets and devices are not read; name a PEM file with your authority's certificate (a relative path counts from /nonexistent)
    proxy.toml:14: store.ca_file: it applies only to a server with TLS; write rediss:// in `url`, or leave this key out
    proxy.toml:15: store.password_file: the file cannot be read: No such file or directory (os error 2); name a file that this user can read (a relative path counts from /nonexistent)
    ");
    insta::assert_snapshot!(redis("url = \"rediss://:p@localhost\"\nca_file = \"/dev/null\"\npassword_file = \"/dev/null\""), @"
    proxy.toml:13: store.url: it has a password in it, and there is a `password_file` too; keep one of the two
    proxy.toml:14: store.ca_file: it is no regular file: pipes, sockets and devices are not read; name a PEM file with your authority's certificate (a relative path counts from /nonexistent)
    proxy.toml:15: store.password_file: it is no regular file: pipes, sockets and devices are not read; name a file that this user can read (a relative path counts from /nonexistent)
    ");

    let file = tempfile::NamedTempFile::new().unwrap();
    let path = file.path().to_str().unwrap();
    let said = report(&text(&format!("kind = \"file\"\npath = \"{path}\"")));
    insta::assert_snapshot!(said, @"proxy.toml:13: store.path: this is a file and no directory; name a directory, which is made if there is none (a relative path counts from /nonexistent)");
}

#[test]
fn warnings() {
    let text = with("", "", "client = \"catalog\"").replace("[client.", "[instance.spare]\nurl = \"https://b.example\"\n[client.spare]\ninstance = \"acme\"\nclient_id = \"x\"\nclient_secret = \"y\"\n[client.")
        .replace("client_id = \"id\"", "client_id = \"id\"\ninstance = \"acme\"")
        + "[server]\ndrain = \"31s\"\n[admin]\naddress = \"[::]:9902\"\n";
    assert!(read(&text).is_ok());
    insta::assert_snapshot!(report(&text), @r#"
    proxy.toml:4: instance.spare: no client uses it; remove it, or name it in a client
    proxy.toml:6: client.spare: no listener, route or app uses it, and yet it will hold a token; remove it, or name it in a listener
    proxy.toml:9: client.spare.client_secret: the secret is in the configuration, which is often copied and committed; keep it in a file and name that with `client_secret_file`
    proxy.toml:13: client.catalog.client_secret: the secret is in the configuration, which is often copied and committed; keep it in a file and name that with `client_secret_file`
    proxy.toml:19: server.drain: Kubernetes kills after 30 s by default, before this is over; write at most "30s", or raise terminationGracePeriodSeconds above it
    proxy.toml:21: admin.address: health, metrics and status can be seen beyond this machine; none shows a secret; write a loopback address unless something outside scrapes it
    "#);
}

#[cfg(unix)]
#[test]
fn a_secret_that_everyone_can_read_is_pointed_out() {
    use std::os::unix::fs::PermissionsExt;

    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "s\n").unwrap();
    let path = file.path().to_str().unwrap();
    let source = format!("client_secret_file = \"{path}\"");
    let text = with("", "", "").replace("client_secret = \"s\"", &source);
    let mode = |mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    mode(0o640);
    assert_eq!(report(&text), "");
    mode(0o644);
    insta::assert_snapshot!(report(&text), @"proxy.toml:6: client.catalog.client_secret_file: every user of this machine can read the file; chmod o-r it; for a mounted Kubernetes secret set defaultMode: 0440 and an fsGroup");
}

#[test]
fn a_copy_of_systemd_is_pointed_out() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("secret"), "s3cret").unwrap();
    let source = format!("client_secret_file = {:?}", folder.path().join("secret"));
    let text = with("", "", "").replace("client_secret = \"s\"", &source);
    let said = |credentials: Option<&Path>| {
        let env = |name: &str| {
            let folder = credentials.filter(|_| name == "CREDENTIALS_DIRECTORY")?;
            Some(folder.to_str()?.to_owned())
        };
        let config = read_with(&text, Path::new(""), &env).unwrap();
        let warnings: Vec<String> = config.warnings.iter().map(|w| w.to_string()).collect();
        warnings
            .iter()
            .any(|w| w.contains("systemd copies this file"))
    };
    assert!(said(Some(folder.path())));
    assert!(!said(Some(Path::new("/run/credentials/other.service"))));
    assert!(!said(None));
}

#[test]
fn a_byte_order_mark_is_cut_and_said() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "\u{feff}s3cret\n").unwrap();
    let source = format!("client_secret_file = {:?}", file.path());
    let text = with("", "", "").replace("client_secret = \"s\"", &source);
    insta::assert_snapshot!(report(&text), @"proxy.toml:6: client.catalog.client_secret_file: the file begins with a byte order mark, which is cut; write it as UTF-8 without one");
    let config = read_with(&text, Path::new(""), &|_| None).unwrap();
    assert_eq!(
        config.clients["catalog"].oauth.client_secret.expose(),
        "s3cret"
    );

    std::fs::write(file.path(), format!("\u{feff}{}", with("", "", ""))).unwrap();
    assert!(load(file.path(), &|_| None).is_ok());
}

#[test]
fn a_file_that_is_not_text_or_not_there() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), b"a = 1\n\xff").unwrap();
    let said = load(file.path(), &|_| None).unwrap_err().to_string();
    assert!(said.contains(":2: it is not UTF-8 text; "), "{said}");
    let said = load(Path::new("/none.toml"), &|_| None)
        .unwrap_err()
        .to_string();
    assert!(
        said.starts_with("/none.toml: it cannot be read: "),
        "{said}"
    );
}
