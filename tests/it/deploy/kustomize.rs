//! Every overlay, as `kubectl kustomize` renders it.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};

use super::containers::assert_served_by_tls;
use super::objects::{Objects, containers, list};
use super::{printed, top};

/// The objects of the overlay `name`.
fn overlay(name: &str) -> Objects {
    let path = top().join("deploy/kubernetes/overlays").join(name);
    Objects::read(&printed(Command::new("kubectl").arg("kustomize").arg(path)))
}

#[test]
fn every_overlay_is_exact_and_restricted() {
    let folder = top().join("deploy/kubernetes/overlays");
    let mut said = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let objects = overlay(&name);
        objects.assert_sound();
        said.push(format!("{name}: {}", objects.kinds()));
    }
    said.sort();
    insta::assert_snapshot!(said.join("\n"), @r#"
    gateway-file: ConfigMap, Deployment, Namespace, NetworkPolicy, PodDisruptionBudget, Service, ServiceAccount
    gateway-kubernetes: ConfigMap, Deployment, HorizontalPodAutoscaler, Lease, Namespace, NetworkPolicy x 2, PodDisruptionBudget, Role, RoleBinding, Secret, Service, ServiceAccount
    gateway-monitored: ConfigMap, Deployment, Namespace, NetworkPolicy, PodDisruptionBudget, PodMonitor, PrometheusRule, Service, ServiceAccount
    gateway-redis: ConfigMap, Deployment, HorizontalPodAutoscaler, Namespace, NetworkPolicy x 2, PodDisruptionBudget, Service, ServiceAccount
    gateway-service-monitored: ConfigMap, Deployment, Namespace, NetworkPolicy, PodDisruptionBudget, PrometheusRule, Service x 2, ServiceAccount, ServiceMonitor
    gateway: ConfigMap, Deployment, Namespace, NetworkPolicy, PodDisruptionBudget, Service, ServiceAccount
    sidecar-deployment: ConfigMap, Deployment, Namespace
    sidecar-job: ConfigMap, Job, Namespace
    sidecar-statefulset: ConfigMap, Namespace, StatefulSet
    "#);
}

#[test]
fn a_gateway_is_two_that_outlast_an_eviction() {
    let objects = overlay("gateway");
    assert_eq!(objects.workload()["spec"]["replicas"], 2);
    let strategy = &objects.workload()["spec"]["strategy"]["rollingUpdate"];
    assert_eq!(*strategy, json!({"maxSurge": 1, "maxUnavailable": 0}));
    let budget = objects.one("PodDisruptionBudget");
    assert_eq!(budget["spec"]["maxUnavailable"], 1);
    assert_eq!(
        objects.proxy()["readinessProbe"]["httpGet"]["path"],
        "/readyz"
    );
    assert_ends_in_time(&objects);
}

/// Asserts that late calls are served during a shutdown, and that requests in flight are finished.
pub(crate) fn assert_ends_in_time(objects: &Objects) {
    let sleep = objects.proxy()["lifecycle"]["preStop"]["sleep"]["seconds"].as_u64();
    let grace = objects.pod()["terminationGracePeriodSeconds"].as_u64();
    let (sleep, grace) = (sleep.unwrap(), grace.unwrap());
    // server.drain, which no configuration changes here
    let drain = 20;
    assert!(sleep >= 5 && sleep + drain < grace, "{sleep} s, {grace} s");
}

#[test]
fn a_gateway_is_reached_by_apps_and_reaches_names_and_port_443() {
    let policy = overlay("gateway").one("NetworkPolicy").clone();
    let from: Vec<(Vec<&str>, Value)> = list(&policy["spec"]["ingress"])
        .map(|rule| {
            let ports = list(&rule["ports"]).map(|port| port["port"].as_str().unwrap());
            (ports.collect::<Vec<_>>(), rule["from"].clone())
        })
        .collect();
    let by_label = json!([{
        "namespaceSelector": {},
        "podSelector": {"matchLabels": {"collibra-auth-proxy/app": "true"}},
    }]);
    let monitoring = json!([{
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}},
    }]);
    let (apps, metrics) = (vec!["http", "https"], vec!["admin"]);
    assert_eq!(from, [(apps, by_label), (metrics, monitoring)]);
    // the proxy's own labels are not added to the DNS selector
    let names = &policy["spec"]["egress"][0]["to"][0]["podSelector"];
    assert_eq!(*names, json!({"matchLabels": {"k8s-app": "kube-dns"}}));
}

