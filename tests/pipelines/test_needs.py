"""What nodes need by node and profile, and a curation that works on devices: no key knows of either."""

import importlib
from pathlib import Path

import pytest

from pipelines import plan as planning
from pipelines.check import QUOTA, check_resources
from pipelines.engines.flow import tasks_of
from pipelines.needs import DEVICE_FIELDS, GPU_CURATION
from pipelines.nodes import Node, Plan, config_class
from pipelines.plan import PIPELINES, resolve
from pipelines.stages import STAGES, TABLE, Resources
from tests.wfm.cluster.lint.good import SETTINGS
from wfm.artifacts import Store
from wfm.cluster.lint import check
from wfm.cluster.objects import indexed_job
from wfm.cluster.pod import QUEUE
from wfm.cluster.request import JobRequest
from wfm.cluster.settings import VARIABLE
from wfm.errors import ConfigError


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "store", {"fsync": False})


def devices(plan: Plan) -> dict[str, tuple[int, object]]:
    """Stage -> (devices a worker, where its config says it works)."""
    found = {}
    for stage, path in DEVICE_FIELDS.items():
        value = config_class(stage).parse(plan.node(stage).config)
        for name in path:
            value = getattr(value, name)
        found[stage] = (plan.node(stage).resources.gpu, value)
    return found


def test_one_setting_puts_the_curation_on_devices_and_moves_no_key(store: Store) -> None:
    plain = resolve("world_model", profile="smoke", store=store)
    assert set(devices(plain).values()) == {(0, "cpu")}
    on_devices = resolve("world_model", profile="smoke", store=store, overrides=["cluster.gpu_curation=true"])
    assert devices(on_devices) == {
        stage: (1, "cuda") if stage in GPU_CURATION else (0, "cpu") for stage in DEVICE_FIELDS
    }
    assert on_devices.node("score_clips").config["embed"]["device"] == "cuda", "score makes the embeddings, too"
    assert [node.key for node in on_devices.nodes] == [node.key for node in plain.nodes]
    assert on_devices.requested["overrides"] == ["cluster.gpu_curation=true"], "a rerun asks for the same"


def test_what_somebody_says_of_a_node_holds_against_it(store: Store) -> None:
    sets = [
        "cluster.gpu_curation=true",
        "score_clips.device=cpu",
        "embed_clips.resources.gpu=4",
        "split_clips.resources.gpu=0",
    ]
    found = devices(resolve("curate", profile="smoke", store=store, overrides=sets))
    assert found["score_clips"] == (1, "cpu")
    whole = ["split_clips.resources.gpu=1", 'split_clips.shots={"device": "cpu"}']
    assert devices(resolve("curate", profile="smoke", store=store, overrides=whole))["split_clips"] == (1, "cpu")
    assert found["embed_clips"] == (4, "cuda")
    assert found["split_clips"] == (0, "cpu")


