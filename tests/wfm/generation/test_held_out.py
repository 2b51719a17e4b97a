"""What is written of each window, and that it does not depend on the windows beside it."""

import numpy as np
import pyarrow.parquet as pq
from safetensors.numpy import load_file

from wfm.actions import ActionSpec
from wfm.generation.held_out import SHUFFLED, HeldOut, write_part
from wfm.models.family import FAMILIES


def variants(family: str) -> tuple[str, ...]:
    """What a family's windows are predicted by, the twin with other actions at the end."""
    return (*FAMILIES.load(family).variants, SHUFFLED)


def held_out(count: int = 5, *, width: int = 3, examples: int = 0) -> HeldOut:
    rng = np.random.default_rng(0)
    rates = np.zeros((5, 13, width), np.float32)
    rates[:, :, :1] = 10.0 * np.arange(5)[:, None, None]
    rows = [{"sample_id": f"clip{i}:0", "session_id": f"session{i // 2}", "caption": ""} for i in range(count)]
    frames = rng.integers(0, 256, (5, 13, 16, 16, 3), dtype=np.uint8)[:count]
    shuffled = rates[::-1][:count].copy() if width else None
    return HeldOut("test", rows, frames, rates[:count], shuffled, {i: i for i in range(examples)})


def test_everything_evaluation_reads_is_there(world_of, family, tmp_path) -> None:
    held = held_out(examples=2)
    counts = write_part(world_of(family), held, tmp_path, seed=0)
    names = {"truth", "tokenizer", *variants(family)}
    assert counts == {"windows": 5, "videos": 5 * len(variants(family))}
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
    assert len(list((tmp_path / "mp4").iterdir())) == 2 * len(names)


def test_other_windows_beside_it_do_not_change_a_video(world_of, family, tmp_path) -> None:
    world = world_of(family)
    for count in (5, 2):
        write_part(world, held_out(count), tmp_path / str(count), seed=0)
    for name in ({"tokenizer"} | set(variants(family))) - {SHUFFLED}:
        five, two = (load_file(tmp_path / count / "test" / f"{name}.safetensors")["video"] for count in "52")
        assert np.array_equal(five[:2], two), name


def test_without_actions_nothing_is_shuffled(world_of, family, tmp_path) -> None:
    world = world_of(family, ActionSpec.null())
    write_part(world, held_out(3, width=0), tmp_path, seed=0)
    assert not (tmp_path / "test" / "shuffled_action.safetensors").exists()
