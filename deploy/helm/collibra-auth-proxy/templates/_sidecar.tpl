{{/*
The sidecar, for a chart that has this one as a dependency with `mode: sidecar`. In the pod of its
Deployment, StatefulSet or Job, first among the init containers:

      initContainers:
        {{- include "collibra-auth-proxy.sidecar" (index .Subcharts "collibra-auth-proxy") | nindent 8 }}
      volumes:
        {{- include "collibra-auth-proxy.sidecar.volumes" (index .Subcharts "collibra-auth-proxy") | nindent 8 }}

What comes after it is started once it holds a token, and is ended before it is.
*/}}
{{- define "collibra-auth-proxy.sidecar" -}}
- name: collibra-auth-proxy
  image: {{ include "collibra-auth-proxy.image" . }}
  imagePullPolicy: {{ .Values.image.pullPolicy }}
  restartPolicy: Always
  args:
    {{- include "collibra-auth-proxy.args" . | nindent 4 }}
  ports:
    - name: admin
      containerPort: 9902
      protocol: TCP
  startupProbe:
    httpGet:
      path: /readyz
      port: admin
    periodSeconds: 1
    timeoutSeconds: 2
    failureThreshold: 600
  livenessProbe:
    {{- include "collibra-auth-proxy.livenessProbe" . | nindent 4 }}
  securityContext:
    {{- include "collibra-auth-proxy.securityContext" . | nindent 4 }}
  resources:
    {{- toYaml .Values.sidecarResources | nindent 4 }}
  volumeMounts:
    - name: collibra-auth-proxy-config
      mountPath: /etc/collibra-auth-proxy
      readOnly: true
    - name: collibra-auth-proxy-client
      mountPath: /run/secrets/collibra
      readOnly: true
    {{- include "collibra-auth-proxy.storeMount" . | nindent 4 }}
{{- end -}}

{{- define "collibra-auth-proxy.sidecar.volumes" -}}
- name: collibra-auth-proxy-config
  configMap:
    name: {{ include "collibra-auth-proxy.fullname" . }}
- name: collibra-auth-proxy-client
  secret:
    secretName: {{ .Values.client.existingSecret }}
{{ include "collibra-auth-proxy.storeVolume" . }}
{{- end -}}

{{- define "collibra-auth-proxy.storeMount" -}}
{{- if eq .Values.store.kind "file" -}}
- name: collibra-auth-proxy-store
  mountPath: /var/lib/collibra-auth-proxy
{{- else if and (eq .Values.store.kind "redis") .Values.store.redis.existingSecret -}}
- name: collibra-auth-proxy-redis
  mountPath: /run/secrets/redis
  readOnly: true
{{- end -}}
{{- end -}}

{{- define "collibra-auth-proxy.storeVolume" -}}
{{- if eq .Values.store.kind "file" -}}
- name: collibra-auth-proxy-store
  emptyDir:
    medium: Memory
    sizeLimit: 1Mi
{{- else if and (eq .Values.store.kind "redis") .Values.store.redis.existingSecret -}}
- name: collibra-auth-proxy-redis
  secret:
    secretName: {{ .Values.store.redis.existingSecret }}
    {{- if eq .Values.mode "gateway" }}
    defaultMode: 288
    {{- end }}
{{- end -}}
{{- end -}}
