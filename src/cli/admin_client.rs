//! Asking a running proxy at its admin address, for the commands that do.

use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use reqwest::header::HOST;
use reqwest::{Method, Url};

use crate::socket::UNIX;
use crate::telemetry::printable::{clean, clean_lines};

/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The largest answer that is read, in bytes: the status of some 20,000 apps.
const LARGEST: usize = 4 << 20;

/// The reason, where the time was over.
const SILENCE: &str = "no answer in time";

/// The option that says where a running proxy is.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct AdminAddress {
    /// The admin address of the running proxy: HOST:PORT, http://HOST:PORT or unix:PATH
    #[arg(
        long,
        value_name = "ADDRESS",
        env = "COLLIBRA_AUTH_PROXY_ADMIN",
        default_value = "127.0.0.1:9902",
        value_parser = parse
    )]
    admin: Target,
}

/// Where a running proxy is asked.
#[derive(Clone, Debug)]
pub(super) struct Target {
    base: Url,
    /// The unix socket to connect to, instead of the base's host and port.
    socket: Option<PathBuf>,
}

/// A client of one admin address.
#[derive(Clone, Debug)]
pub(super) struct AdminClient {
    /// As it is told to people.
    address: String,
    base: Url,
    http: reqwest::Client,
}

/// An answer, whatever its status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    /// The status code.
    pub status: u16,
    /// The body, fit to be printed: without control characters other than line breaks.
    pub text: String,
}

/// There was no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{problem}; is the proxy running, and is this its admin address (--admin)?")]
pub(super) struct NoAnswer {
    problem: String,
    is_silence: bool,
}

impl NoAnswer {
    /// Whether somebody may be there who did not answer in time.
    pub(super) fn is_silence(&self) -> bool {
        self.is_silence
    }
}

impl AdminClient {
    /// A client of the address that was given.
    ///
    /// # Errors
    /// Only if this build has no usable cryptography, which the HTTP library insists on.
    pub(super) fn new(address: &AdminAddress) -> anyhow::Result<AdminClient> {
        AdminClient::at(address.admin.clone())
    }

    /// A client of one admin address.
    ///
    /// # Errors
    /// As for [`AdminClient::new`].
    pub(super) fn at(target: Target) -> anyhow::Result<AdminClient> {
        let Target { base, socket } = target;
        // never used, for the address is plain HTTP; given so that no certificates are looked for
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        let mut http = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(TIMEOUT);
        let address = match &socket {
            None => base.as_str().trim_end_matches('/').to_owned(),
            Some(path) => {
                http = http.unix_socket(path.as_path());
                format!("{UNIX}{}", path.display())
            }
        };
        Ok(AdminClient {
            address,
            base,
            http: http.build()?,
        })
    }

    /// The address, as it is told to people.
    #[must_use]
    pub(super) fn address(&self) -> &str {
        &self.address
    }

    /// Asks for `path`, which begins with a slash and may have a query, within `patience` or the
    /// five seconds that any answer gets.
    ///
    /// # Errors
    /// [`NoAnswer`] if none came whole and in time.
    pub(super) async fn get(&self, path: &str, patience: Duration) -> Result<Answer, NoAnswer> {
        self.ask(Method::GET, path, patience).await
    }

    /// As [`AdminClient::get`], to have something done.
    ///
    /// # Errors
    /// As for [`AdminClient::get`]; whether it was done is not known then.
    pub(super) async fn post(&self, path: &str, patience: Duration) -> Result<Answer, NoAnswer> {
        self.ask(Method::POST, path, patience).await
    }

    async fn ask(
        &self,
        method: Method,
        path: &str,
        patience: Duration,
    ) -> Result<Answer, NoAnswer> {
        let exchange = async {
            let base = self.base.as_str().trim_end_matches('/');
            let request = self.http.request(method, format!("{base}{path}"));
            // the proxy answers to few names, so that no web page reads it by one of its own
            let mut response = request.header(HOST, "localhost").send().await?;
            let mut body = Vec::new();
            while let Some(part) = response.chunk().await? {
                body.extend_from_slice(&part);
                if body.len() > LARGEST {
                    break;
                }
            }
            Ok((response.status().as_u16(), body))
        };
        match tokio::time::timeout(patience.min(TIMEOUT), exchange).await {
            Ok(Ok((_, body))) if body.len() > LARGEST => Err(NoAnswer {
                problem: format!("{} answers with more than 4 MiB", self.address),
                is_silence: false,
            }),
            Ok(Ok((status, body))) => {
                let text = clean_lines(&String::from_utf8_lossy(&body)).into_owned();
                Ok(Answer { status, text })
            }
            Ok(Err(error)) => Err(self.no_answer(&reason(&error))),
            Err(_) => Err(self.no_answer(SILENCE)),
        }
    }

    fn no_answer(&self, reason: &str) -> NoAnswer {
        NoAnswer {
            problem: format!("nothing answers at {} ({reason})", self.address),
            is_silence: reason == SILENCE,
        }
    }
}

