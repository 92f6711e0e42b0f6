//! A Redis server for a test.

use std::io::{self, BufRead, BufReader, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;

use super::process::Process;
use super::until;

/// A running `redis-server` without persistence.
pub struct Redis {
    process: Option<Process>,
    /// The port of the loopback address at which it listens.
    pub port: u16,
    /// The same for TLS, if it speaks that.
    pub tls_port: Option<u16>,
    flags: Vec<String>,
    directory: tempfile::TempDir,
}

impl Redis {
    /// Returns whether the program is there.
    pub fn is_installed() -> bool {
        Command::new("redis-server")
            .arg("--version")
            .output()
            .is_ok()
    }

    /// Starts one without a password.
    pub fn start() -> Redis {
        Redis::with(&[])
    }

    /// Starts one with these flags.
    pub fn with(flags: &[&str]) -> Redis {
        let mut redis = Redis {
            process: None,
            port: free_port(),
            tls_port: None,
            flags: flags.iter().map(|&flag| flag.to_owned()).collect(),
            directory: tempfile::tempdir().unwrap(),
        };
        redis.go_on();
        redis
    }

    /// Starts one with these flags that speaks TLS too, with `cert.pem` and `key.pem` of `folder`,
    /// and trusts that certificate.
    pub fn with_tls(folder: &Path, flags: &[&str]) -> Redis {
        let port = free_port();
        let mut all = vec!["--tls-port".to_owned(), port.to_string()];
        for (name, value) in tls(folder) {
            all.extend([format!("--{name}"), value]);
        }
        all.extend(flags.iter().map(|&flag| flag.to_owned()));
        let all: Vec<&str> = all.iter().map(String::as_str).collect();
        Redis {
            tls_port: Some(port),
            ..Redis::with(&all)
        }
    }

    /// Starts a sentinel for the primary at port `primary`, named `main`. With a folder it speaks
    /// TLS, as [`Redis::with_tls`].
    pub fn sentinel(primary: u16, folder: Option<&Path>) -> Redis {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("sentinel.conf");
        let port = free_port();
        let tls_port = folder.map(|_| free_port());
        let mut more = String::new();
        if let (Some(folder), Some(port)) = (folder, tls_port) {
            more = format!("tls-port {port}\n");
            for (name, value) in tls(folder) {
                more += &format!("{name} {value}\n");
            }
        }
        let text = format!(
            "bind 127.0.0.1\nport {port}\nsentinel monitor main 127.0.0.1 {primary} 2\nsentinel down-after-milliseconds main 500\nsentinel failover-timeout main 3000\n{more}"
        );
        std::fs::write(&file, text).unwrap();
        let mut command = Command::new("redis-server");
        let process = Process::spawn(command.arg(&file).arg("--sentinel"));
        process
            .out
            .wait_for("a sentinel", |line| line.contains("+monitor").then_some(()));
        Redis {
            process: Some(process),
            port,
            tls_port,
            flags: Vec::new(),
            directory,
        }
    }

    /// Starts a cluster of three primaries, each with a replica and with `more` flags. With a
    /// folder they speak TLS, as [`Redis::with_tls`].
    pub fn cluster(folder: Option<&Path>, more: &[&str]) -> Vec<Redis> {
        let flags = [
            "--cluster-enabled",
            "yes",
            "--cluster-node-timeout",
            "1000",
            "--cluster-port",
        ];
        let nodes: Vec<Redis> = (0..6)
            .map(|_| {
                let port = free_port().to_string();
                let flags = [&flags[..], &[&port], more].concat();
                match folder {
                    None => Redis::with(&flags),
                    Some(folder) => {
                        Redis::with_tls(folder, &[&flags[..], &["--tls-cluster", "yes"]].concat())
                    }
                }
            })
            .collect();
        let mut cli = Command::new("redis-cli");
        if let Some(folder) = folder {
            cli.args(["--tls", "--cacert"]).arg(folder.join("cert.pem"));
        }
        let port = |node: &Redis| node.tls_port.unwrap_or(node.port);
        let made = cli
            .args([
                "--cluster",
                "create",
                "--cluster-replicas",
                "1",
                "--cluster-yes",
            ])
            .args(nodes.iter().map(|node| format!("127.0.0.1:{}", port(node))))
            .output()
            .unwrap();
        assert!(made.status.success(), "{made:?}");
        until("a cluster whose replicas are in step", || {
            let ready = nodes.iter().all(|node| {
                let info = node.say(&[b"CLUSTER", b"INFO"]);
                let replication = node.say(&[b"INFO", b"replication"]);
                let replication = String::from_utf8_lossy(&replication).into_owned();
                String::from_utf8_lossy(&info).contains("cluster_state:ok")
                    && (replication.contains("master_link_status:up")
                        || replication.contains("connected_slaves:1"))
            });
            ready.then_some(())
        });
        nodes
    }

    /// The keys with this suffix.
    pub fn keys(&self, end: &str) -> String {
        let pattern = format!("*{end}");
        let keys = self.try_say(&[b"KEYS", pattern.as_bytes()]);
        let keys = String::from_utf8_lossy(&keys.unwrap_or_default()).into_owned();
        match keys.contains(end) {
            true => keys,
            false => String::new(),
        }
    }

    /// Starts it again, empty, after [`Redis::stop`].
    pub fn go_on(&mut self) {
        let mut command = Command::new("redis-server");
        command.args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]);
        command.args(["--port", &self.port.to_string()]);
        command.arg("--dir").arg(self.directory.path());
        command
            .args(["--unixsocket", "redis.sock"])
            .args(&self.flags);
        let process = Process::spawn(&mut command);
        process.out.wait_for("a Redis server", |line| {
            line.contains("Ready to accept connections").then_some(())
        });
        self.process = Some(process);
    }

    /// Starts it again as a replica of the server at `primary`.
    pub fn go_on_as_replica_of(&mut self, primary: u16) {
        self.flags = vec!["--replicaof".to_owned(), format!("127.0.0.1 {primary}")];
        self.go_on();
    }

    /// Returns whether it runs as a primary.
    pub fn is_primary(&self) -> bool {
        let role = self.process.as_ref().map(|_| self.try_say(&[b"ROLE"]));
        matches!(role, Some(Ok(role)) if role.starts_with(b"master"))
    }

    /// Stops it at once.
    pub fn stop(&mut self) {
        self.process = None;
    }

    /// Its URL.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Its socket.
    pub fn socket(&self) -> std::path::PathBuf {
        self.directory.path().join("redis.sock")
    }

    /// Runs a command; returns its response as text, with an array's items on separate lines.
    pub fn say(&self, words: &[&[u8]]) -> Vec<u8> {
        self.try_say(words).unwrap()
    }

    /// The same during a failover, when a server may close connections or refuse commands.
    fn try_say(&self, words: &[&[u8]]) -> io::Result<Vec<u8>> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
        let mut command = format!("*{}\r\n", words.len()).into_bytes();
        for word in words {
            command.extend(format!("${}\r\n", word.len()).bytes());
            command.extend_from_slice(word);
            command.extend(b"\r\n");
        }
        stream.write_all(&command)?;
        answer(&mut BufReader::new(stream))
    }

    /// Waits for the one key with this suffix.
    pub fn key(&self, end: &str) -> Vec<u8> {
        until("a key on the server", || {
            let pattern = format!("*{end}");
            let keys = self.say(&[b"KEYS", pattern.as_bytes()]);
            (!keys.is_empty()).then(|| keys.trim_ascii_end().to_vec())
        })
    }

    /// The value of the key with this suffix.
    pub fn get(&self, end: &str) -> Vec<u8> {
        self.say(&[b"GET", &self.key(end)])
    }

    /// Sets the value of the key with this suffix.
    pub fn set(&self, end: &str, value: &[u8]) {
        self.say(&[b"SET", &self.key(end), value]);
    }
}

