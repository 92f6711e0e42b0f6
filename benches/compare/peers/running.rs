//! A running proxy or origin.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use kit::caller as http;
use kit::process::Process;
use kit::wait::now;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::{AUTHORIZATION, PATH, Setup, program};
use crate::machine;
use crate::origin::ANSWER;

/// The timeout of a proxy's start and end.
const START: Duration = Duration::from_secs(30);
const END: Duration = Duration::from_secs(5);

/// A process that serves.
pub(crate) struct Running {
    /// The process and its children.
    pub(crate) process: Process,
    /// Its address.
    pub(crate) address: SocketAddr,
    /// The time from its start to its first response.
    pub(crate) started_in: Duration,
    setup: Setup,
    begin: Instant,
    folder: TempDir,
}

impl Running {
    /// Starts `command` on `processors`, and waits until a request to `address` is answered. Its
    /// output goes to the file `output` in `folder`.
    ///
    /// # Errors
    /// If it does not serve, with the end of its output.
    pub(crate) fn start(
        folder: TempDir,
        mut command: Command,
        address: SocketAddr,
        processors: &[usize],
        setup: Setup,
    ) -> Result<Running, String> {
        let output = folder.path().join("output");
        let file = File::create(&output).unwrap();
        command
            .stdin(Stdio::null())
            .stderr(file.try_clone().unwrap())
            .stdout(file);
        let begin = now();
        let child = machine::on(processors, || command.spawn());
        let child = child.map_err(|error| format!("{command:?}: {error}"))?;
        let mut process = Process::over(child);
        let request = setup.request(address, PATH);
        loop {
            if let Ok((200, body)) = call(address, &request) {
                if body.len() != ANSWER {
                    return Err(format!("the answer has {} bytes, not {ANSWER}", body.len()));
                }
                return Ok(Running {
                    process,
                    address,
                    started_in: now() - begin,
                    setup,
                    begin,
                    folder,
                });
            }
            if !process.runs() || now() - begin > START {
                return Err(format!(
                    "it does not serve; its output: {}",
                    last_words(&output)
                ));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// The end of its output.
    pub(crate) fn last_words(&self) -> String {
        last_words(&self.folder.path().join("output"))
    }

    /// How long this program takes from its start until every client has a token.
    ///
    /// # Errors
    /// It takes too long.
    pub(crate) fn ready(&self) -> Result<Duration, String> {
        let output = self.folder.path().join("output");
        let is_ready = || {
            let output = fs::read_to_string(&output).unwrap();
            let admin = program::admin_address(&output)?;
            let answer = call(admin, &http::get(admin, "/readyz", ""));
            answer.is_ok_and(|(status, _)| status == 200).then_some(())
        };
        while now() - self.begin < START {
            if is_ready().is_some() {
                return Ok(now() - self.begin);
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        Err("not every client has a token".to_owned())
    }

    /// How long this program takes from SIGHUP until a configuration with another rule is in force.
    ///
    /// # Errors
    /// It does not load it.
    pub(crate) fn reload(&self) -> Result<Duration, String> {
        program::change_a_rule(self.folder.path());
        let output = self.folder.path().join("output");
        let mut said = File::open(output).unwrap();
        said.seek(SeekFrom::End(0)).unwrap();
        let begin = now();
        let _ = kill_process(self.pid(), Signal::HUP);
        let mut text = String::new();
        while now() - begin < START {
            said.read_to_string(&mut text).unwrap();
            if text.contains("configuration applied") {
                return Ok(now() - begin);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Err(format!("the configuration was not loaded: {text}"))
    }

    fn pid(&self) -> Pid {
        let id = i32::try_from(self.process.id()).unwrap();
        Pid::from_raw(id).unwrap()
    }

    /// Checks that forwarded requests have the token: a proxy that attaches none does less work.
    pub(super) fn attaches(&self, token: &str) -> Result<(), String> {
        let request = self.setup.request(self.address, AUTHORIZATION);
        let answer = call(self.address, &request);
        match answer {
            Ok((200, body)) if body == format!("Bearer {token}").into_bytes() => Ok(()),
            other => Err(format!("the token is not attached: {other:?}")),
        }
    }
}

impl Drop for Running {
    /// Ends it gently, because nginx stops its worker only then.
    fn drop(&mut self) {
        let _ = kill_process(self.pid(), Signal::TERM);
        let begin = now();
        while self.process.runs() && now() - begin < END {
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

fn last_words(output: &Path) -> String {
    let written = fs::read(output).unwrap_or_default();
    let written = String::from_utf8_lossy(&written);
    let last: Vec<&str> = written.lines().rev().take(3).collect();
    format!("{last:#?}")
}

/// A loopback address without a listener.
pub(crate) fn free_address() -> SocketAddr {
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    free.local_addr().unwrap()
}

/// Sends `request` on a new connection; returns the status and the body.
fn call(address: SocketAddr, request: &[u8]) -> io::Result<(u16, Vec<u8>)> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream.write_all(request)?;
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        if let Some(end) = http::head_end(&answer) {
            let whole = end + http::content_length(&answer[..end])?;
            if answer.len() >= whole {
                return Ok((http::status(&answer)?, answer[end..whole].to_vec()));
            }
        }
        match stream.read(&mut buffer)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => answer.extend_from_slice(&buffer[..read]),
        }
    }
}
