//! Tunnels through a forward proxy with CONNECT (RFC 9110, section 9.3.6).
//!
//! The proxy gets the server's name and port and then relays bytes. It resolves the name. TLS is
//! end to end: the proxy sees neither a path nor a token.
//!
//! Guarantees: of the proxy's response only the status is quoted. Its credentials are sent to the
//! proxy only, and never printed.

use std::fmt;
use std::io;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::StatusCode;
use memchr::memmem;
use percent_encoding::percent_decode_str;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use url::Url;

use super::addresses::Target;
use crate::secret::Secret;

/// The largest head of a proxy's response, in bytes.
const LARGEST_HEAD: usize = 16 * 1024;

/// The default port of a proxy's URL.
const PORT: u16 = 80;

/// A forward proxy. Two are equal if they have the same address and credentials.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proxy {
    /// Its address.
    pub target: Target,
    credentials: Option<Secret>,
}

/// Why a text is not a usable proxy. Never quotes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidProxy {
    /// It is not a URL.
    #[error("this is not a proxy's URL")]
    NotAUrl,
    /// Its scheme is not plain HTTP.
    #[error("only an http:// proxy is supported; the tunnelled traffic has its own TLS")]
    Scheme,
    /// It has a path, a query or a fragment.
    #[error("it has more than a scheme, credentials, a host and a port")]
    TooMuch,
}

/// The credentials are not of the form `user:password`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this is not of the form user:password, on one line")]
pub struct InvalidCredentials;

impl Proxy {
    /// Parses the URL of a proxy, like `http://proxy.corp:3128`. Credentials in it are
    /// percent-decoded.
    ///
    /// # Errors
    /// [`InvalidProxy`] says why it is unusable.
    pub fn parse(url: &str) -> Result<Proxy, InvalidProxy> {
        let url = Url::parse(url.trim()).map_err(|_| InvalidProxy::NotAUrl)?;
        if url.scheme() != "http" {
            return Err(InvalidProxy::Scheme);
        }
        let host = url.host_str().ok_or(InvalidProxy::NotAUrl)?;
        if url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
            return Err(InvalidProxy::TooMuch);
        }
        let decoded = |text| percent_decode_str(text).decode_utf8_lossy().into_owned();
        let given = !url.username().is_empty() || url.password().is_some();
        let credentials = given.then(|| {
            let (user, password) = (url.username(), url.password().unwrap_or_default());
            Secret::from(format!("{}:{}", decoded(user), decoded(password)))
        });
        let target = Target {
            host: host.trim_matches(['[', ']']).to_owned(),
            port: url.port().unwrap_or(PORT),
        };
        Ok(Proxy {
            target,
            credentials,
        })
    }

    /// Adds the credentials in `text`: `user:password`, with an optional line break.
    ///
    /// # Errors
    /// [`InvalidCredentials`] if it has another form.
    pub fn with_credentials(self, text: &str) -> Result<Proxy, InvalidCredentials> {
        let credentials = Secret::parse(text).map_err(|_| InvalidCredentials)?;
        if !credentials.expose().contains(':') {
            return Err(InvalidCredentials);
        }
        Ok(Proxy {
            credentials: Some(credentials),
            ..self
        })
    }

    /// Returns whether it has credentials.
    #[must_use]
    pub fn has_credentials(&self) -> bool {
        self.credentials.is_some()
    }

    /// The user and password, if it has any.
    #[must_use]
    pub fn credentials(&self) -> Option<(&str, &str)> {
        self.credentials.as_ref()?.expose().split_once(':')
    }

    /// Opens a tunnel on `stream`, a connection to the proxy, to `server`.
    ///
    /// # Errors
    /// [`Error`] says what the proxy answered instead.
    pub async fn connect(
        &self,
        mut stream: TcpStream,
        server: &Target,
    ) -> Result<TcpStream, Error> {
        let request = self.request(server);
        stream.write_all(request.expose().as_bytes()).await?;
        let head = read_head(&mut stream).await?;
        check_response(&head, self.has_credentials())?;
        Ok(stream)
    }

    fn request(&self, target: &Target) -> Secret {
        let credentials = self.credentials.as_ref().map_or_else(String::new, |text| {
            let encoded = STANDARD.encode(text.expose());
            format!("Proxy-Authorization: Basic {encoded}\r\n")
        });
        Secret::from(format!(
            "CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n{credentials}\r\n"
        ))
    }
}

