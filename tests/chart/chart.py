"""The chart under test: its value sets, and what they render to. Run as a program it prints one of them as JSON."""

import copy
import json
import pathlib
import sys

import helm_python as helm
import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
CHART = ROOT / "helm" / "turnfleet"
RELEASE, NAMESPACE = "fleet", "calls"


class Whole(yaml.SafeLoader):
    """YAML as Kubernetes reads it: the octal modes of files among it, and a key that stands twice refused."""

    def construct_mapping(self, node, deep=False):
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        twice = {key for key in keys if keys.count(key) > 1}
        if twice:
            raise yaml.YAMLError(f"{sorted(twice)} twice {node.start_mark}")
        return super().construct_mapping(node, deep)


def over(below, above):
    """`above` laid over `below`, tables merged, as Helm does it."""
    if not isinstance(below, dict) or not isinstance(above, dict):
        return copy.deepcopy(above)
    merged = dict(below)
    for key, value in above.items():
        merged[key] = over(below[key], value) if key in below else copy.deepcopy(value)
    return merged


def book():
    return yaml.load((ROOT / "tests/chart/cases.yaml").read_text(), Whole)


def render(values, chart=None):
    """The objects that `values` make, and the notes."""
    chart = chart or helm.Chart.load(CHART)
    rendered = chart.render(values, name=RELEASE, namespace=NAMESPACE)
    objects, notes = [], ""
    for path, text in rendered.items():
        if path.endswith("NOTES.txt"):
            notes = text
            continue
        for document in yaml.load_all(text, Whole):
            if document:
                objects.append(document)
    return objects, notes


def values_of(case, extra=None):
    whole = book()
    return over(over(whole["base"], whole["cases"][case]["values"]), extra or {})


if __name__ == "__main__":
    case, extra = sys.argv[1], json.loads(sys.argv[2]) if len(sys.argv) > 2 else {}
    cases = [case] if case != "all" else list(book()["cases"])
    print(json.dumps({case: render(values_of(case, extra))[0] for case in cases}))
