"""Checks of the chart that need no cluster. `check.py NAME` runs one of them, and ends with a failure where it does not hold."""

import json
import os
import pathlib
import re
import sys
import tempfile

import helm_python as helm
import jsonschema
import kubernetes_validate
import yaml

from chart import CHART, ROOT, book, over, render, values_of

VERSIONS = [f"1.{minor}" for minor in range(28, 38)]
TEXTS = {"type": "object", "additionalProperties": {"type": "string"}}


def strict(properties, required):
    return {"type": "object", "additionalProperties": False, "properties": properties, "required": required}


SELECTOR = strict({"matchLabels": TEXTS}, ["matchLabels"])
REFERENCE = strict({"name": {"type": "string"}, "key": {"type": "string"}}, ["name", "key"])
# Of kinds that others define: what their documentation has, as far as this chart uses it.
SPECS = {
    "PodMonitor": strict({
        "selector": SELECTOR,
        "podMetricsEndpoints": {"type": "array", "minItems": 1, "items": strict({
            "port": {"type": "string"}, "path": {"const": "/metrics"}, "interval": {"type": "string"},
            "scheme": {"enum": ["http", "https"]},
            "tlsConfig": strict({"serverName": {"type": "string"}, "ca": strict({"secret": REFERENCE}, ["secret"])}, []),
            "authorization": strict({"type": {"const": "Bearer"}, "credentials": REFERENCE}, ["credentials"]),
        }, ["port"])},
    }, ["selector", "podMetricsEndpoints"]),
    "PrometheusRule": strict({
        "groups": {"type": "array", "minItems": 1, "items": strict({
            "name": {"type": "string"}, "interval": {"type": "string"}, "limit": {"type": "integer"}, "labels": TEXTS,
            "rules": {"type": "array", "minItems": 1, "items": strict({
                "alert": {"type": "string"}, "record": {"type": "string"}, "expr": {"type": ["string", "number"]},
                "for": {"type": "string"}, "keep_firing_for": {"type": "string"}, "labels": TEXTS, "annotations": TEXTS,
            }, ["expr"])},
        }, ["name", "rules"])},
    }, ["groups"]),
    "Certificate": strict({
        "secretName": {"type": "string"}, "duration": {"type": "string"}, "renewBefore": {"type": "string"},
        "privateKey": strict({"algorithm": {"const": "ECDSA"}, "size": {"const": 256}, "rotationPolicy": {"const": "Always"}}, []),
        "usages": {"type": "array", "items": {"const": "server auth"}},
        "dnsNames": {"type": "array", "minItems": 1, "items": {"type": "string"}},
        "issuerRef": strict({"name": {"type": "string", "minLength": 1}, "kind": {"type": "string"}, "group": {"type": "string"}}, ["name"]),
    }, ["secretName", "dnsNames", "issuerRef"]),
}


def lint():
    report = helm.lint(CHART, values_of("trial"), strict=True)
    bad = [message for message in report["messages"] if message["severity"] >= 2]
    assert report["total_charts_linted"] == 1 and not bad and not report["errors"], report
    with tempfile.TemporaryDirectory() as folder:
        archive = helm.Chart.load(CHART).save(folder)
        again, _ = render(values_of("monitored"), helm.Chart.load(archive))
        assert again == render(values_of("monitored"))[0], "the packaged chart renders otherwise"


def name_of(thing):
    return f"{thing['kind']}/{thing['metadata']['name']}"


def pods(objects):
    for thing in objects:
        if thing["kind"] == "Pod":
            yield name_of(thing), thing["spec"]
        elif "template" in thing.get("spec", {}):
            yield name_of(thing), thing["spec"]["template"]["spec"]


def judge_pod(name, pod, low_ports_as_root):
    """What every pod keeps to, whatever the values."""
    assert pod["automountServiceAccountToken"] is False, name
    assert pod["enableServiceLinks"] is False, name
    security = pod["securityContext"]
    assert security["seccompProfile"] == {"type": "RuntimeDefault"}, name
    for container in pod["containers"]:
        own = container["securityContext"]
        assert own["readOnlyRootFilesystem"] and not own["allowPrivilegeEscalation"], name
        assert own["capabilities"]["drop"] == ["ALL"], name
        assert container["resources"]["limits"]["memory"], name
        mounted = {mount["name"] for mount in container["volumeMounts"]}
        assert mounted <= {"data"} | {volume["name"] for volume in pod.get("volumes", [])}, name
        as_root = low_ports_as_root and container["name"] == "relay"
        assert own["capabilities"].get("add", []) == (["NET_BIND_SERVICE"] if as_root else []), name
        assert (security["runAsUser"] == 0) == as_root and security.get("runAsNonRoot", False) != as_root, name
        for variable in container.get("env", []):
            assert not re.search("(SECRET|TOKEN|PASSWORD)$", variable["name"]), f"{name}: a secret in the environment"
        if container["name"] == "relay":
            config = next(it for it in pod["volumes"] if it["name"] == "controllers")
            assert [item["path"] for item in config["secret"]["items"]] == ["ca.crt"], f"{name}: more than the authority"


