"""Ranges that overlap, wait, are stopped or asked for wrongly; and every stage's phases in ranges."""

import ast
import dataclasses
import json
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from components import split_clips
from components.context import Context, PartContext, Result
from components.derivation import ROOT, code_id
from components.part_range import IN_PARTS, PartRange, RangeDone, check_in_parts, with_index
from pipelines.stages import TABLE
from tests.components.conftest import runner_of
from tests.components.test_entrypoint import Stage
from tests.components.test_part_ranges import film
from wfm.artifacts import Artifact, Store, schema
from wfm.artifacts.lease import held
from wfm.config import Config
from wfm.errors import Cancelled, ConfigError
from wfm.parts.workers import local_cluster

SIMULATED = {
    "sessions": 3, "views": 1, "shots_per_video": 1, "seconds_per_shot": [0.5, 0.6], "junk_seconds": [0.3, 0.4], "size": 64,
    "fps": 8, "workers": 1,
}  # fmt: skip
EIGHT = [f"{number:02x}" for number in range(8)]


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path)


# -- which parts


@pytest.mark.parametrize("count", [0, 1, 6, 7, 8, 100])
@pytest.mark.parametrize("of", [1, 2, 5, 7])
def test_ranges_are_all_parts_each_once_and_evenly(count: int, of: int) -> None:
    names = [f"{number:04x}" for number in range(count)]
    ranges = [PartRange(index, of).among(list(reversed(names))) for index in range(of)]
    assert sorted(name for one in ranges for name in one) == names
    assert max(map(len, ranges)) - min(map(len, ranges)) <= 1


def test_the_number_may_come_from_a_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOB_COMPLETION_INDEX", "3")
    assert PartRange.parse(with_index("JOB_COMPLETION_INDEX/7")) == PartRange(3, 7)
    monkeypatch.setenv("JOB_COMPLETION_INDEX", "3/9; rm")
    with pytest.raises(ConfigError, match=r"'3/9; rm/7' is not of the form I/N"):
        PartRange.parse(with_index("JOB_COMPLETION_INDEX/7"))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("7/7", "of 7 ranges the last is 6/7: they are counted from 0"),
        ("0/0", "0 ranges; choose 1 to 1000000"),
        ("0/1000001", "1000001 ranges; choose 1 to 1000000"),
        ("a/b", "'a/b' is not of the form I/N"),
        ("NO_SUCH_INDEX/7", "no variable NO_SUCH_INDEX is set here"),
        ("-1/7", "is not of the form I/N"),
        ("3", "is not of the form I/N"),
        ("1.5/7", "is not of the form I/N"),
        ("3/7/2", "is not of the form I/N"),
        ("٣/7", "is not of the form I/N"),
        ("", "'' is not of the form I/N"),
    ],
)
def test_a_wrong_range_says_what_to_write(text: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says.replace("(", r"\(")):
        PartRange.parse(with_index(text))


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.name)
def test_the_stages_that_take_ranges_are_those_that_make_parts(row: Any) -> None:
    tree = ast.parse((ROOT / f"components/{row.component}.py").read_text())
    calls = any(isinstance(node, ast.Attribute) and node.attr == "map_parts" for node in ast.walk(tree))
    assert calls == (row.component in IN_PARTS)
    if not calls:
        with pytest.raises(ConfigError, match=f"{row.component} does not work in parts.*encode_latents.*write_shards"):
            check_in_parts(row.component)


def test_a_wrong_call_ends_as_wrong_input_before_any_work(stage: Stage) -> None:
    """An empty range, of a variable that is not set, would else be the whole stage in every pod."""
    for extra, says in (
        (["--parts", ""], "'' is not of the form I/N"),
        (["--parts", "2/2"], "the last is 1/2"),
        (["--parts", "0/2", "--key-out", str(stage.folder / "key")], "leave --key-out out"),
    ):
        code, outcome, _ = stage.run(*extra, parts=EIGHT)
        assert (code, outcome["outcome"]) == (78, "wrong_input")
        assert says in outcome["reason"]
    assert not stage.trace.exists()


# -- several at once


