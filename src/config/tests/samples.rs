//! The sample files are sound, and the reference is complete.

use serde_json::Value;

use super::*;
use crate::clock::{Clock, SystemClock};
use crate::local_authority;

fn sample(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("config")
        .join(name);
    std::fs::read_to_string(path).unwrap()
}

fn env(name: &str) -> Option<String> {
    let value = match name {
        "COLLIBRA_CLIENT_ID" => "urn:sys:env:2eeadf60-1a11-5170-7e57-000000000000:i:1cnxtsn",
        "COLLIBRA_CLIENT_SECRET" => "s3cr+t/=%&x y~!*",
        _ => return None,
    };
    Some(value.to_owned())
}

fn said(config: &Config) -> String {
    let warnings: Vec<String> = config.warnings.iter().map(Fault::to_string).collect();
    warnings.join("\n")
}

#[test]
fn local_is_sound() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/local.toml");
    let config = load(&path, &env).unwrap();
    assert_eq!(said(&config).lines().count(), 0, "{}", said(&config));
    assert_eq!(&*config.listeners[0].client, "catalog");
}

/// A directory with these files, which the user and its group can read.
fn mounted(files: &[(&str, &str)]) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    for (file, content) in files {
        let path = root.path().join(file);
        std::fs::write(&path, content).unwrap();
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o440)).unwrap();
        }
    }
    root
}

#[test]
fn sidecar_is_sound_with_its_secrets_mounted() {
    let root = mounted(&[("client_id", "urn:x\n"), ("client_secret", "s3cret\n")]);
    let secrets = root.path().to_str().unwrap();
    let text = sample("sidecar.toml").replace("/run/secrets/collibra", secrets);
    let config = read_with(&text, Path::new("/"), &|_| None).unwrap();
    assert_eq!(
        config.clients["catalog"].oauth.client_secret.expose(),
        "s3cret"
    );
    insta::assert_snapshot!(said(&config), @"proxy.toml:19: admin.address: health, metrics and status can be seen beyond this machine; none shows a secret; write a loopback address unless something outside scrapes it");
}

#[test]
fn gateway_is_sound_with_its_secrets_mounted() {
    let root = mounted(&[
        (
            "credentials.json",
            r#"{"client_id":"urn:x","client_secret":"s"}"#,
        ),
        ("lineage.key", "0123456789abcdef\n"),
        ("dashboard.key", "fedcba9876543210\n"),
    ]);
    let secrets = root.path().to_str().unwrap();
    let text = sample("gateway.toml")
        .replace("/run/secrets/collibra", secrets)
        .replace("/run/secrets/apps", secrets);
    let config = read_with(&text, Path::new("/"), &|_| None).unwrap();
    assert_eq!(config.apps.len(), 2);
    assert_eq!(config.warnings.len(), 1, "{}", said(&config));
}

