//! The credentials of a new client are stored in a Kubernetes Secret, and nowhere else.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::{Rig, clients, text};
use crate::support::Proxy;
use crate::support::kubernetes::{Faults, Kubernetes};
use crate::support::process::{Ended, command, run};

/// Registers a client with its credentials at `place`, with the kubeconfig file `by`.
fn register(rig: &Rig, place: &str, by: &str) -> Ended {
    let words = rig.by_admin(&["register", "nightly", "--output", place]);
    let mut command = command(["--log-level", "trace", "clients"]);
    run(command.args(words).env("KUBECONFIG", by))
}

fn failed(ended: &Ended, said: &str) {
    assert_eq!(ended.status, 1, "{}{}", ended.out, ended.err);
    assert!(ended.err.contains(said), "{}", ended.err);
}

#[test]
fn a_secret_holds_what_a_proxy_needs_and_nothing_else_shows_it() {
    let (rig, server) = (Rig::new(), Kubernetes::start());
    let config = server.operator_kubeconfig();
    let ended = register(&rig, "kubernetes:test/catalog", text(&config));
    let seen = format!("{}{}", ended.out, ended.err);
    assert_eq!(ended.status, 0, "{seen}");
    assert!(
        seen.contains("the Secret catalog in the namespace test"),
        "{seen}"
    );

    let secret = server.secret_named("catalog").unwrap();
    let kept = |key: &str| {
        let coded = secret["data"][key].as_str().unwrap();
        assert!(key == "client_id" || !seen.contains(coded), "{seen}");
        let path = rig.path(key);
        std::fs::write(&path, STANDARD.decode(coded).unwrap()).unwrap();
        path
    };
    let (id, key) = (kept("client_id"), kept("client_secret"));
    assert_eq!(secret["data"].as_object().unwrap().len(), 2);
    let shown = std::fs::read_to_string(&key).unwrap();
    assert!(!seen.contains(&shown), "{seen}");
    let proxy = Proxy::to(&rig.simulator.url())
        .without("COLLIBRA_CLIENT_ID")
        .without("COLLIBRA_CLIENT_SECRET")
        .file("--client-id-file", &id)
        .file("--client-secret-file", &key)
        .start();
    proxy.has_token();
}

#[test]
fn before_it_is_known_that_it_can_be_kept_nothing_is_registered() {
    let (rig, mut server) = (Rig::new(), Kubernetes::start());
    let (all, few) = (server.operator_kubeconfig(), server.kubeconfig());
    let none = rig.path("none");
    for (place, by, said) in [
        ("kubernetes:test/token", &all, "already exists"),
        ("kubernetes:other/catalog", &all, "has no namespace other"),
        ("kubernetes:test/catalog", &few, "bind it to a Role"),
        ("kubernetes:test/catalog", &none, "set KUBECONFIG to"),
    ] {
        failed(&register(&rig, place, text(by)), said);
    }
    server.stop();
    let ended = register(&rig, "kubernetes:test/catalog", text(&all));
    failed(&ended, "cannot be reached");
    let ended = clients(rig.by_admin(&["register", "nightly", "--output", "kubernetes:catalog"]));
    assert_eq!(ended.status, 2, "{}", ended.err);
    assert!(
        ended.err.contains("kubernetes:NAMESPACE/NAME"),
        "{}",
        ended.err
    );
    assert_eq!(rig.simulator.count("requests"), 0);
}

#[test]
fn a_client_whose_secret_cannot_be_kept_after_all_is_deleted_again() {
    let (rig, server) = (Rig::new(), Kubernetes::start());
    server.does(Faults {
        keeps_nothing: true,
        ..Faults::default()
    });
    let config = server.operator_kubeconfig();
    let ended = register(&rig, "kubernetes:test/catalog", text(&config));
    failed(&ended, "nightly was deleted again");
    assert!(ended.err.contains("answers 500"), "{}", ended.err);
    assert!(server.secret_named("catalog").is_none());
    rig.assert_one_client();
}
