//! A listener and the admin address on unix sockets.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use crate::support::process::{self, Process};
use crate::support::{Connection, PATIENCE, Simulator, until};

/// A configuration with a listener and the admin address on unix sockets in its directory, and
/// `more`.
fn configured(simulator: &Simulator, folder: &Path, more: &str) -> std::path::PathBuf {
    let text = format!(
        r#"
[instance.acme]
url = "{}"
[client.catalog]
client_id = "urn:sys:env:2eeadf60-1a11-5170-7e57-000000000000:i:1cnxtsn"
client_secret = "s3cr+t/=%&x y~!*"
[listener.local]
address = "unix:local.sock"
{more}
[admin]
address = "unix:admin.sock"
"#,
        simulator.url()
    );
    let path = folder.join("proxy.toml");
    std::fs::write(&path, text).unwrap();
    path
}

fn serve(config: &Path) -> Process {
    let mut command = process::command(["serve", "--config"]);
    command.arg(config);
    Process::spawn(&mut command)
}

fn mode(path: &Path) -> Option<u32> {
    let metadata = std::fs::metadata(path).ok()?;
    Some(metadata.permissions().mode() & 0o777)
}

fn asked(folder: &Path, command: &str) -> process::Ended {
    let address = format!("unix:{}", folder.join("admin.sock").display());
    process::run(&mut process::command([command, "--admin", &address]))
}

#[test]
fn an_app_and_the_commands_come_in_by_sockets_which_are_gone_at_the_end() {
    let simulator = Simulator::start();
    let folder = tempfile::tempdir().unwrap();
    let config = configured(&simulator, folder.path(), "mode = \"0660\"");
    let mut proxy = serve(&config);
    let socket = folder.path().join("local.sock");
    until("the socket", || socket.exists().then_some(()));
    assert_eq!(mode(&socket), Some(0o660));
    assert_eq!(mode(&folder.path().join("admin.sock")), Some(0o600));

    let ready = asked(folder.path(), "wait");
    assert_eq!(ready.status, 0, "{}", ready.err);
    let mut connection = Connection::open_unix(&socket);
    for host in ["localhost", "localhost:80", "127.0.0.1"] {
        let request = format!("GET /echo HTTP/1.1\r\nHost: {host}\r\n\r\n");
        connection.send(&request);
        let answer = connection.answer(&request);
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    let foreign = "GET /echo HTTP/1.1\r\nHost: evil.example\r\n\r\n";
    connection.send(foreign);
    connection.answer(foreign).assert_refused(421, "host");
    let status = asked(folder.path(), "status");
    let shown = format!("unix:{}", socket.display());
    assert!(status.out.contains(&shown), "{}", status.out);

    proxy.signal("TERM");
    assert_eq!(proxy.ended_within(PATIENCE), 0);
    let left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().collect();
    assert_eq!(left.len(), 1, "{left:?}");
}

#[test]
fn a_socket_left_behind_is_replaced_and_one_in_use_is_not() {
    let simulator = Simulator::start();
    let folder = tempfile::tempdir().unwrap();
    let config = configured(&simulator, folder.path(), "");
    let mut killed = serve(&config);
    assert_eq!(asked(folder.path(), "wait").status, 0);
    killed.signal("KILL");
    killed.ended_within(PATIENCE);
    let socket = folder.path().join("local.sock");
    assert!(socket.exists(), "left behind");

    let living = serve(&config);
    living.err.wait_for("the listener", |line| {
        line.contains("\"listening\"").then_some(())
    });
    let mut third = serve(&config);
    assert_eq!(third.ended_within(PATIENCE), 1);
    assert!(third.err.all().contains("in use"), "{}", third.err.all());
    let mut connection = Connection::open_unix(&socket);
    let request = "GET /echo HTTP/1.1\r\nHost: localhost\r\n\r\n";
    connection.send(request);
    assert_eq!(connection.answer(request).status, 200);
}

#[test]
fn a_reload_keeps_the_socket_and_its_connections_and_changes_the_mode() {
    let simulator = Simulator::start();
    let folder = tempfile::tempdir().unwrap();
    let config = configured(&simulator, folder.path(), "mode = \"0600\"");
    let proxy = serve(&config);
    assert_eq!(asked(folder.path(), "wait").status, 0);
    let socket = folder.path().join("local.sock");
    let mut connection = Connection::open_unix(&socket);
    let request = "GET /echo HTTP/1.1\r\nHost: localhost\r\n\r\n";
    connection.send(request);
    assert_eq!(connection.answer(request).status, 200);

    configured(
        &simulator,
        folder.path(),
        "mode = \"0640\"\nhosts = [\"other\"]",
    );
    proxy.signal("HUP");
    until("the other mode", || {
        (mode(&socket) == Some(0o640)).then_some(())
    });
    // the connection remains open, and the new settings apply to it
    connection.send(request);
    connection.answer(request).assert_refused(421, "host");
    assert!(!connection.is_silent_for(Duration::from_millis(1)) || socket.exists());
}
