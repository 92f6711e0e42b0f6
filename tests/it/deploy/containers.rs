//! `docker run` and the compose file, without Docker: the image's own root, variables, entry point
//! and health check. Each container has a network namespace, joined by a bridge; a call from the
//! bridge stands for one through a published port.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

use serde::Deserialize;

use super::configuration::{self, HOST};
use super::image::{Container, Recipe};
use super::objects::Objects;
use super::{printed, top};
use crate::support::simulator::{CLIENT_ID, CLIENT_SECRET};

/// What every script begins with: a bridge, and functions to make and enter networks.
const PREAMBLE: &str = r#"
set -euo pipefail
ip link set lo up
ip link add name bridge type bridge
ip addr add 10.88.0.1/24 dev bridge
ip link set bridge up
# NAME LAST: the network of a container, at 10.88.0.LAST
network() {
    unshare --net sleep infinity &
    eval "net_$1=/proc/$!/ns/net"
    # a process that is being replaced cannot be read for a moment
    local made=''
    until [[ -n $made && $made != $(readlink /proc/self/ns/net) ]]; do
        sleep 0.01
        made=$(readlink "/proc/$!/ns/net" || true)
    done
    ip link add "to-$1" type veth peer name eth0 netns $!
    ip link set "to-$1" master bridge up
    nsenter --net="/proc/$!/ns/net" sh -c \
        "ip link set lo up && ip addr add 10.88.0.$2/24 dev eth0 && ip link set eth0 up"
}
# NAME COMMAND...: runs a command in a container's network
inside() {
    local net=net_$1
    nsenter --net="${!net}" "${@:2}"
}
# COMMAND...: repeats it until it succeeds
eventually() {
    for _ in {1..100}; do
        ! "$@" || return 0
        sleep 0.1
    done
    return 1
}
"#;

/// Quotes a word for the shell.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

fn line<T: AsRef<str>>(words: impl IntoIterator<Item = T>) -> String {
    let words = words.into_iter().map(|word| quoted(word.as_ref()));
    words.collect::<Vec<_>>().join(" ")
}

impl Container {
    /// The shell's command that runs `words` as the image does, with `variables` besides its own.
    fn running(&self, recipe: &Recipe, variables: &[(String, String)], words: &[String]) -> String {
        let root = self.root();
        let mut all = vec![
            "bwrap",
            "--unshare-user",
            "--uid",
            "65532",
            "--gid",
            "65532",
        ];
        all.extend([
            "--unshare-pid",
            "--unshare-ipc",
            "--die-with-parent",
            "--clearenv",
        ]);
        all.extend([
            "--cap-drop",
            "ALL",
            "--ro-bind",
            root.to_str().unwrap(),
            "/",
        ]);
        all.extend(["--proc", "/proc", "--dev", "/dev"]);
        for (name, value) in recipe.variables.iter().chain(variables) {
            all.extend(["--setenv", name, value]);
        }
        line(all.into_iter().chain(words.iter().map(String::as_str)))
    }
}

/// The output of a script after [`PREAMBLE`], as root in its own namespaces, which end with it.
fn run(container: &Container, script: &str) -> String {
    run_in(container.root().parent().unwrap(), script)
}

/// As [`run`], with the script in `folder`.
fn run_in(folder: &Path, script: &str) -> String {
    let path = folder.join("script");
    fs::write(&path, format!("{PREAMBLE}{script}")).unwrap();
    printed(
        Command::new("unshare")
            .args([
                "--user",
                "--map-root-user",
                "--net",
                "--mount",
                "--pid",
                "--fork",
            ])
            .args(["--kill-child", "--mount-proc", "bash"])
            .arg(path)
            .env("PROGRAM", env!("CARGO_BIN_EXE_collibra-auth-proxy")),
    )
}

