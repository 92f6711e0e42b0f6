//! Calls a running proxy at its admin address, for the commands that do.

use std::time::Duration;

use anyhow::{Context, ensure};
use reqwest::header::HOST;
use reqwest::{Method, Url};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::socket::UNIX;
use crate::telemetry::printable::{clean, clean_lines};

/// The timeout of an answer.
pub(super) const TIMEOUT: Duration = Duration::from_secs(5);

/// The largest answer that is read, in bytes: the status of some 20,000 apps.
const LARGEST: usize = 4 << 20;

/// The option that says where a running proxy is.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct AdminAddress {
    /// The admin address of the running proxy: HOST:PORT, http://HOST:PORT or unix:PATH
    #[arg(
        long,
        value_name = "ADDRESS",
        env = "COLLIBRA_AUTH_PROXY_ADMIN",
        default_value = "127.0.0.1:9902",
        value_parser = AdminClient::parse
    )]
    pub(super) admin: AdminClient,
}

/// A client of one admin address.
#[derive(Clone, Debug)]
pub(super) struct AdminClient {
    /// The address, for messages.
    pub(super) address: String,
    base: Url,
    http: reqwest::Client,
}

/// An answer, whatever its status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    /// The status code.
    pub status: u16,
    /// The body, without control characters other than line breaks.
    pub text: String,
}

/// There was no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{problem}; is the proxy running, and is this its admin address (--admin)?")]
pub(super) struct NoAnswer {
    problem: String,
    /// Whether a process may be listening that did not answer in time.
    pub(super) is_silence: bool,
}

impl AdminClient {
    /// Parses an admin address.
    ///
    /// # Errors
    /// What to write instead.
    pub(super) fn parse(text: &str) -> Result<AdminClient, String> {
        let wanted = "it should be HOST:PORT, http://HOST:PORT or unix:PATH";
        let socket = text.strip_prefix(UNIX);
        let url = match socket {
            Some("") => return Err(wanted.to_owned()),
            // a URL has no place for a path to a socket: this host is never looked up
            Some(_) => "http://localhost".to_owned(),
            None if text.contains("://") => text.to_owned(),
            None => format!("http://{text}"),
        };
        let base = Url::parse(&url).map_err(|error| format!("{error}; {wanted}"))?;
        let is_bare = base.path() == "/" && base.query().is_none() && base.fragment().is_none();
        if base.scheme() != "http" || !base.has_host() || !base.username().is_empty() || !is_bare {
            return Err(wanted.to_owned());
        }
        let address = match socket {
            Some(_) => text.to_owned(),
            None => base.as_str().trim_end_matches('/').to_owned(),
        };
        let http = http(socket).map_err(|error| format!("no HTTP client: {error}"))?;
        Ok(AdminClient {
            address,
            base,
            http,
        })
    }

    /// Sends a request for `path`, which begins with a slash and may have a query. Waits for the
    /// answer for `patience`, and at most [`TIMEOUT`].
    ///
    /// # Errors
    /// [`NoAnswer`] if no complete answer came in time. A command may have been carried out
    /// nevertheless.
    pub(super) async fn ask(
        &self,
        method: Method,
        path: &str,
        patience: Duration,
    ) -> Result<Answer, NoAnswer> {
        let base = self.base.as_str().trim_end_matches('/');
        let request = self.http.request(method, format!("{base}{path}"));
        let request = request.timeout(patience.min(TIMEOUT));
        let exchange = async {
            // the proxy accepts few hosts, so that no web page reads it by a name of its own
            let mut response = request.header(HOST, "localhost").send().await?;
            let mut body = Vec::new();
            while body.len() <= LARGEST
                && let Some(part) = response.chunk().await?
            {
                body.extend_from_slice(&part);
            }
            Ok((response.status().as_u16(), body))
        };
        let (status, body) = exchange.await.map_err(|error| self.no_answer(error))?;
        if body.len() > LARGEST {
            return Err(NoAnswer {
                problem: format!("{} answers with more than 4 MiB", self.address),
                is_silence: false,
            });
        }
        let text = clean_lines(&String::from_utf8_lossy(&body)).into_owned();
        Ok(Answer { status, text })
    }

    /// As [`AdminClient::ask`]. Returns the text of an answer with the status `expected`.
    ///
    /// # Errors
    /// [`NoAnswer`]; the proxy's reason if the status is one of `refusals`; another status.
    pub(super) async fn call(
        &self,
        method: Method,
        path: &str,
        patience: Duration,
        expected: u16,
        refusals: &[u16],
    ) -> anyhow::Result<String> {
        let Answer { status, text } = self.ask(method, path, patience).await?;
        let (is_refusal, said) = (refusals.contains(&status), text.trim_end());
        ensure!(!is_refusal, "{} refuses: {said}", self.address);
        ensure!(status == expected, self.unexpected(status, path));
        Ok(text)
    }