def test_ranges_that_overlap_make_nothing_twice(stage: Stage) -> None:
    """Twice the same range, ranges of another number, and the plain call, all at once."""
    asked = [["--parts", "0/2"], ["--parts", "0/2"], ["--parts", "1/3"], ["--parts", "2/3"], []]
    started = [stage.start(*extra, parts=EIGHT, seconds=0.2) for extra in asked]
    for process, _ in started:
        _, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
    assert sorted(stage.trace.read_text().split()) == EIGHT
    outcomes = [run.read_outcomes("toy")[-1].outcome or {} for _, run in started]
    made = [one["parts_made"]["made"] for one in outcomes if "parts_made" in one]
    told = stage.store.artifact(stage.key).manifest.extra
    assert sum(made) + told["parts_made"]["made"] == 8
    assert told["parts_made"]["made"] + told["parts_before"]["parts"] == 8


def test_the_same_range_twice_at_once_shares_its_parts(stage: Stage) -> None:
    """The second takes what the first does not make at the moment: neither follows the other from part to part, idle."""
    started = [stage.start("--parts", "0/1", parts=EIGHT, seconds=0.4) for _ in range(2)]
    assert [process.communicate(timeout=60) and process.returncode for process, _ in started] == [0, 0]
    made = [(run.read_outcomes("toy")[-1].outcome or {})["parts_made"]["made"] for _, run in started]
    assert sum(made) == 8
    assert min(made) >= 1
    assert sorted(stage.trace.read_text().split()) == EIGHT


def test_parts_are_shared_and_their_cost_is_counted_with_the_key_they_were_made_for(stage: Stage) -> None:
    stage.run("--parts", "0/2", parts=EIGHT)
    stage.run(parts=EIGHT)
    first = stage.store.artifact(stage.key).manifest
    with stage.store.attempt("0" * 64) as attempt:
        attempt.commit(stage="other", kind="others")
    stage.run(parts=EIGHT, inputs={"raw": "0" * 64})
    other = stage.store.artifact(stage.key).manifest
    assert first.key != other.key
    assert (first.extra["parts_before"]["parts"], other.extra["parts_before"]["parts"]) == (4, 0)
    assert other.extra["parts_made"] == {"made": 0, "of": 8}


# -- waiting, in this process


class Plain(Config):
    """Nothing to choose."""


def write_name(part: PartContext[Plain]) -> Result:
    (part.out / "name.txt").write_text(part.name)
    return Result()


def context(store: Store, folder: Path, **more: Any) -> "Context[Plain]":
    given = {
        "stage": "toy",
        "component": "one_of_tests",
        "node": "toy",
        "run_id": "r",
        "key": "1" * 64,
        "code_id": "v1",
    }
    return Context(**{"inputs": {}, **given, **more}, config=Plain(), store=store, out=folder, scratch=folder)


@pytest.fixture
def parts_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """A component for `run_part` to find."""
    import sys
    import types

    module = types.ModuleType("components.one_of_tests")
    module.CONFIG = Plain  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "components.one_of_tests", module)


def key_of(ctx: "Context[Plain]", name: str) -> str:
    from components.derivation import derive_part_key

    return derive_part_key(ctx.stage, ctx.code_id, ctx.config.what(), name)


@pytest.mark.usefixtures("parts_here")
def test_another_number_of_ranges_after_half_of_them_and_a_lost_one(store: Store, tmp_path: Path) -> None:
    parts = {name: name for name in EIGHT}

    def made(*ranges: PartRange) -> list[int]:
        found = []
        for one in ranges:
            ctx = context(store, tmp_path, part_range=one)
            with pytest.raises(RangeDone):
                ctx.map_parts(parts, write_name)
            found.append(ctx.parts_made["made"])
        return found

    assert made(*(PartRange(index, 7) for index in (0, 1, 2))) == [2, 1, 1]  # 00 and 07, 01, 02
    assert made(*(PartRange(index, 5) for index in (0, 1, 2, 4))) == [1, 1, 0, 1]  # of 05, 06, 07, 04; 3/5 is lost: 03
    ctx = context(store, tmp_path)
    assert [entry.name for entry in ctx.map_parts(parts, write_name)] == EIGHT
    assert (ctx.parts_made, ctx.parts_before["parts"]) == ({"made": 1, "of": 8}, 7)


