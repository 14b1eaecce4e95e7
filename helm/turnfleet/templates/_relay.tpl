{{/* What the pods of relays have, whichever object makes them. */}}

{{/* Whether a listener is on a port that the kernel keeps for root. */}}
{{- define "turnfleet.lowPort" -}}
{{- $low := false -}}
{{- range .Values.relays.listeners -}}
{{- if lt (int .port) 1024 }}{{ $low = true }}{{ end -}}
{{- end -}}
{{- if $low }}true{{ end -}}
{{- end -}}

{{/* Whether relays run as uid 0, with NET_BIND_SERVICE and nothing else. */}}
{{- define "turnfleet.asRoot" -}}
{{- with .Values.relays -}}
{{- if and .hostNetwork (eq .lowPorts.mode "root") (include "turnfleet.lowPort" $) }}true{{ end -}}
{{- end -}}
{{- end -}}

{{/* The listeners in TOML: each transport and port on each address. */}}
{{- define "turnfleet.listeners" -}}
{{- $all := list -}}
{{- range $address := default (list (include "turnfleet.podIP" .)) .Values.relays.listenAddresses -}}
{{- $host := ternary (printf "[%s]" $address) $address (and (contains ":" $address) (not (hasPrefix "[" $address))) -}}
{{- range $.Values.relays.listeners -}}
{{- $all = append $all (dict "transport" .transport "address" (printf "%s:%d" $host (int .port))) -}}
{{- end -}}
{{- end -}}
{{ include "turnfleet.toml" $all }}
{{- end -}}

{{/* The fleet's configuration of relays, without what differs from pod to pod. */}}
{{- define "turnfleet.relaysConfig" -}}
{{- with .Values.relays -}}
region: {{ .region | quote }}
{{- if .zone }}
zone: {{ .zone | quote }}
{{- end }}
{{- if .hostnames }}
hostname: {{ toJson .hostnames }}
{{- end }}
state_dir: /var/lib/turnfleet/relay
drain_deadline_seconds: {{ int .drainDeadlineSeconds }}
log: {format: json}
controller:
  {{- if .controller.endpoints }}
  endpoints: {{ toJson .controller.endpoints }}
  {{- else }}
  endpoints: ["https://{{ include "turnfleet.controllers" $ }}:{{ $.Values.controllers.grpc.port }}"]
  {{- end }}
  ca: /etc/turnfleet/controllers/ca.crt
  join_token_file: /etc/turnfleet/secrets/join-token
{{- if include "turnfleet.relayTls" $ }}
tls: {certificate: /etc/turnfleet/turn/tls.crt, key: /etc/turnfleet/turn/tls.key}
{{- end }}
{{- end -}}
{{- end -}}

