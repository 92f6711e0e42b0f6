//! Rendered Kubernetes objects and their relations.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{configuration, policy, shape};

/// All objects of one rendering.
pub(crate) struct Objects(pub(crate) Vec<Value>);

impl Objects {
    /// The documents of a YAML file.
    pub(crate) fn read(yaml: &str) -> Objects {
        let documents: Vec<Value> = serde_saphyr::from_multiple(yaml).unwrap();
        let objects: Vec<Value> = documents.into_iter().filter(|d| !d.is_null()).collect();
        assert!(!objects.is_empty(), "nothing was rendered");
        Objects(objects)
    }

    /// The objects of a kind.
    pub(crate) fn of_kind<'a>(&'a self, kind: &str) -> impl Iterator<Item = &'a Value> {
        let kind = kind.to_owned();
        self.0.iter().filter(move |object| object["kind"] == kind)
    }

    /// The only object of a kind.
    pub(crate) fn one(&self, kind: &str) -> &Value {
        let found: Vec<_> = self.of_kind(kind).collect();
        assert_eq!(found.len(), 1, "objects of kind {kind}");
        found[0]
    }

    /// How many objects there are of each kind, in order.
    pub(crate) fn kinds(&self) -> String {
        let mut counts = BTreeMap::<&str, usize>::new();
        for object in &self.0 {
            *counts.entry(object["kind"].as_str().unwrap()).or_default() += 1;
        }
        let said = counts.iter().map(|(kind, count)| match count {
            1 => (*kind).to_owned(),
            _ => format!("{kind} x {count}"),
        });
        said.collect::<Vec<_>>().join(", ")
    }

    /// The only object with a pod template.
    pub(crate) fn workload(&self) -> &Value {
        let mut with = self
            .0
            .iter()
            .filter(|object| object["spec"]["template"].is_object());
        let found = with.next().expect("no object has a pod template");
        assert!(with.next().is_none(), "several objects have pod templates");
        found
    }

    /// The pod template of the only object with one.
    pub(crate) fn pod(&self) -> &Value {
        &self.workload()["spec"]["template"]["spec"]
    }

    /// The proxy's container in it.
    pub(crate) fn proxy(&self) -> &Value {
        containers(self.pod())
            .find(|container| container["name"] == "collibra-auth-proxy")
            .expect("no container of the proxy")
    }

    /// Asserts that each object is valid, the pod complies with the policy, references resolve, and
    /// the configuration is accepted.
    pub(crate) fn assert_sound(&self) {
        let mut faults = Vec::new();
        for object in &self.0 {
            let name = &object["metadata"]["name"];
            let heading = format!("{} {name}", object["kind"].as_str().unwrap());
            faults.extend(
                shape::faults(object)
                    .iter()
                    .map(|f| format!("{heading}{f}")),
            );
        }
        faults.extend(policy::faults(self.pod()));
        faults.extend(self.strays());
        assert!(faults.is_empty(), "\n{}\n", faults.join("\n"));
        self.assert_named_twice_nowhere();
        configuration::assert_accepted(self);
    }

    /// Dangling references: ports, pod labels, volumes.
    fn strays(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let labels = &self.workload()["spec"]["template"]["metadata"]["labels"];
        let ports: Vec<&Value> = containers(self.pod())
            .flat_map(|container| list(&container["ports"]))
            .map(|port| &port["name"])
            .collect();
        let own = [
            ("Service", "/spec/selector"),
            ("PodDisruptionBudget", "/spec/selector/matchLabels"),
            ("NetworkPolicy", "/spec/podSelector/matchLabels"),
            ("PodMonitor", "/spec/selector/matchLabels"),
            ("Deployment", "/spec/selector/matchLabels"),
            ("StatefulSet", "/spec/selector/matchLabels"),
        ];
        for (kind, place) in own {
            for object in self.of_kind(kind) {
                let wanted = object.pointer(place).and_then(Value::as_object);
                let wanted = wanted.unwrap_or_else(|| panic!("{kind} has no {place}"));
                for (name, value) in wanted {
                    if labels[name] != *value {
                        faults.push(format!("{kind}: no pod has the label {name}={value}"));
                    }
                }
            }
        }
        let named = [
            ("Service", "/spec/ports", "targetPort"),
            ("PodMonitor", "/spec/podMetricsEndpoints", "port"),
        ];
        for (kind, place, key) in named {
            for port in self
                .of_kind(kind)
                .flat_map(|o| list(o.pointer(place).unwrap()))
            {
                if !ports.contains(&&port[key]) {
                    faults.push(format!("{kind}: no container has the port {}", port[key]));
                }
            }
        }
        for monitor in self.of_kind("ServiceMonitor") {
            faults.extend(self.strays_of_service_monitor(monitor));
        }
        for container in containers(self.pod()) {
            for probe in ["startupProbe", "readinessProbe", "livenessProbe"] {
                let port = &container[probe]["httpGet"]["port"];
                let known = list(&container["ports"]).any(|own| own["name"] == *port);
                if !port.is_null() && !known {
                    faults.push(format!("{probe}: its container has no port {port}"));
                }
            }
            for mount in list(&container["volumeMounts"]) {
                let mut volumes = list(&self.pod()["volumes"]);
                if !volumes.any(|volume| volume["name"] == mount["name"]) {
                    faults.push(format!("no volume is named {}", mount["name"]));
                }
            }
        }
        faults
    }

    /// Faults of a ServiceMonitor: it has to select one Service, which has its port and its job
    /// label.
    fn strays_of_service_monitor(&self, monitor: &Value) -> Vec<String> {
        let wanted = monitor["spec"]["selector"]["matchLabels"].as_object();
        let wanted = wanted.expect("ServiceMonitor has no matchLabels");
        let selected: Vec<_> = self
            .of_kind("Service")
            .map(|service| (&service["metadata"]["labels"], &service["spec"]["ports"]))
            .filter(|(labels, _)| wanted.iter().all(|(name, value)| labels[name] == *value))
            .collect();
        let [(labels, ports)] = selected[..] else {
            let count = selected.len();
            return vec![format!("ServiceMonitor: it selects {count} Services")];
        };
        let mut faults = Vec::new();
        for endpoint in list(&monitor["spec"]["endpoints"]) {
            if !list(ports).any(|port| port["name"] == endpoint["port"]) {
                let port = &endpoint["port"];
                faults.push(format!("ServiceMonitor: no Service has the port {port}"));
            }
        }
        let job = monitor["spec"]["jobLabel"].as_str().unwrap_or_default();
        if !labels[job].is_string() {
            faults.push(format!("ServiceMonitor: no Service has the label {job}"));
        }
        faults
    }

    fn assert_named_twice_nowhere(&self) {
        let mut seen = std::collections::BTreeSet::new();
        for object in &self.0 {
            let name = (
                object["kind"].to_string(),
                object["metadata"]["name"].to_string(),
            );
            assert!(seen.insert(name.clone()), "{name:?} is there twice");
        }
    }
}

/// The containers of a pod, init containers first.
pub(crate) fn containers(pod: &Value) -> impl Iterator<Item = &Value> {
    list(&pod["initContainers"]).chain(list(&pod["containers"]))
}

/// The elements of an array; none if it is not an array.
pub(crate) fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}
