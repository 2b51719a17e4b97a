"""Shots found against films whose joins are known: each detector on hard cuts, dissolves and fades.

`films` writes them, `shot_rows` scores a detector on them: the same for `ground_truth` (the whole table) and the tests.
"""

import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path

from wfm.curation.cut.shot_detection import Cut, Mixed, ShotConfig
from wfm.curation.cut.shots import look
from wfm.data.decode import open_video
from wfm.simulation import ground_truth as gt

JOINS: tuple[gt.Join, ...] = ("cut", "dissolve", "fade")
DETECTORS = {
    "adaptive": ShotConfig(),
    "content": ShotConfig(detector="content"),
    "adaptive+gradual": ShotConfig(gradual=True),
    "transnetv2": ShotConfig(detector="transnetv2"),
}


@dataclasses.dataclass(frozen=True)
class ShotRow:
    """A detector on the joins of one kind. ``mixed`` is the share of mixed frames that no shot was given, ``lost`` the share of
    all other frames that no shot was given either."""

    detector: str
    kind: str
    films: int
    score: gt.ShotScore
    mixed: float
    lost: float


@dataclasses.dataclass(frozen=True)
class WrittenFilm:
    """A film without its frames: its file, how many frames it has, and its joins."""

    path: Path
    frames: int
    transitions: tuple[gt.Transition, ...]


def films(folder: Path, seeds: Iterable[int], joins: int = 5) -> dict[str, list[WrittenFilm]]:
    """For each kind of join, a film a seed of ``joins`` of that kind."""
    made: dict[str, list[WrittenFilm]] = {kind: [] for kind in JOINS}
    for seed in seeds:
        for kind in JOINS:
            film = gt.film(seed, [kind] * joins)
            path = gt.write_film(folder / f"{kind}-{seed}.mp4", film.frames)
            made[kind].append(WrittenFilm(path, len(film.frames), film.transitions))
    return made


def cuts_of(path: Path, config: ShotConfig) -> list[Cut]:
    """What the detector says of a file."""
    with open_video(path) as video:
        return look(video, config)[1]


def middles(cuts: Sequence[Cut]) -> list[int]:
    """Where each cut lies; a gradual one counts by its middle."""
    return [cut if isinstance(cut, int) else (cut.first + cut.last) // 2 for cut in cuts]


def shot_row(name: str, config: ShotConfig, kind: str, written: Sequence[WrittenFilm]) -> ShotRow:
    """One detector on the films of one kind of join."""
    score = gt.ShotScore()
    taken = mixed = wrong = alone = 0
    for film in written:
        cuts = cuts_of(film.path, config)
        score += gt.shot_score(middles(cuts), film.transitions)
        out = {frame for cut in cuts if isinstance(cut, Mixed) for frame in range(cut.first, cut.last)}
        truth = {frame for join in film.transitions for frame in range(join.first, join.last)}
        taken, mixed = taken + len(out & truth), mixed + len(truth)
        wrong, alone = wrong + len(out - truth), alone + film.frames - len(truth)
    return ShotRow(name, kind, len(written), score, taken / max(mixed, 1), wrong / alone)
