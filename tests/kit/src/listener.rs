//! A server of a test's own: a thread per connection, until it is dropped.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::PATIENCE;

/// A running server on a port of the loopback address.
#[derive(Debug)]
pub struct Listener {
    /// Where it listens.
    pub address: SocketAddr,
    stopped: Arc<AtomicBool>,
}

impl Listener {
    /// Starts one that hands each connection to `serve`, in a thread of its own. The result is
    /// dropped: the callers check how a connection ends.
    pub fn start<R>(serve: impl Fn(TcpStream) -> R + Send + Sync + 'static) -> Listener {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = Listener {
            address: listener.local_addr().unwrap(),
            stopped: Arc::default(),
        };
        let stopped = Arc::clone(&server.stopped);
        let serve = Arc::new(serve);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if stopped.load(Ordering::SeqCst) {
                    return;
                }
                let serve = Arc::clone(&serve);
                std::thread::spawn(move || drop(serve(stream)));
            }
        });
        server
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::SeqCst);
        // the accept loop checks this when a connection arrives
        let _ = TcpStream::connect_timeout(&self.address, PATIENCE);
    }
}
