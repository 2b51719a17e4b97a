import json
from collections.abc import Iterator

import numpy as np
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import load_file

from wfm.actions import ActionSpec
from wfm.data.windows import Window
from wfm.errors import Cancelled, InputError
from wfm.generation.from_artifacts import write_card
from wfm.generation.held_out import VARIANTS, collect, generate_split, shuffle_actions

SPEC = ActionSpec(
    names=("camera_orbit_rate", "camera_elevation_rate", "actor_velocity_x"),
    units=("deg/s", "deg/s", "m/s"),
    frame="camera",
    mean=(0, 0, 0),
    scale=(30, 5, 0.5),
)


def windows(count: int = 5) -> Iterator[Window]:
    rng = np.random.default_rng(0)
    for i in range(count):
        rate = np.zeros((13, 3), np.float32)
        rate[:, :1] = 10.0 * i
        yield Window(
            clip_id=f"clip{i}",
            session_id=f"session{i // 2}",
            video_id=f"video{i}",
            source=f"/videos/{i}.mp4",
            start_frame=0,
            start_seconds=0.5,
            fps=24.0,
            frames=rng.integers(0, 256, (13, 16, 16, 3), dtype=np.uint8),
            actions=rate,
            moving=i > 0,
            action_spec=SPEC,
        )


def test_shuffled_actions_are_of_another_session_and_change_the_future_only(world_of) -> None:
    spec = world_of("diffusion").action_spec
    held, left = collect(windows(), spec, 0)
    assert not any(left.values())
    assert len(held.rows) == 5
    shuffled = shuffle_actions(held, 5, spec)
    assert np.array_equal(shuffled[:, :4], held.actions[:, :4])
    for i, row in enumerate(held.rows):
        donors = [j for j in range(5) if np.array_equal(shuffled[i, 4:], held.actions[j, 4:])]
        assert len(donors) == 1
        assert held.rows[donors[0]]["session_id"] != row["session_id"]
    assert [row["orbit_rate"] for row in held.rows] == held.actions[:, 0, 0].tolist()


def test_a_limit_keeps_a_stable_choice_and_counts_the_rest(world_of) -> None:
    spec = world_of("diffusion").action_spec
    few, left = collect(windows(5), spec, 2)
    more, _ = collect(windows(5), spec, 3)
    assert left == {"without_actions": 0, "over_max_windows": 3}
    assert [r["sample_id"] for r in few.rows] == [r["sample_id"] for r in more.rows][:2]
    assert collect(windows(0), spec, 0)[0] is None


def test_everything_evaluation_reads_is_there(world_of, family, tmp_path) -> None:
    world = world_of(family)
    held, _ = collect(windows(), world.action_spec, 0)
    counts = generate_split(world, held, tmp_path, split="test", seed=0, examples=2)
    write_card(world, tmp_path, seed=0)
    names = {"truth", "tokenizer", *VARIANTS[family]}
    assert counts == {"test_windows": 5, "test_videos": 5 * len(VARIANTS[family])}
    videos = {name: load_file(tmp_path / "test" / f"{name}.safetensors")["video"] for name in names}
    for name, video in videos.items():
        assert video.shape == (5, 13, 16, 16, 3)
        assert video.dtype == np.uint8
        assert np.array_equal(video[:, :5], held.frames[:, :5]), name
    assert np.array_equal(videos["truth"], held.frames)
    for name in names - {"truth"}:
        assert not np.array_equal(videos[name][:, 5:], held.frames[:, 5:])
    headline = "greedy" if family == "autoregressive" else "sampled"
    assert not np.array_equal(videos["shuffled_action"], videos[headline])
    actions = load_file(tmp_path / "test" / "actions.safetensors")
    assert np.array_equal(actions["right"], held.actions)
    assert actions["shuffled"].shape == held.actions.shape
    rows = pq.read_table(tmp_path / "test" / "samples.parquet").to_pylist()
    assert [row["sample_id"] for row in rows] == [row["sample_id"] for row in held.rows]
    assert json.loads((tmp_path / "card.json").read_text())["family"] == family
    assert len(list((tmp_path / "mp4").iterdir())) == 2 * len(names)


def test_other_windows_beside_it_do_not_change_a_video(world_of, family, tmp_path) -> None:
    world = world_of(family)
    for folder, limit in (("all", 0), ("few", 2)):
        held, _ = collect(windows(), world.action_spec, limit)
        generate_split(world, held, tmp_path / folder, split="test", seed=0, examples=0)
    for name in set(VARIANTS[family]) - {"shuffled_action"}:
        both = [load_file(tmp_path / f / "test" / f"{name}.safetensors")["video"] for f in ("all", "few")]
        assert np.array_equal(both[0][:2], both[1])


def test_without_actions_nothing_is_shuffled(world_of, family, tmp_path) -> None:
    world = world_of(family, ActionSpec.null())
    held, _ = collect(plain_windows(), world.action_spec, 0)
    generate_split(world, held, tmp_path, split="test", seed=0, examples=0)
    assert not (tmp_path / "test" / "shuffled_action.safetensors").exists()


def plain_windows() -> Iterator[Window]:
    for window in windows(3):
        yield Window(**{**window.__dict__, "actions": np.zeros((13, 0), np.float32), "action_spec": ActionSpec.null()})


def test_stops_when_asked(world_of, tmp_path) -> None:
    world = world_of("diffusion")
    held, _ = collect(windows(), world.action_spec, 0)
    with pytest.raises(Cancelled):
        generate_split(world, held, tmp_path, split="test", seed=0, examples=0, stopping=lambda: True)


def test_windows_without_the_models_actions_are_left_out_and_counted(world_of) -> None:
    spec = world_of("diffusion").action_spec
    held, left = collect([*windows(2), *plain_windows()], spec, 0)
    assert len(held.rows) == 2
    assert left == {"without_actions": 3, "over_max_windows": 0}
    assert collect(windows(2), ActionSpec.null(), 0)[0].actions.shape == (2, 13, 0)


def test_actions_that_mean_something_else_are_refused() -> None:
    with pytest.raises(InputError, match="'units'"):
        collect(windows(1), SPEC.model_copy(update={"units": ("rad/s", "deg/s", "m/s")}), 0)
