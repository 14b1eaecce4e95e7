"""A stand-in for the Kubernetes API server, as far as Helm's client needs one: discovery, and objects that are made, read, applied,
patched and deleted. It has no admission, defaulting, controllers or kubelet; a pod has succeeded half a second after it was made.
"""

import copy
import http.server
import json
import threading
import time
import urllib.parse

import yaml

# Group and version, with the kinds in it: plural, kind, whether it is in a namespace.
KINDS = {
    "v1": [("namespaces", "Namespace", False), ("pods", "Pod", True), ("services", "Service", True), ("configmaps", "ConfigMap", True),
           ("secrets", "Secret", True), ("serviceaccounts", "ServiceAccount", True),
           ("persistentvolumeclaims", "PersistentVolumeClaim", True)],
    "apps/v1": [("deployments", "Deployment", True), ("daemonsets", "DaemonSet", True), ("statefulsets", "StatefulSet", True)],
    "policy/v1": [("poddisruptionbudgets", "PodDisruptionBudget", True)],
    "networking.k8s.io/v1": [("networkpolicies", "NetworkPolicy", True)],
    "cert-manager.io/v1": [("certificates", "Certificate", True)],
    "monitoring.coreos.com/v1": [("podmonitors", "PodMonitor", True), ("prometheusrules", "PrometheusRule", True)],
}


# Seconds that a pod takes to succeed, and to go.
LATER = 0.5


def merged(below, above):
    """A JSON merge patch (RFC 7396), which stands for the other kinds of patches too."""
    if not isinstance(above, dict):
        return above
    result = dict(below) if isinstance(below, dict) else {}
    for key, value in above.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merged(result.get(key), value)
    return result


