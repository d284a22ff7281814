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
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version | replace "+" "_" }}
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

{{/* What the chart says of the sidecar holds for those that are injected too. */}}
{{- define "bearerd.injectorDefaults" -}}
{{- with .Values.sidecar -}}
- --default=startup-seconds={{ .startupSeconds }}
- --default=pre-stop-seconds={{ .preStopSeconds }}
{{- if not .native }}
- --default=mode=ordinary
{{- end }}
{{- range $key, $resource := dict "requests" "request" "limits" "limit" }}
{{- range $name, $quantity := get ($.Values.sidecar.resources | default dict) $key }}
{{- if not (has $name (list "cpu" "memory")) }}
{{- fail (printf "sidecar.resources.%s.%s: the injector knows cpu and memory only" $key $name) }}
{{- end }}
- --default={{ $name }}-{{ $resource }}={{ $quantity }}
{{- end }}
{{- end }}
{{- end }}
{{- if ne .Values.image.pullPolicy "IfNotPresent" }}
- --default=image-pull-policy={{ .Values.image.pullPolicy }}
{{- end }}
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
trusted: {{ get $there.data "ca.crt" }}
{{- range tuple "ca.crt" "tls.crt" "tls.key" }}
{{ . }}: {{ get $there.data . }}
{{- end }}
{{- else -}}
{{- $days := .Values.injector.certificate.days | int -}}
{{- $host := include "bearerd.injectorHost" . -}}
{{- $ca := genCA (printf "%s-ca" (include "bearerd.injectorName" .)) $days -}}
{{- $certificate := genSignedCert $host nil (list $host) $days $ca -}}
renewAfter: {{ mul $days 69120 | add (now | unixEpoch | int64) | quote }}
{{- /* The API server trusts the new one at once; the replicas get it when the kubelet has swapped it in. */}}
trusted: {{ printf "%s%s" $ca.Cert (dig "data" "ca.crt" "" $there | b64dec) | b64enc }}
ca.crt: {{ $ca.Cert | b64enc }}
tls.crt: {{ $certificate.Cert | b64enc }}
tls.key: {{ $certificate.Key | b64enc }}
{{- end -}}
{{- end }}
