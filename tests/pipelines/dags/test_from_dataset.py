"""A run that starts from a dataset: how one is named, and what is known of it."""

from pathlib import Path

import pytest

from pipelines.nodes import Plan
from pipelines.plan import resolve
from pipelines.stages import stage
from wfm.artifacts import Store
from wfm.errors import ConfigError, InputError


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "store", {"fsync": False})


def commit(store: Store, plan: Plan, name: str) -> None:
    """An artifact under the key that the plan gives a node, as its stage would commit it."""
    node = plan.node(name)
    assert node.key
    with store.attempt(node.key) as attempt:
        (attempt.path / "a.txt").write_text(name)
        attempt.commit(
            stage=node.stage, kind=stage(node.stage).output, counts={"inputs": 1}, inputs=plan.input_keys(node)
        )


def curated(store: Store, *, name: str = "mine", videos: str | None = None) -> Plan:
    """The plan of a whole main job whose curation is there."""
    plan = resolve("world_model", profile="smoke", store=store, dataset=name if videos else None, videos=videos)
    for node in plan.nodes[: [each.name for each in plan.nodes].index("write_shards") + 1]:
        commit(store, plan, node.name)
    key = plan.node("write_shards").key or ""
    store.promote("dataset", name, key)
    store.promote("dataset", name, key, alias="good")
    return plan


def started(store: Store, dataset: str, pipeline: str = "world_model") -> Plan:
    return resolve(pipeline, profile="smoke", store=store, dataset=dataset)


def test_every_way_to_name_it_gives_the_keys_of_the_whole_run(store: Store) -> None:
    """The old code evaluated without what simulation knows (no input `raw`), drew a page without the curation, and said
    of NAME@ALIAS "'dataset/mine@good@latest' is not a reference"."""
    whole = curated(store)
    key = whole.node("write_shards").key or ""
    after = {node.name: node.key for node in whole.followers("write_shards")}
    for reference in ("mine", "mine@latest", "mine@good", "dataset/mine", "dataset/mine@good", key, key[:8], key[:40]):
        plan = started(store, reference)
        assert plan.given["simulate_videos"] == whole.node("simulate_videos").key, reference
        assert {node.name: node.key for node in plan.nodes} == after, reference
        assert plan.notes == []


def test_a_name_of_hex_digits_is_a_name_first(store: Store) -> None:
    curated(store, name="deadbeef")
    assert started(store, "deadbeef").given["write_shards"] == store.resolve("dataset/deadbeef")


def test_own_videos_have_no_simulation(store: Store, tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"one")
    curated(store, videos=str(tmp_path / "a.mp4"))
    plan = started(store, "mine")
    assert "simulate_videos" not in plan.given
    assert "raw" not in plan.node("evaluate_diffusion").inputs
    assert plan.given["ingest_videos"]


def test_what_is_gone_from_behind_it_is_said(store: Store) -> None:
    whole = curated(store)
    store.invalidate(whole.node("simulate_videos").key or "", "the lamp was wrong")
    plan = started(store, "mine")
    assert "raw" not in plan.node("evaluate_diffusion").inputs
    (note,) = plan.notes
    assert note.startswith("evaluate_diffusion, evaluate_autoregressive without simulate_videos")
    assert "the lamp was wrong" in note


def test_the_decoder_starts_from_a_dataset_too(store: Store) -> None:
    """The old code simulated, and published what it simulated as dataset/mine."""
    curated(store)
    plan = started(store, "mine@good", "decoder")
    assert [node.stage for node in plan.nodes].count("write_shards") == 0
    assert plan.nodes[-1].promote == "decoder/mine"


@pytest.mark.parametrize(
    ("reference", "says"),
    [
        ("yours", r"--dataset 'yours': there is no dataset/yours@latest: the names are dataset/mine@good"),
        ("mine@bad", r"there is no dataset/mine@bad"),
        ("mine@good/2", r"--dataset 'mine@good/2': .*is not a reference: write kind/name@alias"),
        ("mine@good@2", r"is not a reference"),
        ("clips/cut", r"--dataset 'clips/cut' is of kind 'clips', a dataset is needed. Choices: dataset/mine@good"),
        ("0123456789", r"no committed artifact has a key that begins with '0123456789'"),
        ("f" * 64, r"has no committed artifact f+: run its stage"),
        ("../mine", r"--dataset '../mine': kind '..' is not allowed"),
    ],
)
def test_what_cannot_be_started_from_is_refused(store: Store, reference: str, says: str) -> None:
    """The old code took any kind: a model as dataset was found out by the first stage that opened it."""
    whole = curated(store)
    store.promote("clips", "cut", whole.node("split_clips").key or "")
    with pytest.raises(ConfigError, match=says):
        started(store, reference)
    with pytest.raises(ConfigError, match="is of kind 'clips'"):
        started(store, whole.node("split_clips").key or "")


def test_an_invalidated_one_says_why(store: Store) -> None:
    whole = curated(store)
    store.invalidate(whole.node("write_shards").key or "", "half of it is upside down")
    for reference in ("mine", whole.node("write_shards").key or ""):
        with pytest.raises(ConfigError, match=r"was invalidated at 20.*: half of it is upside down"):
            started(store, reference)


@pytest.mark.parametrize("name", ["a b", "dataset/x", "../x", "x@y", "-x", "x" * 129, "é"])
@pytest.mark.parametrize("pipeline", ["world_model", "curate", "decoder"])
def test_the_name_of_a_new_dataset_is_checked_before_work(
    store: Store, tmp_path: Path, pipeline: str, name: str
) -> None:
    """The old code curated everything, and failed at the promotion."""
    (tmp_path / "a.mp4").write_bytes(b"one")
    with pytest.raises(InputError, match=r"--dataset: the name of a new dataset .* is not allowed: use letters"):
        resolve(pipeline, profile="smoke", store=store, videos=str(tmp_path), dataset=name)
