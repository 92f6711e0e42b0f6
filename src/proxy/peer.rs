//! Who is at the other end of an app's connection, as far as the connection itself tells.

use std::sync::Arc;

use pingora_core::protocols::Digest;
use pingora_core::protocols::raw_connect::ProxyDigest;
use pingora_http::ResponseHeader;
use pingora_proxy::Session;
use rustls::pki_types::CertificateDer;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

/// The other end of a connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Peer {
    /// Whether it speaks TLS.
    pub tls: bool,
    /// The names on its certificate, if it showed one; none that was not verified. The subject's
    /// common name, and the DNS names, URIs and mail addresses among the alternative ones (RFC
    /// 5280, sections 4.1.2.6 and 4.2.1.6), as they are written there.
    pub certificate_names: Arc<[String]>,
}

impl Peer {
    /// One that speaks TLS and has shown `certificate`, verified, or none.
    pub(super) fn with_tls(certificate: Option<&CertificateDer<'_>>) -> Peer {
        Peer {
            tls: true,
            certificate_names: certificate.map(names).unwrap_or_default(),
        }
    }

    /// The one whose request `session` is, over HTTP/1 or HTTP/2.
    pub(super) fn of(session: &Session) -> Peer {
        Peer::in_digest(session.as_downstream().digest())
    }

    fn in_digest(digest: Option<&Digest>) -> Peer {
        let ours = digest.and_then(|digest| digest.proxy_digest.as_ref()?.user_data.as_ref());
        let peer = ours.and_then(|data| data.downcast_ref::<Peer>());
        peer.cloned().unwrap_or_default()
    }

    /// This, for pingora to carry: what a connection is known by has one place for something of
    /// another's, that for the proxy which it came by.
    pub(super) fn into_digest(self) -> Option<Arc<ProxyDigest>> {
        let unused = ResponseHeader::build(200, Some(0)).ok()?;
        Some(Arc::new(ProxyDigest::new(
            Box::new(unused),
            Some(Box::new(self)),
        )))
    }
}

fn names(certificate: &CertificateDer<'_>) -> Arc<[String]> {
    // verified, so it can be read
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
    use crate::proxy::connection::{Connection, Limits};
    use crate::proxy::tls::Tls;
    use crate::proxy::transport::Transport;
    use crate::socket::Accepted;
    use crate::telemetry::Metrics;
    use crate::tls::CaFile;
    use pingora_core::protocols::GetProxyDigest;
    use pingora_core::protocols::http::v2::server::{H2Accept, HttpSession, handshake};
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

    /// A client's configuration with a certificate for `lineage.example`, and the server's that
    /// takes it; both trust the same self-signed one.
    fn both_sides(alpn: &[u8]) -> (rustls::ClientConfig, Tls) {
        let made = rcgen::generate_simple_self_signed(vec!["lineage.example".into()]).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let at = |name| folder.path().join(name);
        std::fs::write(at("cert"), made.cert.pem()).unwrap();
        std::fs::write(at("key"), made.signing_key.serialize_pem()).unwrap();
        let authority = CaFile::read(&at("cert")).unwrap();
        let tls = Tls::read(&at("cert"), &at("key"), Some(authority)).unwrap();
        let mut roots = rustls::RootCertStore::empty();
        roots.add(made.cert.der().clone()).unwrap();
        let key = made.signing_key.serialize_der().try_into().unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut client = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_client_auth_cert(vec![made.cert.der().clone()], key)
            .unwrap();
        client.alpn_protocols = vec![alpn.to_vec()];
        (client, tls)
    }

    /// A connection from such a client, and the client's side of it.
    async fn connection(
        alpn: &[u8],
    ) -> (
        Connection,
        tokio_rustls::client::TlsStream<tokio::net::TcpStream>,
    ) {
        let (client, tls) = both_sides(alpn);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let connect = async {
            let tcp = tokio::net::TcpStream::connect(address).await.unwrap();
            let connector = tokio_rustls::TlsConnector::from(Arc::new(client));
            let name = "lineage.example".try_into().unwrap();
            connector.connect(name, tcp).await.unwrap()
        };
        let accept = async {
            let (tcp, _) = listener.accept().await.unwrap();
            let stream = tokio::io::BufReader::new(Accepted::Tcp(tcp));
            tls.acceptor().accept(stream).await.unwrap()
        };
        let (client, accepted) = tokio::join!(connect, accept);
        let limits = Limits {
            header_timeout: std::time::Duration::from_secs(10),
            max_header_bytes: 65_536,
            min_body_rate: None,
        };
        let metrics = Metrics::new("0.0.0").listener("local");
        let open = metrics.connection();
        let transport = Transport::Tls(Box::new(accepted));
        (Connection::new(transport, limits, metrics, open), client)
    }

    #[tokio::test]
    async fn the_hooks_know_the_names_over_http_1() {
        let (connection, _client) = connection(b"http/1.1").await;
        assert!(!connection.is_http2());
        let session = Session::new_h1(Box::new(connection));
        let peer = Peer::of(&session);
        assert!(peer.tls);
        assert!(
            peer.certificate_names
                .contains(&"lineage.example".to_owned())
        );
    }

    #[tokio::test]
    async fn and_over_http_2() {
        let (connection, client) = connection(b"h2").await;
        assert!(connection.is_http2());
        let digest = Arc::new(Digest {
            proxy_digest: connection.get_proxy_digest(),
            ..Digest::default()
        });
        let app = async {
            let (mut requests, driver) = h2::client::handshake(client).await.unwrap();
            tokio::spawn(driver);
            let request = http::Request::get("https://localhost/x").body(()).unwrap();
            requests.send_request(request, true).unwrap()
        };
        let serve = async {
            let mut served = handshake(Box::new(connection), None).await.unwrap();
            let accepted = HttpSession::from_h2_conn(&mut served, digest).await;
            match accepted.unwrap().unwrap() {
                H2Accept::Session(session) => session,
                H2Accept::Rejected => panic!("rejected"),
            }
        };
        let (_response, session) = tokio::join!(app, serve);
        let peer = Peer::in_digest(session.digest());
        assert!(
            peer.certificate_names
                .contains(&"lineage.example".to_owned())
        );
    }
}
