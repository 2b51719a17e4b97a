"""Windows listed without decoding are those that were read before, and a clip is decoded when one of its own is wanted."""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from wfm.artifacts import Artifact, Store
from wfm.data import window_samples
from wfm.data.shards import ShardWriter
from wfm.data.window_samples import WindowSamples, list_windows
from wfm.data.windows import Window, windows
from wfm.errors import ConfigError, DataError
from wfm.generation.write_video import write_mp4

LENGTHS = (5, 9, 12, 20, 23, 7)
HOW = {"num_frames": 6, "stride_frames": 3}


def keep(found: Iterable[Window], limit: int) -> tuple[list[str], np.ndarray, int]:
    """The twin: every window decoded, and those of the least hashes kept (ids, frames, how many were left out)."""
    order = sorted((hashlib.sha256(one.sample_id.encode()).digest(), one.sample_id, one.frames) for one in found)
    kept = order[: limit or None]
    return [row[1] for row in kept], np.stack([row[2] for row in kept]), len(order) - len(kept)


@pytest.fixture(scope="module")
def made(tmp_path_factory, write_mp4_of) -> "dict[str, Artifact]":
    folder = tmp_path_factory.mktemp("windows")
    store, found = Store.open(folder / "store"), {}
    for nth, kind in enumerate(("table", "rows", "lies")):
        entries = []
        for part_number in range(2):
            with store.part_attempt(f"{nth}{part_number}" * 32) as part:
                rows = []
                with ShardWriter(part.path / "shards/train", f"p{part_number}") as writer:
                    for number in range(part_number, len(LENGTHS), 2):
                        row = {"session_id": "s", "video_id": "v", "source": "x", "start_seconds": 0.0, "fps": 24.0}
                        members = {"mp4": write_mp4_of(number), "json": json.dumps(row).encode()}
                        shard = writer.write(f"clip{number}", members)
                        claimed = LENGTHS[number] + (4 if kind == "lies" and number == 5 else 0)
                        rows.append(
                            {"clip_id": f"clip{number}", "num_frames": claimed, "shard": f"shards/train/{shard}"}
                        )
                rows.append({"clip_id": "not-kept", "num_frames": 99, "shard": ""})
                if kind != "rows":
                    pq.write_table(pa.Table.from_pylist(rows), part.path / "clips.parquet")
                entries.append(part.commit(stage="write_shards", kind="part").entry(f"p{part_number}"))
        found[kind] = store.attempt(f"{nth}" * 64).commit(stage="write_shards", kind="dataset", parts=entries)
    return found


@pytest.fixture(scope="module")
def write_mp4_of(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")

    def made(number: int) -> bytes:
        path = Path(folder / f"{number}.mp4")
        if not path.exists():
            noise = np.random.default_rng(number).integers(0, 255, (LENGTHS[number], 4, 4, 3))
            write_mp4(path, np.kron(noise, np.ones((1, 8, 8, 1))).astype(np.uint8), 24.0)
        return path.read_bytes()

    return made


@pytest.mark.parametrize("kind", ["table", "rows"])
@pytest.mark.parametrize("most", [0, 4])
def test_the_same_windows_in_the_same_order_as_when_all_were_decoded(made, kind, most):
    ids, frames, left = keep(windows(made[kind], "train", size=(16, 16), **HOW), most)
    found = list_windows(made[kind], "train", most=most, **HOW)
    assert list(found.ids) == ids
    assert found.left_out == left
    samples = WindowSamples(made[kind], found, size=(16, 16), cache_bytes=10**6)
    for row in reversed(range(len(samples))):
        assert np.array_equal(samples.read(row)["frames"].numpy(), frames[row])
    assert samples.shapes.tolist() == [[6, 16, 16]] * len(ids)


def test_a_clip_is_decoded_once_where_its_windows_stay_in_memory_and_again_where_they_do_not(made, monkeypatch):
    decoded = []
    own = window_samples.decode_sample

    def counted(sample, size, *frames):
        decoded.append((sample.key, frames))
        return own(sample, size, *frames)

    monkeypatch.setattr(window_samples, "decode_sample", counted)
    found = list_windows(made["table"], "train", **HOW)
    assert not decoded, "a table says how long clips are"
    each = 6 * 16 * 16 * 3
    for room, most in ((len(found), len(set(found.clips))), (0, len(found)), (3, len(found) - 2)):
        decoded.clear()
        samples = WindowSamples(made["table"], found, size=(16, 16), cache_bytes=room * each + 1)
        for row in range(len(samples)):
            samples.read(row)
        assert len(decoded) <= most
        if not room:
            spans = [int(found.starts[row]) for row in range(len(found))]
            assert decoded == [(clip, (at, at + 6)) for clip, at in zip(found.clips, spans, strict=True)], (
                "no frame more"
            )
        kept = list(samples._kept.values())
        assert len(kept) <= room
        assert all(one.untyped_storage().nbytes() == each for one in kept), "none is a view that pins its clip"


def test_a_table_that_lies_and_a_split_without_windows_are_told(made):
    found = list_windows(made["lies"], "train", **HOW)
    samples = WindowSamples(made["lies"], found, size=(16, 16))
    row = found.ids.index("clip5:3")
    with pytest.raises(DataError, match="clip clip5 has 7 frames; the data set says that it has 9 or more"):
        samples.read(row)
    with pytest.raises(ConfigError, match="no clip long enough for one window of 24 frames"):
        list_windows(made["table"], "train", num_frames=24, stride_frames=1)
    with pytest.raises(ConfigError, match="split: 'val' has no shards"):
        list_windows(made["table"], "val", **HOW)
