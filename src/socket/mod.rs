//! Listening sockets: a TCP address or a unix socket, opened and closed alike.
//!
//! A unix socket is a file. A stale one is replaced; one that a process still listens on is not. It
//! has its mode before anyone can connect. It is removed when it is closed, unless another process
//! has replaced it.

pub mod inherited;

use std::fmt;
use std::fs::{Metadata, Permissions};
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use serde::{Deserialize, Serialize};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UnixListener, UnixSocket, UnixStream};
use tokio_util::either::Either;

/// The prefix of a unix socket's path in an address.
pub const UNIX: &str = "unix:";

/// How many connections the kernel queues until they are accepted.
const BACKLOG: u32 = 4096;

/// The most unsent bytes that the kernel buffers per connection beyond those in flight. Otherwise
/// it buffers 4 MB for a caller that does not read.
const UNSENT: u32 = 128 * 1024;

/// An address to listen on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Address {
    /// An IP address and a port; the system chooses for port 0.
    Tcp(SocketAddr),
    /// A unix socket.
    Unix {
        /// The socket's path.
        path: PathBuf,
        /// Its permissions, like `0o660`.
        mode: u32,
    },
}

/// An open listening socket.
#[derive(Debug)]
pub enum Socket {
    /// On an IP address.
    Tcp(TcpListener),
    /// On a file, which is removed on drop if this process owns it.
    Unix(UnixListener, SocketFile),
}

/// An accepted connection: TCP, or a unix socket, so from this machine.
pub type Accepted = Either<TcpStream, UnixStream>;

/// The file of a unix socket, removed by its owner.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    /// Device and inode, which identify the file if another replaced it.
    identity: (u64, u64),
    is_owned: AtomicBool,
}

impl Address {
    /// The IP address and port, if any.
    #[must_use]
    pub fn tcp(&self) -> Option<SocketAddr> {
        match self {
            Address::Tcp(address) => Some(*address),
            Address::Unix { .. } => None,
        }
    }

    /// Returns whether only this machine can connect.
    #[must_use]
    pub fn is_local(&self) -> bool {
        self.tcp()
            .is_none_or(|address| address.ip().to_canonical().is_loopback())
    }

    /// Returns whether both are the same address, whatever the mode.
    #[must_use]
    pub fn is_at(&self, other: &Address) -> bool {
        match (self, other) {
            (Address::Unix { path, .. }, Address::Unix { path: other, .. }) => path == other,
            _ => self == other,
        }
    }

    /// Whether a connection to `address` from this machine arrives here.
    #[must_use]
    pub fn receives(&self, address: SocketAddr) -> bool {
        let Some(own) = self.tcp() else {
            return false;
        };
        let (here, there) = (own.ip().to_canonical(), address.ip().to_canonical());
        let by_any = here.is_unspecified() && (here.is_ipv6() || there.is_ipv4());
        own.port() != 0
            && own.port() == address.port()
            && (here == there || (by_any && is_of_this_machine(there)))
    }

    /// Applies the mode to the unix socket's file.
    ///
    /// # Errors
    /// If the system does not allow it.
    pub fn apply_mode(&self) -> io::Result<()> {
        match self {
            Address::Unix { path, mode } => {
                std::fs::set_permissions(path, Permissions::from_mode(*mode))
            }
            Address::Tcp(_) => Ok(()),
        }
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Address {
        Address::Tcp(address)
    }
}

/// Formats it as in the configuration: `127.0.0.1:8080`, `unix:/run/x.sock`.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Tcp(address) => address.fmt(f),
            Address::Unix { path, .. } => write!(f, "{UNIX}{}", path.display()),
        }
    }
}

impl Socket {
    /// Opens the socket.
    ///
    /// # Errors
    /// If the address cannot be bound; [`ErrorKind::AddrInUse`] if another process listens there.
    pub fn bind(address: &Address) -> io::Result<Socket> {
        match address {
            Address::Tcp(address) => bind_tcp(*address).map(Socket::Tcp),
            Address::Unix { path, mode } => bind_unix(path, *mode),
        }
    }