class Api(http.server.ThreadingHTTPServer):
    """Listens on a free port of loopback; `objects` are by path."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.objects, self.count, self.lock = {}, 0, threading.RLock()
        self.changed = threading.Condition(self.lock)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def kubeconfig(self):
        cluster = {"name": "it", "cluster": {"server": f"http://127.0.0.1:{self.server_address[1]}"}}
        context = {"name": "it", "context": {"cluster": "it", "user": "it", "namespace": "calls"}}
        return yaml.dump({"apiVersion": "v1", "kind": "Config", "clusters": [cluster], "contexts": [context],
                          "users": [{"name": "it", "user": {}}], "current-context": "it"})

    def named(self):
        return sorted(f"{thing['kind']}/{thing['metadata']['name']}" for thing in self.objects.values())


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, body, code=200):
        data = json.dumps(body).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def refuse(self, code, reason):
        self.answer({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "code": code, "message": f"{self.path}: {reason}"}, code)

    def discovery(self, path):
        """The answer to a question about the API itself, if it is one."""
        groups = sorted(version for version in KINDS if "/" in version)
        if path == "/version":
            return {"major": "1", "minor": "34", "gitVersion": "v1.34.0"}
        if path == "/api":
            return {"kind": "APIVersions", "versions": ["v1"]}
        if path == "/apis":
            versions = [{"groupVersion": version, "version": "v1"} for version in groups]
            return {"kind": "APIGroupList", "apiVersion": "v1", "groups": [
                {"name": it["groupVersion"].split("/")[0], "versions": [it], "preferredVersion": it} for it in versions]}
        if path == "/openapi/v3":
            return {"paths": {f"api{'s' if '/' in version else ''}/{version}": {"serverRelativeURL": f"/openapi/v3/{version}"} for version in KINDS}}
        if path.startswith("/openapi/v3/"):
            version = path.removeprefix("/openapi/v3/")
            group, _, number = version.rpartition("/")
            query = [{"name": "fieldValidation", "in": "query"}]
            return {"openapi": "3.0.0", "paths": {f"/{kind}": {"patch": {"parameters": query, "x-kubernetes-group-version-kind": {
                "group": group, "version": number, "kind": kind}}} for _, kind, _ in KINDS.get(version, [])}}
        version = path.removeprefix("/apis/") if path.startswith("/apis/") else path.removeprefix("/api/")
        if version in KINDS:
            verbs = ["create", "delete", "get", "list", "patch", "update", "watch"]
            return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": version, "resources": [
                {"name": plural, "singularName": kind.lower(), "namespaced": within, "kind": kind, "verbs": verbs}
                for plural, kind, within in KINDS[version]]}
        return None

    def do_GET(self):
        url = urllib.parse.urlparse(self.path)
        told = self.discovery(url.path)
        if told is not None:
            return self.answer(told)
        with self.server.lock:
            there = self.server.objects.get(url.path)
            if there is not None:
                return self.answer(there)
            items = [thing for path, thing in self.server.objects.items() if path.rsplit("/", 1)[0] == url.path]
        query = urllib.parse.parse_qs(url.query)
        fields = dict(part.split("=", 1) for part in query.get("fieldSelector", [""])[0].split(",") if "=" in part)
        if "metadata.name" in fields:
            items = [thing for thing in items if thing["metadata"]["name"] == fields["metadata.name"]]
        known = any(url.path.rsplit("/", 1)[1] == plural for kinds in KINDS.values() for plural, _, _ in kinds)
        if not known:
            return self.refuse(404, "NotFound")
        kind = next(kind for kinds in KINDS.values() for plural, kind, _ in kinds if plural == url.path.rsplit("/", 1)[1])
        version = "/".join(url.path.split("/")[2:4]) if url.path.startswith("/apis/") else "v1"
        if query.get("watch"):
            return self.watch(url.path, {"kind": kind, "apiVersion": version}, fields.get("metadata.name"))
        self.answer({"kind": f"{kind}List", "apiVersion": version, "metadata": {"resourceVersion": str(self.server.count)}, "items": items})

    def watch(self, path, what, name):
        """Tells what is there, that this was all, and then what changes, until the client goes or half a minute has passed."""
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.close_connection = True
        told, ends = {}, time.monotonic() + 30

        def tell(kind, thing):
            self.wfile.write(json.dumps({"type": kind, "object": thing}).encode() + b"\n")
            self.wfile.flush()

        try:
            first = True
            while time.monotonic() < ends:
                with self.server.changed:
                    if not first:
                        self.server.changed.wait(0.2)
                    now = {at: thing for at, thing in self.server.objects.items()
                           if at.rsplit("/", 1)[0] == path and name in (None, thing["metadata"]["name"])}
                for at in now.keys() - told.keys():
                    tell("ADDED", now[at])
                for at in told.keys() - now.keys():
                    tell("DELETED", told[at])
                for at in now.keys() & told.keys():
                    if now[at] != told[at]:
                        tell("MODIFIED", now[at])
                if first:
                    ended = {"resourceVersion": str(self.server.count), "annotations": {"k8s.io/initial-events-end": "true"}}
                    tell("BOOKMARK", {**what, "metadata": ended})
                told, first = now, False
        except OSError:
            pass  # The client has seen what it waited for.

    def body(self):
        return yaml.safe_load(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or b"{}")

    def keep(self, path, thing):
        with self.server.lock:
            self.server.count += 1
            before = self.server.objects.get(path, {}).get("metadata", {})
            own = {"uid": before.get("uid", f"uid-{self.server.count}"), "creationTimestamp": "2026-01-01T00:00:00Z"}
            thing["metadata"] = {**thing["metadata"], **own, "resourceVersion": str(self.server.count)}
            if thing["kind"] == "Pod" and "status" not in thing:
                thing["status"] = {"phase": "Pending"}
                done = {**thing, "status": {"phase": "Succeeded"}}
                threading.Timer(LATER, self.keep, (path, done)).start()
            self.server.objects[path] = thing
            self.server.changed.notify_all()
        return copy.deepcopy(thing)

    def do_POST(self):
        thing = self.body()
        path = f"{urllib.parse.urlparse(self.path).path}/{thing['metadata']['name']}"
        if path in self.server.objects:
            return self.refuse(409, "AlreadyExists")
        self.answer(self.keep(path, thing), 201)

    def do_PUT(self):
        self.answer(self.keep(urllib.parse.urlparse(self.path).path, self.body()))

    def do_PATCH(self):
        path, patch = urllib.parse.urlparse(self.path).path, self.body()
        # An applied object is the whole of what Helm has in it.
        applied = "apply-patch" in self.headers["Content-Type"]
        there = self.server.objects.get(path)
        if there is None and not applied:
            return self.refuse(404, "NotFound")
        self.answer(self.keep(path, patch if applied else merged(there, patch)), 200 if there else 201)

    def remove(self, path):
        with self.server.changed:
            self.server.objects.pop(path, None)
            self.server.changed.notify_all()

    def do_DELETE(self):
        self.body()
        path = urllib.parse.urlparse(self.path).path
        gone = self.server.objects.get(path)
        if gone is None:
            return self.refuse(404, "NotFound")
        if gone["kind"] == "Pod":
            threading.Timer(LATER, self.remove, (path,)).start()
        else:
            self.remove(path)
        self.answer({"kind": "Status", "apiVersion": "v1", "status": "Success"})
