"""Captions say what is known and nothing else, the same each time, beside the right clip."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wfm.curation.caption.caption import CaptionClip, attribute_caption, dominant_colours, measured_caption
from wfm.curation.caption.caption_config import CaptionConfig
from wfm.records import Clip

Make = Callable[..., Path]
Row = Callable[..., Clip]
ATTRIBUTES = {
    "objects": [
        {"color": "red", "shape": "box", "size": "large", "motion": "is driven around"},
        {"color": "blue", "shape": "sphere", "size": "medium", "motion": "rolls"},
    ],
    "camera": "orbits fast to the left",
    "background": "tiled grey floor",
}


def caption(make_row: Row, attributes: Any, clip_id: str = "a") -> str:
    text = attributes if isinstance(attributes, str) else json.dumps(attributes)
    return attribute_caption(make_row(clip_id, attributes_json=text))


def test_everything_the_sidecar_says_is_in_the_caption(make_row: Row) -> None:
    for clip_id in "abcdefgh":
        text = caption(make_row, ATTRIBUTES, clip_id)
        for part in ("red box", "blue sphere", "driven around", "rolls", "orbits fast to the left", "tiled grey floor"):
            assert part in text
        assert text[0].isupper()
        assert text.endswith(".")


def test_nothing_the_sidecar_does_not_say_is_in_the_caption(make_row: Row) -> None:
    sparse = {"objects": [{"color": "red", "shape": "box"}]}
    for clip_id in "abcdefgh":
        text = caption(make_row, sparse, clip_id)
        assert "red box" in text
        assert not any(word in text for word in ("camera", "floor", "moves", "large", "background"))


def test_wording_varies_between_clips_and_never_for_one(make_row: Row) -> None:
    texts = {caption(make_row, ATTRIBUTES, str(i)) for i in range(40)}
    assert len(texts) >= 4
    assert caption(make_row, ATTRIBUTES, "7") == caption(make_row, ATTRIBUTES, "7")


@pytest.mark.parametrize(
    "useless", ["", "{", "[]", "3", "null", "{}", '{"objects": 5}', '{"objects": ["x"], "camera": 7}']
)
def test_attributes_that_say_nothing_give_no_attribute_caption(make_row: Row, useless: str) -> None:
    assert caption(make_row, useless) == ""


def test_text_from_outside_is_made_plain_and_bounded(make_row: Row) -> None:
    hostile = {"camera": "is\x00 \x1b[31mred\n\nand " + "long " * 200, "objects": [{"shape": "box\r\n{x}"}]}
    text = caption(make_row, hostile)
    assert text.isprintable()
    assert len(text) < 300


@pytest.mark.parametrize(
    ("speed", "words"),
    [
        ((2, 0), "camera pans right"),
        ((-2, 0), "camera pans left"),
        ((0, 3), "camera tilts down"),
        ((0, 0), "Hardly anything"),
    ],
)
def test_measured_captions_name_the_pan(make_clip: Make, speed: tuple[float, float], words: str) -> None:
    assert words in measured_caption(make_clip(1, speed=speed))


def test_measured_brightness_and_colour(make_clip: Make) -> None:
    def red(frames: np.ndarray) -> np.ndarray:
        return frames // 6 + np.array([150, 0, 0], np.uint8)

    text = measured_caption(make_clip(1, change=red))
    assert "mostly red" in text
    assert "very dark" in measured_caption(make_clip(1, change=lambda f: f // 20))


@pytest.mark.parametrize(
    ("rgb", "name"),
    [
        ((225, 35, 35), "red"),
        ((30, 170, 50), "green"),
        ((40, 70, 230), "blue"),
        ((240, 210, 25), "yellow"),
        ((220, 45, 200), "magenta"),
        ((20, 195, 215), "cyan"),
        ((240, 140, 20), "orange"),
        ((5, 5, 5), "black"),
        ((250, 250, 250), "white"),
        ((128, 125, 130), "grey"),
    ],
)
def test_colour_names(rgb: tuple[int, int, int], name: str) -> None:
    assert dominant_colours(np.full((4, 4, 3), rgb, np.uint8)) == [name]


def test_the_row_says_which_bytes_and_which_source(make_clip: Make, make_row: Row) -> None:
    path = make_clip(1)
    step = CaptionClip(CaptionConfig(), lambda _: path)
    (known,) = step(make_row("a", attributes_json=json.dumps(ATTRIBUTES)))
    (measured,) = step(make_row("b"))
    assert (known.clip_id, known.clip_sha256, known.caption_source) == ("a", "bytes of a", "attributes")
    assert (measured.clip_sha256, measured.caption_source) == ("bytes of b", "measured")
    (forced,) = CaptionClip(CaptionConfig(source="measured"), lambda _: path)(
        make_row("a", attributes_json=json.dumps(ATTRIBUTES))
    )
    assert forced.caption_source == "measured"