    /// Adopts a socket opened by another process at `address`. A unix socket's file remains the
    /// other's.
    ///
    /// # Errors
    /// If it does not accept connections of the address's kind.
    fn adopt(socket: OwnedFd, address: &Address) -> io::Result<Socket> {
        let kind = (
            rustix::net::sockopt::socket_type(&socket)?,
            rustix::net::getsockname(&socket)?.address_family(),
            rustix::net::sockopt::socket_acceptconn(&socket)?,
        );
        rustix::io::ioctl_fionbio(&socket, true)?;
        match (address, kind) {
            (
                Address::Tcp(_),
                (SocketType::STREAM, AddressFamily::INET | AddressFamily::INET6, true),
            ) => {
                #[cfg(any(target_os = "linux", target_os = "android"))]
                socket2::SockRef::from(&socket).set_tcp_notsent_lowat(UNSENT)?;
                TcpListener::from_std(socket.into()).map(Socket::Tcp)
            }
            (Address::Unix { path, .. }, (SocketType::STREAM, AddressFamily::UNIX, true)) => {
                let metadata = std::fs::symlink_metadata(path)?;
                let socket = UnixListener::from_std(socket.into())?;
                Ok(Socket::Unix(socket, SocketFile::of(path, &metadata, false)))
            }
            _ => Err(io::Error::new(
                ErrorKind::InvalidInput,
                "the inherited socket does not accept connections of this kind",
            )),
        }
    }

    /// Sets whether a unix socket's file is removed on drop.
    pub fn own_file(&self, is_owned: bool) {
        if let Socket::Unix(_, file) = self {
            file.is_owned.store(is_owned, Ordering::Relaxed);
        }
    }

    /// The bound address: `asked`, with the port that the system chose.
    #[must_use]
    pub fn address(&self, asked: &Address) -> Address {
        match self {
            Socket::Tcp(socket) => socket
                .local_addr()
                .map_or_else(|_| asked.clone(), Address::Tcp),
            Socket::Unix(..) => asked.clone(),
        }
    }

    /// Accepts the next connection.
    ///
    /// # Errors
    /// The system's, mostly that no file descriptor is left.
    pub async fn accept(&self) -> io::Result<Accepted> {
        std::future::poll_fn(|cx| self.poll_accept(cx)).await
    }

    /// Polls for the next connection.
    pub fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<Accepted>> {
        Poll::Ready(match self {
            Socket::Tcp(socket) => ready!(socket.poll_accept(cx)).map(|(s, _)| Either::Left(s)),
            Socket::Unix(socket, _) => {
                ready!(socket.poll_accept(cx)).map(|(s, _)| Either::Right(s))
            }
        })
    }
}

/// The caller's address; a unix socket's has none.
#[must_use]
pub fn peer(accepted: &Accepted) -> Option<SocketAddr> {
    match accepted {
        Either::Left(stream) => stream.peer_addr().ok(),
        Either::Right(_) => None,
    }
}

/// Returns whether the caller is on this machine: a unix socket or a loopback address.
#[must_use]
pub fn is_local_peer(accepted: &Accepted) -> bool {
    let address = peer(accepted);
    matches!(accepted, Either::Right(_))
        || address.is_some_and(|address| address.ip().to_canonical().is_loopback())
}

/// Whether this machine has the address `ip`.
fn is_of_this_machine(ip: IpAddr) -> bool {
    // a system lets a socket be bound to its own addresses only
    ip.is_loopback() || ip.is_unspecified() || UdpSocket::bind((ip, 0)).is_ok()
}

fn bind_tcp(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    socket.set_reuseaddr(true)?;
    // accepted sockets inherit this option
    #[cfg(any(target_os = "linux", target_os = "android"))]
    socket2::SockRef::from(&socket).set_tcp_notsent_lowat(UNSENT)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

fn bind_unix(path: &Path, mode: u32) -> io::Result<Socket> {
    clear_path(path)?;
    // created under another name and renamed: it then has its mode from the start, and replaces a
    // stale one
    let new = path.with_file_name(format!(".{}.new", std::process::id()));
    let _ = std::fs::remove_file(&new);
    let socket = UnixSocket::new_stream()?;
    socket.bind(&new)?;
    let opened = std::fs::set_permissions(&new, Permissions::from_mode(mode))
        .and_then(|()| socket.listen(BACKLOG))
        .and_then(|socket| {
            let metadata = std::fs::symlink_metadata(&new)?;
            std::fs::rename(&new, path)?;
            Ok(Socket::Unix(socket, SocketFile::of(path, &metadata, true)))
        });
    if opened.is_err() {
        let _ = std::fs::remove_file(&new);
    }
    opened
}

/// Checks that a socket may be created at `path`: there is nothing, or a stale socket.
fn clear_path(path: &Path) -> io::Result<()> {
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
        Ok(metadata) if !metadata.file_type().is_socket() => {
            return Err(io::Error::new(
                ErrorKind::AlreadyExists,
                "a file of this name exists that is not a socket",
            ));
        }
        Ok(_) => {}
    }
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let probe = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    match rustix::net::connect(&probe, &SocketAddrUnix::new(path)?) {
        Err(Errno::CONNREFUSED | Errno::NOENT) => Ok(()),
        // a full queue also means that a process listens
        Ok(()) | Err(Errno::AGAIN) => Err(Errno::ADDRINUSE.into()),
        Err(error) => Err(error.into()),
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Socket::Tcp(socket) => socket.as_fd(),
            Socket::Unix(socket, _) => socket.as_fd(),
        }
    }
}

