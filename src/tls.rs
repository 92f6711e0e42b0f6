//! Whom to trust: the system's root certificates, and those of a file besides. A server whose very
//! certificate stands in the file is trusted too, whether or not it is fit to be an authority.
//!
//! Every connection that this program opens verifies the server with these; verification cannot be
//! switched off.
//!
//! A file is read once, together with the configuration ([`CaFile`]). A later content applies only
//! after a reload, and then to every part of the program at once.

mod own_certificate;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{CertificateError, RootCertStore};
use secrecy::zeroize::Zeroizing;
use x509_parser::certificate::{Validity, X509Certificate};
use x509_parser::prelude::FromDer;
use x509_parser::time::ASN1Time;

/// The ALPN name of HTTP/2 (RFC 9113, section 3.2).
pub const H2: &[u8] = b"h2";

/// The certificates of a PEM file, as they were when it was read: at least one, each fit to be a
/// root. Equal to another that has the same path and content.
///
/// Clones compare equal without comparing certificates.
#[derive(Clone, PartialEq, Eq)]
pub struct CaFile {
    path: PathBuf,
    certificates: Arc<Vec<CertificateDer<'static>>>,
}

impl CaFile {
    /// Reads `path`.
    ///
    /// # Errors
    /// [`Error`] if the file cannot be read or has no usable certificate.
    pub fn read(path: &Path) -> Result<CaFile, Error> {
        Ok(CaFile {
            path: path.to_owned(),
            certificates: Arc::new(certificates(path)?),
        })
    }

    /// The certificates.
    #[must_use]
    pub fn certificates(&self) -> &[CertificateDer<'static>] {
        &self.certificates
    }
}

impl fmt::Debug for CaFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CaFile")
            .field("path", &self.path)
            .field("certificates", &self.certificates.len())
            .finish()
    }
}

/// The system's root certificates and those of `ca_file`.
///
/// On Linux, `SSL_CERT_FILE` and `SSL_CERT_DIR` locate the system's certificates, if set.
/// Unreadable system certificates are skipped: `ca_file` alone may suffice.
///
/// # Errors
/// [`Error`] if there is no root certificate at all.
pub fn roots(ca_file: Option<&CaFile>) -> Result<RootCertStore, Error> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if let Some(file) = ca_file {
        roots.add_parsable_certificates(file.certificates().iter().cloned());
    }
    if roots.is_empty() {
        return Err(Error {
            path: None,
            reason: Reason::NoRoots,
        });
    }
    Ok(roots)
}

/// A client's TLS configuration: [`roots`] and the servers' certificates of `ca_file`, TLS 1.2 and
/// 1.3, no client certificate, no ALPN.
///
/// # Errors
/// As [`roots`].
pub fn client_config(ca_file: Option<&CaFile>) -> Result<rustls::ClientConfig, Error> {
    config_of_client(ca_file, None)
}

/// As [`client_config`], with a client certificate for servers that ask for one.
///
/// # Errors
/// As [`roots`].
pub fn config_of_client(
    ca_file: Option<&CaFile>,
    identity: Option<&Identity>,
) -> Result<rustls::ClientConfig, Error> {
    let fault = |reason| Error { path: None, reason };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let roots = Arc::new(roots(ca_file)?);
    let builder = rustls::ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|_| fault(Reason::Provider))?;
    let builder = match ca_file {
        None => builder.with_root_certificates(roots),
        Some(file) => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(own_certificate::Verifier::new(
                file, roots, provider,
            )?)),
    };
    let Some(identity) = identity else {
        return Ok(builder.with_no_client_auth());
    };
    let (certificates, key) = (identity.certificates().to_vec(), identity.key().clone_key());
    builder
        .with_client_auth_cert(certificates, key)
        .map_err(|_| fault(Reason::Mismatch))
}

/// A matching certificate and key that identify this program to a server. Two are equal if they
/// have the same content.
#[derive(Clone, PartialEq, Eq)]
pub struct Identity {
    path: PathBuf,
    certificates: Arc<Vec<CertificateDer<'static>>>,
    key: Arc<PrivateKeyDer<'static>>,
}

