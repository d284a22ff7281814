{{- define "bearerd.injectorName" -}}
{{ include "bearerd.name" . | trunc 54 | trimSuffix "-" }}-injector
{{- end }}

{{- define "bearerd.injectorSelector" -}}
app.kubernetes.io/name: bearerd-injector
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "bearerd.injectorLabels" -}}
{{ include "bearerd.injectorSelector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{- define "bearerd.injectorSecretName" -}}
{{- if eq .Values.injector.certificate.source "secret" -}}
{{ .Values.injector.certificate.secretName }}
{{- else -}}
{{ include "bearerd.injectorName" . }}-certificate
{{- end -}}
{{- end }}

{{- define "bearerd.injectorHost" -}}
{{ include "bearerd.injectorName" . }}.{{ .Release.Namespace }}.svc
{{- end }}

{{/* Namespaces whose pods the API server does not even ask about. */}}
{{- define "bearerd.excludedNamespaces" -}}
{{- concat (list "kube-system" "kube-public" "kube-node-lease" .Release.Namespace) .Values.injector.excludedNamespaces | uniq | toYaml -}}
{{- end }}

{{/* The certificate as it is, or a new one: where there is none, or most of its life is over. */}}
{{- define "bearerd.generatedCertificate" -}}
{{- $there := lookup "v1" "Secret" .Release.Namespace (include "bearerd.injectorSecretName" .) -}}
{{- $annotations := dig "metadata" "annotations" dict $there -}}
{{- $renewAfter := get $annotations "bearerd/renew-after" -}}
{{- if and $renewAfter (gt (int64 $renewAfter) (now | unixEpoch | int64)) -}}
renewAfter: {{ $renewAfter | quote }}
{{- range tuple "ca.crt" "tls.crt" "tls.key" }}
{{ . }}: {{ get $there.data . }}
{{- end }}
{{- else -}}
{{- $days := .Values.injector.certificate.days | int -}}
{{- $host := include "bearerd.injectorHost" . -}}
{{- $ca := genCA (printf "%s-ca" (include "bearerd.injectorName" .)) $days -}}
{{- $certificate := genSignedCert $host nil (list $host) $days $ca -}}
renewAfter: {{ mul $days 69120 | add (now | unixEpoch | int64) | quote }}
ca.crt: {{ $ca.Cert | b64enc }}
tls.crt: {{ $certificate.Cert | b64enc }}
tls.key: {{ $certificate.Key | b64enc }}
{{- end -}}
{{- end }}
