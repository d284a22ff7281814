{{- define "bearerd.name" -}}
{{- if contains "bearerd" .Release.Name -}}
{{ .Release.Name | trunc 63 | trimSuffix "-" }}
{{- else -}}
{{ printf "%s-bearerd" (.Release.Name | trunc 55 | trimSuffix "-") }}
{{- end -}}
{{- end }}

{{- define "bearerd.configName" -}}
{{ .Values.existingConfig | default (include "bearerd.name" .) }}
{{- end }}

{{- define "bearerd.image" -}}
{{ include "bearerd.imageOf" (dict "image" .Values.image "chart" .Chart) }}
{{- end }}

{{- define "bearerd.imageOf" -}}
{{- $chart := .chart -}}
{{- with .image -}}
{{ .repository }}:{{ .tag | default $chart.AppVersion }}{{ with .digest }}@{{ . }}{{ end }}
{{- end -}}
{{- end }}

{{- define "bearerd.labels" -}}
app.kubernetes.io/name: bearerd
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version | replace "+" "_" }}
{{- end }}
