//! The other end of an app's connection, as far as the connection identifies it.

use std::net::SocketAddr;
use std::sync::Arc;

use http::HeaderValue;
use rustls::pki_types::CertificateDer;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

/// The other end of a connection.
#[derive(Debug, Default)]
pub(crate) struct Peer {
    /// Whether it uses TLS.
    pub(crate) tls: bool,
    /// Its address; none over a unix socket.
    pub(crate) address: Option<SocketAddr>,
    /// The names on its certificate, if it showed one; none that was not verified. The DNS names,
    /// URIs and mail addresses among the alternative names, as they are written there; the
    /// subject's common name only if there are no alternative names at all (RFC 9525, section 2;
    /// RFC 5280, section 4.2.1.6).
    pub(crate) certificate_names: Vec<String>,
    /// The tunnel that it opened at a forward listener; every request must name the tunnel's host.
    pub(crate) tunnel: Option<Arc<Tunnel>>,
}

/// A tunnel, as a CONNECT request asked for it.
#[derive(Debug, PartialEq)]
pub(crate) struct Tunnel {
    /// The host, in lower case; an IPv6 address in brackets.
    pub(crate) host: String,
    /// The port.
    pub(crate) port: u16,
    /// The caller's `Proxy-Authorization`, which authenticates its requests.
    pub(crate) authorization: Option<HeaderValue>,
}

impl Peer {
    /// Returns a TLS peer that showed these verified certificates, its own first.
    pub(crate) fn with_tls(
        address: Option<SocketAddr>,
        certificates: Option<&[CertificateDer<'_>]>,
    ) -> Peer {
        let own = certificates.and_then(<[_]>::first);
        Peer {
            tls: true,
            address,
            certificate_names: own.map(names).unwrap_or_default(),
            tunnel: None,
        }
    }
}

fn names(certificate: &CertificateDer<'_>) -> Vec<String> {
    // verified, so it can be parsed
    let Ok((_, certificate)) = X509Certificate::from_der(certificate) else {
        return Vec::new();
    };
    let mut names: Vec<String> = Vec::new();
    // one that cannot be read is there
    let alternative = certificate.subject_alternative_name();
    if matches!(alternative, Ok(None)) {
        for common_name in certificate.subject().iter_common_name() {
            names.extend(common_name.as_str().ok().map(str::to_owned));
        }
    }
    let alternative = alternative.ok().flatten();
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
    names
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, DnType, KeyPair, SanType};

    #[test]
    fn a_certificates_names_are_its_alternative_ones() {
        let mut params = common_name("lineage", &["lineage.example"]);
        for san in [
            SanType::URI("spiffe://acme/lineage".try_into().unwrap()),
            SanType::Rfc822Name("lineage@acme.example".try_into().unwrap()),
            SanType::IpAddress("10.0.0.1".parse().unwrap()),
        ] {
            params.subject_alt_names.push(san);
        }
        let names = [
            "lineage.example",
            "lineage@acme.example",
            "spiffe://acme/lineage",
        ];
        assert_eq!(shown(params), names);
        let without = Peer::with_tls(None, None);
        assert_eq!(without.certificate_names, [] as [String; 0]);
    }

    #[test]
    fn a_common_name_counts_only_without_alternative_ones() {
        assert_eq!(shown(common_name("lineage", &[])), ["lineage"]);
        // an address is an alternative name too
        let by_address = common_name("lineage", &["10.0.0.1"]);
        assert_eq!(shown(by_address), [] as [String; 0]);
    }

    fn common_name(name: &str, alternative: &[&str]) -> CertificateParams {
        let alternative = alternative.iter().map(ToString::to_string);
        let mut params = CertificateParams::new(alternative.collect::<Vec<_>>()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params
    }

    fn shown(params: CertificateParams) -> Vec<String> {
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let peer = Peer::with_tls(None, Some(&[certificate.der().clone()]));
        assert!(peer.tls);
        peer.certificate_names
    }
}