impl SocketFile {
    fn of(path: &Path, metadata: &Metadata, is_owned: bool) -> SocketFile {
        SocketFile {
            path: path.to_owned(),
            identity: (metadata.dev(), metadata.ino()),
            is_owned: AtomicBool::new(is_owned),
        }
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.is_owned.load(Ordering::Relaxed)
            && let Ok(now) = std::fs::symlink_metadata(&self.path)
            && (now.dev(), now.ino()) == self.identity
        {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(folder: &Path, name: &str) -> Address {
        Address::Unix {
            path: folder.join(name),
            mode: 0o620,
        }
    }

    fn path(address: &Address) -> &Path {
        let Address::Unix { path, .. } = address else {
            panic!("{address}");
        };
        path
    }

    #[tokio::test]
    async fn a_socket_has_its_mode_accepts_and_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let address = at(folder.path(), "a.sock");
        let socket = Socket::bind(&address).unwrap();
        let mode = std::fs::metadata(path(&address)).unwrap().mode();
        assert_eq!(mode & 0o777, 0o620);
        let (connected, accepted) =
            tokio::join!(UnixStream::connect(path(&address)), socket.accept());
        assert!(connected.is_ok() && matches!(accepted.unwrap(), Either::Right(_)));
        drop(socket);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn what_was_left_behind_is_replaced_and_what_lives_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let address = at(folder.path(), "a.sock");
        drop(std::os::unix::net::UnixListener::bind(path(&address)).unwrap());
        assert!(path(&address).exists(), "left behind");
        let socket = Socket::bind(&address).unwrap();
        let error = Socket::bind(&address).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AddrInUse);
        UnixStream::connect(path(&address)).await.unwrap();

        // another process's socket of the same name is left alone
        std::fs::remove_file(path(&address)).unwrap();
        let other = std::os::unix::net::UnixListener::bind(path(&address)).unwrap();
        drop(socket);
        assert!(path(&address).exists());
        drop(other);
    }

    #[tokio::test]
    async fn another_file_is_not_touched() {
        let folder = tempfile::tempdir().unwrap();
        let address = at(folder.path(), "notes.txt");
        std::fs::write(path(&address), "mine").unwrap();
        let error = Socket::bind(&address).unwrap_err();
        assert!(error.to_string().contains("not a socket"), "{error}");
        assert_eq!(std::fs::read(path(&address)).unwrap(), b"mine");
    }

    #[test]
    fn an_address_receives_what_is_sent_to_it_from_this_machine() {
        let receives = |own: &str, sent: &str| {
            let own = Address::Tcp(own.parse().unwrap());
            own.receives(sent.parse().unwrap())
        };
        for (own, sent) in [
            ("127.0.0.1:80", "127.0.0.1:80"),
            ("0.0.0.0:80", "127.0.0.9:80"),
            ("[::]:80", "127.0.0.1:80"),
            ("[::]:80", "[::1]:80"),
            ("127.0.0.1:80", "[::ffff:127.0.0.1]:80"),
        ] {
            assert!(receives(own, sent), "{own} {sent}");
        }
        for (own, sent) in [
            ("127.0.0.1:80", "127.0.0.1:81"),
            ("127.0.0.1:80", "127.0.0.2:80"),
            ("0.0.0.0:80", "192.0.2.1:80"),
            ("0.0.0.0:80", "[::1]:80"),
        ] {
            assert!(!receives(own, sent), "{own} {sent}");
        }
        assert!(!at(Path::new("/run"), "a.sock").receives(([127, 0, 0, 1], 80).into()));
    }

    #[test]
    fn what_only_this_machine_reaches_is_local() {
        for (tcp, local) in [
            ("127.0.0.1:1", true),
            ("[::1]:1", true),
            ("[::ffff:127.0.0.1]:1", true),
            ("0.0.0.0:1", false),
            ("10.0.0.1:1", false),
        ] {
            assert_eq!(Address::Tcp(tcp.parse().unwrap()).is_local(), local);
        }
        let unix = at(Path::new("/run"), "a.sock");
        assert!(unix.is_local());
        assert_eq!(unix.to_string(), "unix:/run/a.sock");
    }
}
