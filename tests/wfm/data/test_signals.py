"""Signals of clips: tracks with their meaning, cut to windows, and what does not fit is refused."""

import io
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from wfm.artifacts import Store
from wfm.data.shards import Sample
from wfm.data.signals import MEANINGS, ClipSignals, Track, merge_meanings, read_signals, write_signals
from wfm.data.windows import clip_signals
from wfm.errors import ConfigError, DataError, InputError

SPEC = {"names": ["turn", "lift"], "units": ["deg/s", "m/s"], "frame": "camera", "mean": [0, 0], "scale": [30, 1]}


def clip(number, frames=6, meaning=SPEC, **more):
    """A clip whose row t of `actions` is (number, t)."""
    row = {"clip_id": f"clip{number}", "num_frames": frames, "fps": 24.0, "video_id": "v", "start_seconds": 0.0}
    values = np.stack([np.full(frames, number), np.arange(frames)], axis=1).astype(np.float32)
    return ClipSignals(row, {**({"actions": Track(values, meaning)} if meaning else {}), **more})


def table(tmp_path, *parts, split="train"):
    """What is read back of parts: name -> clips of the split."""
    store, entries, meanings = Store.open(tmp_path / "store"), [], []
    for number, clips in enumerate(parts):
        with store.part_attempt(f"{number}" * 64) as attempt:
            write_signals({split: clips}, attempt.path)
            meanings.append(json.loads((attempt.path / MEANINGS).read_text()))
            entries.append(attempt.commit(stage="s", kind="part").entry(f"{number:02d}"))
    with store.attempt("f" * 64) as attempt:
        (attempt.path / MEANINGS).write_text(json.dumps(merge_meanings(meanings)))
        return read_signals(attempt.commit(stage="s", kind="signals", parts=entries), split)


def test_windows_are_cut_from_the_tracks_of_all_parts(tmp_path):
    found = table(tmp_path, [clip(1), clip(2, meaning=None)], [clip(3, frames=9)])
    windows = found.windows(["clip3", "clip1", "clip2"], [4, 0, 1], [5, 5, 5])
    assert windows["actions"][0].tolist() == [[3, t] for t in range(4, 9)]
    assert windows["actions"][1].tolist() == [[1, t] for t in range(5)]
    assert not windows["actions"][2].any(), "a clip without the signal has zeros that nobody believes"
    assert windows["has_actions"].tolist() == [True, True, False]


def test_any_signal_travels_by_its_name(tmp_path):
    depth = Track(np.arange(6 * 4, dtype=np.float32).reshape(6, 2, 2), {"names": ["metres"]})
    found = table(tmp_path, [clip(1, depth=depth), clip(2)])
    windows = found.windows(["clip1", "clip2"], [2, 0], [3, 3])
    assert np.array_equal(windows["depth"][0], depth.values[2:5])
    assert windows["has_depth"].tolist() == [True, False]
    assert windows["actions"].shape == (2, 3, 2)


def test_a_signal_that_no_clip_has_is_not_there(tmp_path):
    found = table(tmp_path, [clip(1, meaning=None)])
    assert found.windows(["clip1"], [0], [3]) == {}


def test_every_window_must_be_covered(tmp_path):
    found = table(tmp_path, [clip(1), clip(2)])
    with pytest.raises(DataError, match="2 of 3 clips have no signals, such as clip7"):
        found.windows(["clip1", "clip8", "clip7"], [0, 0, 0], [3, 3, 3])
    with pytest.raises(
        DataError, match="1 windows end behind their clip's signals, such as one of clip2 at frame 7 of 6"
    ):
        found.windows(["clip1", "clip2"], [3, 4], [3, 3])


def test_mirror_images_have_mirrored_signals(tmp_path):
    found = table(tmp_path, [clip(1)])
    asked = (["clip1", "clip1"], [1, 1], [3, 3])
    plain, turned = found.windows(*asked, mirrored=[False, True], mirror_signs={"actions": [-1, 1]})["actions"]
    assert plain.tolist() == [[1, 1], [1, 2], [1, 3]]
    assert turned.tolist() == [[-1, 1], [-1, 2], [-1, 3]]
    with pytest.raises(
        ConfigError, match=r"mirror_signs.actions has 1 entries for rows of shape \(2,\) \(turn, lift\)"
    ):
        found.windows(*asked, mirrored=[False, True], mirror_signs={"actions": [1]})


