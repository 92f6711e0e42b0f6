//! Peers that answer without end: what is read of each is bounded, and the memory with it.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use kit::listener::Listener;

use crate::support::process::{command, run};
use crate::support::{Proxy, Simulator, file, http, until};

/// How much the proxy may grow by it, in KiB.
const GROWTH: u64 = 64 << 10;

/// A server that answers whatever comes first on a connection, and then sends without end.
struct Endless {
    address: SocketAddr,
    sent: Arc<AtomicU64>,
    _listener: Listener,
}

/// What is sent: a beginning, and what follows it again and again.
type Flood = (Vec<u8>, Vec<u8>);

impl Endless {
    /// One that sends what `flood` gives for the first bytes of a connection.
    fn start(flood: impl Fn(&str) -> Flood + Send + Sync + 'static) -> Endless {
        let sent = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&sent);
        let listener = Listener::start(move |stream| pour(stream, &flood, &count));
        Endless {
            address: listener.address,
            sent,
            _listener: listener,
        }
    }

    /// One that answers every HTTP request with 200 and `x` without end.
    fn http() -> Endless {
        Endless::start(|_| {
            let head =
                "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n\"";
            (head.into(), vec![b'x'; 64 << 10])
        })
    }

    fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }
}

/// Sends until the other side has had enough.
fn pour(mut stream: TcpStream, flood: &dyn Fn(&str) -> Flood, sent: &AtomicU64) {
    let mut first = [0; 4096];
    let read = stream.read(&mut first).unwrap_or(0);
    let (start, filler) = flood(&String::from_utf8_lossy(&first[..read]));
    let mut next = stream.write_all(&start);
    while next.is_ok() {
        next = stream.write_all(&filler);
        sent.fetch_add(filler.len() as u64, Ordering::Relaxed);
    }
}

/// A proxy with this store that holds a token.
fn with_store(simulator: &Simulator, store: &str) -> Proxy {
    let proxy = Proxy::by_text(&format!(
        "[instance.a]\nurl = \"{}\"\n[client.b]\nclient_id = \"{}\"\nclient_secret = \"{}\"\n\
         [listener.c]\naddress = \"127.0.0.1:0\"\n[admin]\naddress = \"127.0.0.1:0\"\n[store]\n{store}\n",
        simulator.url(),
        crate::support::simulator::CLIENT_ID,
        crate::support::simulator::CLIENT_SECRET,
    ))
    .start();
    proxy.has_token();
    proxy
}

/// Waits until `/readyz?verbose` says `problem` of the store.
fn says(proxy: &Proxy, problem: &str) {
    until(problem, || {
        let said = http::get(proxy.admin, "/readyz?verbose").text();
        said.contains(problem).then_some(())
    });
}

/// What a proxy takes in memory that has met nobody, in KiB.
fn before() -> u64 {
    let (_simulator, proxy) = crate::support::pair();
    proxy.process.memory_kib("VmHWM")
}

#[test]
fn a_redis_that_floods_is_left() {
    let text = "x".repeat(32 << 10);
    let push = format!(
        ">3\r\n$7\r\nmessage\r\n$1\r\nc\r\n${}\r\n{text}\r\n",
        text.len()
    );
    // the answer to HELLO, and none to anything that follows; an answer that has no end
    let messages: Flood = (b"%1\r\n$5\r\nproto\r\n:3\r\n".to_vec(), push.into());
    let endless = (b"$2147483647\r\n".to_vec(), vec![b'x'; 64 << 10]);
    for flood in [messages, endless] {
        let redis = Endless::start(move |_| flood.clone());
        let simulator = Simulator::start();
        let store = format!("kind = \"redis\"\nurl = \"redis://{}\"", redis.address);
        let proxy = with_store(&simulator, &store);
        says(&proxy, "sent more than 1 MiB at once");
        let most = proxy.process.memory_kib("VmHWM");
        let before = before();
        assert!(most < before + GROWTH, "{before} KiB -> {most} KiB");
    }
}

#[cfg(feature = "kubernetes")]
#[test]
fn a_kubernetes_whose_answers_have_no_end_takes_no_memory() {
    // an event at a time that is large in memory, and a line without end
    let maps = "{\"\":0},".repeat(50_000);
    let event = format!(
        "{{\"type\":\"MODIFIED\",\"object\":{{\"metadata\":{{\"resourceVersion\":\"2\"}},\"x\":[{maps}0]}}}}\n"
    );
    let http = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n";
    let server = Endless::start(move |first| {
        let line = first.lines().next().unwrap_or_default();
        match (line.contains("watch=true"), line.contains("/secrets")) {
            (true, true) => (http.into(), event.clone().into()),
            (true, false) => (http.into(), vec![b'x'; 64 << 10]),
            (false, _) => {
                let object = "{\"metadata\":{\"resourceVersion\":\"1\"},\"x\":\"";
                (format!("{http}{object}").into(), vec![b'x'; 64 << 10])
            }
        }
    });
    let kubeconfig = format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: c\ncontexts:\n- name: c\n  context: {{cluster: c, user: u}}\n\
         clusters:\n- name: c\n  cluster: {{server: \"http://{}\"}}\nusers:\n- name: u\n  user: {{token: t}}\n",
        server.address
    );
    let (_folder, path) = file("kubeconfig", kubeconfig.as_bytes());
    let store = format!(
        "kind = \"kubernetes\"\nnamespace = \"n\"\nsecret = \"s\"\nlease = \"l\"\nkubeconfig = \"{}\"",
        path.display()
    );
    let simulator = Simulator::start();
    let proxy = with_store(&simulator, &store);
    says(&proxy, "does not answer with a Kubernetes object");
    let most = proxy.process.memory_kib("VmHWM");
    let before = before();
    assert!(most < before + GROWTH, "{before} KiB -> {most} KiB");
}

#[test]
fn a_token_endpoint_whose_answer_has_no_end_takes_no_memory() {
    let endpoint = Endless::http();
    let proxy = Proxy::to(&format!("http://{}", endpoint.address)).start();
    until("what is wrong", || {
        let said = http::get(proxy.admin, "/readyz?verbose").text();
        said.contains("its body is larger than 64 KiB")
            .then_some(())
    });
    let most = proxy.process.memory_kib("VmHWM");
    let before = before();
    assert!(most < before + GROWTH, "{before} KiB -> {most} KiB");
}

/// Runs a command that is answered without end; gives what it says, and the most that it was sent.
fn told(words: &[&str], peer: &Endless) -> (String, u64) {
    let ended = run(&mut command(words));
    assert_eq!(ended.status, 1, "{}", ended.err);
    (ended.err, peer.sent())
}

#[test]
fn commands_do_not_read_answers_without_end() {
    // what lies in the systems' buffers was sent, and is not read
    const BUFFERS: u64 = 16 << 20;
    let admin = Endless::http();
    let address = admin.address.to_string();
    let (said, sent) = told(&["status", "--admin", &address], &admin);
    assert!(said.contains("answers with more than 4 MiB"), "{said}");
    assert!(sent < (4 << 20) + BUFFERS, "{sent}");

    let collibra = Endless::http();
    let (_folder, password) = file("password", b"admin\n");
    let url = format!("http://{}", collibra.address);
    let password = password.to_str().unwrap();
    let (said, sent) = told(
        &[
            "clients",
            "list",
            "--url",
            &url,
            "--user",
            "Admin",
            "--password-file",
            password,
        ],
        &collibra,
    );
    assert!(said.contains("8 MiB"), "{said}");
    assert!(sent < (8 << 20) + BUFFERS, "{sent}");
}