impl Identity {
    /// Reads a PEM file with a certificate and its chain, and one with its key.
    ///
    /// # Errors
    /// [`Error`] names the file at fault: the key's if the two do not match.
    pub fn read(certificate: &Path, key: &Path) -> Result<Identity, Error> {
        let certificates = certificates(certificate)?;
        let pem = std::fs::read(key).map_err(|e| Error::of(key, Reason::Unreadable(e)))?;
        let pem = Zeroizing::new(pem);
        let private = PrivateKeyDer::from_pem_slice(text_of(&pem))
            .map_err(|_| Error::of(key, Reason::NotAKey))?;
        let provider = rustls::crypto::ring::default_provider();
        CertifiedKey::from_der(certificates.clone(), private.clone_key(), &provider).map_err(
            |error| match error {
                rustls::Error::InconsistentKeys(_) => Error::of(key, Reason::Mismatch),
                rustls::Error::InvalidCertificate(_) => {
                    Error::of(certificate, Reason::NotCertificates)
                }
                _ => Error::of(key, Reason::UnusableKey),
            },
        )?;
        Ok(Identity {
            path: certificate.to_owned(),
            certificates: Arc::new(certificates),
            key: Arc::new(private),
        })
    }

    /// The certificate, followed by its chain.
    #[must_use]
    pub fn certificates(&self) -> &[CertificateDer<'static>] {
        &self.certificates
    }

    /// The key.
    #[must_use]
    pub fn key(&self) -> &PrivateKeyDer<'static> {
        &self.key
    }

    /// When the first certificate of the chain expires.
    #[must_use]
    pub fn expires(&self) -> Option<SystemTime> {
        self.certificates.iter().filter_map(expiry).min()
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

/// `pem` without a byte order mark, which would hide the first line from the parser.
#[must_use]
pub fn text_of(pem: &[u8]) -> &[u8] {
    pem.strip_prefix("\u{feff}".as_bytes()).unwrap_or(pem)
}

/// When `certificate` expires, if it says so; an end before 1970 counts as 1970.
#[must_use]
pub fn expiry(certificate: &CertificateDer<'_>) -> Option<SystemTime> {
    moment(certificate, |validity| validity.not_after)
}

/// When the validity of `certificate` starts, if it says so; a start before 1970 counts as 1970.
#[must_use]
pub fn begins(certificate: &CertificateDer<'_>) -> Option<SystemTime> {
    moment(certificate, |validity| validity.not_before)
}

fn moment(certificate: &CertificateDer<'_>, of: fn(&Validity) -> ASN1Time) -> Option<SystemTime> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let seconds = u64::try_from(of(certificate.validity()).timestamp()).unwrap_or(0);
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
}

/// The certificates in the file at `path`: at least one, each fit to be a root.
fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let pem = std::fs::read(path).map_err(|e| Error::of(path, Reason::Unreadable(e)))?;
    let mut certificates = Vec::new();
    let mut trial = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(text_of(&pem)) {
        let certificate = certificate.map_err(|_| Error::of(path, Reason::NotCertificates))?;
        let added = trial.add(certificate.clone());
        added.map_err(|_| Error::of(path, Reason::NotCertificates))?;
        certificates.push(certificate);
    }
    match certificates.is_empty() {
        true => Err(Error::of(path, Reason::Empty)),
        false => Ok(certificates),
    }
}

/// What to do about a certificate that is rejected for `reason`.
#[must_use]
pub fn certificate_advice(reason: &CertificateError) -> &'static str {
    use CertificateError::{
        Expired, ExpiredContext, NotValidForName, NotValidForNameContext, NotValidYet,
        NotValidYetContext, UnknownIssuer,
    };
    match reason {
        UnknownIssuer => {
            "if a private authority or a proxy that inspects TLS issued it, name that authority's certificate in ca_file"
        }
        NotValidForName | NotValidForNameContext { .. } => {
            "it belongs to another host: check the instance's url"
        }
        Expired | ExpiredContext { .. } | NotValidYet | NotValidYetContext { .. } => {
            "check this machine's clock, then the certificate"
        }
        _ => "that host's operator must fix it",
    }
}

/// Why there is no usable trust anchor. Permanent until the file or the system is fixed.
#[derive(Debug, thiserror::Error)]
#[error("{}{reason}", path.iter().map(|path| format!("{}: ", path.display())).collect::<String>())]
pub struct Error {
    /// The file at fault, if any.
    pub path: Option<PathBuf>,
    /// What is wrong.
    pub reason: Reason,
}