def test_the_range_is_of_the_frames_that_windows_show(tmp_path):
    """As all windows cut one by one have it: overlapping ones, gaps between them, mirror images, a clip without the signal."""
    generator = np.random.default_rng(0)
    tracks = [Track(generator.normal(size=(size, 2)).astype(np.float32), SPEC) for size in (6, 30, 9)]
    clips = [clip(n, len(track.values), None, actions=track) for n, track in enumerate(tracks)]
    found = table(tmp_path, [clips[0], clip(7, meaning=None)], clips[1:])
    signs = {"actions": (-1.0, 1.0)}
    names = ["clip1", "clip7", "clip1", "clip2", "clip1", "clip2"]
    starts, lengths = np.array([3, 0, 5, 0, 26, 4]), np.array([4, 6, 4, 3, 4, 5])
    mirrored = np.array([False, False, True, True, False, False])
    places = found.places(names, starts, lengths)
    low, high = found.range_of("actions", places, starts, lengths, mirrored, mirror_signs=signs)
    each = [
        found.window(*which, mirror_signs=signs)["actions"]
        for which in zip(places, starts, lengths, mirrored, strict=True)
    ]
    every = np.concatenate([rows for name, rows in zip(names, each, strict=True) if name != "clip7"])
    assert np.array_equal(low, every.min(0))
    assert np.array_equal(high, every.max(0))
    only = slice(1, 2)
    none = found.range_of("actions", places[only], starts[only], lengths[only], mirrored[only], mirror_signs=signs)
    assert none is None


def test_one_data_set_has_one_meaning(tmp_path):
    other = {**SPEC, "units": ["rad/s", "m/s"]}
    with pytest.raises(InputError, match=r"signal 'actions' mismatch in 'units'.*rad/s"):
        write_signals({"train": [clip(1), clip(2, meaning=other)]}, tmp_path)
    with pytest.raises(InputError, match="'units'"):
        merge_meanings([{"actions": {"shape": [2], "meaning": one}} for one in (SPEC, other)])
    with pytest.raises(InputError, match="'shape'"):
        merge_meanings([{"actions": {"shape": [n], "meaning": SPEC}} for n in (2, 3)])
    scaled = {**SPEC, "scale": [1, 1]}
    merged = merge_meanings([{"actions": {"shape": [2], "meaning": one}} for one in (SPEC, scaled)])
    assert merged["actions"]["meaning"] == SPEC, "the normaliser is the model's own business: the first one's"


def test_a_track_has_a_row_for_every_frame(tmp_path):
    short = ClipSignals({**clip(1).row, "num_frames": 9}, clip(1).tracks)
    with pytest.raises(DataError, match="clip1: 9 frames but 6 rows of actions"):
        write_signals({"train": [short]}, tmp_path)


def test_a_part_whose_files_do_not_match_is_refused(tmp_path):
    def spoil(rows):
        return pa.Table.from_pylist([{**row, "num_frames": 5} for row in rows.to_pylist()], schema=rows.schema)

    store = Store.open(tmp_path / "store")
    with store.part_attempt("0" * 64) as attempt:
        write_signals({"train": [clip(1)]}, attempt.path)
        path = attempt.path / "train/clips.parquet"
        pq.write_table(spoil(pq.read_table(path)), path)
        entry = attempt.commit(stage="s", kind="part").entry("00")
    with store.attempt("f" * 64) as attempt:
        (attempt.path / MEANINGS).write_text("{}")
        made = attempt.commit(stage="s", kind="signals", parts=[entry])
    with pytest.raises(DataError, match="6 rows, its table 1 clips of other lengths"):
        read_signals(made, "train")


def sample(**members):
    facts = {"session_id": "s", "video_id": "v", "source": "a.mp4", "start_seconds": 0.0, "fps": 24.0}
    return Sample("clip", {"json": json.dumps(facts).encode(), "mp4": b"never decoded", **members})


def sidecar(column, note):
    table = pa.table({"pts_seconds": np.arange(3) / 24, column: [[1.0, 2.0]] * 3})
    file = io.BytesIO()
    pq.write_table(table.replace_schema_metadata({b"wfm": json.dumps(note).encode()}), file)
    return file.getvalue()


def test_every_sidecar_is_a_track():
    made = clip_signals(sample(**{"wind.parquet": sidecar("gust", {"gust_spec": {"names": ["x", "y"]}})}))
    assert made.tracks["wind"].values.tolist() == [[1, 2]] * 3
    assert made.tracks["wind"].meaning == {"names": ["x", "y"]}
    assert made.row["num_frames"] == 3
    with pytest.raises(DataError, match=r"actions.parquet does not say what it means"):
        clip_signals(sample(**{"actions.parquet": sidecar("action", {})}))
