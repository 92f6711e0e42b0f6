//! A relay to a server that can be made to drop all data silently.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A running relay. Connections made while it drops data never work.
pub(crate) struct Relay {
    /// The port of the loopback address at which it listens.
    pub(crate) port: u16,
    swallows: Arc<AtomicBool>,
}

impl Relay {
    /// Starts a relay to the port `to` of the loopback address.
    pub(crate) fn to(to: u16) -> Relay {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let swallows = Arc::new(AtomicBool::new(false));
        let state = Arc::clone(&swallows);
        std::thread::spawn(move || {
            for caller in listener.incoming().map_while(Result::ok) {
                let Ok(server) = TcpStream::connect(("127.0.0.1", to)) else {
                    continue;
                };
                for (from, into) in [(&caller, &server), (&server, &caller)] {
                    let (from, into) = (from.try_clone().unwrap(), into.try_clone().unwrap());
                    let state = Arc::clone(&state);
                    std::thread::spawn(move || pass_on(from, into, &state));
                }
            }
        });
        Relay { port, swallows }
    }

    /// Starts or stops dropping all data.
    pub(crate) fn swallow(&self, everything: bool) {
        self.swallows.store(everything, Ordering::SeqCst);
    }
}

/// Relays until either side ends. Once data is dropped, all later data on that connection is too.
fn pass_on(mut from: TcpStream, mut into: TcpStream, swallows: &AtomicBool) {
    let mut bytes = [0; 4096];
    let mut broken = false;
    while let Ok(length @ 1..) = from.read(&mut bytes) {
        broken |= swallows.load(Ordering::SeqCst);
        if !broken && into.write_all(&bytes[..length]).is_err() {
            break;
        }
    }
    let _ = into.shutdown(std::net::Shutdown::Both);
}
