//! A bad network: addresses that swallow connections, and a name server that the test scripts.

use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use socket2::{Domain, Socket, Type};

/// An address that swallows attempts to connect: its backlog is full.
pub struct Blackhole {
    /// The address.
    pub address: SocketAddr,
    _listener: TcpListener,
    _filling: Vec<TcpStream>,
}

#[expect(
    clippy::new_without_default,
    reason = "it listens, which no default should"
)]
impl Blackhole {
    /// One on this machine.
    pub fn new() -> Blackhole {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        socket.bind(&any.into()).unwrap();
        socket.listen(0).unwrap();
        let listener = TcpListener::from(socket);
        let address = listener.local_addr().unwrap();
        let mut filling = Vec::new();
        while let Ok(stream) = TcpStream::connect_timeout(&address, Duration::from_millis(500)) {
            filling.push(stream);
        }
        Blackhole {
            address,
            _listener: listener,
            _filling: filling,
        }
    }
}

/// The families of a query.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Records {
    /// IPv4.
    A,
    /// IPv6.
    Aaaa,
}

/// A name server, for every name alike, and programs whose only name server it is. Requires root.
pub struct NameServer {
    folder: tempfile::TempDir,
    queries: Arc<AtomicUsize>,
}

impl NameServer {
    /// One at `ip`, a loopback address that no other test uses, which gives `reply` to the nth
    /// query, counted from 0: addresses that are valid for a second, or nothing at all.
    pub fn start(
        ip: &str,
        reply: impl Fn(Records, usize) -> Option<Vec<IpAddr>> + Send + 'static,
    ) -> NameServer {
        let socket = UdpSocket::bind((ip, 53)).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let settings = format!("nameserver {ip}\noptions ndots:0\n");
        std::fs::write(folder.path().join("resolv.conf"), settings).unwrap();
        let queries = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&queries);
        std::thread::spawn(move || {
            let mut query = [0; 512];
            while let Ok((n, from)) = socket.recv_from(&mut query) {
                let nth = count.fetch_add(1, Ordering::SeqCst);
                if let Some(bytes) = answer(&query[..n], |records| reply(records, nth)) {
                    let _ = socket.send_to(&bytes, from);
                }
            }
        });
        NameServer { folder, queries }
    }

    /// How many queries have come.
    pub fn queries(&self) -> usize {
        self.queries.load(Ordering::SeqCst)
    }

    /// The command that runs a program with this name server; the program and its arguments follow.
    pub fn wrapper(&self) -> Vec<String> {
        let settings = self.folder.path().join("resolv.conf");
        let mount = "mount --bind \"$0\" /etc/resolv.conf && exec \"$@\"";
        let words = ["unshare", "--mount", "sh", "-c", mount];
        let words = words.map(str::to_owned).into_iter();
        words
            .chain([settings.to_str().unwrap().to_owned()])
            .collect()
    }

    /// `command`, with this name server.
    pub fn before(&self, command: &Command) -> Command {
        let wrapper = self.wrapper();
        let mut wrapped = Command::new(&wrapper[0]);
        wrapped
            .args(&wrapper[1..])
            .arg(command.get_program())
            .args(command.get_args());
        wrapped
    }
}

/// Whether this user may create namespaces and use any port.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// The answer to a query, which has one question (RFC 1035, section 4).
fn answer(query: &[u8], reply: impl FnOnce(Records) -> Option<Vec<IpAddr>>) -> Option<Vec<u8>> {
    let mut end = 12;
    while query[end] != 0 {
        end += usize::from(query[end]) + 1;
    }
    let question = &query[12..end + 5];
    let records = match query[end + 2] {
        1 => Records::A,
        28 => Records::Aaaa,
        kind => panic!("a query for records of type {kind}"),
    };
    let addresses = reply(records)?;
    let mut bytes = query[..2].to_vec();
    bytes.extend([0x81, 0x80, 0, 1, 0]);
    bytes.push(u8::try_from(addresses.len()).unwrap());
    bytes.extend([0; 4]);
    bytes.extend(question);
    for address in addresses {
        bytes.extend([0xc0, 12, 0, query[end + 2], 0, 1, 0, 0, 0, 1]);
        match address {
            IpAddr::V4(ip) => bytes.extend([&[0, 4][..], &ip.octets()].concat()),
            IpAddr::V6(ip) => bytes.extend([&[0, 16][..], &ip.octets()].concat()),
        }
    }
    Some(bytes)
}
