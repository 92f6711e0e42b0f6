//! The proxy notifies the service manager of its state, as for systemd's `Type=notify`.

use std::os::unix::net::UnixDatagram;

use crate::support::process::Grandchild;
use crate::support::{PATIENCE, Proxy, Simulator, until};

/// A service manager's socket.
struct Manager {
    socket: UnixDatagram,
    path: String,
    _folder: tempfile::TempDir,
}

impl Manager {
    fn new() -> Manager {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Manager {
            socket,
            path: path.to_str().unwrap().to_owned(),
            _folder: folder,
        }
    }

    /// The next message.
    fn told(&self) -> String {
        let mut message = [0; 4096];
        let length = self.socket.recv(&mut message).unwrap();
        String::from_utf8(message[..length].to_vec()).unwrap()
    }
}

#[test]
fn it_is_told_of_the_start_a_reload_and_the_end() {
    let simulator = Simulator::start();
    // without a token: ready means that it listens
    simulator.fault("token", "hang");
    let manager = Manager::new();
    let mut proxy = Proxy::to(&simulator.url())
        .variable("NOTIFY_SOCKET", &manager.path)
        .flag("--drain", "1s")
        .start();
    let ready = manager.told();
    assert!(
        ready.starts_with("READY=1\nSTATUS=listening at "),
        "{ready}"
    );
    assert!(ready.contains(&proxy.address.to_string()), "{ready}");
    proxy.process.signal("HUP");
    let reloading = manager.told();
    assert!(
        reloading.starts_with("RELOADING=1\nMONOTONIC_USEC="),
        "{reloading}"
    );
    assert_eq!(manager.told(), ready);
    proxy.process.signal("TERM");
    let stopping = manager.told();
    assert!(stopping.starts_with("STOPPING=1\nSTATUS="), "{stopping}");
    assert_eq!(proxy.process.ended_within(PATIENCE), 0);
}

#[test]
fn a_refused_configuration_is_told_and_the_service_stays_ready() {
    let (folder, path) = crate::support::file("proxy.toml", b"");
    let simulator = Simulator::start();
    let text = format!(
        "[instance.a]\nurl = \"{}\"\n[client.b]\nclient_id = \"i\"\nclient_secret = \"s\"\n\
         [listener.c]\naddress = \"127.0.0.1:0\"\n[admin]\naddress = \"127.0.0.1:0\"\n",
        simulator.url()
    );
    std::fs::write(&path, text).unwrap();
    let manager = Manager::new();
    let proxy = Proxy::by_file(&path)
        .variable("NOTIFY_SOCKET", &manager.path)
        .start();
    assert!(manager.told().starts_with("READY=1\n"));
    std::fs::write(&path, "faulty").unwrap();
    proxy.process.signal("HUP");
    assert!(manager.told().starts_with("RELOADING=1\n"));
    let told = manager.told();
    assert!(told.starts_with("READY=1\n"), "{told}");
    assert!(told.contains("configuration refused"), "{told}");
    drop(folder);
}

#[test]
fn the_watchdog_is_told_for_as_long_as_the_proxy_lives() {
    let simulator = Simulator::start();
    let manager = Manager::new();
    let mut proxy = Proxy::to(&simulator.url())
        .variable("NOTIFY_SOCKET", &manager.path)
        .variable("WATCHDOG_USEC", "100000")
        .start();
    let mut heard = 0;
    while heard < 3 {
        heard += usize::from(manager.told() == "WATCHDOG=1");
    }
    proxy.process.signal("TERM");
    assert_eq!(proxy.process.ended_within(PATIENCE), 0);
}

#[test]
fn it_is_told_who_takes_the_place_of_the_proxy() {
    let simulator = Simulator::start();
    let manager = Manager::new();
    let mut proxy = Proxy::to(&simulator.url())
        .variable("NOTIFY_SOCKET", &manager.path)
        .start();
    let ready = manager.told();
    proxy.process.signal("USR2");
    let successor = manager.told();
    let successor = successor.strip_prefix("MAINPID=").unwrap();
    let successor = Grandchild(successor.parse().unwrap());
    // systemd waits for the end of its own children only
    assert_ne!(successor.parent(), proxy.process.id().to_string());
    // the same addresses, ready again; the end of the old process is not reported
    assert_eq!(manager.told(), ready);
    until("the end of the old process", || {
        (!proxy.process.runs()).then_some(())
    });
    assert!(successor.signal("TERM"));
    assert!(manager.told().starts_with("STOPPING=1\n"));
    assert_eq!(proxy.process.ended_within(PATIENCE), 0);
}
