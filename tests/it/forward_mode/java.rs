//! Java's HttpClient, configured by system properties alone.

use std::path::Path;
use std::process::Command;

use super::apps;
use super::authority::{another, serving};
use super::rig::{HOST, Rig};
use crate::support::made;

/// What `tests/java/Get.java` prints for `arguments`, a URL first, with these properties and the
/// authority trusted.
fn get(rig: &Rig, properties: &[String], arguments: &[&str]) -> String {
    let trust = rig.folder.path().join("trust.p12");
    if !trust.exists() {
        let import = Command::new("keytool")
            .args([
                "-importcert",
                "-noprompt",
                "-alias",
                "local",
                "-storepass",
                "changeit",
            ])
            .arg("-file")
            .arg(rig.ca_file())
            .arg("-keystore")
            .arg(&trust)
            .output()
            .unwrap();
        assert!(import.status.success(), "{import:?}");
    }
    let mut command = Command::new("java");
    command
        .args(properties)
        .arg(format!("-Djavax.net.ssl.trustStore={}", trust.display()))
        .arg("-Djavax.net.ssl.trustStorePassword=changeit")
        .arg(made("tests/java/Get.java"))
        .args(arguments);
    let output = command.output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{error}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[test]
fn it_calls_the_instances_own_address() {
    let rig = Rig::with("", "");
    let properties = [
        "-Dhttps.proxyHost=127.0.0.1".to_owned(),
        format!("-Dhttps.proxyPort={}", rig.address().port()),
    ];
    let url = format!("https://{HOST}/rest/2.0/assets");
    let told = get(&rig, &properties, &[&url]);
    assert_eq!(told, "ok 200 HTTP_2");
    rig.has_token();
}

#[test]
fn it_sends_an_apps_key_after_a_407() {
    let rig = apps::rig();
    let properties = [
        "-Dhttps.proxyHost=127.0.0.1".to_owned(),
        format!("-Dhttps.proxyPort={}", rig.address().port()),
        "-Djdk.http.auth.tunneling.disabledSchemes=".to_owned(),
    ];
    let url = format!("https://{HOST}/rest/x");
    let told = get(&rig, &properties, &[&url, "lineage", apps::KEY]);
    assert_eq!(told, "ok 200 HTTP_2");
    rig.has_token();
}

#[test]
fn it_refuses_the_authoritys_certificate_for_another_host() {
    let rig = Rig::with("", "");
    let hosts = rig.folder.path().join("hosts");
    std::fs::write(
        &hosts,
        format!("127.0.0.1 {HOST}\n127.0.0.1 other.example\n"),
    )
    .unwrap();
    let properties = [format!("-Djdk.net.hosts.file={}", hosts.display())];
    let call = |host: &str, folder: &Path| {
        let server = serving(&another(folder, host));
        let url = format!("https://{host}:{}/", server.address.port());
        get(&rig, &properties, &[&url])
    };
    assert_eq!(call(HOST, rig.folder.path()), "here 200 HTTP_1_1");
    let said = call("other.example", rig.folder.path());
    assert!(
        said.starts_with("refused: ") && said.contains("constraint"),
        "{said}"
    );
}