#[test]
fn more_than_two_gateways_share_a_store() {
    for name in ["gateway-redis", "gateway-kubernetes"] {
        let objects = overlay(name);
        let scaler = &objects.one("HorizontalPodAutoscaler")["spec"];
        assert_eq!(
            (&scaler["minReplicas"], &scaler["maxReplicas"]),
            (&json!(2), &json!(10))
        );
        // left to the autoscaler; otherwise each `kubectl apply` would reset it
        assert_eq!(objects.workload()["spec"]["replicas"], Value::Null);
        let target = &scaler["scaleTargetRef"]["name"];
        assert_eq!(*target, objects.workload()["metadata"]["name"]);
    }
}

#[test]
fn the_api_server_is_reached_with_one_store_and_for_two_objects_only() {
    for name in ["gateway", "gateway-file", "gateway-redis"] {
        let objects = overlay(name);
        assert_eq!(
            objects.pod()["automountServiceAccountToken"],
            false,
            "{name}"
        );
        assert!(objects.of_kind("Role").next().is_none(), "{name}");
    }
    let objects = overlay("gateway-kubernetes");
    assert_eq!(objects.pod()["automountServiceAccountToken"], true);
    assert_narrow(&objects);
}

/// Asserts that the permissions are limited to one Secret and one Lease, which exist.
pub(crate) fn assert_narrow(objects: &Objects) {
    let token = objects.one("Secret")["metadata"]["name"].clone();
    assert_eq!(objects.one("Lease")["metadata"]["name"], token);
    let rules: Vec<_> = list(&objects.one("Role")["rules"]).collect();
    // the same as the stand-in's in tests/it/support, which suffice for the program
    let granted = [
        ("", "secrets", json!(["get", "watch", "update"])),
        (
            "coordination.k8s.io",
            "leases",
            json!(["get", "watch", "update"]),
        ),
    ];
    for (rule, (group, kind, verbs)) in rules.iter().zip(granted) {
        assert_eq!(
            **rule,
            json!({
                "apiGroups": [group], "resources": [kind], "resourceNames": [token], "verbs": verbs
            })
        );
    }
    assert_eq!(rules.len(), 2);
    let subject = &objects.one("RoleBinding")["subjects"][0];
    assert_eq!(subject["name"], objects.pod()["serviceAccountName"]);
    assert_eq!(
        subject["name"],
        objects.one("ServiceAccount")["metadata"]["name"]
    );
    assert_eq!(
        objects.one("RoleBinding")["roleRef"]["name"],
        objects.one("Role")["metadata"]["name"]
    );
}

#[test]
fn a_gateway_without_a_token_is_still_scraped() {
    let objects = overlay("gateway-service-monitored");
    assert_scraped_without_a_token(&objects);
}

/// Fails unless the scraped Service is headless and also publishes pods that are not ready.
pub(crate) fn assert_scraped_without_a_token(objects: &Objects) {
    let mut services = objects.of_kind("Service").map(|service| &service["spec"]);
    let scraped = services
        .find(|spec| spec["ports"][0]["name"] == "admin")
        .expect("no Service has the admin port");
    assert_eq!(scraped["publishNotReadyAddresses"], true);
    assert_eq!(scraped["clusterIP"], "None");
}

#[test]
fn one_line_puts_the_sidecar_before_all_others() {
    for (name, others) in [
        ("sidecar-deployment", &["app"][..]),
        ("sidecar-statefulset", &["app"]),
        ("sidecar-job", &["prepare", "app"]),
    ] {
        let objects = overlay(name);
        let names: Vec<_> = containers(objects.pod())
            .map(|container| container["name"].as_str().unwrap())
            .collect();
        assert_eq!(names, [&["collibra-auth-proxy"], others].concat(), "{name}");
        assert_sidecar(&objects);
        let sample = fs::read_to_string(top().join("config/sidecar.toml")).unwrap();
        let data = &objects.one("ConfigMap")["data"]["collibra-auth-proxy.toml"];
        assert_eq!(*data, sample, "{name}");
    }
}