def schemas():
    """Every object of every value set is one for each version of Kubernetes, and keeps to the rules above."""
    whole, seen = book(), set()
    assert len(whole["cases"]) >= 20
    for case, told in whole["cases"].items():
        objects, notes = render(values_of(case))
        names = [name_of(thing) for thing in objects]
        assert len(set(names)) == len(names), f"{case}: {names}"
        missing = set(told.get("objects", [])) - set(names)
        superfluous = set(told.get("absent", [])) & set(names)
        assert not missing and not superfluous, f"{case}: {missing} missing, {superfluous} superfluous, of {names}"
        assert "turn_shared_secret_path" in notes and "turn_uris" in notes, case
        for thing in objects:
            spec = SPECS.get(thing["kind"])
            if spec is not None:
                jsonschema.validate(thing["spec"], spec)
                continue
            # Most objects are the same in most value sets.
            text = json.dumps(thing, sort_keys=True)
            if text in seen:
                continue
            seen.add(text)
            for version in VERSIONS:
                try:
                    kubernetes_validate.validate(thing, version, strict=True)
                except Exception as error:
                    raise AssertionError(f"{case}, {version}, {name_of(thing)}: {error}") from error
        for name, pod in pods(objects):
            judge_pod(f"{case}, {name}", pod, case == "tls-on-443")
            if pod["containers"][0]["name"] == "relay":
                config = next(it for it in objects if name_of(it) == "ConfigMap/" + pod["volumes"][0]["configMap"]["name"])
                deadline = re.search(r"drain_deadline_seconds = (\d+)", config["data"]["relay.toml"])
                assert pod["terminationGracePeriodSeconds"] == int(deadline[1]) + 60, f"{case}, {name}"
        # What a version of the chart alone changes restarts no relay.
        for thing in objects:
            template = thing.get("spec", {}).get("template", {})
            assert "helm.sh/chart" not in template.get("metadata", {}).get("labels", {}), f"{case}, {name_of(thing)}"


def services():
    """Each port of each relay is on one Service, with its address, and leads to that relay alone."""
    objects, _ = render(values_of("services"))
    addresses = next(thing for thing in objects if name_of(thing) == "ConfigMap/fleet-turnfleet-relays-addresses")
    assert addresses["data"] == {"fleet-turnfleet-relays-0": "203.0.113.1", "fleet-turnfleet-relays-1": "203.0.113.2"}, addresses
    for index, address in enumerate(["203.0.113.1", "203.0.113.2"]):
        relay = f"fleet-turnfleet-relays-{index}"
        ports = []
        for thing in objects:
            if thing["kind"] == "Service" and thing["metadata"]["name"].startswith(relay + "-"):
                spec = thing["spec"]
                assert spec["loadBalancerIP"] == address and spec["externalTrafficPolicy"] == "Local"
                assert spec["selector"]["statefulset.kubernetes.io/pod-name"] == relay
                assert spec["publishNotReadyAddresses"], "a relay that drains loses its calls"
                assert thing["metadata"]["annotations"] == {"example.org/share": relay}
                assert all(port["port"] == port["targetPort"] for port in spec["ports"]) and len(spec["ports"]) <= 60
                ports += [(port["protocol"], port["port"]) for port in spec["ports"]]
        wanted = [("UDP", 3478), ("TCP", 3478)] + [("UDP", port) for port in range(50000, 50100)]
        assert sorted(ports) == sorted(wanted), ports


def refusals():
    """Values that cannot work are refused, in words that name the value and the way out."""
    whole = book()
    chart = helm.Chart.load(CHART)
    for refusal in whole["refusals"]:
        try:
            render(over(whole["base"], refusal["values"]), chart)
        except helm.HelmError as error:
            missing = [word for word in refusal["words"] if word not in str(error)]
            assert not missing, f"{refusal['values']}: {missing} not in: {error}"
        else:
            raise AssertionError(f"not refused: {refusal['values']}")