{{/* A pod. With host networking it is called as its node, without as itself: its StatefulSet gives a successor the same name. */}}
{{- define "turnfleet.relayPod" -}}
{{- $root := . -}}
{{- $name := printf "%s-relays" (include "turnfleet.fullname" $root) -}}
{{- $asRoot := include "turnfleet.asRoot" $root -}}
{{- $tls := include "turnfleet.relayTls" $root -}}
{{- with $root.Values.relays -}}
metadata:
  labels:
    {{- include "turnfleet.podLabels" (list $root "relay") | nindent 4 }}
  {{- with .podAnnotations }}
  annotations: {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  {{- include "turnfleet.pod" $root | nindent 2 }}
  {{- if .hostNetwork }}
  hostNetwork: true
  dnsPolicy: ClusterFirstWithHostNet
  {{- end }}
  # The first SIGTERM drains: the relay leaves the lists, lets what lives go on, and ends by itself. No preStop hook is needed.
  terminationGracePeriodSeconds: {{ add (int .drainDeadlineSeconds) 60 }}
  securityContext:
    {{- if $asRoot }}
    runAsUser: 0
    runAsGroup: 65532
    fsGroup: 65532
    seccompProfile: {type: RuntimeDefault}
    {{- else }}
    {{- include "turnfleet.podSecurity" $root | nindent 4 }}
    {{- if and (not .hostNetwork) (include "turnfleet.lowPort" $root) }}
    sysctls:
      - {name: net.ipv4.ip_unprivileged_port_start, value: "0"}
    {{- end }}
    {{- end }}
  {{- with .priorityClassName }}
  priorityClassName: {{ . }}
  {{- end }}
  {{- with .nodeSelector }}
  nodeSelector: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .tolerations }}
  tolerations: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- if eq .kind "Deployment" }}
  affinity:
    podAntiAffinity:
      {{- if .hostNetwork }}
      requiredDuringSchedulingIgnoredDuringExecution:
        - topologyKey: kubernetes.io/hostname
          labelSelector:
            matchLabels: {{- include "turnfleet.selector" (list $root "relay") | nindent 14 }}
      {{- else }}
      preferredDuringSchedulingIgnoredDuringExecution:
        - weight: 100
          podAffinityTerm:
            topologyKey: kubernetes.io/hostname
            labelSelector:
              matchLabels: {{- include "turnfleet.selector" (list $root "relay") | nindent 16 }}
      {{- end }}
  {{- end }}
  containers:
    - name: relay
      image: {{ include "turnfleet.image" $root | quote }}
      imagePullPolicy: {{ $root.Values.image.pullPolicy }}
      args:
        - relay
        - --config
        - /etc/turnfleet/config/relay.toml
        {{- if eq .publicAddress.source "map" }}
        - --public-ip-from=file:/etc/turnfleet/addresses/$(NODE_NAME)
        {{- else if eq .publicAddress.source "service" }}
        - --public-ip-from=file:/etc/turnfleet/addresses/$(POD_NAME)
        {{- else if eq .publicAddress.source "stun" }}
        - --public-ip-from=stun:{{ .publicAddress.stunServer }}
        {{- else if ne .publicAddress.source "hostIP" }}
        - --public-ip-from={{ .publicAddress.source }}
        {{- end }}
      env:
        {{- include "turnfleet.placeEnv" $root | nindent 8 }}
        - name: TURNFLEET_RELAY__NODE_ID
          value: {{ ternary "$(NODE_NAME)" "$(POD_NAME)" .hostNetwork }}
        - name: TURNFLEET_RELAY__LISTENERS
          value: {{ include "turnfleet.listeners" $root | quote }}
        - name: TURNFLEET_RELAY__METRICS__ADDRESS
          value: "{{ include "turnfleet.podIP" $root }}:{{ .metrics.port }}"
        {{- with .extraEnv }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      ports:
        - {name: metrics, containerPort: {{ .metrics.port }}{{ if .hostNetwork }}, hostPort: {{ .metrics.port }}{{ end }}}
        {{- range .listeners }}
        - name: {{ printf "%s-%d" (replace "+" "-" .transport) (int .port) }}
          containerPort: {{ .port }}
          {{- if $root.Values.relays.hostNetwork }}
          hostPort: {{ .port }}
          {{- end }}
          protocol: {{ ternary "UDP" "TCP" (eq .transport "udp") }}
        {{- end }}
      livenessProbe:
        httpGet: {path: /livez, port: metrics}
        initialDelaySeconds: 5
        periodSeconds: 10
        timeoutSeconds: 5
        # Calls end with the process: it has a minute before it is taken for dead. One that hangs then does not drain.
        failureThreshold: 6
        terminationGracePeriodSeconds: 10
      readinessProbe:
        httpGet: {path: /readyz, port: metrics}
        periodSeconds: 2
        timeoutSeconds: 2
      resources: {{- toYaml .resources | nindent 8 }}
      securityContext:
        allowPrivilegeEscalation: false
        readOnlyRootFilesystem: true
        capabilities:
          drop: [ALL]
          {{- if $asRoot }}
          add: [NET_BIND_SERVICE]
          {{- end }}
      volumeMounts:
        - {name: config, mountPath: /etc/turnfleet/config, readOnly: true}
        - {name: secrets, mountPath: /etc/turnfleet/secrets, readOnly: true}
        - {name: controllers, mountPath: /etc/turnfleet/controllers, readOnly: true}
        {{- if $tls }}
        - {name: turn, mountPath: /etc/turnfleet/turn, readOnly: true}
        {{- end }}
        {{- if has .publicAddress.source (list "map" "service") }}
        - {name: addresses, mountPath: /etc/turnfleet/addresses, readOnly: true}
        {{- end }}
        - {name: state, mountPath: /var/lib/turnfleet}
  volumes:
    - name: config
      configMap: {name: {{ $name }}}
    - name: secrets
      projected:
        defaultMode: 0440
        sources:
          {{- include "turnfleet.secretSource" (list $root.Values.secrets.joinToken "join-token") | nindent 10 }}
    - name: controllers
      secret:
        # The authority alone: the key stays with the controllers.
        {{- if .controller.ca.secretName }}
        secretName: {{ .controller.ca.secretName }}
        items: [{key: {{ .controller.ca.key }}, path: ca.crt}]
        {{- else }}
        secretName: {{ include "turnfleet.grpcSecret" $root }}
        items: [{key: {{ $root.Values.controllers.grpc.tls.caKey }}, path: ca.crt}]
        {{- end }}
    {{- if $tls }}
    - name: turn
      secret: {secretName: {{ $tls }}, defaultMode: 0440}
    {{- end }}
    {{- if has .publicAddress.source (list "map" "service") }}
    - name: addresses
      configMap: {name: {{ $name }}-addresses}
    {{- end }}
    - name: state
      {{- if .state.hostPath }}
      hostPath: {path: {{ .state.hostPath }}, type: Directory}
      {{- else }}
      emptyDir: {sizeLimit: {{ .state.sizeLimit }}}
      {{- end }}
{{- end -}}
{{- end -}}