def test_a_device_asked_for_by_hand_is_worked_on(store: Store) -> None:
    found = devices(resolve("curate", profile="smoke", store=store, overrides=["caption_clips.resources.gpu=1"]))
    assert found["caption_clips"] == (1, "cuda")
    assert found["embed_clips"] == (0, "cpu")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("cluster.gpu_curations=true", r"unknown field 'gpu_curations'. Did you mean 'gpu_curation'"),
        ("cluster=true", r"override 'cluster=true' names no field of cluster: gpu_curation"),
        ("cluster.gpu_curation=perhaps", r"cluster: ClusterNeeds: field 'gpu_curation' = 'perhaps'"),
        (
            "clusters.gpu_curation=true",
            r"names no stage of this pipeline.*Did you mean \'cluster\'.*cluster \(gpu_curation\)",
        ),
        ("select_clips.resources.replicas=2", r"select_clips.resources.replicas = 2: select_clips is one process"),
        ("dedup_clips.resources.parts=2", r"dedup_clips.resources.parts = 2: dedup_clips does not work in parts"),
        ("train_diffusion.resources.gpu=64", r"train_diffusion.resources.gpu = 64: no machine has 64 devices"),
        ("train_diffusion.resources.shm_gib=-1", r"field 'resources.shm_gib' = -1"),
        ("train_diffusion.resources.rmda=8", r"unknown field 'resources.rmda'. Did you mean 'rdma'"),
    ],
)
def test_wrong_needs_are_refused(store: Store, text: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        resolve("world_model", profile="smoke", store=store, overrides=[text])


def test_a_recipe_with_a_section_that_is_none_is_refused(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = {**planning.recipe("smoke"), "cluster": {"gpus": 1}}
    monkeypatch.setattr(planning, "recipe", lambda profile: recipe)
    with pytest.raises(ConfigError, match=r"cluster: ClusterNeeds: unknown field 'gpus'"):
        resolve("world_model", profile="smoke", store=store)


def test_the_profile_of_a_cluster_is_the_demo_under_the_same_keys_with_machines(store: Store) -> None:
    for pipeline in PIPELINES:
        laptop, cluster = (resolve(pipeline, profile=profile, store=store) for profile in ("demo", "demo_cluster"))
        assert [node.key for node in cluster.nodes] == [node.key for node in laptop.nodes]
        for node in cluster.nodes:
            kind, needs = STAGES[node.stage].kind, node.resources
            if kind == "torchjob":
                assert (needs.gpu, needs.rdma) == (8, 8)
                assert needs.replicas > 1
                assert needs.pod()["memory_gib"] < 2000, "one machine holds it"
                assert needs.cpu < 128
            if node.stage in GPU_CURATION:
                assert needs.gpu == 1
            if kind == "daskjob":
                assert needs.replicas > 1
    named = importlib.import_module("wfm.recipes.demo_cluster").NEEDS
    nodes = {
        node.name for pipeline in PIPELINES for node in resolve(pipeline, profile="demo_cluster", store=store).nodes
    }
    assert set(named) <= nodes


def node(stage: str, **needs: float) -> Node:
    return Node("it", stage, stage, {}, {}, resources=Resources.parse(needs))


def test_quota_counts_every_replica_rank_runner_and_scheduler() -> None:
    over = {
        "cpu": node("train_world_model", cpu=64, ranks=2, replicas=129),
        "memory_gib": node("train_world_model", memory_gib=2048, replicas=128, shm_gib=1),
        "gpu": node("embed_clips", gpu=1, replicas=1025),
    }
    for name, asked in over.items():
        with pytest.raises(ConfigError, match=rf"node 'it' asks for [0-9.e+]+ {name} .*, the quota is {QUOTA[name]:g}"):
            check_resources([asked])
    check_resources([node("train_world_model", cpu=64, ranks=2, replicas=128)])
    full = node("embed_clips", cpu=128, replicas=128)
    with pytest.raises(ConfigError, match=r"16387 cpu \(128 a worker times 128, its runner 2, its scheduler 1\)"):
        check_resources([full])
    full.resources = full.resources.model_copy(update={"parts": 128})
    check_resources([full])  # ranges of parts have neither


def test_the_quota_of_the_cluster_holds_where_one_is_named(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cluster.json").write_text('{"quota": {"gpu": 16, "memory_gib": 100}}')
    monkeypatch.setenv(VARIABLE, str(tmp_path / "cluster.json"))
    resolve("world_model", profile="smoke", store=store, overrides=["train_diffusion.resources.gpu=8"])
    for text, says in (
        ("train_diffusion.resources.gpu=17", r"17 gpu, the quota is 16"),
        (
            "embed_clips.resources.memory_gib=90",
            r"104 memory_gib \(91 a worker, its runner 9, its scheduler 4\), the quota is 100",
        ),
    ):
        with pytest.raises(ConfigError, match=says):
            resolve("world_model", profile="smoke", store=store, overrides=[text])


def test_every_row_of_the_table_runs_on_a_laptop() -> None:
    check_resources([Node(row.name, row.name, row.component, {}, {}, resources=row.resources) for row in TABLE])
    assert {row.resources.gpu for row in TABLE} == {0}


def test_a_local_captioner_on_devices_is_ranges_of_an_indexed_job(store: Store) -> None:
    """Beside the captioning service: no server stands, each pod has a device and makes a range of the captions."""
    sets = [
        "caption_clips.source=local",
        "caption_clips.local.folder=/models/vlm",
        f"caption_clips.local.folder_sha256={'c' * 64}",
        "caption_clips.resources.gpu=1",
        "caption_clips.resources.parts=64",
    ]
    plan = resolve("curate", profile="demo_cluster", store=store, overrides=sets)
    (task,) = (one for one in tasks_of(plan.nodes) if one.stage == "caption_clips")
    assert task.launched, "a pod of an engine holds no device"
    assert plan.node("caption_clips").config["local"]["device"] == "cuda"
    request = JobRequest(
        stage=task.stage, component=task.component, node=task.node, kind=task.kind, image=task.image, key="a" * 64,
        generation=1, run_id="r", spec_url="s3://bucket/store/runs/r/specs/caption_clips.json", inputs={"clips": "b" * 64},
        resources=task.resources, timeout_seconds=task.timeout_seconds, retries=task.retries, parts=task.resources.parts,
    )  # fmt: skip
    job = indexed_job.build(request, SETTINGS, 1, ())
    check([job], SETTINGS)
    assert (job["spec"]["completions"], job["spec"]["parallelism"]) == (64, task.resources.replicas)
    (container,) = job["spec"]["template"]["spec"]["containers"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert container["command"][-2:] == ["--parts", "JOB_COMPLETION_INDEX/64"]
    assert job["metadata"]["labels"][QUEUE] == SETTINGS.queue, "what holds the devices stands in the queue"
    closing = request.closing()
    assert (closing.resources.gpu, closing.parts) == (0, 0), "who commits holds none"
