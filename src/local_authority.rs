//! The local authority: a certificate authority of this installation, which certifies the
//! configured instances' hosts to apps that call them through this proxy.
//!
//! An app that trusts it trusts the holder of its key with these hosts and nothing else. Apps trust
//! the root, whose key is discarded once it has signed the intermediate. The intermediate's key is
//! kept and signs the certificates for hosts. Both permit the hosts' DNS names (and their
//! subdomains) and exclude all IP addresses, by a critical extension (RFC 5280, section 4.2.1.10);
//! the intermediate may certify servers only, and no further authority. A root alone would not do:
//! Java ignores the constraints of a certificate that it trusts as a root.
//!
//! A host's certificate is issued when a handshake needs it, cached in memory, and replaced after
//! half of its life.

use std::collections::HashMap;
use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CidrSubnet, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, GeneralSubtree, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    NameConstraints, SanType, SerialNumber,
};
use ring::digest::{SHA256, digest};
use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::ring::sign::any_ecdsa_type;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;

use crate::clock::Clock;
use crate::random;
use crate::secret::Secret;
use crate::tls::{self, CaFile, Identity, Reason};

/// The life of the authority's certificate.
const LIFE: Duration = Duration::from_secs(3 * 365 * 24 * 3600);

/// The life of a host's certificate.
const HOST_LIFE: Duration = Duration::from_secs(30 * 24 * 3600);

/// How long before it is issued a certificate becomes valid, for apps whose clock is slow.
const CLOCK_SKEW: Duration = Duration::from_secs(3600);

/// The longest common name (RFC 5280, appendix A.1).
const LONGEST_COMMON_NAME: usize = 64;

/// The files of an authority.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    /// The root, which apps trust.
    pub certificate: PathBuf,
    /// The key that signs certificates for hosts, followed by its certificate, the intermediate.
    /// Only the proxy's user can read it.
    pub key: PathBuf,
}

/// An authority with its key. Two are equal if their certificates are.
#[derive(Clone)]
pub struct Authority(Arc<Inner>);

struct Inner {
    /// The root, which apps trust.
    file: CaFile,
    /// The intermediate, which certifies the kept key.
    issuing: CertificateDer<'static>,
    hosts: Vec<String>,
    expires: SystemTime,
    issuer: Issuer<'static, KeyPair>,
}

/// A new authority, in PEM.
#[derive(Debug)]
pub struct Created {
    /// The text of [`Files::certificate`].
    pub certificate: String,
    /// The text of [`Files::key`].
    pub key: Secret,
}

/// Why an authority cannot be read or created. Never quotes a file's content.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The certificate's file is unusable.
    #[error("{0}")]
    Certificate(Reason),
    /// The key's file cannot be read.
    #[error("the file cannot be read: {0}")]
    KeyUnreadable(#[source] std::io::Error),
    /// The key's file has no usable key.
    #[error(
        "the file has no ECDSA key with its certificate, as `collibra-auth-proxy ca init` writes them"
    )]
    NoKey,
    /// The root did not sign the key's certificate.
    #[error("the key does not belong to the certificate in local-ca.pem")]
    Mismatch,
    /// The certificate does not limit which names its key can certify.
    #[error("the certificate has no name constraints, so its key could certify any host")]
    Unconstrained,
    /// The library refuses a name, or cannot sign.
    #[error("a certificate cannot be issued: {0}")]
    Make(#[from] rcgen::Error),
}

impl Error {
    /// Returns whether the fault is in the key's file.
    #[must_use]
    pub fn is_of_key(&self) -> bool {
        matches!(
            self,
            Error::KeyUnreadable(_) | Error::NoKey | Error::Mismatch
        )
    }
}

impl Files {
    /// The files in `directory`.
    #[must_use]
    pub fn beside(directory: &Path) -> Files {
        Files {
            certificate: directory.join("local-ca.pem"),
            key: directory.join("local-ca.key"),
        }
    }
}

/// Creates an authority for `hosts`, DNS names, that is valid from `now` on.
///
/// # Errors
/// [`Error::Make`] if a host is not a DNS name.
pub fn create(hosts: &[String], now: SystemTime) -> Result<Created, Error> {
    // programs would confuse two authorities of the same name
    let name = format!("collibra-auth-proxy {:08x}", random::unique() >> 96);
    let trusted = of_authority(&format!("{name} local authority"), 1, hosts, now);
    let trusted_key = KeyPair::generate()?;
    let mut issuing = of_authority(&format!("{name} issuing"), 0, hosts, now);
    issuing.use_authority_key_identifier_extension = true;
    let key = KeyPair::generate()?;
    let issuer = Issuer::from_params(&trusted, &trusted_key);
    let issuing = issuing.signed_by(&key, &issuer)?;
    let certificate = trusted.self_signed(&trusted_key)?.pem();
    Ok(Created {
        certificate,
        key: Secret::from(key.serialize_pem() + &issuing.pem()),
    })
}

