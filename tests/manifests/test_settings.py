"""The settings of a cluster beside each overlay go with its objects."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from pipelines.commands.cli import app
from tests.cluster.strict import pods
from tests.manifests.overlays import MANIFESTS, OVERLAYS, objects, of_kind
from tests.wfm.cluster.requests import request
from wfm.cluster.entry import object_of
from wfm.cluster.lint import lint
from wfm.cluster.settings import ClusterSettings

pytestmark = pytest.mark.parametrize("overlay", OVERLAYS)


def settings(overlay: str) -> ClusterSettings:
    return ClusterSettings.read(str(MANIFESTS / "overlays" / overlay / "cluster.json"))


def images(overlay: str) -> set[str]:
    return {
        container["image"] for one in objects(overlay) for _, pod in pods(one) for container in pod["spec"]["containers"]
    }  # fmt: skip


def test_namespace_account_and_images_are_those_of_the_objects(overlay: str) -> None:
    found = settings(overlay)
    assert found.namespace in of_kind(overlay, "Namespace")
    assert found.service_account in of_kind(overlay, "ServiceAccount")
    ours = {image for image in images(overlay) if "/wfm-" in image}
    assert ours == {found.images.control}, "planner, launcher, exporter and stages are of one set"
    kept = of_kind(overlay, "ConfigMap")["wfm-cluster"]["data"]["cluster.json"]
    assert ClusterSettings.parse(json.loads(kept)) == found


def test_our_own_lint_finds_no_fault(overlay: str) -> None:
    namespace = settings(overlay).namespace
    queues = [
        one for file in (MANIFESTS / "base" / "queues").glob("*.yaml") for one in yaml.safe_load_all(file.read_text())
        if one["kind"] == "LocalQueue" and one["metadata"]["namespace"] == namespace
    ]  # fmt: skip
    assert len(queues) == 1
    assert lint([*objects(overlay), *queues], settings(overlay)) == []


@pytest.mark.parametrize("kind", ["container", "torchjob", "daskjob"])
def test_stages_of_these_settings_are_reached_by_the_policies(overlay: str, kind: str) -> None:
    """Each pod that a launcher makes may speak to the store, and to its own kind."""
    made = object_of(request(kind=kind, resources={"gpu": 1, "ephemeral_gib": 20.0}), settings(overlay))
    assert lint([made], settings(overlay)) == []
    found = [pod for pod in _templates(made) if "containers" in pod["spec"]]
    assert found
    for template in found:
        labels = {**made["metadata"]["labels"], **template.get("metadata", {}).get("labels", {})}
        allowed = {name for name, one in of_kind(overlay, "NetworkPolicy").items() if _selects(one, labels)}
        assert {"deny-all", "names", "store", "ranks-and-workers"} <= allowed
        assert "api-server" not in allowed


def test_the_queues_beside_them_take_the_profile_of_a_cluster(overlay: str, tmp_path: Path) -> None:
    """A development queue has three machines with what it may borrow, and the profile wishes for four."""
    kept = settings(overlay).resolved()
    options = ["--set", "train_diffusion.resources.replicas=3", "--set", "train_autoregressive.resources.replicas=3"]
    for changed, code in ({}, 0), ({"gpu_tolerations": []}, 78):
        (file := tmp_path / "cluster.json").write_text(json.dumps(kept | changed))
        words = ["quota", "world_model", "--manifests", str(MANIFESTS / "base" / "queues"), "--cluster", str(file)]
        words += options if overlay == "dev" else []
        done = CliRunner().invoke(app, [*words, "--store", str(tmp_path / "store")])
        assert done.exit_code == code, done.output
        assert ("never" in done.output) == bool(code)


def _templates(made: Any) -> list[dict[str, Any]]:
    """Pod templates within an object, with their metadata where they have it."""
    if isinstance(made, dict):
        inner = [one for value in made.values() for one in _templates(value)]
        return [made, *inner] if "containers" in made.get("spec", {}) else inner
    return [one for each in made for one in _templates(each)] if isinstance(made, list) else []


def _selects(policy: dict[str, Any], labels: dict[str, str]) -> bool:
    selector = policy["spec"]["podSelector"]
    if any(labels.get(name) != value for name, value in selector.get("matchLabels", {}).items()):
        return False
    return all(
        (labels.get(one["key"]) in one["values"]) if one["operator"] == "In" else one["key"] in labels
        for one in selector.get("matchExpressions", [])
    )
