"""A store whose clips are as bright as their place says, and the captioning stage as a process over it."""

import hashlib
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from wfm.artifacts import Artifact, Store
from wfm.curation.caption.caption import caption_part
from wfm.curation.caption.caption_config import CaptionConfig
from wfm.curation.rows import CaptionWindow
from wfm.curation.step import SkippedRow
from wfm.generation.write_video import write_mp4
from wfm.records import Caption, Clip

FPS = 8.0
TABLES = ("captions.parquet", "caption_windows.parquet")


def light(clip: int) -> int:
    """Brightness of a clip."""
    return 30 + 20 * (clip % 11)


def make_clips(store: Store, folder: Path, frames: Sequence[int]) -> Artifact:
    """An artifact of clips with so many frames each, in one part."""
    attempt = store.part_attempt(hashlib.sha256(repr(frames).encode()).hexdigest())
    (attempt.path / "clips").mkdir(parents=True)
    rows = []
    for number, count in enumerate(frames):
        pixels = np.full((count, 32, 48, 3), light(number), np.uint8)
        name, file = f"{number:064x}", folder / f"{number}.mp4"
        write_mp4(file, pixels, FPS)
        data = file.read_bytes()
        (attempt.path / "clips" / f"{name}.mp4").write_bytes(data)
        rows.append(
            Clip(
                clip_id=name,
                clip_sha256=hashlib.sha256(data).hexdigest(),
                video_id="f" * 64,
                source="v.mp4",
                session_id="s",
                start_seconds=0.0,
                end_seconds=count / FPS,
                start_pts=0,
                end_pts=count,
                time_base="1/8",
                num_frames=count,
                fps=FPS,
                width=48,
                height=32,
                path=f"clips/{name}.mp4",
                transcode="encode",
            )
        )
    pq.write_table(Clip.to_table(rows), attempt.path / "clips.parquet")
    counts = {"inputs": 1, "outputs": len(rows)}
    entry = attempt.commit(stage="split_clips", kind="part", counts=counts).entry("00")
    return store.attempt("c" * 64).commit(stage="split_clips", kind="clips", counts=counts, parts=[entry])


class Answer:
    """What captioning a part left behind."""

    def __init__(self, folder: Path, skipped: dict[str, int]) -> None:
        self.skipped = skipped
        self.captions = {int(row.clip_id, 16): row for row in Caption.from_table(_table(folder / "captions.parquet"))}
        self.reasons = [row.reason for row in SkippedRow.from_table(_table(folder / "skips.parquet"))]
        self.windows = CaptionWindow.from_table(_table(folder / "caption_windows.parquet"))
        self.bytes = [(folder / name).read_bytes() for name in TABLES]

    @property
    def words(self) -> dict[int, str]:
        """Clip -> caption."""
        return {number: row.caption for number, row in self.captions.items()}


def _table(path: Path) -> Any:
    return pq.read_table(path)


def caption(store: Store, clips: Artifact, out: Path, config: CaptionConfig) -> Answer:
    """Caption the part in this process."""
    out.mkdir(parents=True, exist_ok=True)
    (entry,) = clips.parts
    part: Any = SimpleNamespace(
        name="00",
        config=config,
        arguments={"clips": entry.key},
        out=out,
        after_death=False,
        work=Counter(),
        open_store=lambda: store,
    )
    _, skipped = caption_part(part)
    return Answer(out, skipped)


DIES = """
import os, runpy, signal, sys
from wfm.curation.caption.answer_cache import AnswerCache
keep, kept = AnswerCache.keep, []
def keep_some(self, of, text):
    keep(self, of, text)
    kept.append(of)
    if len(kept) == {after}:
        os.kill(os.getpid(), signal.SIGKILL)
AnswerCache.keep = keep_some
runpy.run_module("components.caption_clips", run_name="__main__", alter_sys=True)
"""


def run_stage(store: Store, clips: Artifact, folder: Path, config: CaptionConfig, *, dies_after: int = 0) -> str:
    """The stage as a process; returns its artifact's key, or nothing when it was killed after so many answers."""
    spec = {
        "schema_version": 1, "store": store.url, "run_id": store.runs.create({}).id, "node": "caption_clips",
        "stage": "caption_clips", "component": "caption_clips", "kind": "captions", "config": config.resolved(),
    }  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "spec.json").write_text(json.dumps(spec))
    start = ["-c", DIES.format(after=dies_after)] if dies_after else ["-m", "components.caption_clips"]
    command = [sys.executable, *start, "--spec", str(folder / "spec.json"), "--input", f"clips={clips.key}"]
    done = subprocess.run(
        [*command, "--key-out", str(folder / "key")],
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == (-signal.SIGKILL if dies_after else 0), done.stderr
    return "" if dies_after else (folder / "key").read_text()
