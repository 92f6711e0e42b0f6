//! The local authority: what its commands create and print, and what a stolen key can certify.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::rig::{HOST, Prepared, Rig, handshake};
use crate::support::certificate::Files;
use crate::support::http;
use crate::support::origin::{After, Rules};
use crate::support::process::{command, run};
use crate::support::{Origin, Proxy};

/// A certificate for `host` that the authority's key in `folder` has signed, as a thief of it
/// would, with that key's certificate below it.
pub(super) fn another(folder: &Path, host: &str) -> Files {
    let path = |end: &str| folder.join(format!("{host}.{end}"));
    let files = Files {
        cert: path("pem"),
        key: path("key"),
    };
    openssl(
        Command::new("openssl")
            .args([
                "req",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:P-256",
                "-nodes",
            ])
            .args(["-subj", &format!("/CN={host}"), "-keyout"])
            .arg(&files.key)
            .arg("-out")
            .arg(path("csr")),
    );
    openssl(
        Command::new("openssl")
            .args(["x509", "-in"])
            .arg(folder.join("local-ca.key"))
            .arg("-out")
            .arg(folder.join("issuing.pem")),
    );
    std::fs::write(
        path("ext"),
        format!("subjectAltName=DNS:{host}\nextendedKeyUsage=serverAuth\n"),
    )
    .unwrap();
    openssl(
        Command::new("openssl")
            .args(["x509", "-req", "-days", "1", "-in"])
            .arg(path("csr"))
            .arg("-CA")
            .arg(folder.join("issuing.pem"))
            .arg("-CAkey")
            .arg(folder.join("local-ca.key"))
            .arg("-CAcreateserial")
            .arg("-extfile")
            .arg(path("ext"))
            .arg("-out")
            .arg(&files.cert),
    );
    let chain = [&files.cert, &folder.join("issuing.pem")];
    let chain = chain.map(|path| std::fs::read_to_string(path).unwrap());
    std::fs::write(&files.cert, chain.concat()).unwrap();
    files
}

fn openssl(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {said} {error}");
    said
}

/// A server with this certificate, which answers `here`.
pub(super) fn serving(files: &Files) -> Origin {
    let chain = CertificateDer::pem_file_iter(&files.cert).unwrap();
    let chain = chain.map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_file(&files.key).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    let config = Arc::new(config);
    let rules = Rules {
        tls: Some(Box::new(move |_| Arc::clone(&config))),
        ..Rules::default()
    };
    Origin::with(rules, |_, stream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nhere")?;
        Ok(After::Close)
    })
}

fn prepared() -> Prepared {
    let prepared = Prepared::without_authority("", "");
    prepared.ca(&["init"]);
    prepared
}

#[test]
fn openssl_refuses_its_certificate_for_another_host() {
    let prepared = prepared();
    let folder = prepared.folder.path();
    let verify = |files: &Files| {
        let mut command = Command::new("openssl");
        command.arg("verify").arg("-x509_strict").arg("-CAfile");
        command.arg(folder.join("local-ca.pem")).arg("-untrusted");
        command.arg(folder.join("issuing.pem")).arg(&files.cert);
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.success(), said)
    };
    let own = verify(&another(folder, HOST));
    assert!(own.0, "{}", own.1);
    let other = verify(&another(folder, "other.example"));
    assert!(
        !other.0 && other.1.contains("permitted subtree violation"),
        "{}",
        other.1
    );
}

#[test]
fn rustls_refuses_its_certificate_for_another_host() {
    let prepared = prepared();
    let folder = prepared.folder.path();
    let trusted = folder.join("local-ca.pem");
    let call = |host: &str| {
        let server = serving(&another(folder, host));
        handshake(http::tcp(server.address), &trusted, host, &[]).map(drop)
    };
    call(HOST).unwrap();
    let error = call("other.example").unwrap_err().to_string();
    assert!(error.contains("NameConstraintViolation"), "{error}");
}

