{{/* The name of all objects: the release's, plus the chart's unless the release contains it. */}}
{{- define "collibra-auth-proxy.fullname" -}}
{{- if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 52 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* The names under which apps call the gateway, as a list. */}}
{{- define "collibra-auth-proxy.names" -}}
{{- $name := include "collibra-auth-proxy.fullname" . -}}
- {{ $name }}
- {{ $name }}.{{ .Release.Namespace }}
- {{ $name }}.{{ .Release.Namespace }}.svc
- {{ $name }}.{{ .Release.Namespace }}.svc.cluster.local
{{- range .Values.extraHosts }}
- {{ . | quote }}
{{- end }}
{{- end -}}

{{- define "collibra-auth-proxy.selector" -}}
app.kubernetes.io/name: collibra-auth-proxy
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: gateway
{{- end -}}

{{- define "collibra-auth-proxy.labels" -}}
{{ include "collibra-auth-proxy.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "collibra-auth-proxy.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}

{{/* The security context of every container: no privileges. */}}
{{- define "collibra-auth-proxy.securityContext" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop:
    - ALL
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "collibra-auth-proxy.args" -}}
- serve
- --config
- /etc/collibra-auth-proxy/collibra-auth-proxy.toml
{{- end -}}

{{- define "collibra-auth-proxy.livenessProbe" -}}
httpGet:
  path: /livez
  port: admin
periodSeconds: 10
timeoutSeconds: 5
failureThreshold: 3
{{- end -}}