@pytest.mark.usefixtures("parts_here")
def test_a_part_that_another_makes_is_waited_for_at_the_end(store: Store, tmp_path: Path) -> None:
    ctx = context(store, tmp_path)
    other = store.lease(key_of(ctx, "a")).acquire()

    def finish() -> None:
        time.sleep(0.5)
        with store.part_attempt(other.key) as attempt:
            (attempt.path / "name.txt").write_text("a")
            attempt.commit(stage="toy", kind="part", extra={"made_for": ctx.key}, resources={"cpu_seconds": 3.0})
        other.release()

    thread = threading.Thread(target=finish)
    thread.start()
    entries = ctx.map_parts({"a": "a", "b": "b"}, write_name)
    thread.join()
    assert [entry.name for entry in entries] == ["a", "b"]
    assert ctx.parts_made == {"made": 1, "of": 2}
    assert (ctx.parts_before["parts"], ctx.parts_before["cpu_seconds"]) == (1, 3.0)


@pytest.mark.usefixtures("parts_here")
def test_a_part_whose_maker_died_on_another_machine_is_made(store: Store, tmp_path: Path) -> None:
    """Its lease says nothing for its time: nobody here can see whether its process lives."""
    ctx = context(store, tmp_path, part_range=PartRange(0, 1))
    record = {
        "schema_version": 1, "number": 1, "token": "t", "machine": "elsewhere", "host": "h", "pid": 1, "pid_start": "1",
        "acquired_at": "2026-01-01T00:00:00Z", "ttl_seconds": 0.6, "inputs": [],
    }  # fmt: skip
    store.objects.create(f"leases/{key_of(ctx, 'a')}/00000001.json", schema.encode(record))
    with pytest.raises(RangeDone):
        ctx.map_parts({"a": "a", "b": "b"}, write_name)
    assert ctx.parts_made == {"made": 2, "of": 2}
    assert store.part(key_of(ctx, "a")).manifest.fence == 2


@pytest.mark.usefixtures("parts_here")
def test_waiting_for_a_part_ends_when_the_stage_is_stopped(store: Store, tmp_path: Path) -> None:
    stop = threading.Event()
    ctx = context(store, tmp_path, part_range=PartRange(0, 1), stop_requested=stop.is_set)
    with store.lease(key_of(ctx, "a")):
        threading.Timer(0.5, stop.set).start()
        with pytest.raises(Cancelled):
            ctx.map_parts({"a": "a"}, write_name)
    assert ctx.parts_made == {"made": 0, "of": 1}


def test_a_range_that_is_stopped_keeps_its_parts(stage: Stage) -> None:
    process, run = stage.start("--parts", "0/1", parts=EIGHT, seconds=0.3)
    until = time.monotonic() + 30
    while not stage.trace.exists() and time.monotonic() < until:
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    outcome = run.read_outcomes("toy")[-1].outcome or {}
    assert (process.returncode, outcome["outcome"], outcome["parts"]) == (143, "cancelled", "0/1")
    kept = stage.trace.read_text().split()
    assert 0 < len(kept) < 8
    stage.run(parts=EIGHT)
    assert sorted(stage.trace.read_text().split()) == EIGHT


@pytest.mark.usefixtures("parts_here")
def test_inputs_of_a_range_are_held_against_collection(store: Store, tmp_path: Path) -> None:
    """A range takes no lease of the key: it is the leases of its parts that say which inputs must stay."""
    with store.attempt("2" * 64) as attempt:
        raw = attempt.commit(stage="other", kind="others")
    ctx = context(store, tmp_path, inputs={"raw": raw}, part_range=PartRange(0, 1))
    with pytest.raises(RangeDone):
        ctx.map_parts({"a": "a"}, look_at_leases)
    held = json.loads((store.part(key_of(ctx, "a")).fetch("held.json")).read_text())
    assert held == {key_of(ctx, "a"): ["2" * 64]}


# -- every stage