/// Reads an admin address.
pub(super) fn parse(text: &str) -> Result<Target, String> {
    let wanted = "it should be HOST:PORT, http://HOST:PORT or unix:PATH";
    if let Some(path) = text.strip_prefix(UNIX) {
        if path.is_empty() {
            return Err(wanted.to_owned());
        }
        // a URL has no place for a path to a socket: this host is never looked up
        let base = Url::parse("http://localhost").map_err(|error| error.to_string())?;
        let socket = Some(path.into());
        return Ok(Target { base, socket });
    }
    let full = if text.contains("://") {
        text.to_owned()
    } else {
        format!("http://{text}")
    };
    let url = Url::parse(&full).map_err(|error| format!("{error}; {wanted}"))?;
    let bare = url.path() == "/" && url.query().is_none() && url.fragment().is_none();
    if url.scheme() != "http" || !url.has_host() || !url.username().is_empty() || !bare {
        return Err(wanted.to_owned());
    }
    Ok(Target {
        base: url,
        socket: None,
    })
}

/// The last cause, which says what happened; the ones before it say only that something did.
fn reason(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return SILENCE.to_owned();
    }
    let mut cause: &dyn Error = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    clean(&cause.to_string()).into_owned()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    /// A client of `address`, which answers soon or never.
    pub(in crate::cli) fn client(address: impl ToString) -> AdminClient {
        let admin = parse(&address.to_string()).unwrap();
        AdminClient::new(&AdminAddress { admin }).unwrap()
    }

    /// A server that gives `answers`, one a connection, and then stops listening.
    pub(in crate::cli) async fn answering(answers: Vec<(u16, String)>) -> AdminClient {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = client(listener.local_addr().unwrap());
        tokio::spawn(async move {
            for (status, body) in answers {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut head = [0; 4096];
                let _ = stream.read(&mut head).await.unwrap();
                let length = body.len();
                let answer = format!(
                    "HTTP/1.1 {status} Status\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
                );
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        client
    }

    /// An address on which nothing listens.
    pub(in crate::cli) async fn nobody() -> AdminClient {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        client(listener.local_addr().unwrap())
    }

    #[test]
    fn an_address_is_given_with_or_without_its_scheme() {
        for text in [
            "127.0.0.1:9902",
            "http://127.0.0.1:9902",
            "http://127.0.0.1:9902/",
        ] {
            assert_eq!(client(text).address(), "http://127.0.0.1:9902");
        }
        assert_eq!(client("[::1]:99").address(), "http://[::1]:99");
        assert_eq!(client("unix:/run/x.sock").address(), "unix:/run/x.sock");
        for text in [
            "",
            "https://x:1",
            "unix:",
            "x:1/path",
            "u@x:1",
            "x:99999",
            "x:1?q",
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains("HOST:PORT"), "{text}: {error}");
        }
    }

    #[tokio::test]
    async fn an_answer_is_fit_to_be_printed() {
        let body = "one\ntwo\u{1b}[2J\u{9b}m\u{202e}".to_owned();
        let client = answering(vec![(503, body)]).await;
        let answer = client.get("/readyz", TIMEOUT).await.unwrap();
        assert_eq!(answer.status, 503);
        assert_eq!(answer.text, "one\ntwo\u{fffd}[2J\u{fffd}m\u{fffd}");
    }

    #[tokio::test]
    async fn an_answer_without_end_is_not_read() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = client(listener.local_addr().unwrap());
        let endless = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _ = stream.read(&mut [0; 4096]).await.unwrap();
            let head = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n";
            stream.write_all(head).await.unwrap();
            let mut sent = 0_usize;
            while let Ok(n) = stream.write(&[b'x'; 64 * 1024]).await {
                sent += n;
            }
            sent
        };
        let (answer, sent) = tokio::join!(client.get("/api/status", TIMEOUT), endless);
        let error = answer.unwrap_err().to_string();
        assert!(error.contains("more than 4 MiB"), "{error}");
        // what is more lies in the system's buffers
        assert!(sent < 64 << 20, "{sent}");
    }

    #[tokio::test]
    async fn the_proxy_is_asked_by_a_name_that_it_answers_to() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let client = client(format!("localhost:{port}"));
        let asked = tokio::spawn(async move { client.get("/readyz", TIMEOUT).await });
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            assert_ne!(stream.read_buf(&mut head).await.unwrap(), 0);
        }
        let head = String::from_utf8(head).unwrap().to_lowercase();
        assert!(head.contains("\r\nhost: localhost\r\n"), "{head}");
        drop(stream);
        assert!(asked.await.unwrap().is_err());
    }

    #[tokio::test]
    async fn who_does_not_answer_is_named() {
        let client = nobody().await;
        let error = client.get("/readyz", TIMEOUT).await.unwrap_err();
        let expected = format!("nothing answers at {} (", client.address());
        assert!(error.to_string().starts_with(&expected), "{error}");
        assert!(error.to_string().contains("refused"), "{error}");
    }

    #[tokio::test]
    async fn a_silent_server_is_left_when_patience_ends() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = client(listener.local_addr().unwrap());
        let error = client
            .get("/", Duration::from_millis(50))
            .await
            .unwrap_err();
        assert!(error.is_silence(), "{error}");
    }
}