/// The settings of a server that speaks TLS.
fn tls(folder: &Path) -> Vec<(&'static str, String)> {
    let path = |name: &str| folder.join(name).to_str().unwrap().to_owned();
    vec![
        ("tls-cert-file", path("cert.pem")),
        ("tls-key-file", path("key.pem")),
        ("tls-ca-cert-file", path("cert.pem")),
        ("tls-auth-clients", "no".to_owned()),
        ("tls-replication", "yes".to_owned()),
    ]
}

fn answer(from: &mut impl BufRead) -> io::Result<Vec<u8>> {
    let mut line = String::new();
    if from.read_line(&mut line)? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let (kind, rest) = line.trim_end().split_at(1);
    Ok(match kind {
        "$" if rest == "-1" => Vec::new(),
        "$" => {
            let mut bytes = vec![0; rest.parse::<usize>().unwrap() + 2];
            from.read_exact(&mut bytes)?;
            bytes.truncate(bytes.len() - 2);
            bytes
        }
        "*" => {
            let mut all = Vec::new();
            for _ in 0..rest.parse().unwrap() {
                all.extend(answer(from)?);
                all.push(b'\n');
            }
            all
        }
        "-" => return Err(io::Error::other(format!("the server answers {rest}"))),
        _ => rest.as_bytes().to_vec(),
    })
}

/// A free port, which the system does not reuse for a while.
fn free_port() -> u16 {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    free.local_addr().unwrap().port()
}
