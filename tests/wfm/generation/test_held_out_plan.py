"""Which windows are predicted, with which actions, in which parts: decided from the signals alone."""

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wfm.actions import ActionSpec
from wfm.artifacts import Artifact, Store
from wfm.data.signals import MEANINGS, ClipSignals, Track, write_signals
from wfm.errors import InputError
from wfm.generation.held_out import as_signal
from wfm.generation.held_out_plan import ChosenWindows, choose_windows, plan_split, read_beside, shuffle_actions

SPEC = ActionSpec(
    names=("camera_orbit_rate", "camera_elevation_rate", "actor_velocity_x"),
    units=("deg/s", "deg/s", "m/s"),
    frame="camera",
    mean=(0, 0, 0),
    scale=(30, 5, 0.5),
)


def clip(number: int, spec: ActionSpec = SPEC, frames: int = 13) -> ClipSignals:
    """One window long; it turns by 10 degrees a second for each number."""
    row = {
        "clip_id": f"clip{number}", "clip_sha256": f"{number:064x}", "session_id": f"session{number // 2}",
        "video_id": f"video{number}", "source": f"/videos/{number}.mp4", "start_seconds": 0.5, "fps": 24.0,
        "num_frames": frames, "caption": "",
    }  # fmt: skip
    rate = np.zeros((frames, 3), np.float32)
    rate[:, 0] = 10.0 * number
    return ClipSignals(row, {"actions": Track(rate, spec.resolved())} if spec.width else {})


def stored(folder: Path, clips: Iterable[ClipSignals], split: str = "test") -> Artifact:
    store = Store.open(folder)
    with store.part_attempt("0" * 64) as attempt:
        write_signals({split: list(clips)}, attempt.path)
        meanings = (attempt.path / MEANINGS).read_text()
        entry = attempt.commit(stage="encode_signals", kind="part").entry("a7")
    with store.attempt("1" * 64) as attempt:
        (attempt.path / MEANINGS).write_text(meanings)
        return attempt.commit(stage="encode_signals", kind="signals", parts=[entry])


def chosen(folder: Path, clips: Iterable[ClipSignals], spec: ActionSpec = SPEC, **more: Any) -> ChosenWindows:
    asked = {"num_frames": 13, "stride_frames": 8, "limit": 0, **more}
    return choose_windows(stored(folder, clips), "test", spec, **asked)


def test_shuffled_actions_are_of_another_session_and_change_the_future_only(tmp_path: Path) -> None:
    held = chosen(tmp_path, map(clip, range(5)))
    assert not any(held.left.values())
    assert len(held.rows) == 5
    shuffled = shuffle_actions(held, 5, SPEC)
    assert np.array_equal(shuffled[:, :4], held.actions[:, :4])
    for i, row in enumerate(held.rows):
        donors = [j for j in range(5) if np.array_equal(shuffled[i, 4:], held.actions[j, 4:])]
        assert len(donors) == 1
        assert held.rows[donors[0]]["session_id"] != row["session_id"]
    assert [row["orbit_rate"] for row in held.rows] == held.actions[:, 0, 0].tolist()
    assert {row["clip_id"] for row in held.rows if not row["moving"]} == {"clip0"}


def test_a_limit_keeps_a_stable_choice_and_counts_the_rest(tmp_path: Path) -> None:
    few = chosen(tmp_path / "a", map(clip, range(5)), limit=2)
    more = chosen(tmp_path / "b", map(clip, range(5)), limit=3)
    assert few.left == {"without_actions": 0, "over_max_windows": 3}
    assert [r["sample_id"] for r in few.rows] == [r["sample_id"] for r in more.rows][:2]
    with pytest.raises(InputError, match="no other clip of 13 frames or more"):
        chosen(tmp_path / "c", [clip(0, frames=12)])
    with pytest.raises(InputError, match="learned from"):
        choose_windows(stored(tmp_path / "d", [clip(0)]), "train", SPEC, num_frames=13, stride_frames=8, limit=0)


def test_a_long_clip_has_a_window_every_stride(tmp_path: Path) -> None:
    held = chosen(tmp_path, [clip(1, frames=30)])
    assert sorted((row["start_frame"], row["start_seconds"]) for row in held.rows) == [
        (0, 0.5), (8, 0.5 + 8 / 24), (16, 0.5 + 16 / 24),
    ]  # fmt: skip


