"""Clips that common decoders refuse say so, and are encoded for them if that is asked."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wfm.artifacts import Store
from wfm.curation.cut.split import SplitConfig, SplitVideo
from wfm.data.local import known_hash
from wfm.data.probe import probe
from wfm.records import Clip, Video

KINDS: dict[str, tuple[dict[str, str], str]] = {
    "as most are": ({}, ""),
    "full range": ({"pixel_format": "yuvj420p"}, ""),
    "4:4:4": ({"pixel_format": "yuv444p"}, "h264: profile high 4:4:4 predictive, pixels of yuv444p"),
    "4:2:2": ({"pixel_format": "yuv422p"}, "h264: profile high 4:2:2, pixels of yuv422p"),
    "10 bits": ({"pixel_format": "yuv420p10le"}, "h264: profile high 10, pixels of yuv420p10le"),
    "RGB": ({"codec": "libx264rgb", "pixel_format": "rgb24"}, "h264: profile high 4:4:4 predictive, pixels of gbrp"),
    "lossless": ({"qp": "0"}, "h264: profile high 4:4:4 predictive"),
    "HEVC": ({"codec": "libx265", "x265-params": "log-level=none"}, ""),
    "HEVC of 10 bits": (
        {"codec": "libx265", "pixel_format": "yuv420p10le", "x265-params": "log-level=none"},
        "hevc: profile main 10, pixels of yuv420p10le",
    ),
    "HEVC of 4:2:2": (
        {"codec": "libx265", "pixel_format": "yuv422p", "x265-params": "log-level=none"},
        "hevc: profile rext, pixels of yuv422p",
    ),
    "VP9 of 4:4:4": (
        {"codec": "libvpx-vp9", "pixel_format": "yuv444p", "cpu-used": "8"},
        "vp9: profile 1, pixels of yuv444p",
    ),
    "AV1": ({"codec": "libsvtav1", "preset": "12", "svtav1-params": "lp=1"}, ""),
}


def split(path: Path, out: Path, **cut: Any) -> Clip:
    store: Any = Store.open(out / "store")
    step = SplitVideo(SplitConfig.parse({"shots": {"detector": "whole"}, "cut": cut}), store, store, out)
    (clip,) = step(Video(source=str(path), name="a", video_id=known_hash(path)))
    return clip


@pytest.mark.parametrize("kind", KINDS)
def test_what_common_decoders_refuse_is_told_and_encoded_if_asked(
    tmp_path: Path, write_video: Callable[..., Path], kind: str
) -> None:
    """Before: copied without a word, whatever was asked."""
    options, words = KINDS[kind]
    path = write_video(tmp_path / "a.mp4", **options)
    clip = split(path, tmp_path / "copied")
    assert (clip.transcode, clip.uncommon) == ("copy", words)
    clip = split(path, tmp_path / "asked", uncommon="encode")
    assert (clip.transcode, clip.uncommon) == ("encode" if words else "copy", "")
    assert not words or probe(tmp_path / "asked" / clip.path).pixel_format == "yuv420p"


def test_odd_sizes_and_what_is_encoded_without_loss_are_told_too(
    tmp_path: Path, write_video: Callable[..., Path]
) -> None:
    path = write_video(tmp_path / "a.mp4", np.zeros((48, 71, 95, 3), np.uint8), codec="libvpx-vp9")
    assert split(path, tmp_path / "copied").uncommon == "vp9: an odd size"
    clip = split(path, tmp_path / "asked", uncommon="encode", crf=0)
    assert (clip.transcode, clip.width, clip.height) == ("encode", 94, 70)
    assert clip.uncommon == "h264: profile high 4:4:4 predictive"