/// Host and port, without credentials.
impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.target.fmt(f)
    }
}

/// How a proxy failed to connect to a server.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It requires credentials.
    #[error("it requires credentials (407); put them in its URL or in proxy_credentials_file")]
    WantsCredentials,
    /// It does not accept the credentials.
    #[error("it does not accept the credentials (407)")]
    RefusesCredentials,
    /// It refuses the request with another status.
    #[error("it answered {0}{advice}", advice = advice(*.0))]
    Refused(StatusCode),
    /// It is not an HTTP server.
    #[error("it did not answer with HTTP; is that port a proxy's?")]
    NotHttp,
    /// The head of its answer exceeds the limit.
    #[error("its answer is too large")]
    TooLarge,
    /// It closed the connection.
    #[error("it closed the connection")]
    Closed,
    /// The connection to it failed.
    #[error("the connection to it broke: {0}")]
    Broken(#[from] io::Error),
    /// It did not answer within this time.
    #[error("it did not answer within {limit}", limit = humantime::format_duration(*.0))]
    Late(Duration),
}

impl Error {
    /// Returns whether the proxy timed out, or reports that the server did.
    #[must_use]
    pub fn is_timeout(&self) -> bool {
        matches!(
            self,
            Error::Late(_) | Error::Refused(StatusCode::GATEWAY_TIMEOUT)
        )
    }

    /// Returns whether the same proxy would fail the same way again.
    #[must_use]
    pub fn is_final(&self) -> bool {
        match self {
            Error::WantsCredentials | Error::RefusesCredentials | Error::Late(_) => true,
            Error::Refused(status) => status.is_client_error(),
            _ => false,
        }
    }
}

fn advice(status: StatusCode) -> &'static str {
    if status.is_client_error() {
        "; its operator must allow that host and port"
    } else if status.is_server_error() {
        "; it cannot reach that host, or has failed itself"
    } else {
        ""
    }
}

/// Reads up to the empty line that ends a head, and nothing after it: later bytes are the server's.
async fn read_head(stream: &mut TcpStream) -> Result<Vec<u8>, Error> {
    let mut head = Vec::new();
    let mut chunk = [0; 1024];
    while head.len() <= LARGEST_HEAD {
        let before = head.len();
        let peeked = stream.peek(&mut chunk).await?;
        if peeked == 0 {
            return Err(Error::Closed);
        }
        head.extend_from_slice(&chunk[..peeked]);
        let end = memmem::find(&head, b"\r\n\r\n").map(|at| at + 4);
        head.truncate(end.unwrap_or(head.len()));
        let taken = head.len() - before;
        stream.read_exact(&mut chunk[..taken]).await?;
        if end.is_some() {
            return Ok(head);
        }
    }
    Err(Error::TooLarge)
}

