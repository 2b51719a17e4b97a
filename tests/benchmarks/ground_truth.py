"""The whole table of ground truth: every detector and score against generated video whose truth is known by construction.

    python -m tests.benchmarks.ground_truth --seeds 101:109 --out ground_truth.jsonl
    python -m tests.benchmarks.ground_truth --only shots --detectors adaptive,transnetv2

A line of JSON a row into ``--out``, and a table to read on the screen. No threshold was set on the default seeds. The tests
hold a smaller edition of the same rows, made by the same functions (`ground_truth_shots`, `ground_truth_clips`, `dedup_kinds`).
"""

import argparse
import dataclasses
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.benchmarks import dedup_kinds
from tests.benchmarks.ground_truth_clips import ALL_KINDS, OCR_TABLE, TABLE, clip_rows, measured
from tests.benchmarks.ground_truth_shots import DETECTORS, JOINS, films, shot_row
from wfm.artifacts.atomic import replace_on_disk
from wfm.curation.dedup.dedup import DedupConfig
from wfm.curation.measure.score import ScoreConfig
from wfm.curation.measure.text_tracks import TextConfig

PARTS = ("shots", "clips", "ocr", "duplicates")
OCR_KINDS = ("text", "corner", "moving", "shaky", "fixed", "windowbox", "animation", "slideshow")


@dataclasses.dataclass(frozen=True)
class Row:
    """One line. ``items`` is what was looked at: films, clips or worlds; ``true`` how many of what is looked for they hold.
    None: the question has no such number (what is no duplicate has no recall)."""

    part: str
    detector: str
    kind: str
    items: int
    true: int
    precision: float | None
    recall: float | None
    f1: float | None
    more: dict[str, object]


def shots(folder: Path, seeds: range, detectors: list[str]) -> Iterator[Row]:
    """Each detector on each kind of join; ``more`` says how much of the mixed frames no shot was given."""
    written = films(folder, seeds)
    for name in detectors:
        for kind in JOINS:
            row = shot_row(name, DETECTORS[name], kind, written[kind])
            more = (
                {} if kind == "cut" else {"mixed_left_out": round(row.mixed, 3), "others_left_out": round(row.lost, 4)}
            )
            s = row.score
            yield Row("shots", name, kind, row.films, s.true, s.precision, s.recall, s.f1, more)


def clips(folder: Path, seeds: range, *, ocr: bool) -> Iterator[Row]:
    """Each question of `TABLE`, or those to the neural detector of text."""
    config = ScoreConfig(measures=True, text_detector="ppocr", text=TextConfig(side=320)) if ocr else None
    seen = measured(folder, seeds, OCR_KINDS if ocr else ALL_KINDS, config)
    for row in clip_rows(seen, OCR_TABLE if ocr else TABLE):
        s = row.score
        more = {"wrong": list(row.wrong)} if row.wrong else {}
        yield Row("ocr" if ocr else "clips", "scores", row.name, row.clips, s.true, s.precision, s.recall, s.f1, more)


def duplicates(folder: Path, worlds: int) -> Iterator[Row]:
    """Recall of each kind of copy, the share of worlds in which what is no copy was paired, and the precision of all pairs."""
    made = dedup_kinds.corpus(folder, worlds, seed=1)
    for kind, found in dedup_kinds.table(made, dedup_kinds.found_pairs(made, DedupConfig())).items():
        more = {name: value for name, value in found.items() if name not in ("precision", "recall")}
        yield Row(
            "duplicates", "three tiers", kind, worlds, worlds, found.get("precision"), found.get("recall"), None, more
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", default="101:109", help="first:last, the last one left out")
    parser.add_argument("--worlds", type=int, default=20, help="originals of the duplicates")
    parser.add_argument("--only", choices=PARTS, action="append", help="again for more parts; all without it")
    parser.add_argument("--detectors", default=",".join(DETECTORS), help="of shots")
    parser.add_argument("--out", type=Path, help="where the lines of JSON go")
    given = parser.parse_args()
    seeds = range(*(int(part) for part in given.seeds.split(":")))
    lines: list[str] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for part in given.only or PARTS:
            rows = {
                "shots": lambda: shots(folder, seeds, given.detectors.split(",")),
                "clips": lambda: clips(folder, seeds, ocr=False),
                "ocr": lambda: clips(folder, seeds, ocr=True),
                "duplicates": lambda: duplicates(folder, given.worlds),
            }[part]()
            for row in rows:
                print(readable(row), flush=True)
                lines.append(json.dumps(dataclasses.asdict(row)))
    if given.out:
        replace_on_disk(given.out, "".join(f"{line}\n" for line in lines).encode())


def readable(row: Row) -> str:
    """One line of the table on the screen."""
    figures = [f"{'' if value is None else f'{value:.3f}':>6}" for value in (row.precision, row.recall, row.f1)]
    more = " ".join(f"{name}={value}" for name, value in row.more.items())
    return (
        f"{row.part:10} {row.detector:17} {row.kind:30} {row.items:4} {row.true:4} {' '.join(figures)} {more}".rstrip()
    )


if __name__ == "__main__":
    main()
