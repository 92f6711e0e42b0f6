#!/bin/sh
# Writes the copies of rules.yaml: the PrometheusRule of the Kustomize component, and the chart's file.
# Usage: deploy/prometheus/copy.sh [DIRECTORY], which stands for the project's own.
set -eu
here=$(dirname "$0")
top=${1:-$here/../..}
rule=$top/deploy/kubernetes/components/prometheus-rule/prometheus-rule.yaml
chart=$top/deploy/helm/collibra-auth-proxy/files/rules.yaml
mkdir -p "$(dirname "$rule")" "$(dirname "$chart")"
cp "$here/rules.yaml" "$chart"
{
    cat <<'END'
# Written by deploy/prometheus/copy.sh from rules.yaml there: change that file.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: collibra-auth-proxy
  labels:
    app.kubernetes.io/name: collibra-auth-proxy
spec:
END
    sed -e '1,/^groups:/{/^groups:/!d;}' -e 's/^./  &/' "$here/rules.yaml"
} >"$rule"
