//! Callers who take up room: they connect, and then never write, or never read.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// After this they are replaced, because the proxy may have let them go.
const RENEW: Duration = Duration::from_secs(5);

/// A crowd; it leaves when this is dropped.
pub(crate) struct Crowd {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Crowd {
    /// `silent` callers that send nothing and `deaf` ones that ask for megabytes and read nothing.
    pub(crate) fn gather(address: SocketAddr, silent: usize, deaf: usize) -> Crowd {
        let stop = Arc::new(AtomicBool::new(false));
        let halt = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let mut crowd = Vec::new();
            while !halt.load(Ordering::Relaxed) {
                let silent = (0..silent).filter_map(|_| connect(address));
                let mut next: Vec<TcpStream> = silent.collect();
                next.extend((0..deaf).filter_map(|_| deaf_one(address)));
                drop(std::mem::replace(&mut crowd, next));
                thread::park_timeout(RENEW);
            }
        });
        Crowd {
            stop,
            thread: Some(thread),
        }
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // one that panicked has left, too
            let _ = thread.join();
        }
    }
}

fn connect(address: SocketAddr) -> Option<TcpStream> {
    TcpStream::connect_timeout(&address, Duration::from_secs(1)).ok()
}

fn deaf_one(address: SocketAddr) -> Option<TcpStream> {
    let request = "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(200);
    let mut stream = connect(address)?;
    stream
        .set_write_timeout(Some(Duration::from_secs(1)))
        .ok()?;
    stream.write_all(request.as_bytes()).ok()?;
    Some(stream)
}
