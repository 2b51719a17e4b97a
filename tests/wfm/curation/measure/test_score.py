"""One decode gives every score; what cannot be decoded is skipped with a reason."""

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.wfm.curation.measure.plain_frames import read_plain_frames
from wfm.curation import one_pass, prefetch
from wfm.curation.measure import sharpness, static, text_overlay
from wfm.curation.measure.block_flow import block_flow
from wfm.curation.measure.camera_moves import CameraTrack, camera_moves
from wfm.curation.measure.measurements import Measures
from wfm.curation.measure.motion import block_motion
from wfm.curation.measure.score import ScoreClip, ScoreConfig
from wfm.curation.rows import Score
from wfm.curation.select.select import SelectConfig
from wfm.curation.step import run_step
from wfm.records import Clip

Make = Callable[..., Path]
Row = Callable[..., Clip]


def test_scores_of_a_clip_are_finite_and_carry_its_bytes(make_clip: Make, make_row: Row) -> None:
    path = make_clip(1)
    step = ScoreClip(ScoreConfig(), lambda _: path)
    (score,) = step(make_row("a"))
    assert (score.clip_id, score.clip_sha256) == ("a", "bytes of a")
    numbers = [value for value in dataclasses.asdict(score).values() if isinstance(value, float)]
    assert len(numbers) == 12
    assert all(math.isfinite(number) for number in numbers)
    assert score == next(iter(step(make_row("a")))), "the same clip must score the same"
    assert Score.from_table(Score.to_table([score])) == [score]


def test_a_broken_clip_is_skipped_with_the_decoders_reason(make_clip: Make, make_row: Row, tmp_path: Path) -> None:
    text = tmp_path / "text.mp4"
    text.write_text("not a video")
    good = make_clip(1)
    step = ScoreClip(ScoreConfig(), lambda path: text if path == "clips/bad.mp4" else good)
    rows, left = run_step(step, [make_row("bad"), make_row("good")])
    assert [row.clip_id for row in rows] == ["good"]
    assert [item.reason.split(":")[0] for item in left] == ["not_a_video"]


def test_black_blurred_and_static_are_told_apart(make_clip: Make, make_row: Row) -> None:
    from PIL import Image, ImageFilter

    def score(path: Path) -> Score:
        return next(iter(ScoreClip(ScoreConfig(), lambda _: path)(make_row("a"))))

    def blurred(frames: np.ndarray) -> np.ndarray:
        return np.stack([np.asarray(Image.fromarray(frame).filter(ImageFilter.GaussianBlur(6))) for frame in frames])

    good, soft = score(make_clip(1)), score(make_clip(1, change=blurred))
    assert score(make_clip(1, change=lambda frames: frames // 25)).black_share == 1
    assert score(make_clip(1, speed=(0, 0))).static_share == 1
    limit = SelectConfig().minimum_sharpness
    assert limit is not None
    assert soft.sharpness < limit < good.sharpness
    assert (good.black_share, good.static_share) == (0, 0)


@pytest.mark.parametrize("way", [{}, {"g": "1"}, {"frames": 300, "size": 64, "speed": (1, 0)}])
def test_scores_are_what_a_plain_loop_over_all_frames_gives(
    make_clip: Make, make_row: Row, way: dict[str, Any]
) -> None:
    path, config = make_clip(1, **way), ScoreConfig(measures=True)
    measured: list[Measures] = []
    (score,) = ScoreClip(config, lambda _: path, measured)(make_row("a"))
    plain = read_plain_frames(path, config, expected_frames=way.get("frames", 48))
    gray, stills = plain.thumbnails.astype(np.float32) / 255, plain.stills.astype(np.float32) / 255
    moved = plain.motion or block_motion(gray, plain.seconds)
    assert score.motion_source == moved.source == ("block_difference" if "g" in way else "codec_vectors")
    assert score.motion == pytest.approx(moved.speed, rel=1e-9)
    assert score.static_share == static.static_share(gray, plain.seconds)
    assert (score.frozen_share, score.black_share) == (static.frozen_share(gray), static.black_share(gray))
    assert score.sharpness == sharpness.sharpness(stills)
    assert score.text_score == text_overlay.overlay_score(stills)
    camera = camera_moves(CameraTrack.of(block_flow(gray, plain.seconds)))
    assert measured[0].flow == pytest.approx(camera.speed, rel=1e-9)
    assert measured[0].camera_tags == " ".join(camera.tags)


@pytest.mark.parametrize(("asked", "bytes_ahead"), [({}, 0), ({"measures": True, "nsfw": True}, 64 << 20)])
def test_decoding_runs_ahead_of_neural_models_alone(
    make_clip: Make, make_row: Row, monkeypatch: pytest.MonkeyPatch, asked: dict[str, Any], bytes_ahead: int
) -> None:
    seen, real = [], prefetch.ahead

    def noted(source: Any, maximum_bytes: int, size_of: Any) -> Any:
        seen.append(maximum_bytes)
        return real(source, maximum_bytes, size_of)

    monkeypatch.setattr(one_pass, "ahead", noted)
    path, found = make_clip(1, frames=12), []
    for config in (ScoreConfig(**asked), ScoreConfig(**asked, prefetch_bytes=0)):
        measured: list[Measures] = []
        found.append((list(ScoreClip(config, lambda _: path, measured)(make_row("a"))), measured))
    assert seen == [bytes_ahead, 0]
    assert found[0] == found[1]
