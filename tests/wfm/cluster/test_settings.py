"""What is known of a cluster, and what is asked of it: read from files that others write."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.wfm.cluster.requests import KEY, RUN, request, settings
from wfm.cluster.request import JobRequest, kind_of
from wfm.cluster.resources import Resources
from wfm.cluster.settings import VARIABLE, ClusterSettings
from wfm.errors import ConfigError, DataError


def test_settings_come_from_the_file_that_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    assert ClusterSettings.here() is None
    with pytest.raises(ConfigError, match=r"give --cluster FILE, or set WFM_CLUSTER"):
        ClusterSettings.read()
    file = tmp_path / "cluster.json"
    file.write_text(json.dumps(settings(quota={"gpu": 64}).resolved()))
    assert ClusterSettings.read(str(file)) == settings(quota={"gpu": 64})
    monkeypatch.setenv(VARIABLE, str(file))
    assert ClusterSettings.here() == ClusterSettings.read() == ClusterSettings.read(str(file))
    assert ClusterSettings.read().quota.limits() == {"gpu": 64.0}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (None, r"cannot be read: .*No such file"),
        ("{", r"cannot be read"),
        ("[" * 100_000, r"cannot be read"),
        ("[1]", r"are list: give an object of JSON"),
        ('{"namespaces": "a"}', r"unknown field 'namespaces'. Did you mean 'namespace'"),
        ('{"namespace": "A_b"}', r"namespace = 'A_b': give a name of a-z"),
        ('{"queue": "9"}', r"queue = '9': give a name"),
        ('{"patience": {"poll_seconds": 0}}', r"field 'patience.poll_seconds' = 0"),
        ('{"training_job": "mpijob"}', r"field 'training_job' = 'mpijob'"),
        ('{"quota": {"gpus": 1}}', r"unknown field 'quota.gpus'. Did you mean 'gpu'"),
        ('{"tolerations": [{"operator": "Equals"}]}', r"field 'tolerations.0.operator' = 'Equals'"),
        ('{"environment": {"A": 1}}', r"field 'environment.A' = 1"),
    ],
)
def test_settings_that_cannot_be_are_refused_with_file_and_field(tmp_path: Path, text: str | None, says: str) -> None:
    file = tmp_path / "cluster.json"
    if text is not None:
        file.write_text(text)
    with pytest.raises(ConfigError, match=says) as caught:
        ClusterSettings.read(str(file))
    assert str(file) in str(caught.value)


SPEC: dict[str, Any] = {
    "schema_version": 1, "store": "s3://bucket/store", "run_id": RUN, "node": "train_diffusion", "stage": "train_world_model",
    "component": "train_world_model", "kind": "world_model", "config": {}, "redo": "", "promote": "", "reads_truth": False,
    "job_kind": "torchjob", "image": "training", "resources": {"gpu": 8, "replicas": 4}, "timeout_seconds": 3600.0,
    "retries": 3, "parts": 0, "code": "5",
}  # fmt: skip


def test_a_request_comes_from_the_spec_of_a_stage() -> None:
    found = JobRequest.of_spec(SPEC, "s3://bucket/spec.json", {"latents": "1" * 64}, KEY, 2)
    assert (found.kind, found.image, found.node, found.key, found.generation) == (
        "torchjob", "training", "train_diffusion", KEY, 2,
    )  # fmt: skip
    assert found.resources == Resources(gpu=8, replicas=4)
    assert kind_of(found, settings()) == "pytorchjob"
    assert kind_of(found, settings(training_job="trainjob")) == "trainjob"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"job_kind": "mpijob"}, "job_kind"),
        ({"image": "../curation"}, "image"),
        ({"resources": {"gpus": 1}}, "resources.gpus"),
        ({"node": "a/../b"}, "node"),
        ({"parts": -1}, "parts"),
        ({"timeout_seconds": 0}, "timeout_seconds"),
        ({"job_kind": None}, "job_kind"),
    ],
)
def test_a_spec_from_the_store_is_not_believed(change: dict[str, Any], says: str) -> None:
    with pytest.raises(DataError, match=f"the spec at s3://bucket/spec.json is damaged: .*{says}"):
        JobRequest.of_spec({**SPEC, **change}, "s3://bucket/spec.json", {}, KEY, 1)


def test_a_spec_of_an_older_planner_and_keys_that_are_none_are_refused() -> None:
    older = {name: value for name, value in SPEC.items() if name != "resources"}
    with pytest.raises(DataError, match="field 'resources': Field required"):
        JobRequest.of_spec(older, "a", {}, KEY, 1)
    for inputs, key, generation in (({"a": "1"}, KEY, 1), ({"a b": KEY}, KEY, 1), ({}, KEY[:12], 1), ({}, KEY, 0)):
        with pytest.raises(DataError):
            JobRequest.of_spec(SPEC, "a", inputs, key, generation)


def test_parts_and_stages_of_one_pod_are_indexed_jobs() -> None:
    assert kind_of(request("embed_clips"), settings()) == "daskjob"
    assert kind_of(request("embed_clips", parts=4), settings()) == "indexed_job"
    assert kind_of(request("dedup_clips"), settings()) == "indexed_job", "one process: workers would have nothing to do"


def test_memory_counts_dev_shm_and_totals_count_everything() -> None:
    needs = Resources(cpu=4, memory_gib=10, ranks=2, replicas=3, shm_gib=5, gpu=1, rdma=1, ephemeral_gib=20)
    assert needs.pod() == {"cpu": 8, "memory_gib": 25, "gpu": 2, "rdma": 1, "ephemeral_gib": 20}
    assert needs.total("torchjob") == {"cpu": 24, "memory_gib": 75, "gpu": 6, "rdma": 3, "ephemeral_gib": 60}
    workers = Resources(cpu=8, memory_gib=64, replicas=10, shm_gib=1, gpu=1)
    assert workers.total("daskjob")["cpu"] == 80 + 2 + 1
    assert workers.total("daskjob")["memory_gib"] == 650 + 9 + 4
    assert workers.total("daskjob")["gpu"] == 10


@pytest.mark.parametrize(
    "given", [{}, {"latents": "1" * 64}, {"latents": "1" * 64, "tokenizer": "2" * 64, "videos": "3" * 64}]
)
def test_a_request_has_the_inputs_that_its_spec_names(given: dict[str, str]) -> None:
    spec = {**SPEC, "inputs": ["latents", "tokenizer"]}
    with pytest.raises(
        ConfigError, match=r"train_diffusion takes the inputs latents, tokenizer; given are .*--input NAME=KEY"
    ):
        JobRequest.of_spec(spec, "s3://bucket/spec.json", given, KEY, 2)
    whole = {"latents": "1" * 64, "tokenizer": "2" * 64}
    assert JobRequest.of_spec(spec, "s3://bucket/spec.json", whole, KEY, 2).inputs == whole
