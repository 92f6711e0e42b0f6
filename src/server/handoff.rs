//! The handoff from a process to its successor: what it contains, and the order of its messages.
//!
//! The old process starts the new one with one end of a socket pair as its standard input. It sends
//! its open sockets (`SCM_RIGHTS`, unix(7)) and the clients' tokens and pools, sealed as in a
//! store. The new process starts as usual, uses them where its configuration fits, and reports that
//! it serves. Only then does the old process stop accepting. The sockets are never closed in
//! between, so no caller is refused. If the new process cannot start, nothing changes. The socket
//! pair has no name, so no other process can connect to it.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::cmsg_space;
use rustix::net::sockopt::{self, Timeout};
use rustix::net::{
    self, AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};
use serde::{Deserialize, Serialize};

use crate::socket::Address;
use crate::socket::inherited::Inherited;

/// The longest time for sending a message, or until the next one arrives.
const PATIENCE: Duration = Duration::from_secs(10);

/// The longest message, in bytes: a sealed token as a JSON string.
const LONGEST: usize = 300 * 1024;

/// A message of the handoff. Unknown fields are ignored, since the two processes may differ in
/// version.
#[derive(Debug, Serialize, Deserialize)]
enum Message {
    /// A socket, attached to the message. `kept`: the service manager holds it open too.
    Socket {
        name: String,
        asked: Address,
        kept: bool,
    },
    /// A client's token and pool.
    Token { client: String, sealed: String },
    /// All sockets and tokens were sent.
    End,
    /// The new process was started, with this id.
    Started { process: u32 },
    /// The new process serves.
    Ready,
    /// The old process has released everything.
    Yours,
}

/// The sockets and tokens that a process received at its start.
#[derive(Debug, Default)]
pub struct IncomingHandoff {
    /// Open sockets.
    pub sockets: Inherited,
    /// The tokens and pools by client name, sealed.
    pub(super) tokens: BTreeMap<String, Vec<u8>>,
}

/// The sockets and tokens for a successor, as messages.
#[derive(Debug, Default)]
pub struct OutgoingHandoff(Vec<(Message, Option<OwnedFd>)>);

/// One end of the socket pair.
#[derive(Debug)]
pub struct Channel(OwnedFd);

impl From<Inherited> for IncomingHandoff {
    fn from(sockets: Inherited) -> IncomingHandoff {
        IncomingHandoff {
            sockets,
            ..IncomingHandoff::default()
        }
    }
}

impl OutgoingHandoff {
    pub(super) fn socket(&mut self, name: &str, asked: &Address, kept: bool, socket: OwnedFd) {
        let message = Message::Socket {
            name: name.to_owned(),
            asked: asked.clone(),
            kept,
        };
        self.0.push((message, Some(socket)));
    }

    pub(super) fn token(&mut self, client: &str, sealed: &[u8]) {
        let client = client.to_owned();
        let sealed = String::from_utf8_lossy(sealed).into_owned();
        self.0.push((Message::Token { client, sealed }, None));
    }
}

