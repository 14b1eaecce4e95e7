{{/* Names, labels and the parts that pods of this chart share. */}}

{{- define "turnfleet.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* What tells this release's objects from others: (list $ component). */}}
{{- define "turnfleet.selector" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: {{ default $root.Chart.Name $root.Values.nameOverride | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{/* All labels: (list $ component). */}}
{{- define "turnfleet.labels" -}}
{{- $root := index . 0 -}}
{{ include "turnfleet.selector" . }}
app.kubernetes.io/part-of: turnfleet
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" | trunc 63 }}
{{- with $root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Labels of pods: those that stay when the chart's version changes, so that an upgrade restarts only what it has to. */}}
{{- define "turnfleet.podLabels" -}}
{{- $root := index . 0 -}}
{{ include "turnfleet.selector" . }}
app.kubernetes.io/part-of: turnfleet
{{- with $root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "turnfleet.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}
{{ .repository }}@{{ .digest }}
{{- else -}}
{{ .repository }}:{{ default $.Chart.AppVersion .tag }}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "turnfleet.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{ default (include "turnfleet.fullname" .) .Values.serviceAccount.name }}
{{- else -}}
{{ default "default" .Values.serviceAccount.name }}
{{- end -}}
{{- end -}}

{{/* The pod's address as it stands in front of a port, and the address that stands for all of them. */}}
{{- define "turnfleet.podIP" -}}
{{ ternary "[$(POD_IP)]" "$(POD_IP)" (eq .Values.ipFamily "IPv6") }}
{{- end -}}
{{- define "turnfleet.anyIP" -}}
{{ ternary "[::]" "0.0.0.0" (eq .Values.ipFamily "IPv6") }}
{{- end -}}

{{/* The name by which relays, controllers and callers find the controllers. */}}
{{- define "turnfleet.controllers" -}}
{{ include "turnfleet.fullname" . }}-controllers.{{ .Release.Namespace }}.svc
{{- end -}}

{{- define "turnfleet.grpcSecret" -}}
{{ default (printf "%s-grpc" (include "turnfleet.fullname" .)) .Values.controllers.grpc.tls.secretName }}
{{- end -}}

{{- define "turnfleet.httpTls" -}}
{{- with .Values.controllers.http.tls -}}
{{- if or .secretName .certManager -}}
{{ default (printf "%s-http" (include "turnfleet.fullname" $)) .secretName }}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "turnfleet.relayTls" -}}
{{- with .Values.relays.tls -}}
{{- if or .secretName .certManager -}}
{{ default (printf "%s-turn" (include "turnfleet.fullname" $)) .secretName }}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* A value in TOML: tables inline, so that the order of keys does not matter. */}}
{{- define "turnfleet.toml" -}}
{{- if kindIs "map" . -}}
{ {{- $first := true -}}
{{- range $key, $value := . -}}
{{- if not (kindIs "invalid" $value) -}}
{{- if not $first }},{{ end }} {{ $key | quote }} = {{ include "turnfleet.toml" $value -}}
{{- $first = false -}}
{{- end -}}
{{- end }} }
{{- else if kindIs "slice" . -}}
[{{- range $index, $value := . -}}
{{- if $index }}, {{ end }}{{ include "turnfleet.toml" $value -}}
{{- end -}}]
{{- else -}}
{{ toJson . }}
{{- end -}}
{{- end -}}

{{/* A file of TOML: one line for each key at the top. */}}
{{- define "turnfleet.tomlFile" -}}
{{- range $key, $value := . -}}
{{- if not (kindIs "invalid" $value) }}
{{ $key }} = {{ include "turnfleet.toml" $value }}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* What every pod of this chart has: no rights in the cluster, no links to other Services in its environment. */}}
{{- define "turnfleet.pod" -}}
serviceAccountName: {{ include "turnfleet.serviceAccount" . }}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- end -}}

{{/* A pod as uid 65532: the user of the image. */}}
{{- define "turnfleet.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "turnfleet.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}

{{/* Environment variables that tell a pod where it is. */}}
{{- define "turnfleet.placeEnv" -}}
- name: POD_IP
  valueFrom: {fieldRef: {fieldPath: status.podIP}}
- name: POD_NAME
  valueFrom: {fieldRef: {fieldPath: metadata.name}}
- name: NODE_NAME
  valueFrom: {fieldRef: {fieldPath: spec.nodeName}}
{{- end -}}

{{/* One secret as a projected source: (list reference path). */}}
{{- define "turnfleet.secretSource" -}}
{{- $secret := index . 0 -}}
- secret:
    name: {{ $secret.secretName }}
    items: [{key: {{ $secret.key }}, path: {{ index . 1 }}}]
{{- end -}}

{{/* The objects behind monitoring.coreos.com and cert-manager.io know no Kubernetes schema of ours: what they have is kept small. */}}
{{- define "turnfleet.certificateSpec" -}}
secretName: {{ .secretName }}
duration: {{ .root.Values.certManager.duration }}
renewBefore: {{ .root.Values.certManager.renewBefore }}
privateKey: {algorithm: ECDSA, size: 256, rotationPolicy: Always}
usages: [server auth]
dnsNames:
  {{- range .names }}
  - {{ . | quote }}
  {{- end }}
issuerRef:
  {{- toYaml .root.Values.certManager.issuerRef | nindent 2 }}
{{- end -}}
