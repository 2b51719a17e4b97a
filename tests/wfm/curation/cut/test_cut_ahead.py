"""Clips that are encoded while their video is looked at are those of two decodes, byte for byte, and one decode is enough."""

import itertools
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wfm.artifacts import Store
from wfm.curation.cut.split import SplitConfig, SplitVideo
from wfm.curation.prefetch import frame_bytes
from wfm.curation.step import Skip
from wfm.data import decode
from wfm.data.local import known_hash
from wfm.records import Clip, Video

Writer = Callable[..., Path]
Scenes = Callable[..., np.ndarray]
LENGTHS = [50, 60, 10, 45, 80]
KINDS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "plain": ({}, {"cut": {"copy_codecs": []}}),
    "content": ({}, {"shots": {"detector": "content"}, "cut": {"copy_codecs": []}}),
    "b frames": ({"x264-params": "bframes=3:b-adapt=0"}, {"cut": {"copy_codecs": []}}),
    "uneven": (
        {"times": np.cumsum(np.resize([1, 4, 2], sum(LENGTHS))).tolist(), "time_base": Fraction(1, 48)},
        {"cut": {"copy_codecs": []}},
    ),
    "turned": ({"rotation": 90}, {}),
    "divided and cropped": (
        {},
        {"shots": {"minimum_seconds": 0.5, "maximum_seconds": 1.2, "crop_start_seconds": 0.2}, "cut": {"copy_codecs": []}},
    ),
    "copied in part": ({"x264-params": "keyint=40:min-keyint=40:scenecut=0"}, {}),
    "dissolves too": ({}, {"shots": {"gradual": True}, "cut": {"copy_codecs": []}}),
}  # fmt: skip


def row_of(path: Path) -> Video:
    return Video(source=str(path), name=path.name, video_id=known_hash(path))


def split(
    path: Path, out: Path, config: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> tuple[list[Clip], list[Any], dict[str, bytes], int]:
    """(clips, skips, files by name, frames that were decoded of the video itself)."""
    decoded, real = [0], decode.OpenVideo.shown

    def counted(self: decode.OpenVideo, start_pts: int | None = None, *, strict: bool = False) -> Iterator[Any]:
        for shown in real(self, start_pts, strict=strict):
            decoded[0] += self.path == path
            yield shown

    store: Any = Store.open(out / "store")
    with monkeypatch.context() as patch:
        patch.setattr(decode.OpenVideo, "shown", counted)
        step = SplitVideo(SplitConfig.parse(config), store, store, out)
        clips = list(step(row_of(path)))
    return clips, step.skips, {file.name: file.read_bytes() for file in sorted((out / "clips").iterdir())}, decoded[0]


@pytest.mark.parametrize("kind", KINDS)
def test_one_decode_gives_what_two_give(
    tmp_path: Path, write_video: Writer, make_scenes: Scenes, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    options, config = KINDS[kind]
    path, total = write_video(tmp_path / "a.mp4", make_scenes(LENGTHS), **options), sum(LENGTHS)
    with decode.open_video(path) as video:
        some = 65 * frame_bytes(next(video.frames()))  # less than the longest shot has
    made = [
        split(path, tmp_path / f"held{held}", {**config, "held_bytes": held}, monkeypatch)
        for held in (0, some, 1 << 28)
    ]
    clips, skips, files, twice = made[0]
    assert len(clips) >= 4
    assert {clip.path.removeprefix("clips/") for clip in clips} == set(files)
    for found in made[1:]:
        assert found[:3] == (clips, skips, files)
    if kind in ("copied in part", "dissolves too"):
        return
    looks = 1 if kind == "turned" else 0  # whether its packets may be copied
    assert made[2][3] == total + looks
    assert total + looks < made[1][3] < twice


def test_a_video_that_breaks_leaves_no_clip_behind(
    tmp_path: Path, write_video: Writer, make_scenes: Scenes, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_video(tmp_path / "a.mp4", make_scenes(LENGTHS), flags="faststart")
    row, real = row_of(path), decode.OpenVideo.demux

    def breaks(self: decode.OpenVideo, streams: Any) -> Iterator[Any]:
        yield from itertools.islice(real(self, streams), sum(LENGTHS) * 3 // 4)
        raise OSError("the disk does not answer")

    monkeypatch.setattr(decode.OpenVideo, "demux", breaks)
    store: Any = Store.open(tmp_path / "store")
    monkeypatch.setattr("wfm.curation.cut.split.open_source", lambda store, source, video_id: path)
    step = SplitVideo(SplitConfig.parse({"cut": {"copy_codecs": []}}), store, store, tmp_path)
    with pytest.raises(Skip, match="decode_error"):
        list(step(row))
    assert list((tmp_path / "clips").iterdir()) == []
    assert (step.skips, step.decoded) == ([], [])
