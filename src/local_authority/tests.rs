//! For which hosts rustls accepts the authority's certificates. Other programs verify them in
//! `tests/it/forward_mode`.

use rcgen::PublicKeyData;
use rustls::CertificateError;

use super::*;
use crate::clock::Instant;

const DAY: Duration = Duration::from_secs(24 * 3600);

/// 2026-11-30.
fn today() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_796_000_000)
}

fn made(hosts: &[&str]) -> (tempfile::TempDir, Authority) {
    let folder = tempfile::tempdir().unwrap();
    let files = Files::beside(folder.path());
    let hosts: Vec<String> = hosts.iter().map(ToString::to_string).collect();
    let created = create(&hosts, today()).unwrap();
    std::fs::write(&files.certificate, &created.certificate).unwrap();
    std::fs::write(&files.key, created.key.expose()).unwrap();
    let authority = Authority::read(&files).unwrap();
    (folder, authority)
}

/// Whether a program that trusts `trusted` accepts `shown` from `name`.
fn verified(
    trusted: &Authority,
    shown: &CertificateDer<'_>,
    name: &str,
    now: SystemTime,
) -> Result<(), rustls::Error> {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.file().certificates()[0].clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider);
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let now = now.duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let now = UnixTime::since_unix_epoch(now);
    let verifier = verifier.build().unwrap();
    let below = [trusted.0.issuing.clone()];
    let verified = verifier.verify_server_cert(shown, &below, &name, &[], now);
    verified.map(drop)
}

fn issued(authority: &Authority, host: &str) -> CertificateDer<'static> {
    let issued = authority.issue(host, today()).unwrap();
    issued.certified.cert[0].clone()
}

#[test]
fn it_certifies_its_hosts_and_no_other() {
    let (_folder, authority) = made(&["acme.example", "dev.example"]);
    assert_eq!(authority.hosts(), ["acme.example", "dev.example"]);
    for host in ["acme.example", "dev.example", "below.acme.example"] {
        assert!(authority.covers(host), "{host}");
        let shown = issued(&authority, host);
        assert_eq!(verified(&authority, &shown, host, today()), Ok(()));
    }
    for host in [
        "other.example",
        "acme.example.org",
        "notacme.example",
        "example",
    ] {
        assert!(!authority.covers(host), "{host}");
        let shown = issued(&authority, host);
        assert!(
            verified(&authority, &shown, host, today()).is_err(),
            "{host}"
        );
    }
    let shown = issued(&authority, "acme.example");
    assert!(verified(&authority, &shown, "dev.example", today()).is_err());
}

#[test]
fn it_certifies_no_address() {
    let (_folder, authority) = made(&["acme.example"]);
    for (address, name) in [("127.0.0.1", "127.0.0.1"), ("::1", "::1")] {
        let mut params = params(name, today(), today() + DAY);
        params.subject_alt_names = vec![SanType::IpAddress(address.parse().unwrap())];
        let key = KeyPair::generate().unwrap();
        let shown = params.signed_by(&key, &authority.0.issuer).unwrap();
        assert!(
            verified(&authority, shown.der(), name, today()).is_err(),
            "{name}"
        );
    }
}

#[test]
fn host_certificates_expire_no_later_than_the_authority() {
    let (_folder, authority) = made(&["acme.example"]);
    assert_eq!(authority.expires(), today() + LIFE);
    let shown = issued(&authority, "acme.example");
    let at = |now| verified(&authority, &shown, "acme.example", now);
    assert_eq!(at(today() + 29 * DAY), Ok(()));
    let expired = at(today() + 31 * DAY).unwrap_err();
    assert!(
        matches!(
            expired,
            rustls::Error::InvalidCertificate(
                CertificateError::Expired | CertificateError::ExpiredContext { .. }
            )
        ),
        "{expired}"
    );
    // none outlives the authority
    let late = authority.expires() - DAY;
    let last = authority.issue("acme.example", late).unwrap();
    let ends = tls::expiry(&last.certified.cert[0]).unwrap();
    assert_eq!(ends, authority.expires());
}

