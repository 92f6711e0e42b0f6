//! A listener's TLS: its certificate, and the client certificates that it accepts.
//!
//! The files are read with the configuration. Later content applies after a reload, to new
//! connections; open connections are not affected.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use ring::digest::{SHA256, digest};
use rustls::crypto::ring::{Ticketer, default_provider};
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use rustls::server::{
    NoServerSessionStorage, ResolvesServerCert, ResolvesServerCertUsingSni, WebPkiClientVerifier,
};
use rustls::{RootCertStore, ServerConfig};
use tokio_rustls::TlsAcceptor;

use crate::clock::Clock;
use crate::local_authority::{Authority, HostCertificates};
use crate::tls::{self, CaFile, H2, Reason, text_of};

/// The ALPN name of HTTP/1.1 (RFC 7301, section 6).
const HTTP1: &[u8] = b"http/1.1";

/// A listener's certificate and key, and the authority of client certificates. Two are equal if
/// their files have the same content.
#[derive(Clone)]
pub struct Tls {
    config: Arc<ServerConfig>,
    /// The certificate and its chain, or the local authority's, if there is one.
    chain: Option<CaFile>,
    /// The SHA-256 of the key, or of the hosts that the local authority certifies.
    key_digest: Vec<u8>,
    client_ca: Option<CaFile>,
    expires: Option<SystemTime>,
}

/// Why TLS cannot be set up. Never quotes a file's content.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The certificate's file.
    #[error("{0}")]
    Certificate(Reason),
    /// The key's file cannot be read.
    #[error("the file cannot be read: {0}")]
    KeyUnreadable(#[source] std::io::Error),
    /// The key's file contains no usable key.
    #[error("there is no private key in the file; it should be PEM, without a password")]
    NoKey,
    /// The key does not match the certificate.
    #[error("the key is not that of the certificate")]
    Mismatch,
    /// The authority for client certificates is unusable.
    #[error("callers' certificates cannot be verified by it")]
    ClientAuthority,
    /// The certificate, or the type of key, is unusable.
    #[error("the certificate and its key cannot be used: {0}")]
    Unusable(rustls::Error),
}

impl Tls {
    /// Reads a certificate with its chain, and its key. Callers may send a certificate issued by
    /// one of `client_ca`.
    ///
    /// # Errors
    /// [`Error`] says which file is at fault and why.
    pub fn read(
        cert_file: &Path,
        key_file: &Path,
        client_ca: Option<CaFile>,
    ) -> Result<Tls, Error> {
        let chain = CaFile::read(cert_file).map_err(|error| Error::Certificate(error.reason))?;
        let pem = zeroize_on_drop(std::fs::read(key_file).map_err(Error::KeyUnreadable)?);
        let key = PrivateKeyDer::from_pem_slice(text_of(&pem)).map_err(|_| Error::NoKey)?;
        let key_digest = digest(&SHA256, key.secret_der());
        let provider = Arc::new(default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(Error::Unusable)?;
        let builder = match &client_ca {
            None => builder.with_no_client_auth(),
            Some(authorities) => {
                let mut roots = RootCertStore::empty();
                roots.add_parsable_certificates(authorities.certificates().iter().cloned());
                // callers may authenticate in other ways
                let verifier =
                    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                        .allow_unauthenticated()
                        .build()
                        .map_err(|_| Error::ClientAuthority)?;
                builder.with_client_cert_verifier(verifier)
            }
        };
        let mut config = builder
            .with_single_cert(chain.certificates().to_vec(), key)
            .map_err(|error| match error {
                rustls::Error::InconsistentKeys(_) => Error::Mismatch,
                error => Error::Unusable(error),
            })?;
        offer(&mut config);
        if client_ca.is_some() {
            // a resumed session has the certificate that its first handshake verified, and it may
            // have expired or been revoked since
            config.session_storage = Arc::new(NoServerSessionStorage {});
        } else {
            config.ticketer = Ticketer::new().map_err(Error::Unusable)?;
        }
        Ok(Tls {
            config: Arc::new(config),
            expires: Some(expiry(&chain)?),
            chain: Some(chain),
            key_digest: key_digest.as_ref().to_vec(),
            client_ca,
        })
    }

    /// Returns TLS with certificates of the local `authority` for `hosts`, at least one; `clock`
    /// says when they are replaced.
    ///
    /// # Errors
    /// [`Error::Unusable`]; a defect of the build.
    pub fn local(
        authority: &Authority,
        hosts: Vec<String>,
        clock: Arc<dyn Clock>,
    ) -> Result<Tls, Error> {
        let named = digest(&SHA256, hosts.join(",").as_bytes());
        let certificates = HostCertificates::new(authority.clone(), hosts, clock);
        Ok(Tls {
            config: resolved(Arc::new(certificates))?,
            chain: Some(authority.file().clone()),
            key_digest: named.as_ref().to_vec(),
            client_ca: None,
            expires: Some(authority.expires()),
        })
    }

    /// Returns TLS without a certificate: every handshake fails.
    ///
    /// # Errors
    /// [`Error::Unusable`]; a defect of the build.
    pub fn without_certificate() -> Result<Tls, Error> {
        Ok(Tls {
            config: resolved(Arc::new(ResolvesServerCertUsingSni::new()))?,
            chain: None,
            key_digest: Vec::new(),
            client_ca: None,
            expires: None,
        })
    }

    /// The same for callers that speak HTTP/1.1 only.
    #[must_use]
    pub fn without_http2(mut self) -> Tls {
        let mut config = ServerConfig::clone(&self.config);
        config.alpn_protocols = vec![HTTP1.to_vec()];
        self.config = Arc::new(config);
        self
    }

    /// When the first certificate of the chain expires, or the local authority's; `None` without
    /// one.
    #[must_use]
    pub fn expires(&self) -> Option<SystemTime> {
        self.expires
    }

    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(Arc::clone(&self.config))
    }
}

