{{/* The configuration file. Strings are written as JSON, which TOML reads the same way. */}}
{{- define "collibra-auth-proxy.config" -}}
[instance.main]
url = {{ .Values.instance.url | toJson }}

[client.main]
client_id_file = "/run/secrets/collibra/client_id"
client_secret_file = "/run/secrets/collibra/client_secret"
{{ if eq .Values.mode "gateway" }}

[listener.gateway]
address = "0.0.0.0:8080"
{{- if .Values.extraHosts }}
hosts = {{ include "collibra-auth-proxy.names" . | fromYamlArray | toJson }}
{{- end }}
{{- if .Values.tls.enabled }}

[listener.tls]
address = "0.0.0.0:8443"
tls = { cert_file = "/run/secrets/tls/tls.crt", key_file = "/run/secrets/tls/tls.key" }
{{- if .Values.extraHosts }}
hosts = {{ include "collibra-auth-proxy.names" . | fromYamlArray | toJson }}
{{- end }}
{{- end }}
{{ range $app, $may := .Values.apps.named }}
[app.{{ $app }}]
key_file = "/run/secrets/apps/{{ $app }}.key"
{{- with $may }}
{{- with .allow }}
allow = {{ . | toJson }}
{{- end }}
{{- with .requestsPerSecond }}
requests_per_second = {{ . | int }}
{{- end }}
{{- with .maxInFlight }}
max_in_flight = {{ . | int }}
{{- end }}
{{- end }}
{{ end }}
{{- else }}
[listener.local]
address = "127.0.0.1:8080"
{{ end }}
[admin]
address = "0.0.0.0:9902"

[server]
drain = "20s"

[store]
kind = {{ .Values.store.kind | toJson }}
{{- if eq .Values.store.kind "file" }}
path = "/var/lib/collibra-auth-proxy/store"
{{- else if eq .Values.store.kind "redis" }}
url = {{ .Values.store.redis.url | toJson }}
{{- if .Values.store.redis.existingSecret }}
password_file = "/run/secrets/redis/password"
{{- end }}
key_prefix = {{ .Values.store.redis.keyPrefix | toJson }}
{{- else if eq .Values.store.kind "kubernetes" }}
secret = {{ printf "%s-token" (include "collibra-auth-proxy.fullname" .) | toJson }}
lease = {{ printf "%s-token" (include "collibra-auth-proxy.fullname" .) | toJson }}
{{- end }}
{{- with .Values.extraConfig }}

{{ . | trim }}
{{- end }}
{{- end -}}