/// The limits that hold even if a program ignores the constraints of its roots, as Java does.
#[test]
fn its_key_is_limited_by_its_own_certificate_and_certifies_no_authority() {
    let (folder, authority) = made(&["acme.example"]);
    let (_, issuing) = X509Certificate::from_der(&authority.0.issuing).unwrap();
    assert_eq!(permitted(&issuing).unwrap(), ["acme.example"]);
    let basic = issuing.basic_constraints().unwrap().unwrap();
    assert_eq!(
        (basic.value.ca, basic.value.path_len_constraint),
        (true, Some(0))
    );
    // the trusted certificate's key is in neither file
    let files = Files::beside(folder.path());
    let texts = [&files.certificate, &files.key].map(|path| std::fs::read_to_string(path).unwrap());
    assert_eq!(texts.concat().matches("BEGIN PRIVATE KEY").count(), 1);
    let trusted = &authority.file().certificates()[0];
    let (_, trusted) = X509Certificate::from_der(trusted).unwrap();
    let own = authority.0.issuer.key().subject_public_key_info();
    assert_ne!(trusted.public_key().raw, own);
}

#[test]
fn a_foreign_or_unconstrained_authority_is_refused() {
    let (folder, _) = made(&["acme.example"]);
    let (other, _) = made(&["acme.example"]);
    let files = Files::beside(folder.path());
    let swapped = Files {
        key: Files::beside(other.path()).key,
        ..files.clone()
    };
    let error = Authority::read(&swapped).unwrap_err();
    assert!(
        matches!(error, Error::Mismatch) && error.is_of_key(),
        "{error}"
    );
    for other in [
        "",
        "no PEM",
        &std::fs::read_to_string(&files.certificate).unwrap(),
    ] {
        std::fs::write(&files.key, other).unwrap();
        let error = Authority::read(&files).unwrap_err();
        assert!(matches!(error, Error::NoKey), "{error}");
    }

    let mut params = params("any", today(), today() + DAY);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let unlimited = params.self_signed(&key).unwrap();
    std::fs::write(&files.certificate, unlimited.pem()).unwrap();
    std::fs::write(&files.key, key.serialize_pem() + &unlimited.pem()).unwrap();
    let error = Authority::read(&files).unwrap_err();
    assert!(matches!(error, Error::Unconstrained), "{error}");
}

#[test]
fn debug_output_has_no_key() {
    let hosts = ["acme.example".to_owned()];
    let created = create(&hosts, today()).unwrap();
    let (_folder, authority) = made(&["acme.example"]);
    let shown = format!("{created:?} {authority:?}");
    assert!(!shown.contains("PRIVATE"), "{shown}");
}

/// A wall clock that is set by hand.
#[derive(Debug)]
struct HandClock(Mutex<SystemTime>);

impl Clock for HandClock {
    fn now(&self) -> Instant {
        Instant::ORIGIN
    }

    fn wall(&self) -> SystemTime {
        *self.0.lock().unwrap()
    }
}

#[test]
fn a_hosts_certificate_is_cached_and_replaced_before_it_expires() {
    let (_folder, authority) = made(&["acme.example", "dev.example"]);
    let clock = Arc::new(HandClock(Mutex::new(today())));
    let hosts = authority.hosts().to_vec();
    let certificates = HostCertificates::new(authority, hosts, Arc::clone(&clock) as _);
    let shown = |named: Option<&str>| certificates.certificate(named).unwrap().cert[0].clone();
    let first = shown(Some("acme.example"));
    assert_eq!(shown(Some("ACME.example")), first);
    assert_eq!(shown(None), first, "without a server name");
    assert_eq!(shown(Some("other.example")), first);
    assert_ne!(shown(Some("dev.example")), first);
    *clock.0.lock().unwrap() += 16 * DAY;
    assert_ne!(shown(Some("acme.example")), first);
}
