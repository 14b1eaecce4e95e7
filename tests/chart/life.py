"""The life of a release: installed, tested, upgraded, refused, rolled back and uninstalled by the Helm SDK on a stand-in for the API server."""

import helm_python as helm

from api import Api
from chart import CHART, NAMESPACE, RELEASE, render, values_of


def run():
    api = Api()
    # The usual driver writes protobuf, which the stand-in does not read.
    config = helm.Config(kubeconfig_content=api.kubeconfig(), namespace=NAMESPACE, storage_driver="memory")
    first, second = values_of("monitored"), values_of("monitored", {"realm": "calls.example.org", "relays": {"kind": "Deployment"}})

    def there(kind, name):
        return next((it for it in api.objects.values() if it["kind"] == kind and it["metadata"]["name"] == name), None)

    def is_installed(values):
        wanted = {f"{thing['kind']}/{thing['metadata']['name']}": thing for thing in render(values)[0] if thing["kind"] != "Pod"}
        names = [name for name in api.named() if not name.startswith("Pod/")]
        assert names == sorted(wanted), f"{names} instead of {sorted(wanted)}"
        for name, thing in wanted.items():
            kept = there(*name.split("/", 1))
            # A text at the end of a manifest loses its last line break on the way.
            texts = [{key: text.strip() for key, text in it.get("data", {}).items()} for it in (kept, thing)]
            assert kept.get("spec") == thing.get("spec") and texts[0] == texts[1], f"{name}: {kept}"

    config.install(CHART, RELEASE, first, namespace=NAMESPACE)
    is_installed(first)
    assert config.status(RELEASE)["status"] == "deployed"
    config.test(RELEASE)
    config.upgrade(CHART, RELEASE, second, namespace=NAMESPACE)
    is_installed(second)
    assert "calls.example.org" in there("ConfigMap", "fleet-turnfleet-controllers")["data"]["controller.toml"]
    try:
        config.upgrade(CHART, RELEASE, values_of("monitored", {"relays": {"kind": "StatefulSet"}}), namespace=NAMESPACE)
    except helm.HelmError as error:
        assert "/relays/kind" in str(error), error
    else:
        raise AssertionError("an upgrade to values that the schema refuses went through")
    is_installed(second)
    config.rollback(RELEASE, version=1)
    is_installed(first)
    history = [entry["revision"] for entry in config.history(RELEASE)]
    assert sorted(history) == [1, 2, 3], history
    config.uninstall(RELEASE)
    assert api.named() == [], api.named()
    # The volume of the embedded store outlives its release.
    config.install(CHART, RELEASE, values_of("embedded"), namespace=NAMESPACE)
    config.uninstall(RELEASE)
    assert api.named() == ["PersistentVolumeClaim/fleet-turnfleet-controllers"], api.named()