#[test]
fn corporate_is_sound_with_and_without_what_is_commented_out() {
    let made = rcgen::generate_simple_self_signed(vec!["app.test".into()]).unwrap();
    let (cert, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    let root = mounted(&[
        ("proxy_credentials", "me:pass\n"),
        ("authority.pem", &cert),
        ("client.pem", &cert),
        ("client.key", &key),
    ]);
    let plain = sample("corporate.toml");
    let mut whole = plain.clone();
    for key in [
        "proxy_credentials_file",
        "ca_file",
        "client_cert_file",
        "client_key_file",
    ] {
        let commented = format!("# {key} = ");
        assert!(whole.contains(&commented), "{key}");
        whole = whole.replace(&commented, &commented[2..]);
    }
    for (text, has_more) in [(plain, false), (whole, true)] {
        let config = read_with(&text, root.path(), &env).unwrap();
        assert_eq!(said(&config), "");
        let (instance, client) = (&config.instances["acme"], &config.clients["catalog"]);
        let proxy = instance.proxy.as_ref().unwrap();
        assert_eq!(Some(proxy), client.oauth.proxy.as_ref());
        assert_eq!(proxy.credentials(), has_more.then_some(("me", "pass")));
        assert_eq!(instance.identity.is_some(), has_more);
        assert_eq!(client.oauth.identity, instance.identity);
    }
}

#[test]
fn shared_host_is_sound_with_its_secrets_and_certificates() {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
    let (cert, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    let root = mounted(&[
        ("client_id", "urn:x\n"),
        ("client_secret", "s3cret\n"),
        ("proxy.pem", &cert),
        ("proxy.key", &key),
        ("apps-ca.pem", &cert),
    ]);
    let mounted = root.path().to_str().unwrap();
    let text = sample("shared-host.toml")
        .replace("/run/secrets/collibra", mounted)
        .replace("/etc/collibra-auth-proxy", mounted);
    let config = read_with(&text, Path::new("/"), &|_| None).unwrap();
    assert_eq!(said(&config), "");
    let [tls, local] = &config.listeners[..] else {
        panic!("{:?}", config.listeners);
    };
    assert!(tls.tls.is_some() && tls.scheme() == "https");
    let socket = "unix:/run/collibra-auth-proxy/local.sock";
    assert_eq!(local.address.to_string(), socket);
}

#[test]
fn fleet_is_sound_with_its_secrets_mounted() {
    let root = mounted(&[
        ("client_id", "urn:x\n"),
        ("client_secret", "s3cret\n"),
        ("password", "p4ss\n"),
    ]);
    let mounted = root.path().to_str().unwrap();
    let text = sample("fleet.toml")
        .replace("/run/secrets/collibra", mounted)
        .replace("/run/secrets/redis", mounted);
    let config = read_with(&text, Path::new("/"), &|_| None).unwrap();
    assert_eq!(said(&config), "");
    let crate::store::Config::Redis(redis) = config.store else {
        panic!("{:?}", config.store);
    };
    assert_eq!(redis.password.unwrap().expose(), "p4ss");
    assert_eq!(redis.server.to_string(), "rediss://redis.example:6379");
    assert_eq!(redis.key_prefix, "collibra-auth-proxy");
}

#[test]
fn fixed_address_is_sound_once_its_authority_is_made() {
    let root = tempfile::tempdir().unwrap();
    let text = sample("fixed-address.toml");
    let config = read_with(&text, root.path(), &env).unwrap();
    let folder = root.path().display().to_string();
    insta::assert_snapshot!(said(&config).replace(&folder, "FOLDER"), @"proxy.toml: ca: there is no local authority in FOLDER, so programs cannot call https:// through this proxy; run `collibra-auth-proxy ca init` with this configuration");
    let created = local_authority::create(&config.certified_hosts(), SystemClock.wall());
    let created = created.unwrap();
    let files = &config.ca.files;
    std::fs::write(&files.certificate, created.certificate).unwrap();
    std::fs::write(&files.key, created.key.expose()).unwrap();
    use std::os::unix::fs::PermissionsExt;
    let closed = std::fs::Permissions::from_mode(0o600);
    std::fs::set_permissions(&files.key, closed).unwrap();
    let config = read_with(&text, root.path(), &env).unwrap();
    assert_eq!(said(&config), "");
    let forward = config.listeners[0].forward.as_ref().unwrap();
    assert!(forward.tls.contains_key("acme.collibra.com"));
    assert!(config.listeners[0].expires().is_some());
}

#[cfg(feature = "kubernetes")]
#[test]
fn fleet_kubernetes_is_sound_and_its_defaults_are_the_names_in_the_manifests() {
    let root = mounted(&[("client_id", "urn:x\n"), ("client_secret", "s3cret\n")]);
    let kubeconfig = root.path().join("kubeconfig");
    let text = "{current-context: a, contexts: [{name: a, context: {cluster: a}}], \
                clusters: [{name: a, cluster: {server: 'http://127.0.0.1:1'}}]}";
    std::fs::write(&kubeconfig, text).unwrap();
    let kubeconfig = kubeconfig.to_str().unwrap();
    let mounted = root.path().to_str().unwrap();
    let text = sample("fleet-kubernetes.toml").replace("/run/secrets/collibra", mounted);
    let env = |name: &str| (name == "KUBECONFIG").then(|| kubeconfig.to_owned());
    let config = read_with(&text, Path::new("/"), &env).unwrap();
    assert_eq!(said(&config), "");
    let crate::store::Config::Kubernetes(store) = config.store else {
        panic!("{:?}", config.store);
    };
    assert_eq!(store.namespace, "default");
    let made = "deploy/kubernetes/components/store-kubernetes/token.yaml";
    let made = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(made)).unwrap();
    for (kind, name) in [("Secret", store.secret), ("Lease", store.lease)] {
        let object = format!("kind: {kind}\nmetadata:\n  name: {name}\n");
        assert!(made.contains(&object), "{object}");
    }

    let unverified = "{current-context: a, contexts: [{name: a, context: {cluster: a}}], clusters: \
                      [{name: a, cluster: {server: 'https://a', insecure-skip-tls-verify: true}}]}";
    std::fs::write(kubeconfig, unverified).unwrap();
    let config = read_with(&text, Path::new("/"), &env).unwrap();
    assert!(said(&config).contains("store.kubeconfig: the kubeconfig file says insecure-skip"));
}

#[test]
fn simulator_is_sound_and_sixty_times_as_fast() {
    let config = read(&sample("simulator.toml")).unwrap();
    let client = &config.clients["simulator"];
    assert_eq!(client.oauth.client_secret.expose(), "s3cr+t/=%&x y~!*");
    assert_eq!(client.schedule.pool.refill, Duration::from_secs(1));
    assert!(client.oauth.timeout < Duration::from_millis(200));
    insta::assert_snapshot!(said(&config), @"proxy.toml:13: client.simulator.client_secret: the secret is in the configuration, which is often copied and committed; keep it in a file and name that with `client_secret_file`");
}

#[test]
fn the_reference_is_sound_and_names_the_defaults() {
    let mut written = read_with(&sample("reference.toml"), Path::new("/"), &env).unwrap();
    assert_eq!(said(&written), "");
    let least = "instance.acme = { url = \"https://acme.collibra.com\" }\n\
                 [client.catalog]\nclient_id_env = \"COLLIBRA_CLIENT_ID\"\n\
                 client_secret_env = \"COLLIBRA_CLIENT_SECRET\"\n";
    let mut left_out = read_with(least, Path::new("/"), &env).unwrap();
    // the id is from elsewhere
    (written.shown, left_out.shown) = (Value::Null, Value::Null);
    let (assumed, known) = ("is_pool_assumed: true", "is_pool_assumed: false");
    let left_out = format!("{left_out:?}").replace(assumed, known);
    assert_eq!(format!("{written:?}"), left_out);
}

#[test]
fn the_reference_is_generated_from_the_declarations() {
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    let written = top.join("target/tmp");
    let mut outdated = Vec::new();
    for (path, expected) in [
        ("config/reference.toml", reference::toml()),
        ("docs/configuration-reference.md", reference::page()),
    ] {
        if !std::fs::read_to_string(top.join(path)).is_ok_and(|text| text == expected) {
            std::fs::create_dir_all(&written).unwrap();
            let name = Path::new(path).file_name().unwrap();
            std::fs::write(written.join(name), expected).unwrap();
            outdated.push(path);
        }
    }
    let written = written.display();
    assert!(
        outdated.is_empty(),
        "not up to date: {outdated:?}; read what is in {written}, and copy it there"
    );
}

#[test]
fn what_the_reference_has_commented_out_is_valid_too() {
    let uncommented: String = reference::toml()
        .lines()
        .map(|line| match line.strip_prefix("# ") {
            Some(key) if key.split(' ').nth(1) == Some("=") => format!("{key}\n"),
            Some(table) if table.starts_with('[') => format!("{table}\n"),
            _ => format!("{line}\n"),
        })
        .collect();
    let context = LoadContext::of(Path::new("/"), &env);
    let tables = Tables::parse(&uncommented, &Origin::CommandLine, &context);
    context.conclude().unwrap();
    let shown = tables.unwrap().show(&context);
    for (path, key) in every_key("") {
        let mut table = &shown;
        for part in path.split('.') {
            table = table
                .get(part)
                .or_else(|| first(table)?.get(part))
                .unwrap_or(&Value::Null);
        }
        assert!(!table.is_null(), "{path} {key:?}");
    }
}

/// The first item of a list of tables, or the only one of named tables.
fn first(tables: &Value) -> Option<&Value> {
    let items = tables.as_array().and_then(|items| items.first());
    items.or_else(|| tables.as_object()?.values().next())
}
