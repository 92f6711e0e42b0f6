//! Sockets opened by another process: the service manager (`LISTEN_FDS`, sd_listen_fds(3)), or the
//! predecessor of this process.
//!
//! While nobody accepts, the kernel queues callers at such a socket: none is refused.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use listenfd::ListenFd;
use rustix::net::SocketAddrUnix;

use super::{Address, Socket};

/// Inherited sockets that are not in use yet.
#[derive(Debug, Default)]
pub struct Inherited {
    sockets: Vec<OpenSocket>,
}

#[derive(Debug)]
struct OpenSocket {
    name: String,
    /// The address it was opened with, if known; its port may be 0.
    asked: Option<Address>,
    /// Whether the service manager keeps it open too.
    is_kept: bool,
    socket: OwnedFd,
}

impl Inherited {
    /// Takes the service manager's sockets, named by `names` (`LISTEN_FDNAMES`), for `process`
    /// (`LISTEN_PID`). Without `process` they belong to another process, whose environment this one
    /// inherited (sd_listen_fds(3)). Call it once, before the runtime starts threads: it removes
    /// the variables from the environment.
    ///
    /// # Errors
    /// If one of them is not a stream socket.
    pub fn from_service_manager(
        process: Option<&str>,
        names: Option<&str>,
    ) -> io::Result<Inherited> {
        if process.is_none() {
            return Ok(Inherited::default());
        }
        let mut offered = ListenFd::from_env();
        let mut names = names.unwrap_or_default().split(':');
        let mut inherited = Inherited::default();
        for index in 0..offered.len() {
            let name = names.next().unwrap_or_default().to_owned();
            let socket = match offered.take_tcp_listener(index) {
                Ok(socket) => socket.map(OwnedFd::from),
                Err(_) => offered.take_unix_listener(index)?.map(OwnedFd::from),
            };
            inherited.sockets.extend(socket.map(|socket| OpenSocket {
                name,
                asked: None,
                is_kept: true,
                socket,
            }));
        }
        Ok(inherited)
    }

    /// Adds a predecessor's socket: its name, the address it was opened with, and whether the
    /// service manager keeps it open too.
    pub fn add(&mut self, name: String, asked: Address, is_kept: bool, socket: OwnedFd) {
        self.sockets.push(OpenSocket {
            name,
            asked: Some(asked),
            is_kept,
            socket,
        });
    }

    /// Takes the socket for `name` at `address`, if there is one. Also returns whether the service
    /// manager keeps it open too.
    ///
    /// # Errors
    /// If it is unusable.
    pub fn take(&mut self, name: &str, address: &Address) -> io::Result<Option<(Socket, bool)>> {
        let mut sockets = self.sockets.iter();
        let Some(index) = sockets.position(|open| open.is_for(name, address)) else {
            return Ok(None);
        };
        let open = self.sockets.swap_remove(index);
        let socket = Socket::adopt(open.socket, address)?;
        Ok(Some((socket, open.is_kept)))
    }

    /// The names of the sockets that were not taken.
    pub fn left(&self) -> impl Iterator<Item = &str> {
        self.sockets.iter().map(|open| open.name.as_str())
    }
}

impl OpenSocket {
    fn is_for(&self, name: &str, address: &Address) -> bool {
        match &self.asked {
            Some(asked) => {
                // with port 0, several sockets have the same address
                let chosen = address.tcp().is_some_and(|address| address.port() == 0);
                asked.is_at(address) && (!chosen || self.name == name)
            }
            None => self.name == name || self.is_bound_to(address),
        }
    }

    fn is_bound_to(&self, address: &Address) -> bool {
        let Ok(bound) = rustix::net::getsockname(&self.socket) else {
            return false;
        };
        match address {
            Address::Tcp(address) => SocketAddr::try_from(bound).is_ok_and(|b| b == *address),
            Address::Unix { path, .. } => SocketAddrUnix::try_from(bound)
                .is_ok_and(|b| b.path_bytes() == Some(path.as_os_str().as_encoded_bytes())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use std::os::unix::net::UnixListener;

    fn tcp() -> (TcpListener, Address) {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = Address::Tcp(socket.local_addr().unwrap());
        (socket, address)
    }

    fn manager(name: &str, socket: impl Into<OwnedFd>) -> Inherited {
        Inherited {
            sockets: vec![OpenSocket {
                name: name.to_owned(),
                asked: None,
                is_kept: true,
                socket: socket.into(),
            }],
        }
    }

    #[tokio::test]
    async fn a_managers_socket_is_known_by_its_address_or_its_name() {
        let (socket, address) = tcp();
        let mut offered = manager("", socket);
        let other = Address::Tcp(([127, 0, 0, 1], 9).into());
        assert!(offered.take("local", &other).unwrap().is_none());
        let (taken, is_kept) = offered.take("local", &address).unwrap().unwrap();
        assert!(is_kept);
        assert_eq!(taken.address(&other), address);
        assert!(offered.take("local", &address).unwrap().is_none(), "once");

        let (socket, address) = tcp();
        let taken = manager("local", socket).take("local", &other).unwrap();
        assert_eq!(taken.unwrap().0.address(&other), address);
    }

    #[tokio::test]
    async fn the_file_of_a_unix_socket_stays_with_its_owner() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.sock");
        let address = Address::Unix {
            path: path.clone(),
            mode: 0o600,
        };
        let open = || manager("", UnixListener::bind(&path).unwrap()).take("local", &address);
        drop(open().unwrap().unwrap());
        assert!(path.exists());
        std::fs::remove_file(&path).unwrap();
        let (socket, _) = open().unwrap().unwrap();
        socket.own_file(true);
        drop(socket);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_predecessors_socket_is_known_by_the_address_that_it_was_asked_for() {
        let (socket, _) = tcp();
        let chosen = Address::Tcp(([127, 0, 0, 1], 0).into());
        let mut offered = Inherited::default();
        offered.add("local".to_owned(), chosen.clone(), false, socket.into());
        assert!(offered.take("other", &chosen).unwrap().is_none());
        assert!(offered.take("local", &chosen).unwrap().is_some());
        assert_eq!(offered.left().count(), 0);
    }

    #[tokio::test]
    async fn a_socket_of_another_kind_is_refused() {
        let (_, address) = tcp();
        let datagram = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let error = manager("local", datagram).take("local", &address);
        assert!(error.unwrap_err().to_string().contains("does not accept"));
        let (socket, _) = tcp();
        let connected = std::net::TcpStream::connect(socket.local_addr().unwrap()).unwrap();
        assert!(manager("local", connected).take("local", &address).is_err());
    }
}