/// Checks that the response opens the tunnel.
fn check_response(head: &[u8], had_credentials: bool) -> Result<(), Error> {
    let status = head
        .strip_prefix(b"HTTP/1.")
        .and_then(|rest| rest.get(1..5)?.strip_prefix(b" "))
        .and_then(|digits| StatusCode::from_bytes(digits).ok());
    match status {
        None => Err(Error::NotHttp),
        Some(status) if status.is_success() => Ok(()),
        Some(StatusCode::PROXY_AUTHENTICATION_REQUIRED) if had_credentials => {
            Err(Error::RefusesCredentials)
        }
        Some(StatusCode::PROXY_AUTHENTICATION_REQUIRED) => Err(Error::WantsCredentials),
        Some(status) => Err(Error::Refused(status)),
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    /// Runs a proxy that sends `answer`. Returns what the client read after the head, and the
    /// proxy's request.
    async fn ask(proxy: &str, answer: &'static [u8]) -> (Result<String, Error>, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stream, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
        let (stream, (mut server, _)) = (stream.unwrap(), accepted.unwrap());
        let serving = tokio::spawn(async move {
            let request = read_head(&mut server).await.unwrap();
            server.write_all(answer).await.unwrap();
            String::from_utf8(request).unwrap()
        });
        let proxy = Proxy::parse(proxy).unwrap();
        let server = Target::parse("acme.example:443").unwrap();
        let opened = proxy.connect(stream, &server);
        let through = match opened.await {
            Ok(mut stream) => {
                let mut rest = String::new();
                stream.read_to_string(&mut rest).await.unwrap();
                Ok(rest)
            }
            Err(e) => Err(e),
        };
        (through, serving.await.unwrap())
    }

    #[tokio::test]
    async fn an_open_tunnel_passes_every_byte_after_the_head() {
        let answer = b"HTTP/1.0 200 Connection established\r\nVia: x\r\n\r\nhello";
        let (through, request) = ask("http://me:p%40ss@proxy.corp:3128", answer).await;
        assert_eq!(through.unwrap(), "hello");
        assert_eq!(
            request,
            "CONNECT acme.example:443 HTTP/1.1\r\nHost: acme.example:443\r\n\
             Proxy-Authorization: Basic bWU6cEBzcw==\r\n\r\n"
        );
    }

    #[tokio::test]
    async fn what_a_proxy_does_instead_is_named() {
        let large: &'static [u8] =
            Vec::leak([b"HTTP/1.1 200 OK\r\nX: ".as_slice(), &[b'x'; 20_000]].concat());
        for (answer, with, without) in [
            (
                b"HTTP/1.1 407 No\r\n\r\n".as_slice(),
                "does not accept the credentials (407)",
                "requires credentials (407)",
            ),
            (
                b"HTTP/1.1 403 canary\r\n\r\n",
                "answered 403 Forbidden",
                "answered 403 Forbidden",
            ),
            (
                b"HTTP/1.1 502 canary\r\n\r\n",
                "cannot reach",
                "answered 502 Bad Gateway",
            ),
            (
                b"SSH-2.0-canary\r\n\r\n",
                "did not answer with HTTP",
                "did not answer with HTTP",
            ),
            (
                b"HTTP/1.1 200 OK\r\n",
                "closed the connection",
                "closed the connection",
            ),
            (large, "too large", "too large"),
        ] {
            for (proxy, expected) in [("http://canary:canary@p", with), ("http://p", without)] {
                let (through, _) = ask(proxy, answer).await;
                let said = through.unwrap_err().to_string();
                assert!(said.contains(expected), "{said}");
                assert!(!said.contains("canary"), "{said}");
            }
        }
    }

    #[test]
    fn a_url_is_taken_or_refused_without_being_quoted() {
        let proxy = Proxy::parse("http://canary:secret@[::1]").unwrap();
        assert_eq!(proxy.to_string(), "[::1]:80");
        assert_eq!(proxy.target.host, "::1");
        assert!(!format!("{proxy:?}").contains("canary"), "{proxy:?}");
        for (text, expected) in [
            ("proxy.corp", InvalidProxy::NotAUrl),
            ("proxy.corp:3128", InvalidProxy::Scheme),
            ("https://proxy.corp:3128", InvalidProxy::Scheme),
            ("socks5://proxy.corp:1080", InvalidProxy::Scheme),
            ("http://proxy.corp:3128/x", InvalidProxy::TooMuch),
        ] {
            assert_eq!(Proxy::parse(text).unwrap_err(), expected, "{text}");
        }
    }

    #[test]
    fn credentials_from_a_file_take_the_place_of_none() {
        let proxy = || Proxy::parse("http://proxy.corp:3128").unwrap();
        let with = proxy().with_credentials("me:a:b\n").unwrap();
        assert_eq!(with.credentials(), Some(("me", "a:b")));
        for text in ["", "me", "me:\nx"] {
            assert!(proxy().with_credentials(text).is_err(), "{text:?}");
        }
    }
}
