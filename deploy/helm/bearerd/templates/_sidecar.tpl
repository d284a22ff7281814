{{/*
The sidecar, for charts that have this one as a dependency:

      initContainers:
        {{- include "bearerd.container" .Subcharts.bearerd | nindent 8 }}
      volumes:
        {{- include "bearerd.volumes" .Subcharts.bearerd | nindent 8 }}

As an ordinary container (sidecar.native: false) it belongs in front of all others in containers.
The pod needs fsGroup 65532 (with a claim and fsGroupChangePolicy: OnRootMismatch, or every mount would
open the store to the group, and bearerd refuses such a file) and a terminationGracePeriodSeconds above 30.
*/}}
{{- define "bearerd.container" -}}
{{- $kubernetes := .Capabilities.KubeVersion.Version -}}
{{- if and .Values.sidecar.native (semverCompare "<1.29.0-0" $kubernetes) }}
{{- fail (printf "Kubernetes %s has no native sidecars; set sidecar.native: false" $kubernetes) }}
{{- end -}}
- name: bearerd
  image: {{ include "bearerd.image" . }}
  {{- if ne .Values.image.pullPolicy "IfNotPresent" }}
  imagePullPolicy: {{ .Values.image.pullPolicy }}
  {{- end }}
  {{- if .Values.sidecar.native }}
  restartPolicy: Always
  {{- end }}
  ports:
    - { name: bearerd-admin, containerPort: 9901 }
  {{- if .Values.sidecar.native }}
  startupProbe:
    httpGet: { path: /startupz, port: bearerd-admin }
    periodSeconds: 1
    failureThreshold: {{ .Values.sidecar.startupSeconds }}
  {{- end }}
  livenessProbe:
    httpGet: { path: /livez, port: bearerd-admin }
    periodSeconds: 10
  {{- if not .Values.sidecar.native }}
  lifecycle:
    postStart:
      exec: { command: [/bearerd, healthcheck, --ready, --wait, {{ .Values.sidecar.startupSeconds | quote }}] }
    {{- /* An older API server drops the word, and refuses the empty hook that is left. */}}
    {{- if semverCompare ">=1.30.0-0" $kubernetes }}
    preStop:
      sleep: { seconds: {{ .Values.sidecar.preStopSeconds }} }
    {{- end }}
  {{- end }}
  resources:
    {{- toYaml .Values.sidecar.resources | nindent 4 }}
  securityContext:
    runAsNonRoot: true
    runAsUser: 65532
    runAsGroup: 65532
    allowPrivilegeEscalation: false
    readOnlyRootFilesystem: true
    capabilities: { drop: [ALL] }
    seccompProfile: { type: RuntimeDefault }
  volumeMounts:
    {{- include "bearerd.inputMounts" . | nindent 4 }}
    {{- if eq .Values.store.kind "kubernetes" }}
    - name: bearerd-account
      mountPath: /var/run/secrets/kubernetes.io/serviceaccount
      readOnly: true
    {{- else if ne .Values.store.kind "none" }}
    - { name: bearerd-store, mountPath: /var/lib/bearerd }
    {{- end }}
{{- end }}

{{- define "bearerd.inputMounts" -}}
- { name: bearerd-config, mountPath: /etc/bearerd, readOnly: true }
{{- if or .Values.secrets.secretName .Values.secrets.serviceAccountToken.audience }}
- { name: bearerd-secrets, mountPath: /var/run/secrets/bearerd, readOnly: true }
{{- end }}
{{- end }}

{{- define "bearerd.volumes" -}}
{{ include "bearerd.inputVolumes" . }}
{{- if eq .Values.store.kind "emptyDir" }}
- name: bearerd-store
  emptyDir: { sizeLimit: 16Mi }
{{- else if eq .Values.store.kind "claim" }}
- name: bearerd-store
  persistentVolumeClaim: { claimName: {{ .Values.store.claimName }} }
{{- else if eq .Values.store.kind "kubernetes" }}
# What automounting would give to every container: for the API server, replaced every hour.
- name: bearerd-account
  projected:
    defaultMode: 0440
    sources:
      - serviceAccountToken: { path: token, expirationSeconds: 3607 }
      - configMap:
          name: kube-root-ca.crt
          items: [{ key: ca.crt, path: ca.crt }]
{{- end }}
{{- end }}

{{- define "bearerd.inputVolumes" -}}
- name: bearerd-config
  configMap: { name: {{ include "bearerd.configName" . }} }
{{- with .Values.secrets }}
{{- if or .secretName .serviceAccountToken.audience }}
- name: bearerd-secrets
  projected:
    defaultMode: 0440
    sources:
      {{- with .secretName }}
      - secret: { name: {{ . }} }
      {{- end }}
      {{- if .serviceAccountToken.audience }}
      - serviceAccountToken:
          path: token
          audience: {{ .serviceAccountToken.audience | quote }}
          expirationSeconds: {{ .serviceAccountToken.expirationSeconds }}
      {{- end }}
{{- end }}
{{- end }}
{{- end }}
