//! Accepts a server by its own certificate, if that is in `ca_file`.
//!
//! A self-signed certificate usually is an authority's too (`openssl req -x509` writes it so), and
//! the library refuses an authority's certificate as a server's. A user who names it in `ca_file`
//! trusts it with more than that: with every certificate that it could sign.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_name;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, DigitallySignedStruct, Error as TlsError, RootCertStore, SignatureScheme,
};

use super::{CaFile, Error, Reason, begins, expiry};

/// Verifies as the library does, and also accepts a certificate of the file as the server's own, if
/// it names the host and is valid now.
#[derive(Debug)]
pub(super) struct Verifier {
    file: CaFile,
    roots: Arc<WebPkiServerVerifier>,
}

impl Verifier {
    /// One for the certificates of `file`, which `roots` has among others.
    pub(super) fn new(
        file: &CaFile,
        roots: Arc<RootCertStore>,
        provider: Arc<CryptoProvider>,
    ) -> Result<Verifier, Error> {
        let roots = WebPkiServerVerifier::builder_with_provider(roots, provider).build();
        Ok(Verifier {
            file: file.clone(),
            roots: roots.map_err(|_| Error {
                path: None,
                reason: Reason::NoRoots,
            })?,
        })
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        if !self.file.certificates().contains(end_entity) {
            return self.roots.verify_server_cert(
                end_entity,
                intermediates,
                server_name,
                ocsp_response,
                now,
            );
        }
        verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(now.as_secs());
        match (begins(end_entity), expiry(end_entity)) {
            (Some(begins), _) if begins > now => Err(CertificateError::NotValidYet.into()),
            (_, Some(end)) if end >= now => Ok(ServerCertVerified::assertion()),
            _ => Err(CertificateError::Expired.into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        { &*self.roots }.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        { &*self.roots }.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.roots.supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};
    use std::time::Duration;

    const DAY: u64 = 24 * 3600;
    /// 2026-11-30.
    const NOW: u64 = 1_796_000_000;

    /// A certificate that its server made for itself, of 2020 to 2040, and calls an authority.
    fn made(host: &str) -> rcgen::Certificate {
        let mut params = CertificateParams::new(vec![host.to_owned()]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(2040, 1, 1);
        params.self_signed(&KeyPair::generate().unwrap()).unwrap()
    }

    fn verified(
        in_file: &rcgen::Certificate,
        shown: &rcgen::Certificate,
        host: &str,
        now: u64,
    ) -> Result<(), TlsError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), in_file.pem()).unwrap();
        let file = CaFile::read(file.path()).unwrap();
        let roots = Arc::new(super::super::roots(Some(&file)).unwrap());
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = Verifier::new(&file, roots, provider).unwrap();
        let name = ServerName::try_from(host).unwrap();
        let now = UnixTime::since_unix_epoch(Duration::from_secs(now));
        let verified = verifier.verify_server_cert(shown.der(), &[], &name, &[], now);
        verified.map(drop)
    }

    #[test]
    fn a_server_is_accepted_by_its_very_certificate_for_its_own_name() {
        let own = made("acme.test");
        assert_eq!(verified(&own, &own, "acme.test", NOW), Ok(()));
        let wrong_name = verified(&own, &own, "other.test", NOW).unwrap_err();
        assert!(
            matches!(
                wrong_name,
                TlsError::InvalidCertificate(CertificateError::NotValidForNameContext { .. })
            ),
            "{wrong_name}"
        );
        for (now, error) in [
            (NOW + 20 * 365 * DAY, CertificateError::Expired),
            (NOW - 20 * 365 * DAY, CertificateError::NotValidYet),
        ] {
            assert_eq!(
                verified(&own, &own, "acme.test", now),
                Err(TlsError::InvalidCertificate(error))
            );
        }
        // what another one made for the same name is another certificate
        assert!(verified(&own, &made("acme.test"), "acme.test", NOW).is_err());
    }
}
