//! `check` reports every fault of a configuration by file, line, key and remedy, without a secret.
//! A proxy that cannot start requests no token.

use std::net::TcpListener;
use std::path::Path;

use crate::support::certificate::Authority;
use crate::support::process::{Ended, command, run};
use crate::support::simulator::{CLIENT_ID, CLIENT_SECRET};
use crate::support::{Proxy, Simulator, file};

/// Every line except comments and table headers has a fault.
const FAULTY: &str = r#"
[instance.acme]
url = "http://canary-1.example"
conect_timeout = "5s"
ca_file = "missing.pem"
[client.catalog]
instance = "acmee"
client_id = ""
client_secret = 20260401
refresh_at = 1.5
pool = { capacity = 0, refill = 60 }
wait_for_token = "canary-2"
[listener.local]
address = "0.0.0.0:0"
max_header_bytes = 10
hosts = ["*"]
[sever]
threads = 1
"#;

/// The reported lines, and a word of each message.
const SAID: &[(usize, &str, &str)] = &[
    (3, "instance.acme.url", "https://"),
    (4, "instance.acme.conect_timeout", "connect_timeout"),
    (5, "instance.acme.ca_file", "name a PEM file"),
    (7, "client.catalog.instance", "\"acme\""),
    (8, "client.catalog.client_id", "OAuth applications"),
    (9, "client.catalog.client_secret", "in quotes"),
    (10, "client.catalog.refresh_at", "0.5"),
    (11, "client.catalog.pool.capacity", "write 1 or more"),
    (11, "client.catalog.pool.refill", "unit"),
    (12, "client.catalog.wait_for_token", "\"90s\""),
    (14, "listener.local.address", "allow_unauthenticated"),
    (15, "listener.local.max_header_bytes", "65536"),
    (16, "listener.local.hosts", "wildcard"),
    (17, "sever", "server"),
];

fn with_config(subcommand: &str, path: &Path) -> Ended {
    let mut command = command([subcommand, "--config"]);
    run(command.arg(path))
}

#[test]
fn every_fault_is_told_at_once_with_its_place_and_its_remedy() {
    let (_folder, path) = file("faulty.toml", FAULTY.as_bytes());
    for subcommand in ["serve", "check"] {
        let ended = with_config(subcommand, &path);
        assert_eq!(ended.status, 78, "{subcommand}: {}", ended.err);
        for (line, key, remedy) in SAID {
            let start = format!("{}:{line}: {key}: ", path.display());
            let said = ended.err.lines().find(|said| said.starts_with(&start));
            let said = said.unwrap_or_else(|| panic!("{start}… is not in\n{}", ended.err));
            let advice = said.split_once("; ").map(|(_, advice)| advice);
            assert!(advice.is_some_and(|a| a.contains(remedy)), "{said}");
        }
        assert_eq!(ended.err.lines().count(), SAID.len(), "{}", ended.err);
        let printed = ended.err + &ended.out;
        for secret in ["canary", "20260401"] {
            assert!(!printed.contains(secret), "{secret}: {printed}");
        }
    }
}

#[test]
fn what_is_no_toml_is_told_by_its_line() {
    let (_folder, path) = file("broken.toml", b"[instance.acme]\nurl = canary-4\n");
    let ended = with_config("serve", &path);
    assert_eq!(ended.status, 78, "{}", ended.err);
    let start = format!("{}:2: ", path.display());
    assert!(ended.err.starts_with(&start), "{}", ended.err);
    assert!(!ended.err.contains("canary"), "{}", ended.err);
}

#[test]
fn a_file_that_is_missing_is_told() {
    let ended = with_config("serve", Path::new("no-such-folder/proxy.toml"));
    assert_eq!(ended.status, 78);
    assert!(
        ended.err.starts_with("no-such-folder/proxy.toml: "),
        "{}",
        ended.err
    );
}

#[test]
fn a_file_and_flags_do_not_go_together() {
    let (_folder, path) = file("proxy.toml", b"");
    let args = [
        "serve",
        "--listen",
        "127.0.0.1:0",
        "--host",
        "a",
        "--config",
    ];
    let ended = run(command(args).arg(&path));
    assert_eq!(ended.status, 78);
    assert!(
        ended.err.starts_with("command line: --listen, --host: "),
        "{}",
        ended.err
    );
    let args = ["serve", "--listen", "127.0.0.1:0"];
    let ended = run(command(args).env("COLLIBRA_AUTH_PROXY_CONFIG", &path));
    assert_eq!(ended.status, 78);
    assert!(
        ended.err.contains("COLLIBRA_AUTH_PROXY_CONFIG"),
        "{}",
        ended.err
    );
}

