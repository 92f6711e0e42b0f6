//! The other end of an app's connection, as far as the connection identifies it.

use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

/// The other end of a connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Peer {
    /// Whether it uses TLS.
    pub tls: bool,
    /// The names in its verified certificate, if it sent one: the subject's common name, and the
    /// DNS names, URIs and mail addresses among the alternative names (RFC 5280, sections 4.1.2.6
    /// and 4.2.1.6), unmodified.
    pub certificate_names: Arc<[String]>,
}

impl Peer {
    /// Returns a TLS peer with this verified certificate, if any.
    pub(super) fn with_tls(certificate: Option<&CertificateDer<'_>>) -> Peer {
        Peer {
            tls: true,
            certificate_names: certificate.map(names).unwrap_or_default(),
        }
    }
}

fn names(certificate: &CertificateDer<'_>) -> Arc<[String]> {
    // verified, so it can be parsed
    let Ok((_, certificate)) = X509Certificate::from_der(certificate) else {
        return Arc::default();
    };
    let mut names: Vec<String> = Vec::new();
    for common_name in certificate.subject().iter_common_name() {
        names.extend(common_name.as_str().ok().map(str::to_owned));
    }
    let alternative = certificate.subject_alternative_name().ok().flatten();
    for name in alternative.iter().flat_map(|san| &san.value.general_names) {
        match name {
            GeneralName::DNSName(name) | GeneralName::URI(name) | GeneralName::RFC822Name(name) => {
                names.push((*name).to_owned());
            }
            _ => {}
        }
    }
    names.sort();
    names.dedup();
    names.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, DnType, KeyPair, SanType};

    #[test]
    fn a_certificates_names_are_its_subjects_and_its_alternative_ones() {
        let mut params = CertificateParams::new(vec!["lineage.example".to_owned()]).unwrap();
        params
            .distinguished_name
            .push(DnType::CommonName, "lineage");
        for san in [
            SanType::URI("spiffe://acme/lineage".try_into().unwrap()),
            SanType::Rfc822Name("lineage@acme.example".try_into().unwrap()),
            SanType::IpAddress("10.0.0.1".parse().unwrap()),
        ] {
            params.subject_alt_names.push(san);
        }
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let peer = Peer::with_tls(Some(certificate.der()));
        assert!(peer.tls);
        assert_eq!(
            *peer.certificate_names,
            [
                "lineage",
                "lineage.example",
                "lineage@acme.example",
                "spiffe://acme/lineage"
            ]
        );
        assert_eq!(*Peer::with_tls(None).certificate_names, [] as [String; 0]);
    }
}
