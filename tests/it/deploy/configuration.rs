//! The configuration that a pod mounts, checked by the program itself, with the pod's secrets in
//! place.

use std::fs;
use std::path::Path;

use serde_json::Value;

use super::objects::{Objects, list};
use crate::support::process::{command, run};

/// Every file of a secret that the manifests mount, with valid content.
const SECRETS: &[&str] = &[
    "collibra/client_id",
    "collibra/client_secret",
    "apps/lineage.key",
    "apps/dashboard.key",
    "tls/tls.crt",
    "tls/tls.key",
    "redis/password",
];

/// A name of the gateway's Service, in a namespace that no manifest names.
pub(super) const HOST: &str = "collibra-auth-proxy.elsewhere.svc";

/// An API server that is never contacted.
const KUBECONFIG: &str = r#"
apiVersion: v1
kind: Config
current-context: here
contexts: [{ name: here, context: { cluster: here, user: me } }]
clusters: [{ name: here, cluster: { server: "http://127.0.0.1:1" } }]
users: [{ name: me, user: { token: none } }]
"#;

/// Asserts that the proxy accepts the configuration with its container's mounts, and a Service by
/// any name and namespace.
pub(crate) fn assert_accepted(objects: &Objects) {
    let text = text(objects);
    assert_mounted(objects, &text);
    let checked = check(&text);
    assert_eq!(checked.0, 0, "{}", checked.1);
    let mut listeners = checked
        .1
        .lines()
        .filter(|line| line.starts_with("listener "));
    if let Some(service) = objects.of_kind("Service").next() {
        let name = service["metadata"]["name"].as_str().unwrap();
        let namespace = service["metadata"]["namespace"].as_str().unwrap();
        let svc = format!("{name}.{namespace}.svc");
        let accepts = |line: &str| line.ends_with("for any host") || line.contains(&svc);
        assert!(listeners.all(accepts), "{svc}: {}", checked.1);
    }
}

/// The configuration file in the rendered objects.
pub(super) fn text(objects: &Objects) -> String {
    let data = &objects.one("ConfigMap")["data"];
    data["collibra-auth-proxy.toml"]
        .as_str()
        .unwrap()
        .to_owned()
}

/// A directory with the pod's secrets and, as `collibra-auth-proxy.toml`, a configuration that finds
/// them there. The certificate is for [`HOST`].
pub(super) fn with_secrets(text: &str) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(vec![HOST.to_owned()]).unwrap();
    for name in SECRETS {
        let path = root.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let content = match *name {
            "tls/tls.crt" => made.cert.pem(),
            "tls/tls.key" => made.signing_key.serialize_pem(),
            // two apps with the same key would be refused
            name => format!("0123456789abcdef {name}\n"),
        };
        fs::write(path, content).unwrap();
    }
    let here = |text: &str, path: &str| text.replace(path, root.path().to_str().unwrap());
    let text = here(&here(text, "/run/secrets"), "/var/lib/collibra-auth-proxy");
    fs::write(root.path().join("collibra-auth-proxy.toml"), text).unwrap();
    root
}

/// The exit status and output of `check` for a configuration.
fn check(text: &str) -> (i32, String) {
    let root = with_secrets(text);
    let path = root.path().join("collibra-auth-proxy.toml");
    // a pod's service account, outside of a pod
    let kubeconfig = root.path().join("kubeconfig");
    fs::write(&kubeconfig, KUBECONFIG).unwrap();
    let mut check = command(["check", "--config"]);
    let ended = run(check.arg(path).env("KUBECONFIG", kubeconfig));
    (ended.status, ended.out + &ended.err)
}

/// Asserts that all files of the configuration are in mounted directories, and those that are
/// written in writable ones.
fn assert_mounted(objects: &Objects, text: &str) {
    let proxy = objects.proxy();
    let mounted = |path: &Path, read_only: bool| {
        list(&proxy["volumeMounts"]).any(|mount| {
            path.starts_with(mount["mountPath"].as_str().unwrap())
                && mount["readOnly"].as_bool().unwrap_or_default() == read_only
        })
    };
    let config = list(&proxy["args"]).last().and_then(Value::as_str).unwrap();
    assert!(mounted(Path::new(config), true), "{config} is not mounted");
    let named = text
        .split('"')
        .filter(|word| word.starts_with("/run/") || word.starts_with("/var/"));
    let mut count = 0;
    for path in named {
        let read_only = path.starts_with("/run/secrets");
        assert!(mounted(Path::new(path), read_only), "{path} is not mounted");
        count += 1;
    }
    assert!(count >= 2, "the configuration names no secret");
}