/// Asserts that the proxy is a native sidecar whose start is complete once it holds a token.
pub(crate) fn assert_sidecar(objects: &Objects) {
    let first = &objects.pod()["initContainers"][0];
    assert_eq!(first["name"], "collibra-auth-proxy");
    assert_eq!(first["restartPolicy"], "Always");
    assert_eq!(
        first["startupProbe"]["httpGet"],
        json!({"path": "/readyz", "port": "admin"})
    );
}

/// A user's kustomization next to a copy of the sidecar component: kustomize accepts no path from
/// elsewhere.
struct Own {
    folder: tempfile::TempDir,
}

impl Own {
    /// The example of an app, with the component.
    fn new() -> Own {
        let own = Own {
            folder: tempfile::tempdir().unwrap(),
        };
        for (from, to) in [
            ("components/sidecar", "components/sidecar"),
            ("overlays/sidecar-deployment", "overlays/mine"),
        ] {
            let target = own.folder.path().join(to);
            fs::create_dir_all(&target).unwrap();
            for entry in fs::read_dir(top().join("deploy/kubernetes").join(from)).unwrap() {
                let path = entry.unwrap().path();
                fs::copy(&path, target.join(path.file_name().unwrap())).unwrap();
            }
        }
        own
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join("overlays/mine").join(name)
    }

    fn rendered(&self) -> Objects {
        let mut kubectl = Command::new("kubectl");
        Objects::read(&printed(kubectl.arg("kustomize").arg(self.path(""))))
    }
}

#[test]
fn a_pod_can_be_left_without_a_sidecar() {
    let own = Own::new();
    let app = own.path("app.yaml");
    let text = fs::read_to_string(&app).unwrap();
    let other = text.replace(
        "name: exporter\nspec",
        "name: database\n  labels:\n    collibra-auth-proxy/sidecar: none\nspec",
    );
    assert_ne!(text, other);
    fs::write(&app, format!("{text}---\n{other}")).unwrap();
    let objects = own.rendered();
    let with: Vec<_> = objects
        .of_kind("Deployment")
        .filter(|object| object["spec"]["template"]["spec"]["initContainers"].is_array())
        .map(|object| &object["metadata"]["name"])
        .collect();
    assert_eq!(objects.of_kind("Deployment").count(), 2);
    assert_eq!(with, ["exporter"]);
}

/// The YAML blocks of the guide: the sidecar's kustomization, and the gateway's.
fn guides_kustomizations() -> Vec<String> {
    let guide = fs::read_to_string(top().join("docs/start.md")).unwrap();
    let blocks = guide.split("```yaml\n").skip(1);
    let blocks = blocks.map(|block| block.split("```").next().unwrap().to_owned());
    blocks.collect()
}

#[test]
fn the_guides_gateway_works_as_written() {
    let written = &guides_kustomizations()[1];
    // avoid the network: the content is local
    let line = written
        .lines()
        .find(|line| line.contains("github.com"))
        .unwrap();
    let (_, path) = line.split_once("/deploy/kubernetes/").unwrap();
    let path = path.split('?').next().unwrap();
    let here = written.replace(line, &format!("  - TOP/{path}"));
    let base = fs::read_to_string(top().join("deploy/kubernetes/base/collibra-auth-proxy.toml"));
    let mine = base
        .unwrap()
        .replace("acme.collibra.com", "mine.collibra.com");
    let objects = rendered(&here, &[("collibra-auth-proxy.toml", &mine)]);
    objects.assert_sound();
    let data = &objects.one("ConfigMap")["data"]["collibra-auth-proxy.toml"];
    assert_eq!(*data, mine);
    assert_eq!(
        objects.proxy()["image"],
        "registry.example/collibra-auth-proxy:0.1.0"
    );
}