#[test]
fn what_is_missing_is_told_as_flags_and_variables() {
    let ended = run(&mut command(["serve"]));
    assert_eq!(ended.status, 78);
    for said in [
        "--upstream",
        "COLLIBRA_URL",
        "--client-id",
        "COLLIBRA_CLIENT_ID",
        "--client-secret-file",
        "COLLIBRA_CLIENT_SECRET",
    ] {
        assert!(ended.err.contains(said), "{said}: {}", ended.err);
    }
}

#[test]
fn a_secret_on_the_command_line_is_no_flag() {
    for args in [
        &["serve", "--client-secret", "canary-5"][..],
        &["serve", "--no-such-flag"],
        &["sevre"],
        &["serve", "--listen", "nowhere"],
        &["serve", "--pool-refill", "60"],
        &[],
    ] {
        let ended = run(&mut command(args));
        assert_eq!(ended.status, 2, "{args:?}: {}", ended.err);
        assert!(!ended.err.is_empty() && ended.out.is_empty(), "{args:?}");
    }
    let ended = run(&mut command(["serve", "--log-level", "loud"]));
    assert_eq!(ended.status, 2, "{}", ended.err);
}

#[test]
fn an_address_in_use_is_told_and_costs_no_token() {
    let simulator = Simulator::start();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken
        .local_addr()
        .map(|address| (taken, address.to_string()));
    let (_taken, address) = taken.unwrap();
    for flags in [
        ["--listen", &address, "--admin", "127.0.0.1:0"],
        ["--listen", "127.0.0.1:0", "--admin", &address],
    ] {
        let url = simulator.url();
        let mut serve = command(["serve", "--upstream", &url]);
        serve.args(flags);
        serve.env("COLLIBRA_CLIENT_ID", CLIENT_ID);
        serve.env("COLLIBRA_CLIENT_SECRET", CLIENT_SECRET);
        let ended = run(&mut serve);
        assert_eq!(ended.status, 1, "{}", ended.err);
        let said = ended.err.lines().last().unwrap();
        assert!(
            said.contains("cannot listen on") && said.contains(&address),
            "{said}"
        );
        assert!(said.contains("in use"), "{said}");
    }
    assert_eq!(simulator.count("token_requests"), 0);
}

