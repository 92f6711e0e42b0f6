//! An instance that costs next to nothing: every request gets the same kilobyte, and whoever asks
//! for a token gets one that lives for an hour.

use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tempfile::NamedTempFile;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::support::http::{content_length, head_end};

/// The length of what a request is answered with, in bytes.
pub(crate) const ANSWER: usize = 1_000;

/// The instance, for as long as the runtime runs.
pub(crate) struct Origin {
    /// Where it is.
    pub(crate) address: SocketAddr,
    ca_file: Option<NamedTempFile>,
}

impl Origin {
    /// Starts it, over TLS 1.3 if wished.
    pub(crate) async fn start(tls: bool) -> Origin {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (acceptor, ca_file) = match tls {
            true => {
                let (acceptor, ca_file) = certificate();
                (Some(acceptor), Some(ca_file))
            }
            false => (None, None),
        };
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let _ = stream.set_nodelay(true);
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    match acceptor {
                        None => serve(stream).await,
                        Some(acceptor) => match acceptor.accept(stream).await {
                            Ok(stream) => serve(stream).await,
                            Err(_) => None,
                        },
                    }
                });
            }
        });
        Origin { address, ca_file }
    }

    /// Its URL.
    pub(crate) fn url(&self) -> String {
        let scheme = if self.ca_file.is_some() {
            "https"
        } else {
            "http"
        };
        format!("{scheme}://{}", self.address)
    }

    /// Its certificate, if it has one.
    pub(crate) fn ca_file(&self) -> Option<&Path> {
        self.ca_file.as_ref().map(NamedTempFile::path)
    }
}

/// Answers until the other side goes.
async fn serve(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> Option<()> {
    let answer = answer_of(&format!("{:?}", "x".repeat(ANSWER - 2)));
    let token =
        answer_of(r#"{"access_token":"bench-token","token_type":"Bearer","expires_in":3600}"#);
    let mut buffer = Vec::with_capacity(4 * 1024);
    loop {
        let end = loop {
            match head_end(&buffer) {
                Some(end) => break end,
                None => match stream.read_buf(&mut buffer).await.ok()? {
                    0 => return None,
                    _ => continue,
                },
            }
        };
        let body = content_length(&buffer[..end]).unwrap_or(0);
        while buffer.len() < end + body {
            match stream.read_buf(&mut buffer).await.ok()? {
                0 => return None,
                _ => continue,
            }
        }
        let asks_for_a_token = buffer.starts_with(b"POST /rest/oauth/v2/token");
        let answer = if asks_for_a_token { &token } else { &answer };
        stream.write_all(answer).await.ok()?;
        stream.flush().await.ok()?;
        buffer.drain(..end + body);
    }
}

fn answer_of(body: &str) -> Vec<u8> {
    let length = body.len();
    format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}")
        .into_bytes()
}

fn certificate() -> (TlsAcceptor, NamedTempFile) {
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let mut ca_file = NamedTempFile::new().unwrap();
    ca_file.write_all(made.cert.pem().as_bytes()).unwrap();
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    (TlsAcceptor::from(Arc::new(config)), ca_file)
}