fn variables(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    let pairs = pairs.iter();
    pairs
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

#[test]
fn docker_run_needs_an_address_an_id_and_a_secret() {
    let (container, recipe) = (Container::new(), Recipe::read());
    let given = variables(&[
        // this container's own loopback, the only place to which http:// is allowed
        ("COLLIBRA_URL", "http://127.0.0.1:9400"),
        ("COLLIBRA_CLIENT_ID", CLIENT_ID),
        ("COLLIBRA_CLIENT_SECRET", CLIENT_SECRET),
    ]);
    let started = [&recipe.entrypoint[..], &recipe.command].concat();
    let script = format!(
        r#"
network proxy 2
inside proxy "$PROGRAM" simulate >/dev/null &
inside proxy {serve} 2>log &
eventually inside proxy {healthy} 2>/dev/null
# what docker run --publish 127.0.0.1:8080:8080 leads to
published=(--silent --connect-to ::10.88.0.2:)
curl "${{published[@]}}" --fail --output /dev/null http://localhost:8080/rest/2.0/application/info
curl "${{published[@]}}" --fail http://localhost:9902/readyz
curl "${{published[@]}}" http://elsewhere:8080/rest/2.0/application/info
echo
grep --only-matching 'publish it to this machine only' log
"#,
        serve = container.running(&recipe, &given, &started),
        healthy = container.running(&recipe, &[], &recipe.health),
    );
    let log = container.root().with_file_name("log");
    let script = script.replace(" 2>log", &format!(" 2>{}", log.display()));
    let script = script.replace("only' log", &format!("only' {}", log.display()));
    let said = run(&container, &script);
    let lines: Vec<_> = said.lines().collect();
    let [ready, refused, warned] = lines[..] else {
        panic!("{said}");
    };
    assert_eq!(
        (ready, warned),
        ("ready", "publish it to this machine only")
    );
    assert!(
        refused.contains(r#"--host localhost --host 127.0.0.1 --host [::1] --host elsewhere"#),
        "{refused}"
    );
}

#[test]
fn check_warns_of_a_containers_loopback() {
    let (container, recipe) = (Container::new(), Recipe::read());
    let given = variables(&[
        ("COLLIBRA_URL", "https://acme.example"),
        ("COLLIBRA_CLIENT_ID", "urn:x"),
        ("COLLIBRA_CLIENT_SECRET", "s"),
    ]);
    let check = |more: &[&str], variables: &[(String, String)]| {
        let words = recipe
            .entrypoint
            .iter()
            .map(String::as_str)
            .chain(["check"]);
        let words: Vec<_> = words
            .chain(more.iter().copied())
            .map(str::to_owned)
            .collect();
        run(&container, &container.running(&recipe, variables, &words))
    };
    let loopback = "127.0.0.1:8080 is this container's own loopback";
    assert!(!check(&[], &given).contains(loopback));
    let own = ["--listen", "127.0.0.1:8080"];
    let said = check(&own, &given);
    assert!(said.contains(loopback), "{said}");
    // the containers of a pod share one
    let pod = variables(&[("KUBERNETES_SERVICE_HOST", "10.0.0.1")]);
    assert!(!check(&own, &[given, pod].concat()).contains(loopback));
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Compose {
    #[serde(rename = "name")]
    _name: String,
    services: BTreeMap<String, Service>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Service {
    image: String,
    command: Vec<String>,
    #[serde(default)]
    environment: BTreeMap<String, String>,
    #[serde(default)]
    ports: Vec<String>,
    #[serde(default)]
    depends_on: serde_json::Value,
    #[serde(default)]
    build: serde_json::Value,
    #[serde(default, rename = "healthcheck")]
    _health: serde_json::Value,
    #[serde(default)]
    read_only: bool,
    #[serde(default)]
    cap_drop: Vec<String>,
    #[serde(default)]
    security_opt: Vec<String>,
}

/// A value, with the defaults of variables that are not set.
fn interpolated(text: &str) -> String {
    match text
        .strip_prefix("${")
        .and_then(|rest| rest.split_once(":-"))
    {
        Some((_, rest)) => rest.strip_suffix('}').unwrap().to_owned(),
        None => text.to_owned(),
    }
}

#[test]
fn the_app_of_the_compose_file_calls_the_simulator_through_the_proxy() {
    let folder = top().join("deploy");
    let text = fs::read_to_string(folder.join("compose.yaml")).unwrap();
    let compose: Compose = serde_saphyr::from_str(&text).unwrap();
    let proxy = &compose.services["proxy"];
    assert!(
        folder
            .join(proxy.build["context"].as_str().unwrap())
            .join("deploy/Dockerfile")
            .exists()
    );
    assert_eq!(proxy.build["dockerfile"], "deploy/Dockerfile");
    // with these options the program has the simulated Collibra
    assert_eq!(proxy.build["args"]["BUILD_OPTIONS"], "--plain");
    assert_eq!(
        compose.services["app"].depends_on["proxy"]["condition"],
        "service_healthy"
    );
    for port in compose.services.values().flat_map(|service| &service.ports) {
        assert!(
            port.starts_with("127.0.0.1:"),
            "{port} is open to the network"
        );
    }

    let (container, recipe) = (Container::new(), Recipe::read());
    let (mut networks, mut hosts, mut started) = (String::new(), String::new(), String::new());
    let mut called = String::new();
    let hosts_file = container.root().join("etc/hosts");
    for (last, (name, service)) in (2..).zip(&compose.services) {
        writeln!(networks, "network {name} {last}").unwrap();
        writeln!(hosts, "10.88.0.{last} {name}").unwrap();
        if service.image == "collibra-auth-proxy:trial" {
            assert!(service.read_only && service.cap_drop == ["ALL"], "{name}");
            assert_eq!(service.security_opt, ["no-new-privileges"], "{name}");
            let given = service.environment.iter();
            let given: Vec<_> = given
                .map(|(n, value)| (n.clone(), interpolated(value)))
                .collect();
            let words = [&recipe.entrypoint[..], &service.command].concat();
            let runs = container.running(&recipe, &given, &words);
            writeln!(started, "inside {name} {runs} >/dev/null 2>&1 &").unwrap();
        } else {
            // this machine's curl, instead of an image that cannot be pulled here
            assert!(service.image.contains("/curl:"), "{}", service.image);
            let hosts = hosts_file.to_str().unwrap();
            let words = [
                "bwrap",
                "--dev-bind",
                "/",
                "/",
                "--ro-bind",
                hosts,
                "/etc/hosts",
                "curl",
            ];
            let words = words
                .into_iter()
                .chain(service.command.iter().map(String::as_str));
            called = format!("inside {name} {}", line(words));
        }
    }
    fs::write(hosts_file, hosts).unwrap();
    // as Docker does; nobody answers there
    fs::write(
        container.root().join("etc/resolv.conf"),
        "nameserver 10.88.0.1\n",
    )
    .unwrap();
    let healthy = container.running(&recipe, &[], &recipe.health);
    let script =
        format!("{networks}{started}eventually inside proxy {healthy} 2>/dev/null\n{called}\n");
    let said = run(&container, &script);
    assert!(said.contains("fullVersion"), "{said}");
}

/// Asserts that the gateway with these objects' configuration answers with TLS and HTTP/2, under a
/// name in any namespace, to an app with its key and to nobody else.
pub(super) fn assert_served_by_tls(objects: &Objects) {
    let text = configuration::text(objects);
    let (_, rest) = text.split_once("url = \"").unwrap();
    let (url, _) = rest.split_once('"').unwrap();
    let folder = configuration::with_secrets(&text.replace(url, "http://127.0.0.1:9400"));
    for (name, content) in [("client_id", CLIENT_ID), ("client_secret", CLIENT_SECRET)] {
        fs::write(folder.path().join("collibra").join(name), content).unwrap();
    }
    let script = format!(
        r#"
cd "$(dirname "$0")"
"$PROGRAM" simulate >/dev/null &
"$PROGRAM" serve --config collibra-auth-proxy.toml 2>log &
eventually "$PROGRAM" wait --timeout 3s 2>/dev/null
call() {{
    curl --silent --http2 --cacert tls/tls.crt --connect-to ::127.0.0.1: --output /dev/null \
        --write-out '%{{http_version}} %{{http_code}}\n' "$@" https://{HOST}:8443/rest/2.0/assets
}}
call --user "lineage:$(<apps/lineage.key)"
call
"#
    );
    assert_eq!(run_in(folder.path(), &script), "2 200\n2 401\n");
}
