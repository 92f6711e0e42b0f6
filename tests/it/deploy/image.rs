//! The container image: its file system, built as for a release. The program runs in it as in a
//! cluster: as user 65532, read-only, without capabilities.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::{printed, top};
use crate::support::process::{Process, run};
use crate::support::simulator::{CLIENT_ID, CLIENT_SECRET};
use crate::support::{Simulator, http, until};

/// The image's file system, with this test's build of the program, and its mounts.
pub(super) struct Container {
    folder: tempfile::TempDir,
}

impl Container {
    /// A container without mounts.
    pub(super) fn new() -> Container {
        let folder = tempfile::tempdir().unwrap();
        // only debug information makes a debug build huge
        let binary = folder.path().join("collibra-auth-proxy");
        let built = env!("CARGO_BIN_EXE_collibra-auth-proxy");
        printed(Command::new("strip").arg("-o").arg(&binary).arg(built));
        printed(
            Command::new(top().join("deploy/rootfs.sh"))
                .arg(&binary)
                .arg(folder.path().join("root"))
                .env("DEBIAN_PACKAGES", top().join("target/packages")),
        );
        Container { folder }
    }

    /// Its root directory, on this machine.
    pub(super) fn root(&self) -> std::path::PathBuf {
        self.folder.path().join("root")
    }

    /// Mounts a file below a directory of the image.
    fn with(self, name: &str, content: &str) -> Container {
        let path = self.folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
        self
    }

    /// The command that runs the program in it.
    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("bwrap");
        let here = |name: &str| self.folder.path().join(name);
        command
            .args(["--unshare-user", "--uid", "65532", "--gid", "65532"])
            .args([
                "--unshare-pid",
                "--unshare-ipc",
                "--die-with-parent",
                "--clearenv",
            ])
            .args(["--cap-drop", "ALL"])
            .arg("--ro-bind")
            .args([&self.root(), Path::new("/")])
            .args(["--proc", "/proc", "--dev", "/dev"])
            .arg("--ro-bind")
            .arg(here("config"))
            .arg("/etc/collibra-auth-proxy")
            .arg("--ro-bind")
            .arg(here("secrets"))
            .arg("/run/secrets")
            .arg("/usr/bin/collibra-auth-proxy")
            .args(args);
        command
    }
}

/// What the Dockerfile says of running the image.
pub(super) struct Recipe {
    pub(super) variables: Vec<(String, String)>,
    pub(super) entrypoint: Vec<String>,
    pub(super) command: Vec<String>,
    /// The health check's command.
    pub(super) health: Vec<String>,
}

impl Recipe {
    /// The Dockerfile's.
    pub(super) fn read() -> Recipe {
        let text = fs::read_to_string(top().join("deploy/Dockerfile")).unwrap();
        let (_, last_stage) = text.split_once("FROM scratch\n").unwrap();
        let after = |word: &str| {
            let lines = last_stage
                .lines()
                .filter_map(|line| line.strip_prefix(word));
            lines.map(str::to_owned).collect::<Vec<_>>()
        };
        let words = |text: &str| serde_json::from_str::<Vec<String>>(text).unwrap();
        let variables = after("ENV ").into_iter().map(|line| {
            let (name, value) = line.split_once('=').unwrap();
            (name.to_owned(), value.to_owned())
        });
        let health = after("HEALTHCHECK ").remove(0);
        Recipe {
            variables: variables.collect(),
            entrypoint: words(&after("ENTRYPOINT ")[0]),
            command: words(&after("CMD ")[0]),
            health: words(health.split_once(" CMD ").unwrap().1),
        }
    }
}

#[test]
fn it_serves_checks_and_waits_read_only_as_user_65532() {
    let simulator = Simulator::start();
    let configuration = format!(
        r#"
[instance.acme]
url = "{}"
[client.catalog]
client_id_file = "/run/secrets/collibra/client_id"
client_secret_file = "/run/secrets/collibra/client_secret"
[listener.local]
address = "127.0.0.1:0"
[admin]
address = "127.0.0.1:0"
"#,
        simulator.url()
    );
    let container = Container::new()
        .with("config/collibra-auth-proxy.toml", &configuration)
        .with("secrets/collibra/client_id", CLIENT_ID)
        .with("secrets/collibra/client_secret", CLIENT_SECRET);
    let source = [
        "--config",
        "/etc/collibra-auth-proxy/collibra-auth-proxy.toml",
    ];

    let checked = run(&mut container.command(&["check", source[0], source[1], "--live"]));
    assert_eq!(checked.status, 0, "{}", checked.err);

    let mut serve = container.command(&["serve", source[0], source[1]]);
    let serve = Process::spawn(&mut serve);
    let admin: std::net::SocketAddr = serve.err.wait_for("the admin address", |line| {
        let line = crate::support::proxy::message(line, "admin address open")?;
        line["address"].as_str()?.parse().ok()
    });
    let admin_flag = admin.to_string();
    let waited = run(&mut container.command(&["wait", "--admin", &admin_flag]));
    assert_eq!(waited.status, 0, "{}", waited.err);
    until("readiness", || {
        (http::get(admin, "/readyz").status == 200).then_some(())
    });
}

