//! A listener's TLS: its certificate, and the client certificates that it accepts.
//!
//! The files are read with the configuration. Later content applies after a reload, to new
//! connections; open connections are not affected.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use rustls::crypto::ring::{Ticketer, default_provider};
use rustls::server::{
    NoServerSessionStorage, ResolvesServerCert, ResolvesServerCertUsingSni, WebPkiClientVerifier,
};
use rustls::{Error, RootCertStore, ServerConfig};
use tokio_rustls::TlsAcceptor;

use crate::clock::Clock;
use crate::local_authority::{Authority, HostCertificates};
use crate::tls::{CaFile, H2, Identity};

/// The ALPN name of HTTP/1.1 (RFC 7301, section 6).
const HTTP1: &[u8] = b"http/1.1";

/// A listener's certificate and key, and the authority of client certificates. Two are equal if
/// their files have the same content.
#[derive(Clone)]
pub struct Tls {
    config: Arc<ServerConfig>,
    source: Source,
    client_ca: Option<CaFile>,
    expires: Option<SystemTime>,
}

/// The source of a listener's certificate.
#[derive(Clone, Debug, PartialEq)]
enum Source {
    /// A certificate and its key.
    Identity(Identity),
    /// The local authority, which certifies these hosts.
    Authority(CaFile, Vec<String>),
    /// There is none.
    Nothing,
}

impl Tls {
    /// Returns TLS with the certificate and key of `identity`. Callers may send a certificate that
    /// one of `client_ca` issued.
    ///
    /// # Errors
    /// If the library can use none of `client_ca`, or supports no version of TLS.
    pub fn new(identity: Identity, client_ca: Option<CaFile>) -> Result<Tls, Error> {
        let provider = Arc::new(default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()?;
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
                        .map_err(|error| Error::General(error.to_string()))?;
                builder.with_client_cert_verifier(verifier)
            }
        };
        let (chain, key) = (identity.certificates().to_vec(), identity.key().clone_key());
        let mut config = builder.with_single_cert(chain, key)?;
        offer(&mut config);
        if client_ca.is_some() {
            // a resumed session has the certificate that its first handshake verified, and it may
            // have expired or been revoked since
            config.session_storage = Arc::new(NoServerSessionStorage {});
        } else {
            config.ticketer = Ticketer::new()?;
        }
        Ok(Tls {
            config: Arc::new(config),
            expires: identity.expires(),
            source: Source::Identity(identity),
            client_ca,
        })
    }

    /// Returns TLS with certificates of the local `authority` for `hosts`, at least one; `clock`
    /// says when they are replaced.
    ///
    /// # Errors
    /// A defect of the build.
    pub fn local(
        authority: &Authority,
        hosts: Vec<String>,
        clock: Arc<dyn Clock>,
    ) -> Result<Tls, Error> {
        let certificates = HostCertificates::new(authority.clone(), hosts.clone(), clock);
        Ok(Tls {
            config: resolved(Arc::new(certificates))?,
            source: Source::Authority(authority.file().clone(), hosts),
            client_ca: None,
            expires: Some(authority.expires()),
        })
    }

    /// Returns TLS without a certificate: every handshake fails.
    ///
    /// # Errors
    /// A defect of the build.
    pub fn without_certificate() -> Result<Tls, Error> {
        Ok(Tls {
            config: resolved(Arc::new(ResolvesServerCertUsingSni::new()))?,
            source: Source::Nothing,
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

    pub(super) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(Arc::clone(&self.config))
    }
}

/// A server's configuration with certificates of `certificates`.
fn resolved(certificates: Arc<dyn ResolvesServerCert>) -> Result<Arc<ServerConfig>, Error> {
    let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(certificates);
    offer(&mut config);
    config.ticketer = Ticketer::new()?;
    Ok(Arc::new(config))
}

/// Sets the ALPN protocols, and who chooses the cipher suite.
fn offer(config: &mut ServerConfig) {
    // prefer the server's order: the strongest that both support
    config.ignore_client_order = true;
    config.alpn_protocols = vec![H2.to_vec(), HTTP1.to_vec()];
}

impl PartialEq for Tls {
    fn eq(&self, other: &Tls) -> bool {
        self.source == other.source
            && self.client_ca == other.client_ca
            && self.config.alpn_protocols == other.config.alpn_protocols
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls")
            .field("source", &self.source)
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

        fn read(&self) -> Tls {
            let at = |name: &str| self.folder.path().join(name);
            let identity = Identity::read(&at("cert.pem"), &at("key.pem")).unwrap();
            Tls::new(identity, None).unwrap()
        }
    }

    #[test]
    fn a_pair_counts_as_changed_by_its_content() {
        let (one, other) = (Pair::new(), Pair::new());
        let read = one.read();
        assert_eq!(one.read(), read);
        assert_ne!(other.read(), read);
        assert!(read.expires() > Some(SystemTime::UNIX_EPOCH));
    }
}
