//! Whom to trust: the system's root certificates, and those of a file besides.
//!
//! Every connection that this program opens for itself verifies the other side by these; there is
//! no switch that turns verification off.
//!
//! A file is read once, when the configuration is ([`CaFile`]): what it holds later counts only
//! once the configuration is read again, and then for every part of the program at once.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{CertificateError, RootCertStore};

/// The certificates of a PEM file, as they were when it was read: at least one, each fit to be a
/// root. Equal to another that has the same path and content.
#[derive(Clone, PartialEq, Eq)]
pub struct CaFile {
    path: PathBuf,
    certificates: Vec<CertificateDer<'static>>,
}

impl CaFile {
    /// Reads `path`.
    ///
    /// # Errors
    /// [`Error`] if the file cannot be read or holds no certificates that can be used.
    pub fn read(path: &Path) -> Result<CaFile, Error> {
        Ok(CaFile {
            path: path.to_owned(),
            certificates: certificates(path)?,
        })
    }

    /// What it held.
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
/// On Linux the variables `SSL_CERT_FILE` and `SSL_CERT_DIR` say where the system's are, if set.
/// System certificates that cannot be read are left out: `ca_file` alone may do.
///
/// # Errors
/// [`Error`] if there is no root certificate at all.
pub fn roots(ca_file: Option<&CaFile>) -> Result<RootCertStore, Error> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if let Some(file) = ca_file {
        roots.add_parsable_certificates(file.certificates.iter().cloned());
    }
    if roots.is_empty() {
        return Err(Error {
            path: None,
            reason: Reason::NoRoots,
        });
    }
    Ok(roots)
}

/// A client's TLS configuration: [`roots`], TLS 1.2 and 1.3, no client certificate, no ALPN.
///
/// # Errors
/// As [`roots`].
pub fn client_config(ca_file: Option<&CaFile>) -> Result<rustls::ClientConfig, Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    Ok(rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|_| Error {
            path: None,
            reason: Reason::Provider,
        })?
        .with_root_certificates(roots(ca_file)?)
        .with_no_client_auth())
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let pem = std::fs::read(path).map_err(|e| Error::of(path, Reason::Unreadable(e)))?;
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<_, _>>()
        .map_err(|_| Error::of(path, Reason::NotCertificates))?;
    if certificates.is_empty() {
        return Err(Error::of(path, Reason::Empty));
    }
    let mut trial = RootCertStore::empty();
    for certificate in &certificates {
        trial
            .add(certificate.clone())
            .map_err(|_| Error::of(path, Reason::NotCertificates))?;
    }
    Ok(certificates)
}

/// What to do about a certificate that is not accepted for `reason`.
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
        _ => "whoever runs that host must mend it",
    }
}

/// Why there are no root certificates to verify by. Permanent until a person mends it.
#[derive(Debug)]
pub struct Error {
    /// The file at fault, if one is.
    pub path: Option<PathBuf>,
    /// What is wrong with it.
    pub reason: Reason,
}

/// What is wrong with certificates. Never quotes their file's name or content.
#[derive(Debug, thiserror::Error)]
pub enum Reason {
    /// The file cannot be read.
    #[error("the file cannot be read: {0}")]
    Unreadable(#[source] std::io::Error),
    /// The file has no certificate.
    #[error(
        "there is no certificate in the file; it should be PEM, with -----BEGIN CERTIFICATE-----"
    )]
    Empty,
    /// What the file has is damaged.
    #[error("the file has a certificate that cannot be read; it should be PEM, unaltered")]
    NotCertificates,
    /// The system has none, and no file was given.
    #[error(
        "the system has no root certificates; install its package ca-certificates, or set ca_file"
    )]
    NoRoots,
    /// The cryptography offers no version of TLS; a fault of the build.
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

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(path) = &self.path {
            write!(f, "{}: ", path.display())?;
        }
        write!(f, "{}", self.reason)
    }
}

impl std::error::Error for Error {}

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
            (CertificateError::Revoked, "whoever runs"),
        ] {
            assert!(certificate_advice(&reason).contains(advice), "{reason}");
        }
    }
}