#[test]
fn buildah_builds_it_and_runs_it() {
    let container = Container::new();
    // a private image store, without an overlay file system, deleted with the folder
    let storage = container.folder.path().join("storage");
    let settings = container.folder.path().join("storage.conf");
    let (graph, run_root) = (storage.join("graph"), storage.join("run"));
    let text =
        format!("[storage]\ndriver = \"vfs\"\ngraphroot = {graph:?}\nrunroot = {run_root:?}\n");
    fs::write(&settings, text).unwrap();
    let binary = container.folder.path().join("collibra-auth-proxy");
    let script = r#"
        set -e
        "$TOP/deploy/image.sh" "$BINARY" proxy:test >/dev/null
        buildah inspect --type image --format \
            '{{.Docker.Config.User}} {{.Docker.Config.Entrypoint}} {{.Docker.Config.Cmd}}' proxy:test
        echo
        buildah inspect --type image --format '{{range .Docker.Config.Env}}{{println .}}{{end}}' \
            proxy:test | grep .
        buildah inspect --type image --format \
            '{{.Docker.Config.Healthcheck.Test}} {{.Docker.Config.Healthcheck.Interval}}' proxy:test
        echo
        container=$(buildah from proxy:test)
        # the entrypoint is for a runtime to follow
        buildah run --isolation chroot --user 65532:65532 "$container" -- \
            /usr/bin/collibra-auth-proxy --version
        buildah rm --all >/dev/null
        buildah rmi --all >/dev/null"#;
    let root = printed(Command::new("id").arg("-u")).trim() == "0";
    let mut command = match root {
        true => Command::new("bash"),
        false => Command::new("buildah"),
    };
    if !root {
        command.args(["unshare", "bash"]);
    }
    let said = printed(
        command
            .args(["-c", script])
            .env("TOP", top())
            .env("BINARY", binary)
            .env("DEBIAN_PACKAGES", top().join("target/packages"))
            .env("CONTAINERS_STORAGE_CONF", settings),
    );
    let recipe = Recipe::read();
    let variables: Vec<_> = recipe
        .variables
        .iter()
        .map(|(n, v)| format!("{n}={v}\n"))
        .collect();
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(
        said,
        format!(
            "65532:65532 [{}] [{}]\n{}[CMD {}] 10s\ncollibra-auth-proxy {version}\n",
            recipe.entrypoint.join(" "),
            recipe.command.join(" "),
            variables.concat(),
            recipe.health.join(" "),
        )
    );
}

#[test]
fn there_is_nothing_in_it_but_the_program_its_libraries_and_certificates() {
    let container = Container::new();
    let root = container.root();
    let found = printed(
        Command::new("find")
            .arg(&root)
            .args(["-type", "f", "-printf", "%f\n"]),
    );
    let mut found: Vec<_> = found
        .lines()
        .filter(|name| !name.contains(".so."))
        .collect();
    found.sort_unstable();
    assert_eq!(
        found,
        [
            "ca-certificates.crt",
            "collibra-auth-proxy",
            "group",
            "nsswitch.conf",
            "passwd"
        ]
    );
    let certificates = fs::read_to_string(root.join("etc/ssl/certs/ca-certificates.crt")).unwrap();
    assert!(certificates.matches("BEGIN CERTIFICATE").count() > 100);
    // the program is most of the image: everything else has at most 4 MB
    let program = fs::metadata(root.join("usr/bin/collibra-auth-proxy"))
        .unwrap()
        .len();
    let all = printed(Command::new("du").args(["-sb"]).arg(&root));
    let all: u64 = all.split_whitespace().next().unwrap().parse().unwrap();
    assert!(
        all - program < 4 << 20,
        "{all} bytes, {program} of them the program"
    );
}

#[test]
fn docker_and_buildah_make_the_same_image() {
    let read = |name: &str| fs::read_to_string(top().join("deploy").join(name)).unwrap();
    let (docker, buildah) = (read("Dockerfile"), read("image.sh"));
    let labels = |text: &str| {
        let words = text.split(|c: char| !(c.is_alphanumeric() || c == '.'));
        let mut found: Vec<String> = words
            .filter(|word| word.starts_with("org.opencontainers.image."))
            .map(str::to_owned)
            .collect();
        found.sort();
        found
    };
    assert_eq!(labels(&docker), labels(&buildah));
    for (in_docker, in_buildah) in [
        ("USER 65532:65532", "--user 65532:65532"),
        ("WORKDIR /", "--workingdir /"),
        (
            r#"ENTRYPOINT ["/usr/bin/collibra-auth-proxy"]"#,
            r#"--entrypoint '["/usr/bin/collibra-auth-proxy"]'"#,
        ),
        (r#"CMD ["serve"]"#, "--cmd serve"),
        ("STOPSIGNAL SIGTERM", "--stop-signal SIGTERM"),
        ("EXPOSE 8080 9902", "--port 8080 --port 9902"),
        ("deploy/rootfs.sh", "rootfs.sh"),
    ] {
        assert!(docker.contains(in_docker), "{in_docker}");
        assert!(buildah.contains(in_buildah), "{in_buildah}");
    }
}