/// A server's configuration with certificates of `certificates`.
fn resolved(certificates: Arc<dyn ResolvesServerCert>) -> Result<Arc<ServerConfig>, Error> {
    let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(Error::Unusable)?
        .with_no_client_auth()
        .with_cert_resolver(certificates);
    offer(&mut config);
    config.ticketer = Ticketer::new().map_err(Error::Unusable)?;
    Ok(Arc::new(config))
}

/// Sets the ALPN protocols, and who chooses the cipher suite.
fn offer(config: &mut ServerConfig) {
    // prefer the server's order: the strongest that both support
    config.ignore_client_order = true;
    config.alpn_protocols = vec![H2.to_vec(), HTTP1.to_vec()];
}

fn zeroize_on_drop(bytes: Vec<u8>) -> secrecy::zeroize::Zeroizing<Vec<u8>> {
    secrecy::zeroize::Zeroizing::new(bytes)
}

/// When the first certificate of the chain expires.
fn expiry(chain: &CaFile) -> Result<SystemTime, Error> {
    let ends: Option<Vec<SystemTime>> = chain.certificates().iter().map(tls::expiry).collect();
    let first = ends.and_then(|ends| ends.into_iter().min());
    first.ok_or(Error::Certificate(Reason::NotCertificates))
}

impl PartialEq for Tls {
    fn eq(&self, other: &Tls) -> bool {
        self.chain == other.chain
            && self.key_digest == other.key_digest
            && self.client_ca == other.client_ca
            && self.config.alpn_protocols == other.config.alpn_protocols
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls")
            .field("certificate", &self.chain)
            .field("client_ca", &self.client_ca)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Pair {
        folder: tempfile::TempDir,
    }

    impl Pair {
        fn new() -> Pair {
            let folder = tempfile::tempdir().unwrap();
            let made = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
            let write = |name, text: String| std::fs::write(folder.path().join(name), text);
            write("cert.pem", made.cert.pem()).unwrap();
            write("key.pem", made.signing_key.serialize_pem()).unwrap();
            Pair { folder }
        }

        fn read(&self, key: &Path) -> Result<Tls, Error> {
            Tls::read(&self.folder.path().join("cert.pem"), key, None)
        }

        fn key(&self) -> std::path::PathBuf {
            self.folder.path().join("key.pem")
        }
    }

    #[test]
    fn a_pair_counts_as_changed_by_its_content() {
        let (one, other) = (Pair::new(), Pair::new());
        let read = one.read(&one.key()).unwrap();
        assert_eq!(one.read(&one.key()).unwrap(), read);
        assert_ne!(other.read(&other.key()).unwrap(), read);
        assert!(read.expires() > Some(SystemTime::UNIX_EPOCH));
    }

    #[test]
    fn a_byte_order_mark_is_passed_over() {
        let pair = Pair::new();
        let read = pair.read(&pair.key()).unwrap();
        for name in ["cert.pem", "key.pem"] {
            let path = pair.folder.path().join(name);
            let text = std::fs::read_to_string(&path).unwrap();
            std::fs::write(&path, format!("\u{feff}{text}")).unwrap();
        }
        assert_eq!(pair.read(&pair.key()).unwrap(), read);
    }

    #[test]
    fn a_pair_that_does_not_match_is_refused() {
        let (one, other) = (Pair::new(), Pair::new());
        let error = one.read(&other.key()).unwrap_err();
        assert!(matches!(error, Error::Mismatch), "{error}");
        let no_key = one.folder.path().join("cert.pem");
        let error = one.read(&no_key).unwrap_err();
        assert!(matches!(error, Error::NoKey), "{error}");
    }
}