/// The certificate of an authority for `hosts` that may certify `below` levels of authorities.
fn of_authority(name: &str, below: u8, hosts: &[String], now: SystemTime) -> CertificateParams {
    let permitted = hosts.iter().cloned().map(GeneralSubtree::DnsName);
    let every_address = [
        CidrSubnet::from_addr_prefix(Ipv4Addr::UNSPECIFIED.into(), 0),
        CidrSubnet::from_addr_prefix(Ipv6Addr::UNSPECIFIED.into(), 0),
    ];
    let mut params = params(name, now, now + LIFE);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(below));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params.name_constraints = Some(NameConstraints {
        permitted_subtrees: permitted.collect(),
        excluded_subtrees: every_address.map(GeneralSubtree::IpAddress).into(),
    });
    params
}

/// What an authority's and a host's certificate have in common.
fn params(common_name: &str, now: SystemTime, end: SystemTime) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    if common_name.len() <= LONGEST_COMMON_NAME {
        params
            .distinguished_name
            .push(DnType::CommonName, common_name);
    }
    params.not_before = (now - CLOCK_SKEW).into();
    params.not_after = end.into();
    // programs refuse two certificates of an issuer with the same serial number
    let mut serial = random::unique().to_be_bytes();
    serial[0] = serial[0] & 0x7f | 0x40;
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params
}

impl Authority {
    /// Reads an authority that [`create`] returned.
    ///
    /// # Errors
    /// [`Error`] says what is wrong, and [`Error::is_of_key`] in which file.
    pub fn read(files: &Files) -> Result<Authority, Error> {
        let file =
            CaFile::read(&files.certificate).map_err(|error| Error::Certificate(error.reason))?;
        let trusted = file.certificates().first();
        let trusted = trusted.ok_or(Error::Certificate(Reason::Empty))?;
        let signing =
            Identity::read(&files.key, &files.key).map_err(|error| match error.reason {
                Reason::Unreadable(error) => Error::KeyUnreadable(error),
                _ => Error::NoKey,
            })?;
        let key = KeyPair::try_from(signing.key()).map_err(|_| Error::NoKey)?;
        let issuing = signing.certificates().first().ok_or(Error::NoKey)?;
        let expires = [trusted, issuing].map(tls::expiry);
        let expires = expires.into_iter().flatten().min().ok_or(Error::NoKey)?;
        let (_, parsed) = X509Certificate::from_der(issuing).map_err(|_| Error::NoKey)?;
        let common_name = parsed.subject().iter_common_name().next();
        let common_name = common_name.and_then(|name| name.as_str().ok());
        // certificates take only the issuer's name from it
        let issuer = params(common_name.ok_or(Error::NoKey)?, expires, expires);
        let authority = Authority(Arc::new(Inner {
            hosts: permitted(&parsed).ok_or(Error::Unconstrained)?,
            expires,
            issuer: Issuer::new(issuer, key),
            issuing: issuing.clone(),
            file,
        }));
        authority.verify()?;
        Ok(authority)
    }