impl Channel {
    /// Returns both ends. Neither is inherited by another program.
    ///
    /// # Errors
    /// The operating system's error.
    pub fn pair() -> io::Result<(Channel, OwnedFd)> {
        let (ours, theirs) = net::socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )?;
        sockopt::set_socket_timeout(&ours, Timeout::Send, Some(PATIENCE))?;
        Ok((Channel(ours), theirs))
    }

    /// Returns the end that the predecessor passed as standard input.
    ///
    /// # Errors
    /// The operating system's error.
    pub fn of_predecessor() -> io::Result<Channel> {
        Ok(Channel(io::stdin().as_fd().try_clone_to_owned()?))
    }

    /// Reports to the old process that the new one was started.
    ///
    /// # Errors
    /// If the old process has ended.
    pub fn started(&self, process: u32) -> io::Result<()> {
        self.send(&Message::Started { process }, None)
    }

    /// Waits for the id of the new process, sent by the program that starts it.
    ///
    /// # Errors
    /// If that program ends first, or takes too long.
    pub fn awaits_start(&self) -> io::Result<u32> {
        match self.receive(Some(PATIENCE))? {
            (Message::Started { process }, _) => Ok(process),
            _ => Err(unexpected()),
        }
    }

    /// Called by the old process: sends the handoff and waits until the new process serves.
    ///
    /// # Errors
    /// If the new process ends first, or takes longer than `patience`.
    pub fn hand_off(&self, handoff: OutgoingHandoff, patience: Duration) -> io::Result<()> {
        for (message, socket) in handoff.0 {
            self.send(&message, socket.as_ref())?;
        }
        self.send(&Message::End, None)?;
        match self.receive(Some(patience))? {
            (Message::Ready, _) => Ok(()),
            _ => Err(unexpected()),
        }
    }

    /// Called last by the old process: it has released everything.
    ///
    /// # Errors
    /// If the new process has ended.
    pub fn let_go(&self) -> io::Result<()> {
        self.send(&Message::Yours, None)
    }

    /// Called by the new process: receives the handoff.
    ///
    /// # Errors
    /// If standard input is not such a socket, or the old process has ended.
    pub fn take_over(&self) -> io::Result<IncomingHandoff> {
        if sockopt::socket_type(&self.0).ok() != Some(SocketType::SEQPACKET) {
            return Err(io::Error::new(
                ErrorKind::InvalidInput,
                "standard input is not a process whose place can be taken; send the running proxy SIGUSR2",
            ));
        }
        let mut incoming = IncomingHandoff::default();
        loop {
            match self.receive(Some(PATIENCE))? {
                (Message::Socket { name, asked, kept }, Some(socket)) => {
                    incoming.sockets.add(name, asked, kept, socket);
                }
                (Message::Token { client, sealed }, _) => {
                    incoming.tokens.insert(client, sealed.into_bytes());
                }
                (Message::End, _) => return Ok(incoming),
                _ => return Err(unexpected()),
            }
        }
    }

    /// Called by the new process when it serves. Returns when the old process has released
    /// everything or has ended.
    ///
    /// # Errors
    /// The operating system's error.
    pub fn serves(&self) -> io::Result<()> {
        let released = self.send(&Message::Ready, None);
        match released.and_then(|()| self.receive(None)) {
            Err(error) if !has_ended(&error) => Err(error),
            _ => Ok(()),
        }
    }

    fn send(&self, message: &Message, socket: Option<&OwnedFd>) -> io::Result<()> {
        let bytes = serde_json::to_vec(message)?;
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let sockets = socket.map(AsFd::as_fd);
        if sockets.is_some() {
            control.push(SendAncillaryMessage::ScmRights(sockets.as_slice()));
        }
        let bytes = [IoSlice::new(&bytes)];
        net::sendmsg(&self.0, &bytes, &mut control, SendFlags::NOSIGNAL)?;
        Ok(())
    }

    /// Receives the next message and its socket, within `patience` if there is a limit.
    fn receive(&self, patience: Option<Duration>) -> io::Result<(Message, Option<OwnedFd>)> {
        sockopt::set_socket_timeout(&self.0, Timeout::Recv, patience)?;
        let mut bytes = vec![0; LONGEST];
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let received = net::recvmsg(
            &self.0,
            &mut [IoSliceMut::new(&mut bytes)],
            &mut control,
            RecvFlags::CMSG_CLOEXEC,
        )?;
        if received.bytes == 0 {
            return Err(io::Error::new(ErrorKind::UnexpectedEof, "it ended"));
        }
        let socket = control.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut sockets) => sockets.next(),
            _ => None,
        });
        let message = serde_json::from_slice(&bytes[..received.bytes])?;
        Ok((message, socket))
    }
}

/// Returns whether `error` says that the other process has ended.
fn has_ended(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::BrokenPipe | ErrorKind::UnexpectedEof
    )
}

fn unexpected() -> io::Error {
    io::Error::new(
        ErrorKind::InvalidData,
        "it says something else than it should",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use std::thread;

    #[tokio::test]
    async fn sockets_and_tokens_go_from_one_to_the_other() {
        let (old, new) = Channel::pair().unwrap();
        let new = Channel(new);
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let bound = socket.local_addr().unwrap();
        let asked = Address::Tcp(([127, 0, 0, 1], 0).into());
        let mut handoff = OutgoingHandoff::default();
        handoff.socket("local", &asked, true, socket.into());
        let sealed = format!("{{\"long\":\"{}\"}}", "x".repeat(128 * 1024));
        handoff.token("catalog", sealed.as_bytes());
        let giving = thread::spawn(move || {
            old.hand_off(handoff, PATIENCE).unwrap();
            old.let_go().unwrap();
        });
        let mut inherited = new.take_over().unwrap();
        assert_eq!(inherited.tokens["catalog"], sealed.as_bytes());
        let (taken, is_kept) = inherited.sockets.take("local", &asked).unwrap().unwrap();
        assert_eq!(taken.address(&asked), Address::Tcp(bound));
        assert!(is_kept);
        new.serves().unwrap();
        giving.join().unwrap();
    }

    #[test]
    fn a_successor_that_ends_is_noticed() {
        let (old, new) = Channel::pair().unwrap();
        drop(new);
        assert!(old.hand_off(OutgoingHandoff::default(), PATIENCE).is_err());
        let (old, new) = Channel::pair().unwrap();
        let ending = thread::spawn(move || Channel(new).take_over().map(drop));
        let error = old
            .hand_off(OutgoingHandoff::default(), PATIENCE)
            .unwrap_err();
        ending.join().unwrap().unwrap();
        assert_eq!(error.to_string(), "it ended");
    }

    #[test]
    fn a_successor_that_hangs_is_given_up() {
        let (old, _new) = Channel::pair().unwrap();
        let error = old.hand_off(OutgoingHandoff::default(), Duration::from_millis(50));
        assert_eq!(error.unwrap_err().kind(), ErrorKind::WouldBlock);
    }

    #[test]
    fn a_predecessor_that_is_gone_leaves_all_to_its_successor() {
        let (old, new) = Channel::pair().unwrap();
        drop(old);
        Channel(new).serves().unwrap();
    }
}
