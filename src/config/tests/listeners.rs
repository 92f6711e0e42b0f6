//! Faults of where and how a listener listens.

use super::*;

/// Returns the messages for a listener with `keys` instead of its address.
fn listener(keys: &str) -> String {
    let text = with("", "", keys).replace("address = \"127.0.0.1:8080\"\n", "");
    report(&text)
}

#[test]
fn addresses_and_modes() {
    let of = |keys: &[&str]| {
        let said: Vec<String> = keys.iter().map(|keys| listener(keys)).collect();
        said.join("\n")
    };
    let long = format!("address = \"unix:/{}\"", "x".repeat(100));
    insta::assert_snapshot!(of(&[
        "address = \"unix:\"",
        &long,
        "address = \"unix:/run/a.sock\"\nmode = \"rw\"",
        "address = \"unix:/run/a.sock\"\nmode = \"1777\"",
        "address = \"unix:/run/a.sock\"\nmode = \"0060\"",
        "address = \"unix:/run/a.sock\"\nmode = 660",
        "address = \"127.0.0.1:80\"\nmode = \"0660\"",
    ]), @r#"
    proxy.toml:9: listener.local.address: this is no address to listen on; write the socket's path, like "unix:/run/proxy.sock"
    proxy.toml:9: listener.local.address: this is no address to listen on; write a path of at most 90 bytes: systems take no longer one
    proxy.toml:10: listener.local.mode: this is no mode of a file; write it as for chmod, in quotes, like "0660": user, group, others
    proxy.toml:10: listener.local.mode: this is no mode of a file; write it as for chmod, in quotes, like "0660": user, group, others
    proxy.toml:10: listener.local.mode: its own user could not use the socket; write a mode that begins with 6 or 7, like "0660"
    proxy.toml:10: listener.local.mode: this should be a string, and is a whole number; write it in quotes, like "…"
    proxy.toml:10: listener.local.mode: only a unix socket has a mode; remove it, or write "unix:" and a path as the address
    "#);
}

#[test]
fn one_socket_is_for_one() {
    let text = with("", "", "").replace("127.0.0.1:8080", "unix:/run/a.sock");
    let text = format!(
        "{text}\n[listener.other]\naddress = \"unix:/run/a.sock\"\n[admin]\naddress = \"unix:/run/a.sock\"\n"
    );
    insta::assert_snapshot!(report(&text), @r#"
    proxy.toml:13: listener.other.address: [listener.local] already listens there; write another path
    proxy.toml:15: admin.address: [listener.local] already listens there; write another path; the default is "127.0.0.1:9902"
    proxy.toml:15: admin.address: [listener.other] already listens there; write another path; the default is "127.0.0.1:9902"
    "#);
}

#[test]
fn a_socket_counts_as_this_machines() {
    assert_eq!(
        listener("address = \"unix:/run/a.sock\""),
        listener("address = \"127.0.0.1:1\"")
    );
}

#[test]
fn certificates_and_keys() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    let made = || rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
    let (one, other) = (made(), made());
    write("cert.pem", &one.cert.pem());
    write("key.pem", &one.signing_key.serialize_pem());
    write("other.pem", &other.signing_key.serialize_pem());
    write("empty.pem", "");
    write(
        "odd.pem",
        "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
    );
    let mut early = rcgen::CertificateParams::new(vec!["localhost".into()]).unwrap();
    early.not_before = rcgen::date_time_ymd(2999, 1, 1);
    let key = rcgen::KeyPair::generate().unwrap();
    write(
        "early.pem",
        &format!("\u{feff}{}", early.self_signed(&key).unwrap().pem()),
    );
    write("early-key.pem", &key.serialize_pem());
    let of = |tls: &str| {
        let text = with("", "", &format!("tls = {tls}"));
        let said = match read_with(&text, folder.path(), &|_| None) {
            Err(faults) => faults.to_string(),
            Ok(config) => {
                let warnings: Vec<String> = config.warnings.iter().map(Fault::to_string).collect();
                warnings.join("\n")
            }
        };
        said.replace(folder.path().to_str().unwrap(), "FOLDER")
    };
    assert_eq!(
        of("{ cert_file = \"cert.pem\", key_file = \"key.pem\" }"),
        report(&with("", "", ""))
    );
    let all = [
        "{ }",
        "{ cert_file = \"cert.pem\" }",
        "{ cert_file = \"missing\", key_file = \"key.pem\" }",
        "{ cert_file = \"empty.pem\", key_file = \"key.pem\" }",
        "{ cert_file = \"cert.pem\", key_file = \"missing\" }",
        "{ cert_file = \"cert.pem\", key_file = \"empty.pem\" }",
        "{ cert_file = \"cert.pem\", key_file = \"other.pem\" }",
        "{ cert_file = \"cert.pem\", key_file = \"odd.pem\" }",
        "{ cert_file = \"early.pem\", key_file = \"early-key.pem\" }",
        "{ cert_file = \"cert.pem\", key_file = \"key.pem\", client_ca_file = \"empty.pem\" }",
        "{ cert_file = \"cert.pem\", key_file = \"key.pem\", ca_file = \"cert.pem\" }",
    ];
    let said: Vec<String> = all.iter().map(|tls| of(tls)).collect();
    insta::assert_snapshot!(said.join("\n"), @r#"
    proxy.toml:10: listener.local.tls.cert_file: it is missing; name a PEM file with the certificate and, below it, those that lead to its authority
    proxy.toml:10: listener.local.tls.key_file: it is missing; name the PEM file with the certificate's private key
    proxy.toml:10: listener.local.tls.key_file: it is missing; name the PEM file with the certificate's private key
    proxy.toml:10: listener.local.tls.cert_file: the file cannot be read: No such file or directory (os error 2); name a PEM file with the certificate and, below it, those that lead to its authority (a relative path counts from FOLDER)
    proxy.toml:10: listener.local.tls.cert_file: there is no certificate in the file; it should be PEM, with -----BEGIN CERTIFICATE-----; name a PEM file with the certificate and, below it, those that lead to its authority (a relative path counts from FOLDER)
    proxy.toml:10: listener.local.tls.key_file: the file cannot be read: No such file or directory (os error 2); name the PEM file with the certificate's private key (a relative path counts from FOLDER)
    proxy.toml:10: listener.local.tls.key_file: there is no private key in the file; it should be PEM, without a password; name the PEM file with the certificate's private key (a relative path counts from FOLDER)
    proxy.toml:10: listener.local.tls.key_file: the key does not belong to the certificate; name the PEM file with the certificate's private key (a relative path counts from FOLDER)
    proxy.toml:10: listener.local.tls.key_file: the key cannot be used: it is damaged, or none of RSA, ECDSA and EdDSA; name the PEM file with the certificate's private key (a relative path counts from FOLDER)
    proxy.toml:6: client.catalog.client_secret: the secret is in the configuration, which is often copied and committed; keep it in a file and name that with `client_secret_file`
    proxy.toml:10: listener.local.tls.cert_file: the certificate is not valid yet: callers that verify it refuse it; check this machine's clock, or wait until the certificate is valid
    proxy.toml:10: listener.local.tls.client_ca_file: there is no certificate in the file; it should be PEM, with -----BEGIN CERTIFICATE-----; name a PEM file with the authority of callers' certificates (a relative path counts from FOLDER)
    proxy.toml:10: listener.local.tls.ca_file: this key is unknown; write `cert_file`
    "#);
}

#[test]
fn trusted_proxies_are_networks_or_addresses() {
    let of = |networks: &str| read(&with("", "", &format!("trusted_proxies = {networks}")));
    let config = of(r#"["10.0.0.0/8", "192.0.2.1", "fd00::/8"]"#).unwrap();
    let networks = config.listeners[0].trusted_proxies.iter();
    let networks: Vec<String> = networks.map(ToString::to_string).collect();
    assert_eq!(networks, ["10.0.0.0/8", "192.0.2.1/32", "fd00::/8"]);
    let faults = of(r#"["10.0.0.0/33", "proxy.internal"]"#).unwrap_err();
    insta::assert_snapshot!(faults, @r#"
    proxy.toml:10: listener.local.trusted_proxies: item 1 is no network; write an address and how many of its bits count, like "10.0.0.0/8" or "fd00::/8"
    proxy.toml:10: listener.local.trusted_proxies: item 2 is no network; write an address and how many of its bits count, like "10.0.0.0/8" or "fd00::/8"
    "#);
}

#[test]
fn an_instance_is_none_of_the_listeners() {
    let of = |url: &str, address: &str| {
        let text = with("", "", "allow_unauthenticated = true");
        let text = text.replace("127.0.0.1:8080", address);
        read(&text.replace("https://acme.example", url))
    };
    for (url, address) in [
        ("http://127.0.0.1:8080", "127.0.0.1:8080"),
        ("http://localhost:8080", "127.0.0.1:8080"),
        ("http://localhost:8080", "[::1]:8080"),
        ("http://127.0.0.9:8080", "0.0.0.0:8080"),
        ("https://[::1]:8443", "[::]:8443"),
    ] {
        let said = of(url, address).unwrap_err().to_string();
        let expected = "instance.acme.url: [listener.local] listens there";
        assert!(said.contains(expected), "{url} {address}: {said}");
    }
    for (url, address) in [
        ("http://127.0.0.1:8081", "127.0.0.1:8080"),
        ("http://127.0.0.1:8080", "127.0.0.2:8080"),
        ("https://acme.collibra.com:8080", "0.0.0.0:8080"),
        ("http://127.0.0.1:8080", "unix:/run/a.sock"),
    ] {
        assert!(of(url, address).is_ok(), "{url} {address}");
    }
}

#[test]
fn the_admin_address_answers_to_more_names() {
    let of = |hosts: &str| read(&format!("{}[admin]\nhosts = {hosts}\n", with("", "", "")));
    let config = of("[\"Proxy.Internal\"]").unwrap();
    assert_eq!(config.admin.hosts, ["proxy.internal"]);
    let said = of("[\"*\"]").unwrap_err().to_string();
    assert!(
        said.contains("admin.hosts: item 1 is no host name"),
        "{said}"
    );
}

#[test]
fn any_host_is_for_listeners_whose_callers_authenticate() {
    let app = "[app.lineage]\nkey_env = \"KEY\"\n";
    let hosts = |listener: &str, app: &str| {
        let text = with("", "", listener).replace("address = \"127.0.0.1:8080\"\n", "");
        let env = |name: &str| (name == "KEY").then(|| "a-key-that-is-long-enough".to_owned());
        let read = read_with(&format!("{text}{app}"), Path::new("/"), &env);
        read.map(|config| config.listeners[0].hosts.join(" "))
            .map_err(|faults| faults.to_string())
    };
    let (beyond, loopback) = ("address = \"0.0.0.0:8080\"", "address = \"127.0.0.1:1\"");
    let any = "\nhosts = [\"*\"]";
    let local = "localhost 127.0.0.1 [::1]";
    assert_eq!(hosts(beyond, app).as_deref(), Ok("*"));
    assert_eq!(hosts(loopback, app).as_deref(), Ok(local));
    assert_eq!(hosts(&format!("{loopback}{any}"), app).as_deref(), Ok("*"));
    let named = format!("{beyond}\nhosts = [\"proxy\"]");
    assert_eq!(hosts(&named, app).as_deref(), Ok("proxy"));
    // nobody says who they are
    let open = format!("{beyond}\nallow_unauthenticated = true");
    assert_eq!(hosts(&open, "").as_deref(), Ok(local));
    let refused = hosts(&format!("{open}{any}"), "").unwrap_err();
    assert!(
        refused.contains("a wildcard would let any website in"),
        "{refused}"
    );
    // every caller is taken for the app
    let given = format!("{beyond}\napp = \"lineage\"");
    assert_eq!(hosts(&given, app).as_deref(), Ok(local));
    assert!(hosts(&format!("{given}{any}"), app).is_err());
    // not one name among others
    let mixed = format!("{beyond}\nhosts = [\"*\", \"proxy\"]");
    assert!(hosts(&mixed, app).is_err());
}

/// The messages for a forward listener with `keys`, in a directory without an authority.
fn forward(address: &str, keys: &str) -> String {
    let keys = format!("mode = \"forward\"\n{keys}");
    let text = with("", "", &keys).replace("127.0.0.1:8080", address);
    let text = text.replace("client_secret = \"s\"", "client_secret_env = \"S\"");
    let env = |name: &str| match name {
        "S" => Some("secret".to_owned()),
        "KEY" => Some("0123456789abcdef".to_owned()),
        _ => None,
    };
    match read_with(&text, Path::new("/nonexistent"), &env) {
        Err(faults) => faults.to_string(),
        Ok(config) => {
            let warnings: Vec<String> = config.warnings.iter().map(Fault::to_string).collect();
            warnings.join("\n")
        }
    }
}

#[test]
fn a_forward_listener_is_this_machines_unless_it_is_said() {
    let of = |cases: &[(&str, &str)]| {
        let said: Vec<String> = cases.iter().map(|(at, keys)| forward(at, keys)).collect();
        said.join("\n--\n")
    };
    insta::assert_snapshot!(of(&[
        ("127.0.0.1:9900", ""),
        ("0.0.0.0:9900", "allow_unauthenticated = true"),
        ("0.0.0.0:9900", "allow_unauthenticated = true\nallow_remote = true\nothers = \"tunnel\""),
        ("0.0.0.0:9900", "allow_remote = true\n[app.a]\nkey_env = \"KEY\""),
        ("unix:/run/a.sock", ""),
        ("127.0.0.1:9900", "others = \"pass\""),
        ("127.0.0.1:9900", "hosts = [\"localhost\"]\nroute = [{ prefix = \"/a\" }]\ntls = \"local\""),
    ]), @r#"
    proxy.toml: ca: there is no local authority in /nonexistent, so programs cannot call https:// through this proxy; run `collibra-auth-proxy ca init` with this configuration
    --
    proxy.toml:9: listener.local.address: a forward proxy is meant for the programs of this machine, and this one is open beyond it; listen on 127.0.0.1, or write `allow_remote = true` if that is meant
    --
    proxy.toml:9: listener.local.address: with `others = "tunnel"` anyone who can reach this port can leave this network through it; add [app.NAME] so that callers must authenticate, or write `others = "refuse"`
    --
    proxy.toml: ca: there is no local authority in /nonexistent, so programs cannot call https:// through this proxy; run `collibra-auth-proxy ca init` with this configuration
    proxy.toml:9: listener.local.address: the apps' keys travel to this listener unencrypted; give it a certificate (`tls`), and programs an https:// proxy address
    --
    proxy.toml:10: listener.local.mode: programs find a forward proxy by host and port, not by a unix socket; write an address like "127.0.0.1:9900"
    --
    proxy.toml:11: listener.local.others: this is not known; write "refuse" or "tunnel"
    --
    proxy.toml:8: listener.local.route: a forward listener chooses the client by the host that is called; remove it, or listen on another port for these paths
    proxy.toml:11: listener.local.hosts: a forward listener accepts the instances' hosts; remove it
    proxy.toml:13: listener.local.tls: the local authority certifies the instances' hosts, and programs call a forward proxy by its own name; remove it: the TLS inside tunnels needs no key; or name a certificate of this machine's name
    "#);
}

#[test]
fn only_a_forward_listener_has_its_keys() {
    insta::assert_snapshot!(listener("address = \"127.0.0.1:80\"\nmode = \"reverse\"\nothers = \"tunnel\"\nallow_remote = true\ntls = \"global\""), @r#"
    proxy.toml:11: listener.local.others: only a forward listener has this; remove it, or write `mode = "forward"`
    proxy.toml:12: listener.local.allow_remote: only a forward listener has this; remove it, or write `mode = "forward"`
    proxy.toml:13: listener.local.tls: this is not known; write "local", or a table like { cert_file = "…", key_file = "…" }
    "#);
}

#[test]
fn a_forward_listener_has_one_client_for_each_instance() {
    let text = |client: &str| {
        format!(
            "{}{client}\n[instance.dev]\nurl = \"https://dev.example\"\n[client.dev]\ninstance = \"dev\"\n\
             client_id = \"a\"\nclient_secret = \"s\"\n[client.twin]\ninstance = \"dev\"\nclient_id = \"b\"\nclient_secret = \"s\"\n",
            with("", "instance = \"acme\"", "mode = \"forward\"")
        )
    };
    let said = read(&text("")).unwrap_err().to_string();
    insta::assert_snapshot!(said, @"proxy.toml:8: listener.local.client: [instance.dev] has several clients, and this does not say which; write one of `dev`, `twin`");
    let config = read(&text("client = \"twin\"")).unwrap();
    let listener = &config.listeners[0];
    let clients = listener.forward.as_ref().unwrap().clients.iter();
    let clients: Vec<&str> = clients.map(|client| &**client).collect();
    assert_eq!(clients, ["twin", "catalog"]);
    assert_eq!(&*listener.client, "twin");
}

#[test]
fn an_instance_is_not_called_through_this_proxy_itself() {
    for keys in [
        "proxy = \"http://127.0.0.1:8080\"",
        "token_proxy = \"http://localhost:8080\"",
    ] {
        let said = read(&with(keys, "", "")).unwrap_err().to_string();
        let expected =
            "[listener.local] listens there: this proxy would call Collibra through itself";
        assert!(said.contains(expected), "{said}");
    }
    let own = |name: &str| (name == "HTTPS_PROXY").then(|| "http://127.0.0.1:8080".to_owned());
    let said = read_with(&with("", "", ""), Path::new("/nonexistent"), &own);
    assert!(said.unwrap_err().to_string().contains("write \"direct\""));
    assert!(read(&with("proxy = \"http://127.0.0.1:3128\"", "", "")).is_ok());
}
