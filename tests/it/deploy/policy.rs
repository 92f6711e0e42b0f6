//! The policy for pods: Kubernetes' restricted profile
//! (<https://kubernetes.io/docs/concepts/security/pod-security-standards/#restricted>), and this
//! project's additional rules.

use serde_json::{Value, json};

use super::objects::{containers, list};

/// Volume types that the profile allows.
const VOLUMES: &[&str] = &[
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
];

/// The violations in a pod's specification.
pub(crate) fn faults(pod: &Value) -> Vec<String> {
    let mut faults = Vec::new();
    let mut hold = |kept: bool, fault: String| {
        if !kept {
            faults.push(fault);
        }
    };
    for shared in ["hostNetwork", "hostPID", "hostIPC"] {
        let kept = pod[shared].is_null() || pod[shared] == false;
        hold(kept, format!("{shared} is shared"));
    }
    for volume in list(&pod["volumes"]) {
        let volume = volume.as_object().unwrap();
        let mut kinds = volume.keys().filter(|key| *key != "name");
        hold(
            kinds.all(|kind| VOLUMES.contains(&kind.as_str())),
            format!("a volume of a kind that is not allowed: {volume:?}"),
        );
    }
    hold(
        pod["automountServiceAccountToken"].is_boolean(),
        "automountServiceAccountToken is left to the cluster".to_owned(),
    );
    for container in containers(pod) {
        let name = &container["name"];
        for fault in of_container(pod, container) {
            hold(false, format!("container {name}: {fault}"));
        }
    }
    faults
}

fn of_container(pod: &Value, container: &Value) -> Vec<String> {
    let own = &container["securityContext"];
    // the container's setting, else the pod's
    let effective = |key: &str| match &own[key] {
        Value::Null => pod["securityContext"][key].clone(),
        value => value.clone(),
    };
    let image = container["image"].as_str().unwrap_or_default();
    let tag = image.rsplit_once(':').map_or("", |(_, tag)| tag);
    let resources = &container["resources"];
    let rules = [
        // the restricted profile
        (
            own["privileged"].is_null() || own["privileged"] == false,
            "is privileged",
        ),
        (
            own["allowPrivilegeEscalation"] == false,
            "may gain privileges",
        ),
        (
            own["capabilities"]["drop"] == json!(["ALL"]),
            "keeps capabilities",
        ),
        (
            list(&own["capabilities"]["add"]).all(|added| added == "NET_BIND_SERVICE"),
            "adds capabilities",
        ),
        (effective("runAsNonRoot") == true, "may run as root"),
        (effective("runAsUser") != 0, "runs as root"),
        (
            ["RuntimeDefault", "Localhost"]
                .iter()
                .any(|kind| effective("seccompProfile")["type"] == *kind),
            "has no seccomp profile",
        ),
        (own["procMount"].is_null(), "changes procMount"),
        (
            list(&container["ports"]).all(|port| port["hostPort"].is_null()),
            "takes a port of the host",
        ),
        // this project's rules
        (own["readOnlyRootFilesystem"] == true, "can write its files"),
        (
            !tag.is_empty() && tag != "latest" && !tag.contains('/'),
            "has an image of no version",
        ),
        (
            resources["requests"]["cpu"].is_string() && resources["requests"]["memory"].is_string(),
            "asks for no resources",
        ),
        (resources["limits"]["memory"].is_string(), "has no limit"),
        (
            list(&container["volumeMounts"]).all(|mount| mount["subPath"].is_null()),
            "mounts one file, which never sees a change",
        ),
        (
            list(&container["env"]).all(|variable| variable["valueFrom"]["secretKeyRef"].is_null())
                && list(&container["envFrom"]).all(|from| from["secretRef"].is_null()),
            "has a secret in its environment",
        ),
    ];
    let broken = rules.iter().filter(|(kept, _)| !kept);
    broken.map(|(_, fault)| (*fault).to_owned()).collect()
}

mod of_the_policy_itself {
    use serde_json::{Value, json};

    use super::faults;

    fn good() -> Value {
        json!({
            "automountServiceAccountToken": false,
            "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [{
                "name": "x",
                "image": "x:1",
                "ports": [{"containerPort": 1}],
                "securityContext": {
                    "allowPrivilegeEscalation": false,
                    "readOnlyRootFilesystem": true,
                    "capabilities": {"drop": ["ALL"]},
                },
                "resources": {
                    "requests": {"cpu": "1", "memory": "1Mi"},
                    "limits": {"memory": "1Mi"},
                },
                "volumeMounts": [{"name": "v", "mountPath": "/v"}],
                "env": [],
            }],
            "volumes": [{"name": "v", "emptyDir": {}}],
        })
    }

    #[test]
    fn each_rule_is_broken_by_what_breaks_it() {
        assert_eq!(faults(&good()), Vec::<String>::new());
        let container = "/containers/0";
        let broken = [
            ("", "hostNetwork", json!(true)),
            ("", "hostPID", json!(true)),
            ("", "hostIPC", json!(true)),
            ("", "automountServiceAccountToken", Value::Null),
            (
                "",
                "volumes",
                json!([{"name": "v", "hostPath": {"path": "/"}}]),
            ),
            ("/securityContext", "runAsNonRoot", json!(false)),
            ("/securityContext", "runAsUser", json!(0)),
            (
                "/securityContext",
                "seccompProfile",
                json!({"type": "Unconfined"}),
            ),
            (container, "image", json!("x")),
            (container, "image", json!("x:latest")),
            (container, "image", json!("registry:5000/x")),
            (
                container,
                "ports",
                json!([{"containerPort": 1, "hostPort": 1}]),
            ),
            (container, "resources", json!({"limits": {"memory": "1Mi"}})),
            (
                container,
                "resources",
                json!({"requests": {"cpu": "1", "memory": "1Mi"}}),
            ),
            (
                container,
                "volumeMounts",
                json!([{"name": "v", "subPath": "f"}]),
            ),
            (container, "envFrom", json!([{"secretRef": {"name": "s"}}])),
            (
                container,
                "env",
                json!([{"name": "S", "valueFrom": {"secretKeyRef": {}}}]),
            ),
        ];
        let of_security = [
            ("privileged", json!(true)),
            ("allowPrivilegeEscalation", Value::Null),
            ("readOnlyRootFilesystem", Value::Null),
            ("runAsUser", json!(0)),
            ("procMount", json!("Unmasked")),
            ("capabilities", json!({})),
            (
                "capabilities",
                json!({"drop": ["ALL"], "add": ["SYS_ADMIN"]}),
            ),
        ];
        let own = "/containers/0/securityContext";
        let of_security = of_security.map(|(key, value)| (own, key, value));
        for (place, key, value) in broken.into_iter().chain(of_security) {
            let mut pod = good();
            pod.pointer_mut(place).unwrap()[key] = value.clone();
            assert_eq!(faults(&pod).len(), 1, "{place}/{key}: {value}");
        }
    }
}