def monitoring():
    """Rules and dashboards come from files, as many as there are, also none; braces in them are Prometheus's and Grafana's."""
    values = values_of("monitored")
    bare = helm.Chart.load(CHART)
    with tempfile.TemporaryDirectory() as folder:
        copy = pathlib.Path(bare.save_dir(folder))
        for old in (copy / "files").rglob("*.*"):
            old.unlink()
        kinds = [thing["kind"] for thing in render(values, helm.Chart.load(copy))[0]]
        assert "PrometheusRule" not in kinds, kinds
        for group in ["a", "b"]:
            rule = {"alert": "Gone", "expr": "up == 0", "annotations": {"summary": "{{ $labels.instance }} is gone"}}
            path = copy / "files" / "rules" / f"{group}.yaml"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(yaml.dump({"groups": [{"name": group, "rules": [rule]}]}))
        path = copy / "files" / "dashboards" / "fleet.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text('{"title": "{{fleet}}"}')
        objects = {name_of(thing): thing for thing in render(values, helm.Chart.load(copy))[0]}
        groups = objects["PrometheusRule/fleet-turnfleet"]["spec"]["groups"]
        assert [group["name"] for group in groups] == ["a", "b"], groups
        assert groups[0]["rules"][0]["annotations"]["summary"] == "{{ $labels.instance }} is gone"
        assert objects["ConfigMap/fleet-turnfleet-dashboards"]["data"] == {"fleet.json": '{"title": "{{fleet}}"}'}


def rows():
    """The path, default and meaning of each value, from the comments of values.yaml."""
    text = (CHART / "values.yaml").read_text()
    defaults = yaml.safe_load(text)
    table, stack, said, skipped = [], [], [], None
    for number, line in enumerate(text.splitlines(), 1):
        indent = len(line) - len(line.lstrip())
        if not line.strip():
            said = []
            continue
        if skipped is not None and indent > skipped:
            continue
        skipped = None
        if line.strip().startswith("#"):
            comment = line.strip().lstrip("#").strip()
            said = [comment[3:]] if comment.startswith("-- ") else said + [comment] if said else []
            continue
        key = line.split(":")[0].strip()
        stack = [entry for entry in stack if entry[0] < indent] + [(indent, key)]
        value = defaults
        for _, name in stack:
            value = value[name]
        if said:
            table.append((".".join(name for _, name in stack), json.dumps(value, ensure_ascii=False), " ".join(said)))
            skipped = indent
        else:
            assert isinstance(value, dict) and value and line.rstrip().endswith(":"), f"values.yaml:{number}: {key} has no comment"
        said = []
    return table


README = """# The Turnfleet chart

Controllers, relays and, for trials, an etcd on Kubernetes 1.28 and later. [The guide](../../docs/guides/kubernetes.md) installs a fleet step by step.

```sh
helm install fleet ./helm/turnfleet --namespace calls --values fleet.yaml
helm test fleet --namespace calls
```

Values that are not in the table, or do not fit each other, are refused with the name of the value and what to set instead.

## How it was tested

The chart is linted, packaged and rendered by the Helm SDK with the value sets of [tests/chart/cases.yaml](../../tests/chart/cases.yaml), and every
object is checked, strictly, against the schemas of Kubernetes {first} to {last}; those of cert-manager and of the Prometheus operator against small
ones of our own. The Helm SDK installs, upgrades, rolls back and uninstalls it on a stand-in for the API server
([tests/chart/api.py](../../tests/chart/api.py)). The rendered commands of etcd, controllers and relays run with the rendered configuration; a relay is
killed, and its successor allocates within five seconds.

**No real API server was to be had.** So nothing here has been through admission, defaulting, scheduling or a kubelet, and neither cert-manager nor
the Prometheus operator has seen its objects. Services before relays without host networking were not tried with any load balancer.

## Values

<!-- Made from values.yaml; a test compares. -->

| Value | Default | Meaning |
| --- | --- | --- |
"""


def readme():
    made = README.format(first=VERSIONS[0], last=VERSIONS[-1])
    for path, default, meaning in rows():
        cells = [f"`{path}`", f"`{default}`", meaning]
        made += "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"
    path = CHART / "README.md"
    if os.environ.get("UPDATE_EXPECT"):
        path.write_text(made)
    there = path.read_text() if path.exists() else ""
    assert there == made, "helm/turnfleet/README.md is out of date; UPDATE_EXPECT=1 cargo test --test chart writes it"
    # The schema knows each value, and nothing that is none.
    schema = json.loads((CHART / "values.schema.json").read_text())
    compare(yaml.safe_load((CHART / "values.yaml").read_text()), schema, "")


def compare(values, schema, path):
    known = schema.get("properties")
    if known is None or not isinstance(values, dict):
        return
    different = (set(known) ^ set(values)) - {"global", "claims"}
    assert not different, f"{path or 'the top'}: {sorted(different)} in values.yaml or values.schema.json alone"
    for key, value in values.items():
        compare(value, known[key], f"{path}.{key}")


def dockerfile():
    """The Dockerfile is one, and what is built from it is not root."""
    import subprocess
    tool = pathlib.Path(sys.executable).parent / "hadolint"
    checked = subprocess.run([tool, "--no-color", ROOT / "xtask/image/Dockerfile"], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def release():
    import life
    life.run()


if __name__ == "__main__":
    globals()[sys.argv[1]]()