#[test]
fn the_guides_sidecar_works_as_written() {
    let own = Own::new();
    let written = &guides_kustomizations()[0];
    // avoid the network: the content is local
    let line = written
        .lines()
        .find(|line| line.contains("github.com"))
        .unwrap();
    let here = written
        .replace(line, "  - ../../components/sidecar")
        .replace("deployment.yaml", "app.yaml");
    fs::write(own.path("kustomization.yaml"), here).unwrap();
    let configuration = fs::read_to_string(top().join("config/sidecar.toml")).unwrap();
    let mine = configuration.replace("acme.collibra.com", "mine.collibra.com");
    fs::write(own.path("collibra-auth-proxy.toml"), &mine).unwrap();

    let objects = own.rendered();
    objects.assert_sound();
    assert_sidecar(&objects);
    let data = &objects.one("ConfigMap")["data"]["collibra-auth-proxy.toml"];
    assert_eq!(*data, mine);
    assert_eq!(
        objects.proxy()["image"],
        "registry.example/collibra-auth-proxy:0.1.0"
    );
}

/// The objects of a user's kustomization `text`, which starts from this project's files with
/// `TOP/`.
fn rendered(text: &str, more: &[(&str, &str)]) -> Objects {
    let folder = tempfile::tempdir().unwrap();
    // kustomize rejects absolute paths
    let up = "../".repeat(folder.path().components().count() - 1);
    let top = top().canonicalize().unwrap();
    let top = top.strip_prefix("/").unwrap().display();
    let text = text.replace("TOP/", &format!("{up}{top}/deploy/kubernetes/"));
    for (name, content) in more.iter().chain(&[("kustomization.yaml", &*text)]) {
        fs::write(folder.path().join(name), content).unwrap();
    }
    let mut command = Command::new("kubectl");
    Objects::read(&printed(command.arg("kustomize").arg(folder.path())))
}

#[test]
fn what_names_a_namespace_follows_the_overlay() {
    for name in [
        "gateway",
        "gateway-file",
        "gateway-kubernetes",
        "gateway-redis",
    ] {
        let text = format!("namespace: elsewhere\nresources:\n  - TOP/overlays/{name}\n");
        let objects = rendered(&text, &[]);
        objects.assert_sound();
        for binding in objects.of_kind("RoleBinding") {
            assert_eq!(binding["subjects"][0]["namespace"], "elsewhere");
        }
        let configuration = &objects.one("ConfigMap")["data"]["collibra-auth-proxy.toml"];
        let configuration = configuration.as_str().unwrap();
        let foreign = [
            "namespace =",
            ".collibra.svc",
            "collibra-auth-proxy.collibra",
        ];
        assert!(
            !foreign.iter().any(|name| configuration.contains(name)),
            "{configuration}"
        );
    }
}

#[test]
fn a_gateway_answers_with_tls_and_http_2_in_any_namespace() {
    for name in ["gateway", "gateway-file"] {
        let text = format!("namespace: elsewhere\nresources:\n  - TOP/overlays/{name}\n");
        assert_served_by_tls(&rendered(&text, &[]));
    }
}

#[test]
fn cert_manager_writes_the_secret_that_the_gateway_mounts() {
    let objects = rendered(
        "resources:\n  - TOP/overlays/gateway\ncomponents:\n  - TOP/components/certificate\nnamespace: collibra\n",
        &[],
    );
    objects.assert_sound();
    assert_certified(&objects);
}

/// Asserts that the Certificate is for the Service's names, and its Secret is the pod's.
pub(crate) fn assert_certified(objects: &Objects) {
    let certificate = &objects.one("Certificate")["spec"];
    let mounted = list(&objects.pod()["volumes"])
        .find(|volume| volume["name"] == "collibra-auth-proxy-tls")
        .unwrap();
    assert_eq!(certificate["secretName"], mounted["secret"]["secretName"]);
    let service = &objects.one("Service")["metadata"];
    let name = service["name"].as_str().unwrap();
    let namespace = service["namespace"].as_str().unwrap();
    let names: Vec<_> = list(&certificate["dnsNames"]).collect();
    for suffix in ["", ".svc", ".svc.cluster.local"] {
        let wanted = json!(format!("{name}.{namespace}{suffix}"));
        assert!(names.contains(&&wanted), "{wanted}");
    }
    assert!(names.contains(&&service["name"]));
}
