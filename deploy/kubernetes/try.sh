#!/usr/bin/env bash
# Tries everything in the cluster of KUBECONFIG: a simulated Collibra, a gateway with TLS, an app
# that calls through the gateway, and an app that calls through a sidecar.
#
#   deploy/kubernetes/try.sh IMAGE TRIAL
#
# IMAGE is the proxy's, like registry.example/collibra-auth-proxy:0.1.0. TRIAL is one built with
# --build-arg BUILD_OPTIONS=--plain, which has the simulated Collibra. The cluster must be able to pull
# both. Needs kubectl 1.24 or later, openssl, Kubernetes 1.30 or later, and the right to create a
# namespace. Everything is in a namespace of its own, which is deleted at the end. TIMEOUT, 120s by
# default, limits each wait.
set -euo pipefail

die() {
    printf '%s\n' "$*" >&2
    exit 1
}

if (($# != 2)); then
    sed -n '2,11s/^# \{0,1\}//p' "$0" >&2
    exit 2
fi
readonly image=$1 trial=$2 timeout=${TIMEOUT:-120s}
for given in "$image" "$trial"; do
    [[ ${given##*/} == *:* ]] || die "$given has no tag: write it like $given:0.1.0"
done
for program in kubectl openssl; do
    command -v "$program" >/dev/null || die "$program is missing"
done
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
readonly here namespace=collibra-auth-proxy-try-$RANDOM
work=$(mktemp -d)
cleanup() {
    local status=$?
    if ((status != 0)); then
        in_it get pods --output wide || true
        in_it logs --all-containers --prefix --tail 20 --selector app.kubernetes.io/part-of=try || true
        in_it logs --all-containers --prefix --tail 20 --selector app.kubernetes.io/component=gateway || true
    fi >&2
    kubectl delete namespace "$namespace" --ignore-not-found --timeout "$timeout" || true
    rm -rf "$work"
}
trap cleanup EXIT

in_it() {
    kubectl --namespace "$namespace" "$@"
}

# N: a pod's fields for the restricted profile, indented by N spaces
restricted() {
    sed "s/^/$(printf '%*s' "$1" '')/" <<'YAML'
automountServiceAccountToken: false
securityContext:
  runAsNonRoot: true
  runAsUser: 65532
  runAsGroup: 65532
  fsGroup: 65532
  seccompProfile:
    type: RuntimeDefault
YAML
}
# N: a container of this image, without privileges
container() {
    sed "s/^/$(printf '%*s' "$1" '')/" <<'YAML'
image: collibra-auth-proxy
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities:
    drop:
      - ALL
resources:
  requests:
    cpu: 20m
    memory: 24Mi
  limits:
    memory: 128Mi
YAML
}

# NAME: writes a kustomization, whose first lines are the input, beside copies of base and components
kustomization() {
    mkdir -p "$work/$1"
    cat >"$work/$1/kustomization.yaml"
    cat >>"$work/$1/kustomization.yaml" <<YAML
namespace: $namespace
images:
  - name: collibra-auth-proxy
    newName: ${image%:*}
    newTag: "${image##*:}"
  - name: simulated-collibra
    newName: ${trial%:*}
    newTag: "${trial##*:}"
generatorOptions:
  disableNameSuffixHash: true
YAML
}

# The configuration of the file $1, for the simulated Collibra.
for_the_simulator() {
    sed 's|^url = "https://acme.collibra.com"|url = "http://collibra:9400"\nallow_insecure = true|' "$1"
}

# NAME CLIENT URL: a Job whose program checks the proxy at URL as an app does: it requests a token as
# CLIENT, and calls the API with it. The secrets apps and tls are mounted.
call() {
    local name=$1 client=$2
    cat <<YAML
apiVersion: batch/v1
kind: Job
metadata:
  name: $name
spec:
  backoffLimit: 5
  template:
    metadata:
      labels:
        app.kubernetes.io/part-of: try
        collibra-auth-proxy/app: "true"
    spec:
      restartPolicy: Never
$(restricted 6)
      containers:
        - name: app
$(container 10)
          # its own listener is never opened, and must not be the proxy's address
          args: [check, --live, --listen, "127.0.0.1:1", --client-id, $client, --client-secret-file,
            /run/secrets/apps/lineage.key, --ca-file, /run/secrets/tls/tls.crt, --upstream, "$3"]
          volumeMounts:
            - name: apps
              mountPath: /run/secrets/apps
              readOnly: true
            - name: tls
              mountPath: /run/secrets/tls
              readOnly: true
      volumes:
        - name: apps
          secret:
            secretName: collibra-auth-proxy-apps
            defaultMode: 288
        - name: tls
          secret:
            secretName: collibra-auth-proxy-tls
            defaultMode: 288
YAML
}

cp -r "$here/base" "$here/components" "$work/"

kustomization simulator <<YAML
resources:
  - simulator.yaml
YAML
cat >"$work/simulator/simulator.yaml" <<YAML
apiVersion: apps/v1
kind: Deployment
metadata:
  name: collibra
spec:
  selector:
    matchLabels:
      app: collibra
  template:
    metadata:
      labels:
        app: collibra
        app.kubernetes.io/part-of: try
    spec:
$(restricted 6)
      containers:
        - name: collibra
$(container 10 | sed 's/^\( *image:\) .*/\1 simulated-collibra/')
          args: [simulate, --listen, "0.0.0.0:9400"]
          ports:
            - name: http
              containerPort: 9400
              protocol: TCP
          readinessProbe:
            tcpSocket:
              port: http
            periodSeconds: 1
---
apiVersion: v1
kind: Service
metadata:
  name: collibra
spec:
  selector:
    app: collibra
  ports:
    - name: http
      port: 9400
      targetPort: http
      protocol: TCP
YAML

kustomization gateway <<YAML
resources:
  - ../base
patches:
  # the simulated Collibra does not listen on port 443
  - patch: |-
      - op: add
        path: /spec/egress/-
        value:
          to:
            - podSelector:
                matchLabels:
                  app: collibra
          ports:
            - port: 9400
              protocol: TCP
    target:
      kind: NetworkPolicy
      name: collibra-auth-proxy
configMapGenerator:
  - name: collibra-auth-proxy
    behavior: replace
    files:
      - collibra-auth-proxy.toml
YAML
for_the_simulator "$here/base/collibra-auth-proxy.toml" >"$work/gateway/collibra-auth-proxy.toml"

kustomization by-gateway <<YAML
resources:
  - app.yaml
YAML
call gateway-app lineage https://collibra-auth-proxy >"$work/by-gateway/app.yaml"

# named apart from the gateway's configuration
kustomization by-sidecar <<YAML
namePrefix: sidecar-
resources:
  - app.yaml
components:
  - ../components/sidecar
configMapGenerator:
  - name: collibra-auth-proxy
    files:
      - collibra-auth-proxy.toml
YAML
call app anyone http://localhost:8080 >"$work/by-sidecar/app.yaml"
for_the_simulator "$here/overlays/sidecar-job/collibra-auth-proxy.toml" \
    >"$work/by-sidecar/collibra-auth-proxy.toml"

openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=try \
    -addext subjectAltName=DNS:collibra-auth-proxy -addext basicConstraints=critical,CA:FALSE \
    -keyout "$work/tls.key" -out "$work/tls.crt" 2>/dev/null

kubectl create namespace "$namespace"
kubectl label namespace "$namespace" pod-security.kubernetes.io/enforce=restricted
# the simulator's own client: an example, good nowhere else
in_it create secret generic collibra-auth-proxy \
    --from-literal=client_id=urn:sys:env:2eeadf60-1a11-5170-7e57-000000000000:i:1cnxtsn \
    --from-literal='client_secret=s3cr+t/=%&x y~!*'
in_it create secret generic collibra-auth-proxy-apps \
    --from-literal=lineage.key="$(openssl rand -hex 32)" \
    --from-literal=dashboard.key="$(openssl rand -hex 32)"
in_it create secret tls collibra-auth-proxy-tls --cert="$work/tls.crt" --key="$work/tls.key"

in_it apply -k "$work/simulator"
in_it rollout status deployment/collibra --timeout "$timeout"
in_it apply -k "$work/gateway"
in_it rollout status deployment/collibra-auth-proxy --timeout "$timeout"
for way in by-gateway by-sidecar; do
    in_it apply -k "$work/$way"
done
in_it wait --for=condition=complete --timeout "$timeout" job/gateway-app job/sidecar-app
in_it logs job/gateway-app --container app
in_it logs job/sidecar-app --container app
echo 'both apps called Collibra: one through the gateway with TLS, one through a sidecar'