def test_windows_without_the_models_actions_are_left_out_and_counted(tmp_path: Path) -> None:
    mixed = [clip(0), clip(1), *(clip(number, ActionSpec.null()) for number in (5, 6, 7))]
    held = chosen(tmp_path, mixed)
    assert len(held.rows) == 2
    assert held.left == {"without_actions": 3, "over_max_windows": 0}
    assert chosen(tmp_path / "b", mixed, ActionSpec.null()).actions.shape == (5, 13, 0)


def test_actions_that_mean_something_else_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'units'"):
        chosen(tmp_path, [clip(1)], SPEC.model_copy(update={"units": ("rad/s", "deg/s", "m/s")}))


def test_what_further_conditions_read_goes_along_and_what_is_made_of_frames_does_not(tmp_path: Path) -> None:
    depth = {f"clip{n}": np.full((13, 1), n, np.float32) for n in range(4)}
    clips = [
        replace(one, tracks={**one.tracks, "depth": Track(depth[one.row["clip_id"]], {}), "made": Track(rows, {})})
        for one, rows in ((clip(n), np.zeros((13, 2), np.float32)) for n in range(4))
    ]
    held = chosen(tmp_path, clips)
    beside = read_beside(held.signals, {"made": {}})
    assert sorted(beside) == ["depth", "has_depth"]
    inputs, arguments = planned(replace(held, signals=beside), 64)
    (part,) = arguments.values()
    found = {name: as_signal(values) for name, values in part["signals"].items()}
    assert found["depth"].dtype == np.float32
    assert np.array_equal(found["depth"], np.stack([depth[row["clip_id"]] for row in part["rows"]]))
    assert found["has_depth"].all()
    other = {**beside, "depth": beside["depth"] + 1}
    assert planned(replace(held, signals=other), 64)[0] != inputs
    plain_inputs, plain = planned(replace(held, signals={}), 64)
    assert not any("signals" in one for one in (*plain.values(), *plain_inputs.values())), "keys of before"


def planned(held: ChosenWindows, windows_per_part: int, **more: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    shuffled = more.get("shuffled", held.actions[::-1])
    return plan_split(held, shuffled, "test", examples=more.get("examples", 2), windows_per_part=windows_per_part)


def test_every_window_is_in_one_part_and_parts_are_as_large_as_allowed(tmp_path: Path) -> None:
    held = chosen(tmp_path, map(clip, range(50)))
    for most in (1, 8, 64):
        _, arguments = planned(held, most)
        rows = [row["sample_id"] for part in arguments.values() for row in part["rows"]]
        assert sorted(rows) == sorted(row["sample_id"] for row in held.rows)
        assert max(len(part["rows"]) for part in arguments.values()) <= most
        numbers = [number for part in arguments.values() for number in part["examples"].values()]
        assert sorted(numbers) == [0, 1]
    assert list(planned(held, 64)[1]) == ["test-all"]


def test_one_more_clip_changes_the_part_it_falls_into(tmp_path: Path) -> None:
    def inputs(count: int) -> set[str]:
        held = chosen(tmp_path / str(count), map(clip, range(count)))
        return {json.dumps(one) for one in planned(held, 1, examples=0, shuffled=held.actions)[0].values()}

    before, after = inputs(100), inputs(101)
    assert len(after - before) <= 2, "its part, and one that may have been halved"
    assert len(before & after) >= 99


def test_a_part_depends_on_its_clips_actions_and_examples(tmp_path: Path) -> None:
    held = chosen(tmp_path, map(clip, range(4)))
    base = planned(held, 64)[0]["test-all"]
    assert planned(held, 64)[0]["test-all"] == base
    assert planned(held, 64, shuffled=held.actions[::-1] + 1)[0]["test-all"] != base
    assert planned(held, 64, examples=1)[0]["test-all"] != base
    held.clips[0]["clip_sha256"] = "f" * 64
    assert planned(held, 64)[0]["test-all"] != base


def test_nothing_is_shuffled_where_no_other_actions_are(tmp_path: Path) -> None:
    held = chosen(tmp_path, [clip(1)])
    _, arguments = planned(held, 64, shuffled=shuffle_actions(held, 5, SPEC))
    assert "shuffled" not in arguments["test-all"]
