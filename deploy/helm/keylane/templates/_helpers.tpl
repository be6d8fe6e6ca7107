{{- define "keylane.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 52 | trimSuffix "-" -}}
{{- end -}}

{{/* At most 52 characters: the names of the pods, with a number, are names of hosts. */}}
{{- define "keylane.fullname" -}}
{{- $name := include "keylane.name" . -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 52 | trimSuffix "-" -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 52 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "keylane.selector" -}}
app.kubernetes.io/name: {{ include "keylane.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "keylane.labels" -}}
{{ include "keylane.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{/* The grace period is computed from drainTimeoutSeconds, so the configuration must use that value. */}}
{{- define "keylane.config" -}}
{{- range regexFindAll "(?m)^[ \\t]*(?:runtime\\.)?drain_timeout[ \\t]*=.*$" .Values.config -1 -}}
{{- if not (contains "${DRAIN_TIMEOUT}" .) -}}
{{- fail "config: set drain_timeout = \"${DRAIN_TIMEOUT}\", and the time in drainTimeoutSeconds" -}}
{{- end -}}
{{- end -}}
{{- .Values.config -}}
{{- end -}}