#[test]
fn its_certificates_permit_the_hosts_and_nothing_else() {
    let prepared = prepared();
    // the root and the intermediate
    for (name, below) in [("local-ca.pem", 1), ("local-ca.key", 0)] {
        let shown = openssl(
            Command::new("openssl")
                .args(["x509", "-noout", "-ext"])
                .arg("nameConstraints,basicConstraints,keyUsage,extendedKeyUsage")
                .arg("-in")
                .arg(prepared.folder.path().join(name)),
        );
        let squeezed: Vec<&str> = shown.split_whitespace().collect();
        let squeezed = squeezed.join(" ");
        for expected in [
            "X509v3 Name Constraints: critical Permitted: DNS:acme.example Excluded: IP:0.0.0.0/0.0.0.0 IP:0:0:0:0:0:0:0:0/0:0:0:0:0:0:0:0",
            &format!("X509v3 Basic Constraints: critical CA:TRUE, pathlen:{below}"),
            "X509v3 Key Usage: critical Certificate Sign",
            "X509v3 Extended Key Usage: TLS Web Server Authentication",
        ] {
            assert!(squeezed.contains(expected), "{expected} in {squeezed}");
        }
    }
}

#[test]
fn init_creates_a_key_that_only_its_owner_can_read_and_only_once() {
    let prepared = Prepared::without_authority("", "");
    let made = prepared.ca(&["init"]);
    assert!(
        made.out.contains("hosts: acme.example; no other"),
        "{}",
        made.out
    );
    let mode = |name: &str| {
        let metadata = std::fs::metadata(prepared.folder.path().join(name)).unwrap();
        metadata.permissions().mode() & 0o777
    };
    assert_eq!((mode("local-ca.key"), mode("local-ca.pem")), (0o600, 0o644));
    let file = prepared.folder.path().join("proxy.toml");
    let again = run(command(["ca", "init", "--config"]).arg(&file));
    assert_eq!(again.status, 1);
    assert!(again.err.contains("ca renew"), "{}", again.err);
    // half of it is of no use, and says so
    std::fs::remove_file(prepared.folder.path().join("local-ca.key")).unwrap();
    let half = run(command(["ca", "init", "--config"]).arg(&file));
    assert_ne!(half.status, 0);
    assert!(half.err.contains("delete"), "{}", half.err);
    let everything = format!("{}{}", made.out, again.err);
    assert!(!everything.contains("PRIVATE"), "{everything}");
}

#[test]
fn show_says_how_to_make_programs_trust_it() {
    let prepared = prepared();
    let shown = prepared.ca(&["show"]).out;
    let path = prepared.folder.path().join("local-ca.pem");
    let fingerprint = openssl(
        Command::new("openssl")
            .args(["x509", "-noout", "-fingerprint", "-sha256", "-in"])
            .arg(&path),
    );
    let fingerprint = fingerprint.trim().split_once('=').unwrap().1;
    assert!(shown.contains(fingerprint), "{shown}");
    for way in [
        "update-ca-certificates",
        "update-ca-trust",
        "add-trusted-cert",
        "certutil",
        "REQUESTS_CA_BUNDLE",
        "SSL_CERT_FILE",
        "NODE_EXTRA_CA_CERTS",
        "keytool",
        ".NET",
        "HTTPS_PROXY=http://127.0.0.1:0",
    ] {
        assert!(shown.contains(way), "{way} in {shown}");
    }
}

fn certificate(prepared: &Prepared) -> String {
    std::fs::read_to_string(prepared.folder.path().join("local-ca.pem")).unwrap()
}

fn key(prepared: &Prepared) -> String {
    std::fs::read_to_string(prepared.folder.path().join("local-ca.key")).unwrap()
}