    /// Checks that an app that trusts its certificate accepts the certificates that it issues.
    fn verify(&self) -> Result<(), Error> {
        let certificates = self.0.file.certificates();
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(certificates.iter().cloned());
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider);
        let verifier = verifier.build().map_err(|_| Error::Mismatch)?;
        let host = self.hosts().first().cloned().unwrap_or_default();
        // verified at a time when it is valid; the configuration warns if it has expired
        let then = self.0.expires - CLOCK_SKEW;
        let shown = self.issue(&host, then)?;
        let then = then.duration_since(SystemTime::UNIX_EPOCH);
        let then = UnixTime::since_unix_epoch(then.unwrap_or_default());
        let name = ServerName::try_from(host).map_err(|_| Error::Unconstrained)?;
        let [own, rest @ ..] = &shown.certified.cert[..] else {
            return Err(Error::Mismatch);
        };
        let verified = verifier.verify_server_cert(own, rest, &name, &[], then);
        verified.map(drop).map_err(|_| Error::Mismatch)
    }

    /// The hosts that it may certify. Their subdomains are permitted too.
    #[must_use]
    pub fn hosts(&self) -> &[String] {
        &self.0.hosts
    }

    /// Returns whether it may certify `host`.
    #[must_use]
    pub fn covers(&self, host: &str) -> bool {
        self.hosts().iter().any(|permitted| {
            let rest = host.strip_suffix(permitted.as_str());
            rest.is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
        })
    }

    /// When root or intermediate expires, whichever is first.
    #[must_use]
    pub fn expires(&self) -> SystemTime {
        self.0.expires
    }

    /// The root, as it is in the file.
    #[must_use]
    pub fn file(&self) -> &CaFile {
        &self.0.file
    }

    /// The SHA-256 of the root, as `openssl x509 -fingerprint -sha256` prints it.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        let root = self.file().certificates().first();
        let digest = root.map(|der| digest(&SHA256, der));
        let bytes = digest.iter().flat_map(|digest| digest.as_ref());
        let pairs: Vec<String> = bytes.map(|byte| format!("{byte:02X}")).collect();
        pairs.join(":")
    }

    /// Issues a certificate for `host` that is valid from `now` on; returns it and when to replace
    /// it.
    fn issue(&self, host: &str, now: SystemTime) -> Result<Issued, Error> {
        let end = (now + HOST_LIFE).min(self.0.expires);
        let key = KeyPair::generate()?;
        let mut params = params(host, now, end);
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.subject_alt_names = vec![SanType::DnsName(host.try_into()?)];
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(&key, &self.0.issuer)?;
        let der = PrivateKeyDer::try_from(key.serialize_der()).map_err(|_| Error::NoKey)?;
        let signing = any_ecdsa_type(&der).map_err(|_| Error::NoKey)?;
        let chain = vec![certificate.der().clone(), self.0.issuing.clone()];
        Ok(Issued {
            certified: Arc::new(CertifiedKey::new(chain, signing)),
            replace_at: now + HOST_LIFE / 2,
        })
    }
}

/// The DNS names that a certificate is permitted to certify; `None` if it is not limited to some.
fn permitted(certificate: &X509Certificate<'_>) -> Option<Vec<String>> {
    let constraints = certificate.name_constraints().ok()??;
    if !constraints.critical {
        return None;
    }
    let subtrees = constraints.value.permitted_subtrees.as_ref()?.iter();
    let hosts: Vec<String> = subtrees
        .filter_map(|subtree| match subtree.base {
            GeneralName::DNSName(name) if !name.is_empty() => Some(name.to_owned()),
            _ => None,
        })
        .collect();
    (!hosts.is_empty()).then_some(hosts)
}

impl PartialEq for Authority {
    fn eq(&self, other: &Authority) -> bool {
        self.0.file == other.0.file && self.0.issuing == other.0.issuing
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority")
            .field("certificate", &self.0.file)
            .field("hosts", &self.0.hosts)
            .finish_non_exhaustive()
    }
}

/// A host's certificate.
#[derive(Clone)]
struct Issued {
    certified: Arc<CertifiedKey>,
    replace_at: SystemTime,
}

/// The certificates for some hosts, issued when a handshake needs one. A caller whose server name
/// is none of the hosts gets the first host's.
pub struct HostCertificates {
    authority: Authority,
    hosts: Vec<String>,
    clock: Arc<dyn Clock>,
    issued: Mutex<HashMap<String, Issued>>,
}

impl HostCertificates {
    /// Returns the certificates of `authority` for `hosts`, at least one; `clock` says when they
    /// are replaced.
    #[must_use]
    pub fn new(authority: Authority, hosts: Vec<String>, clock: Arc<dyn Clock>) -> Self {
        HostCertificates {
            authority,
            hosts,
            clock,
            issued: Mutex::default(),
        }
    }

    fn certificate(&self, named: Option<&str>) -> Option<Arc<CertifiedKey>> {
        let named = named.and_then(|named| {
            let mut hosts = self.hosts.iter();
            hosts.find(|host| host.eq_ignore_ascii_case(named))
        });
        let host = named.or(self.hosts.first())?;
        let now = self.clock.wall();
        let mut issued = self.issued.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(kept) = issued.get(host).filter(|kept| now < kept.replace_at) {
            return Some(Arc::clone(&kept.certified));
        }
        let new = self.authority.issue(host, now).ok()?;
        issued.insert(host.clone(), new.clone());
        Some(new.certified)
    }
}

impl ResolvesServerCert for HostCertificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.certificate(hello.server_name())
    }
}

impl fmt::Debug for HostCertificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HostCertificates")
            .field("authority", &self.authority)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