def test_every_stage_from_films_to_encoded_data_in_three_ranges(store: Store, tmp_path: Path) -> None:
    """Range by range, then the plain call: it makes no part (of the last of two phases: no more than its ranges could not)."""
    (tmp_path / "films").mkdir()
    for seed in range(6):
        film(tmp_path / "films" / f"{seed}.mp4", seed)
    whole = runner_of(store, tmp_path / "scratch", redo="whole")
    done: dict[str, Artifact] = {}
    tested = {"encode_latents", "generate_videos"}  # in test_part_ranges, with models
    for kind, name, config, roles in (
        ("raw", "simulate_videos", SIMULATED, ()),
        ("videos", "ingest_videos", {"videos": str(tmp_path / "films"), "part_prefix_length": 8}, ()),
        ("clips", "split_clips", {}, ("videos",)),
        ("scores", "score_clips", {}, ("clips",)),
        ("captions", "caption_clips", {}, ("clips",)),
        ("embeddings", "embed_clips", {}, ("clips",)),
        ("duplicates", "dedup_clips", {}, ("clips", "scores", "embeddings")),
        ("selection", "select_clips", {"minimum_sharpness": None}, ("clips", "scores", "duplicates")),
        ("dataset", "write_shards", {}, ("videos", "clips", "scores", "captions", "selection")),
        ("signals", "encode_signals", {}, ("dataset",)),
        ("text", "encode_text", {"text": {"encoder": "minilm", "cache": str(tmp_path / "cache")}}, ("dataset",)),
    ):
        given = {role: done[role] for role in roles}
        plain = runner_of(store, tmp_path / "scratch")
        if name not in IN_PARTS:
            done[kind] = plain(name, config, **given)
            continue
        tested.add(name)
        left = []
        for index in range(3):
            with pytest.raises(RangeDone) as end:
                runner_of(store, tmp_path / "scratch", part_range=PartRange(index, 3))(name, config, **given)
            left.append(str(end.value))
        made = done[kind] = plain(name, config, **given)
        names = [entry.name for entry in made.parts]
        told = {"made": 0, "of": len(names)}
        if name == "ingest_videos":  # the last range alone finds the probes of all
            told = {"made": len(names) - len(PartRange(2, 3).among(names)), "of": 6 + len(names)}
            assert ["left to the plain call" in words for words in left] == [True, True, False]
            assert "4 of 6 are missing" in left[0]
        assert len(names) > 1
        assert made.manifest.extra["parts_made"] == told, name
        assert contents(made) == contents(whole(name, config, **given))
    assert tested == set(IN_PARTS)


def look_at_leases(part: PartContext[Plain]) -> Result:
    store = part.open_store()
    leases = {key: list(holder.inputs) for key, holder in held(store.objects).items() if holder is not None}
    (part.out / "held.json").write_text(json.dumps(leases))
    return Result()


def contents(artifact: Artifact) -> dict[str, str]:
    return {entry.path: entry.sha256 for entry in artifact.files()}


def test_ranges_on_dask_workers_find_each_other(store: Store, tmp_path: Path) -> None:
    """The same range twice at once, each over workers, which wait for what the others make; then the plain call."""
    (tmp_path / "films").mkdir()
    for seed in range(6):
        film(tmp_path / "films" / f"{seed}.mp4", seed)
    config = {"videos": str(tmp_path / "films"), "part_prefix_length": 8}
    videos = runner_of(store, tmp_path / "scratch")("ingest_videos", config)
    with local_cluster(2) as address:
        twice = [
            Context(
                stage="split_clips", component="split_clips", node="split_clips", run_id="r", key="1" * 64,
                code_id=code_id("split_clips"), config=split_clips.CONFIG(), store=store, inputs={"videos": videos},
                out=tmp_path, scratch=tmp_path, scheduler=address, part_range=PartRange(0, 1),
            )
            for _ in range(2)
        ]  # fmt: skip
        with ThreadPoolExecutor(2) as both:
            ends = [both.submit(split_clips.run, ctx) for ctx in twice]
        for end in ends:
            with pytest.raises(RangeDone):
                end.result()
        assert sum(ctx.parts_made["made"] for ctx in twice) == 6
        plain = dataclasses.replace(twice[0], part_range=None, parts_made={"made": 0, "of": 0})
        assert len(split_clips.run(plain).parts) == 6
        assert plain.parts_made == {"made": 0, "of": 6}
        assert plain.parts_before["parts"] == 6
