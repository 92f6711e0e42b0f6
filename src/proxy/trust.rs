//! The certificates by which pingora verifies an instance, and those that are shown to it.
//!
//! A connector of pingora's verifies by one set of certificates, and keeps TLS sessions for those
//! only: it gets the set of its listener's own instance ([`Bundle`]). An instance with another set
//! brings it along with each new connection ([`roots`]), whose handshake is then a whole one; and
//! so is that of an instance to which a client certificate is shown ([`client_cert`]).
//!
//! pingora takes *either* the system's certificates *or* a file. Certificates added to the
//! system's therefore go to it as one file that holds both. The file has no name on any disk where
//! the system allows that: this program runs on read-only file systems.

use std::fs::File;
use std::io::{self, Write};

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use pingora_core::protocols::tls::CaType;
use pingora_core::utils::tls::{CertKey, WrappedX509, parse_x509};
use rustls::pki_types::CertificateDer;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

use crate::tls::{CaFile, Identity};

/// A PEM file with the system's certificates and others; it lasts as long as this value.
#[derive(Debug)]
pub(crate) struct Bundle {
    _file: File,
    path: String,
}

/// Why there is no such file.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be made.
    #[error("the system's certificates and those of ca_file cannot be put together: {0}")]
    Io(#[from] io::Error),
}

impl Bundle {
    /// The system's certificates and those of `ca_file`.
    ///
    /// # Errors
    /// [`Error`] if there is no place for the bundle.
    pub(crate) fn with(ca_file: &CaFile) -> Result<Bundle, Error> {
        let mut certificates = rustls_native_certs::load_native_certs().certs;
        certificates.extend_from_slice(ca_file.certificates());
        let (mut file, path) = nameless_file()?;
        for certificate in &certificates {
            write_pem(&mut file, certificate)?;
        }
        Ok(Bundle { _file: file, path })
    }

    /// Where it can be read.
    pub(crate) fn path(&self) -> &str {
        &self.path
    }
}

/// The system's certificates and those of `ca_file`, for a peer.
pub(crate) fn roots(ca_file: Option<&CaFile>) -> Arc<CaType> {
    let system = rustls_native_certs::load_native_certs().certs;
    let own = ca_file.map(CaFile::certificates).unwrap_or_default();
    let all = system.iter().chain(own).map(AsRef::<[u8]>::as_ref);
    // what cannot be read would be the end of this process
    let sound = all.filter(|der| X509Certificate::from_der(der).is_ok());
    let roots = sound.map(|der| WrappedX509::new(der.to_vec(), parse_x509));
    roots.collect()
}

/// A client certificate and its key, for a peer.
pub(crate) fn client_cert(identity: &Identity) -> CertKey {
    let certificates = identity.certificates().iter();
    CertKey::new(
        certificates.map(|der| der.to_vec()).collect(),
        identity.key().secret_der().to_vec(),
    )
}

#[cfg(target_os = "linux")]
fn nameless_file() -> io::Result<(File, String)> {
    use std::os::fd::AsRawFd;

    use rustix::fs::{MemfdFlags, memfd_create};

    let file = File::from(memfd_create("certificates", MemfdFlags::CLOEXEC)?);
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    Ok((file, path))
}

#[cfg(not(target_os = "linux"))]
fn nameless_file() -> io::Result<(File, String)> {
    let name = format!("collibra-auth-proxy-{}-ca.pem", std::process::id());
    let path = std::env::temp_dir().join(name);
    let file = File::create(&path)?;
    Ok((file, path.to_string_lossy().into_owned()))
}

fn write_pem(file: &mut File, certificate: &CertificateDer<'_>) -> io::Result<()> {
    let text = STANDARD.encode(certificate);
    writeln!(file, "-----BEGIN CERTIFICATE-----")?;
    for line in text.as_bytes().chunks(64) {
        file.write_all(line)?;
        writeln!(file)?;
    }
    writeln!(file, "-----END CERTIFICATE-----")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bundle_holds_the_systems_certificates_and_the_files() {
        let own = rcgen::generate_simple_self_signed(vec!["acme.test".into()]).unwrap();
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), own.cert.pem()).unwrap();
        let bundle = Bundle::with(&CaFile::read(file.path()).unwrap()).unwrap();
        let bundle = CaFile::read(bundle.path().as_ref()).unwrap();
        let read = bundle.certificates();
        assert!(read.contains(own.cert.der()));
        let system = rustls_native_certs::load_native_certs().certs.len();
        assert_eq!(read.len(), system + 1);
    }
}