    /// The message for a status that a proxy does not answer with.
    pub(super) fn unexpected(&self, status: u16, path: &str) -> String {
        let path = path.split('?').next().unwrap_or_default();
        format!(
            "{} answers {status} to {path}; is this the proxy's admin address (--admin)?",
            self.address
        )
    }

    /// Parses the JSON of an answer, without any character that a terminal interprets: any process
    /// may listen at this address, and parsing undoes JSON's escapes.
    ///
    /// # Errors
    /// If it is not the JSON of a proxy.
    pub(super) fn json<T: DeserializeOwned>(&self, text: &str) -> anyhow::Result<T> {
        let parsed = serde_json::from_str(text);
        let parsed = parsed.and_then(|json| serde_json::from_value(cleaned(json)));
        parsed.with_context(|| {
            format!(
                "the answer of {} is not a proxy's; is this the proxy's admin address (--admin)?",
                self.address
            )
        })
    }

    /// The last cause says what happened, the ones before it only that something did.
    fn no_answer(&self, error: reqwest::Error) -> NoAnswer {
        let is_silence = error.is_timeout();
        let cause = anyhow::Error::new(error).root_cause().to_string();
        let reason = match is_silence {
            true => "no answer in time".into(),
            false => clean(&cause),
        };
        NoAnswer {
            problem: format!("nothing answers at {} ({reason})", self.address),
            is_silence,
        }
    }
}

/// An HTTP client, which connects to the unix socket at `socket` if there is one.
fn http(socket: Option<&str>) -> reqwest::Result<reqwest::Client> {
    // plain HTTP needs neither cryptography nor certificates, but the library insists on both
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut http = reqwest::Client::builder()
        .tls_certs_only([])
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none());
    if let Some(path) = socket {
        http = http.unix_socket(path);
    }
    http.build()
}

/// Returns `json` without any character that a terminal interprets.
fn cleaned(json: Value) -> Value {
    match json {
        Value::String(text) => Value::String(clean(&text).into_owned()),
        Value::Array(items) => items.into_iter().map(cleaned).collect(),
        Value::Object(fields) => {
            let fields = fields.into_iter();
            fields.map(|(name, value)| (name, cleaned(value))).collect()
        }
        other => other,
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    /// A client of `address`, which answers soon or never.
    pub(in crate::cli) fn client(address: impl ToString) -> AdminClient {
        AdminClient::parse(&address.to_string()).unwrap()
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
            assert_eq!(client(text).address, "http://127.0.0.1:9902");
        }
        assert_eq!(client("[::1]:99").address, "http://[::1]:99");
        assert_eq!(client("unix:/run/x.sock").address, "unix:/run/x.sock");
        for text in [
            "",
            "https://x:1",
            "unix:",
            "x:1/path",
            "u@x:1",
            "x:99999",
            "x:1?q",
        ] {
            let error = AdminClient::parse(text).unwrap_err();
            assert!(error.contains("HOST:PORT"), "{text}: {error}");
        }
    }

    #[tokio::test]
    async fn an_answer_is_fit_to_be_printed() {
        let body = "one\ntwo\u{1b}[2J\u{9b}m\u{202e}".to_owned();
        let client = answering(vec![(503, body)]).await;
        let answer = client.ask(Method::GET, "/readyz", TIMEOUT).await.unwrap();
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
        let (answer, sent) = tokio::join!(client.ask(Method::GET, "/api/status", TIMEOUT), endless);
        let error = answer.unwrap_err().to_string();
        assert!(error.contains("more than 4 MiB"), "{error}");
        // the rest is in the system's buffers
        assert!(sent < 64 << 20, "{sent}");
    }

    #[tokio::test]
    async fn the_proxy_is_asked_by_a_name_that_it_answers_to() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let client = client(format!("localhost:{port}"));
        let asked = tokio::spawn(async move { client.ask(Method::GET, "/readyz", TIMEOUT).await });
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
        let error = client
            .ask(Method::GET, "/readyz", TIMEOUT)
            .await
            .unwrap_err();
        let expected = format!("nothing answers at {} (", client.address);
        assert!(error.to_string().starts_with(&expected), "{error}");
        assert!(error.to_string().contains("refused"), "{error}");
    }

    #[tokio::test]
    async fn a_silent_server_is_left_when_patience_ends() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = client(listener.local_addr().unwrap());
        let error = client
            .ask(Method::GET, "/", Duration::from_millis(50))
            .await
            .unwrap_err();
        assert!(error.is_silence, "{error}");
    }
}