/// What is wrong with the certificates. Never quotes a file's name or content.
#[derive(Debug, thiserror::Error)]
pub enum Reason {
    /// The file cannot be read.
    #[error("the file cannot be read: {0}")]
    Unreadable(#[source] std::io::Error),
    /// The file contains no certificate.
    #[error(
        "there is no certificate in the file; it should be PEM, with -----BEGIN CERTIFICATE-----"
    )]
    Empty,
    /// The file's content is damaged.
    #[error("the file has a damaged certificate; it should be unmodified PEM")]
    NotCertificates,
    /// The file contains no private key.
    #[error("there is no private key in the file; it should be PEM, without a password")]
    NotAKey,
    /// The library cannot use the key.
    #[error("the key cannot be used: it is damaged, or none of RSA, ECDSA and EdDSA")]
    UnusableKey,
    /// The certificate and the key do not match.
    #[error("the key does not belong to the certificate")]
    Mismatch,
    /// The system has no root certificates, and no file was given.
    #[error(
        "the system has no root certificates; install its package ca-certificates, or set ca_file"
    )]
    NoRoots,
    /// The cryptography library supports no version of TLS; a defect of the build.
    #[error("this build has no usable version of TLS")]
    Provider,
}

impl Error {
    fn of(path: &Path, reason: Reason) -> Error {
        Error {
            path: Some(path.to_owned()),
            reason,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(content: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), content).unwrap();
        file
    }

    fn authority() -> String {
        rcgen::generate_simple_self_signed(vec!["acme.test".into()])
            .unwrap()
            .cert
            .pem()
    }

    #[test]
    fn a_file_adds_to_the_systems_roots() {
        let two = file(&format!("{}{}", authority(), authority()));
        let system = rustls_native_certs::load_native_certs().certs;
        let mut without = RootCertStore::empty();
        without.add_parsable_certificates(system);
        let two = CaFile::read(two.path()).unwrap();
        assert_eq!(two.certificates().len(), 2);
        let with = roots(Some(&two)).unwrap();
        assert_eq!(with.len(), without.len() + 2);
        assert!(client_config(Some(&two)).is_ok());
    }

    #[test]
    fn a_certificate_and_its_key_are_read_as_one() {
        let made = || rcgen::generate_simple_self_signed(vec!["app.test".into()]).unwrap();
        let (own, other) = (made(), made());
        let (cert, key) = (
            file(&own.cert.pem()),
            file(&own.signing_key.serialize_pem()),
        );
        let identity = Identity::read(cert.path(), key.path()).unwrap();
        assert_eq!(identity, Identity::read(cert.path(), key.path()).unwrap());
        assert!(identity.expires().is_some());
        assert!(config_of_client(None, Some(&identity)).is_ok());
        assert!(!format!("{identity:?}").contains("Key"), "{identity:?}");

        let marked = |pem: String| file(&format!("\u{feff}{pem}"));
        let (cert_too, key_too) = (
            marked(own.cert.pem()),
            marked(own.signing_key.serialize_pem()),
        );
        let too = Identity::read(cert_too.path(), key_too.path()).unwrap();
        assert_eq!(too.certificates(), identity.certificates());
        assert_eq!(too.key(), identity.key());

        let wrong = file(&other.signing_key.serialize_pem());
        let error = Identity::read(cert.path(), wrong.path()).unwrap_err();
        assert!(matches!(error.reason, Reason::Mismatch), "{error}");
        let error = Identity::read(cert.path(), cert.path()).unwrap_err();
        assert!(matches!(error.reason, Reason::NotAKey), "{error}");
        let error = Identity::read(key.path(), key.path()).unwrap_err();
        assert!(matches!(error.reason, Reason::Empty), "{error}");
    }

    #[test]
    fn a_file_counts_as_changed_by_its_content() {
        let file = file(&authority());
        let before = CaFile::read(file.path()).unwrap();
        assert_eq!(CaFile::read(file.path()).unwrap(), before);
        std::fs::write(file.path(), authority()).unwrap();
        assert_ne!(CaFile::read(file.path()).unwrap(), before);
    }

    #[test]
    fn what_holds_no_certificate_is_refused_by_name() {
        let empty = file("just text\n");
        let error = CaFile::read(empty.path()).unwrap_err();
        assert!(matches!(error.reason, Reason::Empty), "{error}");
        assert!(error.to_string().contains(&*empty.path().to_string_lossy()));

        let damaged = file("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
        let error = CaFile::read(damaged.path()).unwrap_err();
        assert!(matches!(error.reason, Reason::NotCertificates), "{error}");

        let error = CaFile::read(Path::new("/nonexistent/ca.pem")).unwrap_err();
        assert!(matches!(error.reason, Reason::Unreadable(_)), "{error}");
    }

    #[test]
    fn each_fault_of_a_certificate_has_its_advice() {
        for (reason, advice) in [
            (CertificateError::UnknownIssuer, "ca_file"),
            (CertificateError::NotValidForName, "url"),
            (CertificateError::Expired, "clock"),
            (CertificateError::NotValidYet, "clock"),
            (CertificateError::Revoked, "operator"),
        ] {
            assert!(certificate_advice(&reason).contains(advice), "{reason}");
        }
    }
}
