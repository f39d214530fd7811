{{- define "odgm.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "odgm.selectorLabels" -}}
app.kubernetes.io/name: {{ default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "odgm.labels" -}}
{{ include "odgm.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "odgm.image" -}}
{{ .Values.image.repository }}:{{ default .Chart.AppVersion .Values.image.tag }}
{{- end -}}

{{- define "odgm.serviceAccountName" -}}
{{- default (ternary (include "odgm.fullname" .) "default" .Values.serviceAccount.create) .Values.serviceAccount.name -}}
{{- end -}}

{{/* The endpoints of every pod on one port, as a list that the node reads from its environment. The node
drops its own, so that one list serves all pods. Argument: a list of the root context and the port. */}}
{{- define "odgm.endpoints" -}}
{{- $root := index . 0 -}}{{- $port := index . 1 -}}
{{- $name := include "odgm.fullname" $root -}}
{{- $list := list -}}
{{- range $pod := until (int $root.Values.replicaCount) -}}
{{- $list = append $list (printf "tcp/%s-%d.%s-nodes.%s.svc.%s:%d" $name $pod $name $root.Release.Namespace $root.Values.clusterDomain (int $port)) -}}
{{- end -}}
{{- toJson $list -}}
{{- end -}}