#[test]
fn renew_follows_the_hosts() {
    let prepared = prepared();
    let (first, its_key) = (certificate(&prepared), key(&prepared));
    assert!(prepared.ca(&["renew"]).out.contains("nothing to renew"));
    assert_eq!(certificate(&prepared), first);

    let file = prepared.folder.path().join("proxy.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    let more = "[instance.dev]\nurl = \"https://dev.example\"\n[client.dev]\ninstance = \"dev\"\n\
                client_id = \"a\"\nclient_secret = \"b\"\n[client.catalog]\ninstance = \"acme\"\n";
    std::fs::write(&file, text.replace("[client.catalog]\n", more)).unwrap();
    let checked = run(command(["check", "--config"]).arg(&file));
    assert!(
        checked.out.contains("does not cover dev.example"),
        "{}",
        checked.out
    );
    assert!(checked.out.contains("ca renew"), "{}", checked.out);
    let renewed = prepared.ca(&["renew"]).out;
    assert!(renewed.contains("acme.example, dev.example"), "{renewed}");
    assert_ne!(certificate(&prepared), first);
    assert_ne!(key(&prepared), its_key);
    let checked = run(command(["check", "--config"]).arg(&file));
    assert!(!checked.out.contains("does not cover"), "{}", checked.out);
    let second = certificate(&prepared);
    assert!(prepared.ca(&["renew"]).out.contains("nothing to renew"));
    prepared.ca(&["renew", "--force"]);
    assert_ne!(certificate(&prepared), second);
}

#[test]
fn check_says_what_is_missing_and_what_is_served() {
    let prepared = Prepared::without_authority("", "");
    let file = prepared.folder.path().join("proxy.toml");
    let checked = run(command(["check", "--config"]).arg(&file));
    assert_eq!(checked.status, 0, "{}", checked.err);
    assert!(
        checked.out.contains("there is no local authority"),
        "{}",
        checked.out
    );
    assert!(
        checked.out.contains("`collibra-auth-proxy ca init`"),
        "{}",
        checked.out
    );
    prepared.ca(&["init"]);
    let checked = run(command(["check", "--config"]).arg(&file)).out;
    let expected = "listener forward: forward proxy at http://127.0.0.1:0 for https://acme.example with the token of catalog; refuses other hosts";
    assert!(checked.contains(expected), "{checked}");
    assert!(
        !checked.contains("there is no local authority"),
        "{checked}"
    );
    let printed = run(command(["check", "--print", "--config"]).arg(&file)).out;
    assert!(printed.contains("mode = \"forward\"\n"), "{printed}");
}

#[test]
fn a_foreign_authority_is_refused() {
    let prepared = prepared();
    let file = prepared.folder.path().join("proxy.toml");
    let authority = prepared.folder.path().join("local-ca.pem");
    std::fs::copy(prepared.folder.path().join("instance-ca.pem"), authority).unwrap();
    let checked = run(command(["check", "--config"]).arg(&file));
    assert_eq!(checked.status, 78, "{}", checked.out);
    assert!(
        checked
            .err
            .contains("local-ca.key: the key does not belong to"),
        "{}",
        checked.err
    );
}

#[test]
fn its_expiry_is_a_metric() {
    let rig = Rig::with("", "");
    let series = "collibra_auth_proxy_certificate_expiry_timestamp_seconds{kind=\"listener\",name=\"forward\"}";
    let expires = rig.proxy.metric(series).unwrap();
    let now = jiff::Timestamp::now().as_second() as f64;
    assert!(expires > now + 1000.0 * 24.0 * 3600.0, "{expires}");
}

#[test]
fn an_ordinary_listener_can_use_it_for_the_instances_own_name() {
    let prepared = Prepared::without_authority("", "");
    let file = prepared.folder.path().join("proxy.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replace("mode = \"forward\"", "tls = \"local\"")).unwrap();
    // without the authority no handshake succeeds, and nothing is served in the clear
    let builder = Proxy::by_file(&file);
    let proxy = builder.start();
    let trusted: PathBuf = prepared.folder.path().join("instance-ca.pem");
    assert!(handshake(http::tcp(proxy.address), &trusted, HOST, &[]).is_err());
    prepared.ca(&["init"]);
    drop(proxy);
    let proxy = Proxy::by_file(&file).start();
    proxy.has_token();
    let trusted = prepared.folder.path().join("local-ca.pem");
    let stream = handshake(http::tcp(proxy.address), &trusted, HOST, &["http/1.1"]).unwrap();
    let mut connection = http::Connection::over(stream);
    let answer = super::rig::get(&mut connection, "/x");
    assert_eq!((answer.status, answer.text().as_str()), (200, "ok"));
}

#[test]
fn its_commands_need_a_configuration_file() {
    for word in ["init", "show", "renew"] {
        let ended = run(&mut command(["ca", word]));
        assert_eq!(ended.status, 2, "{}", ended.err);
        assert!(ended.err.contains("--config"), "{}", ended.err);
    }
}
