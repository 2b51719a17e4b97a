"""What a model is shown, and what it is asked with."""

import json
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from wfm.curation.caption.answer_cache import question
from wfm.curation.caption.caption_config import CaptionConfig, RewriteConfig
from wfm.curation.caption.caption_windows import ShownConfig, Window, shown_frames, windows
from wfm.curation.caption.prompts import FIELDS, PRESETS, STILL, window_prompt
from wfm.curation.step import Skip
from wfm.errors import ConfigError
from wfm.records import Clip


@pytest.mark.parametrize(
    ("frames", "found"),
    [
        (3, []), (4, [(0, 4)]), (256, [(0, 256)]), (383, [(0, 383)]), (384, [(0, 256), (256, 384)]),
        (512, [(0, 256), (256, 512)]), (600, [(0, 256), (256, 600)]), (700, [(0, 256), (256, 512), (512, 700)]),
    ],
)  # fmt: skip
def test_a_rest_of_half_a_window_is_one_and_a_shorter_one_joins_the_last(
    frames: int, found: list[tuple[int, int]]
) -> None:
    assert windows(frames, 256) == [Window(*each) for each in found]


def test_pictures_are_even_in_time_where_frames_are_not(tmp_path: Path) -> None:
    """20 frames in the first second and 5 in each of the next two: as many pictures of each second."""
    times = [Fraction(i, 20) for i in range(20)] + [1 + Fraction(i, 5) for i in range(10)]
    with av.open(str(tmp_path / "v.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=20, options={"crf": "10", "bf": "0"})
        stream.width = stream.height = 32
        stream.time_base = stream.codec_context.time_base = Fraction(1, 100)
        for number, seconds in enumerate(times):
            frame = av.VideoFrame.from_ndarray(np.full((32, 32, 3), 8 * number, np.uint8), "rgb24")
            frame.pts, frame.time_base = int(seconds * 100), Fraction(1, 100)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    path, config = tmp_path / "v.mp4", ShownConfig(frames_per_second=2.0)
    (found,) = shown_frames(path, [Window(0, 30)], config)
    shown = [round(float(np.mean(picture)) / 8) for picture in found]
    assert shown == [0, 10, 20, 23, 25, 28]
    early, late = shown_frames(path, [Window(0, 15), Window(15, 30)], config)
    assert [round(float(np.mean(picture)) / 8) for picture in (*early, *late)] == [0, 10, 15, 22, 24, 27, 29]
    with pytest.raises(Skip, match="truncated: the clip ends before frame 40"):
        shown_frames(path, [Window(0, 40), Window(40, 80)], config)


def test_a_still_image_is_one_window_of_one_picture_and_is_not_asked_what_moves(
    tmp_path: Path, make_row: Callable[..., Clip]
) -> None:
    from PIL import Image

    assert windows(1, 256) == []
    assert windows(1, 256, still=True) == [Window(0, 1)]
    Image.new("RGB", (90, 60), (40, 80, 120)).save(tmp_path / "a.png")
    ((shown,),) = shown_frames(tmp_path / "a.png", [Window(0, 1)], ShownConfig(largest_side=45))
    assert shown.shape == (30, 45, 3)
    assert tuple(shown[3, 3]) == (40, 80, 120)
    still = make_row("a", path="clips/a.png", num_frames=1, fps=0.0, start_seconds=0.0, end_seconds=0.0)
    assert window_prompt(PRESETS["default"], still, Window(0, 1), 0, 1) == STILL
    assert window_prompt(PRESETS["default"], make_row("a"), Window(0, 24), 0, 1) == PRESETS["default"]
    assert window_prompt("{frames} in {seconds} s at {fps}", still, Window(0, 1), 0, 1) == "1 in 0.0 s at 0"


def test_templates_come_by_name_from_a_file_or_as_text(tmp_path: Path, make_row: Callable[..., Clip]) -> None:
    clip = make_row("a", attributes_json='{"camera": "pans"}')
    for name, text in PRESETS.items():
        assert CaptionConfig.parse({"prompt": name}).prompt == text
    (tmp_path / "mine.txt").write_text("Window {window} of {windows}, {start_seconds} to {end_seconds} s: {{what}}?\n")
    config = CaptionConfig.parse({"prompt": f"@{tmp_path}/mine.txt"})
    assert CaptionConfig.parse(config.resolved()) == config, "the text is in the config: the file is not needed again"
    assert window_prompt(config.prompt, clip, Window(24, 48), 1, 2) == "Window 2 of 2, 1.0 to 2.0 s: {what}?"
    every = " ".join(f"{name}={{{name}}}" for name in FIELDS)
    filled = window_prompt(CaptionConfig.parse({"prompt": every}).prompt, clip, Window(0, 24), 0, 2)
    assert "seconds=1.0" in filled
    assert 'attributes={"camera": "pans"}' in filled
    assert "{" not in filled.partition("attributes")[0]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("cars", "no such template. Choices: default, av, robot; or @FILE"),
        ("What is {colour}?", r"unknown field {colour}. Choices: {attributes}, {end_seconds}, .*written twice"),
        ("What is {seconds.__class__}?", r"unknown field {seconds.__class__}"),
        ("Take {seconds!r} s", "unknown field"),
        ("An open { brace", "a brace that is meant is written twice"),
        ("@nowhere.txt", "cannot be read .*nowhere.txt"),
        ("@", "cannot be read"),
    ],
)
def test_templates_that_cannot_be_filled_are_refused(given: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        CaptionConfig.parse({"prompt": given})


def test_a_template_for_rewriting_takes_the_caption() -> None:
    with pytest.raises(ConfigError, match=r"needs the field \{caption\}"):
        RewriteConfig.parse({"prompt": "Say it as {length}"})
    with pytest.raises(ConfigError, match=r"unknown field \{seconds\}. Choices: \{caption\}, \{length\}"):
        RewriteConfig.parse({"prompt": "Say {caption} in {seconds}"})


def test_identity_is_of_everything_that_decides_an_answer() -> None:
    base = {"clip_sha256": "a" * 64, "window": Window(0, 16), "prompt": "What?", "shown": {"side": 1}, "whom": ["m"]}
    changes = {"clip_sha256": "b" * 64, "window": Window(0, 17), "prompt": "Who?", "shown": {"side": 2}, "whom": ["n"]}
    found = {question(**{**base, name: value}).identity for name, value in changes.items()}  # type: ignore[arg-type]
    assert len(found | {question(**base).identity}) == 6  # type: ignore[arg-type]
    json.dumps(base)
