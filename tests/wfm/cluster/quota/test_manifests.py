"""The manifests of queues, and of quotas without Kueue: what an API server takes, what our lint passes, what the demo needs."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from components.derivation import ROOT
from pipelines.commands.cli import app
from pipelines.commands.manifests import objects_under
from tests.cluster import strict
from tests.manifests.overlays import kubectl
from tests.wfm.cluster.requests import settings
from wfm.cluster.lint import lint
from wfm.cluster.quota import online, read_cluster
from wfm.errors import ConfigError, DataError, InputError

QUEUES = ROOT / "manifests/base/queues"
KUEUE = ROOT / "manifests/kueue"
NAMESPACE = ROOT / "manifests/components/namespace-quota"
SETTINGS = settings(
    workload_priority="wfm-regular",
    integrations=["job", "jobset", "trainjob", "pytorchjob", "pod", "deployment"],
    gpu_node_selector={"nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3"},
    gpu_tolerations=[{"key": "nvidia.com/gpu"}],
)


@pytest.mark.parametrize("folder", [QUEUES, NAMESPACE], ids=["kueue", "namespace"])
def test_a_server_takes_each_object_as_it_is(folder):
    objects = objects_under([folder])
    assert [(each["kind"], fault) for each in objects for fault in strict.faults(each)] == []
    for namespace, other in (("wfm", "wfm-dev"), ("wfm-dev", "wfm")) if folder == QUEUES else (("wfm", ""),):
        kept = [each for each in objects if other not in (each["metadata"].get("namespace"), _queue_of(each))]
        assert lint(kept, SETTINGS.model_copy(update={"namespace": namespace})) == []
    names = {file.name for file in folder.iterdir()} - {"kustomization.yaml"}
    assert names == set(yaml.safe_load((folder / "kustomization.yaml").read_text())["resources"]), (
        "no file is forgotten"
    )


def _queue_of(each: dict[str, Any]) -> str:
    return each["metadata"]["name"] if each["kind"] == "ClusterQueue" else ""


def test_each_kind_and_each_way_to_share_is_there():
    objects = objects_under([QUEUES])
    kinds = {each["kind"] for each in objects}
    shared = {"ResourceFlavor", "ClusterQueue", "Cohort", "LocalQueue", "WorkloadPriorityClass", "Topology"}
    assert kinds == {*shared, "ClusterRole"}
    cluster = read_cluster([*objects, *objects_under([KUEUE / "controller_manager_config.yaml"])])
    queue = cluster.queues["wfm"]
    assert (queue.within, queue.reclaim, queue.borrow) == ("LowerPriority", "Any", "Never")
    quotas = [quota for each in cluster.queues.values() for quota in each.quotas.values()]
    assert any(quota.borrowing is not None for quota in quotas)
    assert any(quota.lending is not None for quota in quotas)
    assert "kubeflow.org/pytorchjob" in (cluster.frameworks or ())
    assert cluster.cohorts["wfm"].parent == "platform"
    configuration = yaml.safe_load((KUEUE / "controller_manager_config.yaml").read_text())
    assert configuration["fairSharing"]["preemptionStrategies"]
    assert not configuration["manageJobsWithoutQueueName"]


def kustomize(folder: Path) -> list[dict[str, Any]]:
    command = [kubectl(), "kustomize", str(folder)]
    return list(
        yaml.safe_load_all(subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout)
    )


def test_kustomize_makes_of_them_what_was_looked_at(tmp_path):
    def named(objects: list[Any]) -> dict[tuple[str, str, str], Any]:
        return {(e["kind"], e["metadata"].get("namespace", ""), e["metadata"]["name"]): e for e in objects}

    assert named(kustomize(QUEUES)) == named(objects_under([QUEUES]))
    overlay = {"kind": "Kustomization", "components": [os.path.relpath(NAMESPACE, tmp_path)]}
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(overlay))
    assert named(kustomize(tmp_path)) == named(objects_under([NAMESPACE]))
    (made,) = kustomize(KUEUE)
    assert (made["kind"], made["metadata"]) == (
        "ConfigMap",
        {"name": "kueue-manager-config", "namespace": "kueue-system"},
    )
    assert strict.faults(made) == []
    file = KUEUE / "controller_manager_config.yaml"
    assert read_cluster([made]).frameworks == read_cluster(objects_under([file])).frameworks


def test_the_reader_may_list_what_is_listed_and_no_more():
    (role,) = [each for each in objects_under([QUEUES]) if each["kind"] == "ClusterRole"]
    granted = {(group, name) for rule in role["rules"] for group in rule["apiGroups"] for name in rule["resources"]}
    asked = (*online.OF_THE_CLUSTER, *online.EVERYWHERE_OR_HERE, *online.HERE)
    assert granted == {(each.group, each.plural) for each in asked}
    assert {verb for rule in role["rules"] for verb in rule["verbs"]} == {"list"}


def ask(tmp_path: Path, *words: str) -> tuple[int, str]:
    file = tmp_path / "cluster.json"
    file.write_text(SETTINGS.model_dump_json())
    asked = ["quota", "world_model", "--cluster", str(file), "--store", str(tmp_path / "store"), *words]
    done = CliRunner().invoke(app, asked)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.exit_code, done.output


def test_the_demo_is_admitted_by_them(tmp_path):
    words = ["--manifests", str(QUEUES), "--manifests", str(KUEUE / "controller_manager_config.yaml")]
    code, text = ask(tmp_path, *words)
    assert (code, text.splitlines()[-1]) == (0, "23 fits"), text
    five, six = (f"train_diffusion.resources.replicas={count}" for count in (5, 6))
    code, text = ask(tmp_path, *words, "--set", five, "--json")
    (row,) = [each for each in json.loads(text)["stages"] if each["node"] == "train_diffusion"]
    assert (code, row["state"], row["cluster_queue"]) == (0, "fits", "wfm")
    assert "borrows nvidia.com/gpu 8 (flavor h100) from its cohort" in row["notes"]
    code, text = ask(tmp_path, *words, "--set", six)
    assert code == 78
    assert "22 fits" in text
    assert "1 never" in text


def test_trainings_as_trainjobs_ask_for_the_same(tmp_path, monkeypatch):
    words = ["--manifests", str(QUEUES), "--manifests", str(KUEUE / "controller_manager_config.yaml"), "--json"]
    before = json.loads(ask(tmp_path, *words)[1])["stages"]
    monkeypatch.setattr(f"{__name__}.SETTINGS", SETTINGS.model_copy(update={"training_job": "trainjob"}))
    after = json.loads(ask(tmp_path, *words)[1])["stages"]
    assert {row["kind"] for row in after} == {"TrainJob", "DaskJob", "Job"}
    for one, other in zip(before, after, strict=True):
        assert one["state"] == other["state"] == "fits"
        assert [(e["pods"], e["requests"]) for e in one["sets"]] == [(e["pods"], e["requests"]) for e in other["sets"]]


def test_the_same_without_kueue(tmp_path):
    done = CliRunner().invoke(
        app,
        ["quota", "world_model", "--manifests", str(NAMESPACE), "--store", str(tmp_path / "store")],
        env={"WFM_CLUSTER": ""},
    )
    assert done.exit_code == 0, done.output
    assert "23 fits" in done.output


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "nothing is known of the queues: give --manifests PATH, or --online"),
        (
            ["--manifests", str(KUEUE / "controller_manager_config.yaml")],
            "no ClusterQueue, ResourceQuota, LimitRange or Node: nothing",
        ),
        (["--manifests", "nowhere.yaml"], "'nowhere.yaml' cannot be read"),
        (["--manifests", str(ROOT / "manifests/overlays/prod")], "changes what it names .* kubectl kustomize"),
        (["--manifests", str(QUEUES), "--set", "train_nothing.resources.gpu=1"], "train_nothing"),
    ],
)
def test_what_cannot_be_told_is_said(tmp_path, words, says):
    with pytest.raises((InputError, ConfigError), match=says):
        ask(tmp_path, *words)


def test_without_settings_there_must_be_one_queue(tmp_path):
    with pytest.raises(ConfigError, match="which queue"):
        CliRunner().invoke(
            app, ["quota", "world_model", "--manifests", str(QUEUES), "--store", str(tmp_path / "s")],
            env={"WFM_CLUSTER": ""}, catch_exceptions=False,
        )  # fmt: skip
    with pytest.raises(InputError, match="no job among the manifests"):
        CliRunner().invoke(app, ["quota", "--manifests", str(QUEUES)], env={"WFM_CLUSTER": ""}, catch_exceptions=False)


def test_an_amount_that_is_none_is_named(tmp_path):
    queue = (QUEUES / "cluster-queues.yaml").read_text().replace('nominalQuota: "512"', 'nominalQuota: "many"')
    (tmp_path / "queue.yaml").write_text(queue)
    with pytest.raises(
        DataError, match=r"ClusterQueue/wfm: spec.resourceGroups.0.flavors.0.resources.0.nominalQuota = 'many'"
    ):
        ask(tmp_path, "--manifests", str(tmp_path / "queue.yaml"))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("resources: 7", "resources = 7: give a list"),
        ("components: abc", "components = 'abc': give a list"),
        ("resources: [{a: b}]", "give a list of files"),
        ("- queues.yaml", "is no kustomization"),
        ("resources: [., ., .]", "in a circle"),
    ],
)
def test_a_kustomization_that_is_none_is_named_at_once(tmp_path, text, says):
    """The circle of three: 3 to the 20th files, where only its depth is looked at."""
    (tmp_path / "kustomization.yaml").write_text(text)
    with pytest.raises(InputError, match=says):
        objects_under([tmp_path])


@pytest.mark.parametrize("overlay", ["dev", "prod"])
def test_what_the_demo_asks_for_is_admitted_in_each_overlay(overlay: str, tmp_path: Path) -> None:
    """With the settings, the quotas and the queues of that overlay, and nothing of ours beside them."""
    asked = ["quota", "world_model", "--json", "--store", str(tmp_path), "--manifests", str(QUEUES)]
    asked += ["--manifests", str(ROOT / "manifests/rendered" / f"{overlay}.yaml")]
    asked += ["--cluster", str(ROOT / "manifests/overlays" / overlay / "cluster.json")]
    done = CliRunner().invoke(app, asked)
    found = json.loads(done.stdout)["stages"]
    assert {each["node"]: each["reasons"] for each in found if each["state"] != "fits"} == {}
    assert done.exit_code == 0
    assert max(each["pods"] for each in found if each["kind"] == "PyTorchJob") == 4, "machines of one training"
