//! A service manager opens the sockets, and keeps them while the proxy is down.

use std::net::TcpStream;

use crate::support::process::Grandchild;
use crate::support::proxy::message;
use crate::support::{Connection, PATIENCE, Proxy, Simulator, until};

/// A minimal service manager: opens a socket, runs the program twice with it, prints each process
/// id, and exits when the second does.
const MANAGER: &str = r#"
import os, socket, sys
opened = socket.create_server(("127.0.0.1", 0), backlog=4096)
os.dup2(opened.fileno(), 3)
os.set_inheritable(3, True)
print("port", opened.getsockname()[1], flush=True)
for run in range(2):
    child = os.fork()
    if child == 0:
        os.environ.update(LISTEN_FDS="1", LISTEN_PID=str(os.getpid()), LISTEN_FDNAMES="local")
        os.execv(sys.argv[1], sys.argv[1:])
    print("process", child, flush=True)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
sys.exit(status)
"#;

fn started(proxy: &Proxy, nth: usize) -> Grandchild {
    let id = proxy.process.out.wait_for_nth("a process", nth, |line| {
        line.strip_prefix("process ")?.parse().ok()
    });
    Grandchild(id.0)
}

#[test]
fn sockets_for_nobody_in_particular_are_left_alone() {
    let simulator = Simulator::start();
    // descriptor 3 belongs to another program, whose environment was inherited, and is not a socket
    let script = "exec 3</dev/null; LISTEN_FDS=1 LISTEN_FDNAMES=local exec \"$@\"";
    let proxy = Proxy::to(&simulator.url())
        .by(&["sh", "-c", script, "sh"])
        .start();
    proxy.has_token();
}

#[test]
fn a_restart_refuses_no_caller() {
    let simulator = Simulator::start();
    let mut proxy = Proxy::to(&simulator.url())
        .by(&["python3", "-c", MANAGER])
        .start();
    let port = proxy.process.out.wait_for("the port", |line| {
        line.strip_prefix("port ")?.parse::<u16>().ok()
    });
    assert_eq!(proxy.address.port(), port, "it is the manager's socket");
    let first = started(&proxy, 1);
    proxy.has_token();
    assert_eq!(proxy.get("/rest/2.0/application/info").status, 200);
    let mut kept = proxy.connect();
    assert_eq!(
        kept.get(proxy.address, "/rest/2.0/application/info").status,
        200
    );
    assert!(first.signal("TERM"));
    kept.is_closed();
    // nobody accepts from now until the second process
    let mut callers: Vec<Connection> = (0..50).map(|_| proxy.connect()).collect();
    let request = proxy.bytes("GET /rest/2.0/application/info HTTP/1.1\nHost: {host}\n\n");
    for caller in &mut callers {
        caller.send(&request);
    }
    let second = started(&proxy, 2);
    for mut caller in callers {
        assert_eq!(caller.answer("GET").status, 200);
    }
    until("the second process to listen", || {
        let all = proxy.process.err.all();
        let listening = all.lines().filter_map(|line| message(line, "listening"));
        (listening.count() == 2).then_some(())
    });
    assert!(second.signal("TERM"));
    assert_eq!(proxy.process.ended_within(PATIENCE), 0);
}

#[test]
fn the_first_call_starts_the_service_and_is_answered() {
    let simulator = Simulator::start();
    // closed before it is opened again; no other process gets its port that soon
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    let service = Proxy::to(&simulator.url()).by(&[
        "systemd-socket-activate",
        "--listen",
        &address.to_string(),
        "--fdname",
        "local",
        // only these variables of the environment
        "--setenv",
        "COLLIBRA_CLIENT_ID",
        "--setenv",
        "COLLIBRA_CLIENT_SECRET",
    ]);
    let call = std::thread::spawn(move || {
        let open = || TcpStream::connect(address).ok();
        let mut connection = Connection::over(until("the socket to be open", open));
        connection.get(address, "/rest/2.0/application/info")
    });
    let proxy = service.start();
    assert_eq!(proxy.address, address);
    assert_eq!(call.join().unwrap().status, 200);
}