#[test]
fn the_samples_are_sound() {
    let samples = Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
    let secrets = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    let (pair, ca) = (authority.files("localhost"), authority.ca_file());
    let credentials = format!(r#"{{"client_id": "{CLIENT_ID}", "client_secret": "s"}}"#);
    for (name, content) in [
        ("client_id", CLIENT_ID),
        ("client_secret", CLIENT_SECRET),
        ("credentials.json", &*credentials),
        ("lineage.key", "0123456789abcdef"),
        ("dashboard.key", "fedcba9876543210"),
        ("password", "p4ssword"),
        (
            "kubeconfig",
            "{current-context: a, contexts: [{name: a, context: {cluster: a}}], \
             clusters: [{name: a, cluster: {server: 'http://127.0.0.1:1'}}]}",
        ),
    ] {
        std::fs::write(secrets.path().join(name), content).unwrap();
    }
    // the folder where a Kubernetes secret would be mounted, with the administrator's files
    let folder = secrets.path().to_str().unwrap();
    let in_place = [
        ("/run/secrets/collibra", folder),
        ("/run/secrets/apps", folder),
        ("/run/secrets/redis", folder),
        (
            "/etc/collibra-auth-proxy/proxy.pem",
            pair.cert.to_str().unwrap(),
        ),
        (
            "/etc/collibra-auth-proxy/proxy.key",
            pair.key.to_str().unwrap(),
        ),
        ("/etc/collibra-auth-proxy/apps-ca.pem", ca.to_str().unwrap()),
    ];
    let mut checked = 0;
    for sample in std::fs::read_dir(samples).unwrap() {
        let path = sample.unwrap().path();
        let mut text = std::fs::read_to_string(&path).unwrap();
        for (written, found) in in_place {
            text = text.replace(written, found);
        }
        let (_folder, copy) = file("sample.toml", text.as_bytes());
        let mut check = command(["check", "--config"]);
        check.arg(copy);
        check.env("COLLIBRA_CLIENT_ID", CLIENT_ID);
        check.env("COLLIBRA_CLIENT_SECRET", CLIENT_SECRET);
        // outside of a pod
        check.env("KUBECONFIG", secrets.path().join("kubeconfig"));
        check.env_remove("KUBERNETES_SERVICE_HOST");
        let ended = run(&mut check);
        let in_cluster = path.ends_with("fleet-kubernetes.toml");
        if in_cluster && !cfg!(feature = "kubernetes") {
            assert_eq!(ended.status, 78, "{}: {}", path.display(), ended.err);
            continue;
        }
        assert_eq!(ended.status, 0, "{}: {}", path.display(), ended.err);
        checked += 1;
    }
    assert!(checked >= 5);
}

#[test]
fn check_live_tries_it_out_and_takes_one_token() {
    let simulator = Simulator::start();
    let url = simulator.url();
    let check = |secret: &str| {
        let mut check = command(["check", "--live", "--upstream", &url]);
        check.env("COLLIBRA_CLIENT_ID", CLIENT_ID);
        run(check.env("COLLIBRA_CLIENT_SECRET", secret))
    };
    let ended = check(CLIENT_SECRET);
    assert_eq!(ended.status, 0, "{}{}", ended.out, ended.err);
    assert_eq!(simulator.of_client("issued"), 1);
    let ended = check("canary-6");
    assert_eq!(ended.status, 1, "{}{}", ended.out, ended.err);
    assert!(!(ended.out + &ended.err).contains("canary"));
    assert_eq!(simulator.of_client("issued"), 1);
}

#[test]
fn check_live_goes_on_with_a_token_of_the_store_and_calls_the_api() {
    let simulator = Simulator::start();
    let directory = tempfile::tempdir().unwrap();
    let store = directory.path().join("store");
    let proxy = Proxy::to(&simulator.url())
        .flag("--store-path", store.to_str().unwrap())
        .start();
    proxy.has_token();
    let check = |more: &[&str]| {
        let url = simulator.url();
        let mut check = command(["check", "--live", "--upstream", &url, "--store-path"]);
        check.arg(&store).args(more);
        check.env("COLLIBRA_CLIENT_ID", CLIENT_ID);
        let ended = run(check.env("COLLIBRA_CLIENT_SECRET", CLIENT_SECRET));
        (ended.status, ended.out + &ended.err)
    };
    let (status, said) = check(&[]);
    assert_eq!(status, 0, "{said}");
    for step in [
        "a pool of 5 and one more every 1m (a guess: ",
        "token: the one in the store is good for 4m ",
        ", so none was requested\n",
        "left, as counted in the store\n",
        "api: GET /rest/2.0/application/info was answered 200 in ",
    ] {
        assert!(said.contains(step), "{step}: {said}");
    }
    let left = said.split("pool: ").nth(1).unwrap();
    assert!(
        left.starts_with("4.") || left.starts_with("5.0 of 5"),
        "{left}"
    );
    assert_eq!(simulator.of_client("issued"), 1);
    assert_eq!(simulator.count("unauthorized"), 0);

    let (status, said) = check(&["--probe", "/_status/404"]);
    assert_eq!(status, 1, "{said}");
    let expected = "api: FAILED: GET /_status/404 was answered 404 in ";
    assert!(
        said.contains(expected) && said.contains("--probe"),
        "{said}"
    );
    let (status, said) = check(&["--probe", "//evil.example/"]);
    assert_eq!(status, 2, "{said}");
}

#[test]
fn wait_ends_when_the_proxy_is_ready() {
    let simulator = Simulator::start();
    let proxy = Proxy::to(&simulator.url()).start();
    let admin = proxy.admin.to_string();
    let ended = run(&mut command([
        "wait",
        "--admin",
        &admin,
        "--timeout",
        "50s",
    ]));
    assert_eq!(ended.status, 0, "{}", ended.err);
    let ended = run(&mut command(["status", "--admin", &admin, "--json"]));
    let status: serde_json::Value = serde_json::from_str(&ended.out).unwrap();
    assert_eq!(status["ready"], true, "{status}");

    simulator.fault("token", "hang");
    let cold = Proxy::to(&simulator.url()).start();
    let admin = cold.admin.to_string();
    let ended = run(&mut command([
        "wait",
        "--admin",
        &admin,
        "--timeout",
        "300ms",
    ]));
    assert_eq!(ended.status, 1, "{}", ended.err);
}
