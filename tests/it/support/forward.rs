//! A forward proxy that records its requests.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::{Arc, Mutex};

use kit::listener::Listener;

use super::PATIENCE;

/// A running forward proxy.
pub(crate) struct Forward {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
    _listener: Listener,
}

/// Its behaviour.
#[derive(Clone)]
pub(crate) enum Manner {
    /// Connects if the request has this header, or answers 407.
    For(&'static str),
    /// Connects for everyone.
    Open,
    /// Connects to this address, whatever the target.
    Leads(SocketAddr),
    /// Sends this response.
    Says(Vec<u8>),
    /// Sends nothing.
    Silent,
}

impl Forward {
    /// Starts one with this behaviour.
    pub(crate) fn new(manner: Manner) -> Forward {
        let asked = Arc::default();
        let kept = Arc::clone(&asked);
        let listener = Listener::start(move |stream| serve(stream, &manner, &kept));
        Forward {
            address: listener.address,
            asked,
            _listener: listener,
        }
    }

    /// Its URL.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The request lines so far.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

/// Returns whether a head has this line; the name's case is ignored.
fn has(head: &str, wanted: &str) -> bool {
    let (name, value) = wanted.split_once(": ").unwrap_or_default();
    head.lines().any(|line| {
        let there = line.split_once(": ").unwrap_or_default();
        there.0.eq_ignore_ascii_case(name) && there.1 == value
    })
}

fn serve(mut app: TcpStream, manner: &Manner, asked: &Mutex<Vec<String>>) -> std::io::Result<()> {
    app.set_read_timeout(Some(2 * PATIENCE))?;
    app.set_nodelay(true)?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        app.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let line = head.lines().next().unwrap_or_default();
    asked.lock().unwrap().push(line.to_owned());
    match manner {
        Manner::Silent => {
            let _ = app.read(&mut [0]);
            return Ok(());
        }
        Manner::Says(answer) => {
            app.write_all(answer)?;
            app.shutdown(Shutdown::Write)?;
            let _ = app.read(&mut [0]);
            return Ok(());
        }
        Manner::For(wanted) if !has(&head, wanted) => {
            return app.write_all(
                b"HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic\r\nContent-Length: 0\r\n\r\n",
            );
        }
        Manner::For(_) | Manner::Open | Manner::Leads(_) => {}
    }
    let mut server = match manner {
        Manner::Leads(address) => TcpStream::connect(address)?,
        _ => TcpStream::connect(line.split(' ').nth(1).unwrap_or_default())?,
    };
    server.set_nodelay(true)?;
    app.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")?;
    let (mut from, mut to) = (app.try_clone()?, server.try_clone()?);
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut from, &mut to);
        let _ = to.shutdown(Shutdown::Write);
    });
    let _ = std::io::copy(&mut server, &mut app);
    let _ = app.shutdown(Shutdown::Write);
    Ok(())
}
