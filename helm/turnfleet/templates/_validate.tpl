{{/* What a schema cannot say: values that do not fit each other, each with what to do about it. */}}

{{- define "turnfleet.validate" -}}
{{- $values := .Values -}}
{{- with $values.controllers -}}
{{- if .enabled -}}
{{- if and (eq .store.type "embedded") (gt (int .replicas) 1) -}}
{{- fail (printf "controllers.replicas is %d: the embedded store serves one controller. Set controllers.replicas=1, or controllers.store.type=etcd" (int .replicas)) -}}
{{- end -}}
{{- if and (eq .store.type "etcd") (not .store.etcd.endpoints) -}}
{{- fail "controllers.store.etcd.endpoints is empty: name the client URLs of your etcd, or take controllers.store.type=bundled for a trial" -}}
{{- end -}}
{{- $scheme := ternary "https://" "http://" (ne .store.etcd.tls.secretName "") -}}
{{- range .store.etcd.endpoints -}}
{{- if not (hasPrefix $scheme .) -}}
{{- fail (printf "controllers.store.etcd.endpoints has %s: https goes with controllers.store.etcd.tls.secretName, http without" .) -}}
{{- end -}}
{{- end -}}
{{- if not (or .grpc.tls.secretName $values.certManager.issuerRef.name) -}}
{{- fail "relays reach controllers by TLS alone: name a Secret with controllers.grpc.tls.secretName, or an issuer of cert-manager with certManager.issuerRef.name" -}}
{{- end -}}
{{- if and .grpc.requireRelayCertificate (not .grpc.clientCa.secretName) -}}
{{- fail "controllers.grpc.requireRelayCertificate needs the authority of those certificates: controllers.grpc.clientCa.secretName" -}}
{{- end -}}
{{- if and .grpc.requireRelayCertificate $values.relays.enabled -}}
{{- fail "controllers.grpc.requireRelayCertificate refuses the relays of this release, which join by token: set relays.enabled=false, or do without it" -}}
{{- end -}}
{{- if and .http.tls.certManager (not $values.certManager.issuerRef.name) -}}
{{- fail "controllers.http.tls.certManager needs certManager.issuerRef.name" -}}
{{- end -}}
{{- if and (gt (int .replicas) 1) (eq .antiAffinity "required") (ge (int .pdb.maxUnavailable) (int .replicas)) -}}
{{- fail "controllers.pdb.maxUnavailable lets an eviction take every controller" -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- with $values.relays -}}
{{- if .enabled -}}
{{- if and (not $values.controllers.enabled) (or (not .controller.endpoints) (not .controller.ca.secretName)) -}}
{{- fail "without controllers in this release relays need relays.controller.endpoints and relays.controller.ca.secretName" -}}
{{- end -}}
{{- $hasTls := or .tls.secretName .tls.certManager -}}
{{- $seen := dict -}}
{{- range .listeners -}}
{{- if and (contains "tls" .transport) (not $hasTls) -}}
{{- fail (printf "relays.listeners has %s on port %d: name a certificate with relays.tls.secretName, or relays.tls.certManager=true" .transport (int .port)) -}}
{{- end -}}
{{- $way := printf "%s port %d" (ternary "udp" "tcp" (eq .transport "udp")) (int .port) -}}
{{- if hasKey $seen $way -}}
{{- fail (printf "relays.listeners has %s twice" $way) -}}
{{- end -}}
{{- $_ := set $seen $way true -}}
{{- end -}}
{{- if and .tls.certManager (or (not .hostnames) (not $values.certManager.issuerRef.name)) -}}
{{- fail "relays.tls.certManager needs relays.hostnames, the names that the certificate is for, and certManager.issuerRef.name" -}}
{{- end -}}
{{- if and (eq .publicAddress.source "map") (not .publicAddress.map) -}}
{{- fail "relays.publicAddress.source is map: give relays.publicAddress.map an address for each node" -}}
{{- end -}}
{{- if and (eq .publicAddress.source "stun") (not .publicAddress.stunServer) -}}
{{- fail "relays.publicAddress.source is stun: name the server with relays.publicAddress.stunServer, HOST:PORT" -}}
{{- end -}}
{{- if .hostNetwork -}}
{{- if eq .publicAddress.source "service" -}}
{{- fail "relays.publicAddress.source=service is for relays without host networking (relays.hostNetwork=false)" -}}
{{- end -}}
{{- else -}}
{{- if ne .kind "Deployment" -}}
{{- fail "without host networking each relay needs Services of its own: set relays.kind=Deployment and relays.replicas" -}}
{{- end -}}
{{- if ne .publicAddress.source "service" -}}
{{- fail "without host networking clients see the addresses of the Services: set relays.publicAddress.source=service" -}}
{{- end -}}
{{- if ne (len .services.addresses) (int .replicas) -}}
{{- fail (printf "relays.services.addresses has %d addresses for %d relays: without host networking each relay needs one of its own" (len .services.addresses) (int .replicas)) -}}
{{- end -}}
{{- $ports := splitList "-" $values.controllers.relayPorts -}}
{{- $count := add1 (sub (int (index $ports 1)) (int (index $ports 0))) -}}
{{- if gt (int $count) 1000 -}}
{{- fail (printf "controllers.relayPorts has %d ports: without host networking each is a port of a Service, and more than 1000 are too many. Set for example controllers.relayPorts=50000-50199" (int $count)) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- $ports := splitList "-" $values.controllers.relayPorts -}}
{{- if gt (int (index $ports 0)) (int (index $ports 1)) -}}
{{- fail (printf "controllers.relayPorts is %s: FIRST-LAST, from the lower port to the higher one" $values.controllers.relayPorts) -}}
{{- end -}}
{{- end -}}
