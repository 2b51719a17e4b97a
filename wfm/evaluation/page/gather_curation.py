"""The curation section: what was found, what was kept, and examples of what was left out and why."""

import base64
import functools
from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any

import numpy as np

from wfm.curation.measure.measurements import measurements
from wfm.curation.step import reason_code
from wfm.errors import WfmError
from wfm.evaluation.page.data import FunnelStep, Rejected, Segment, short_source
from wfm.log import get_logger

if TYPE_CHECKING:
    from wfm.artifacts import Artifact

SPLITS = ("train", "val", "test")
STRIP_HEIGHT = 90


def words(reason: str) -> str:
    """A reason's code as words."""
    return reason.replace("_", " ")


def funnel(dataset: "Artifact | None") -> list[FunnelStep]:
    """Files found, clips cut, clips kept, each with what happened to it; empty without a data set."""
    if dataset is None:
        return []
    videos = dataset.table("videos", ["status", "reason"]).to_pylist()
    clips = dataset.table("clips", ["kept", "reason", "split"]).to_pylist()
    unused = Counter(reason_code(v["reason"]) or v["status"] for v in videos if v["status"] != "ok")
    refused = Counter(clip["reason"] for clip in clips if not clip["kept"])
    kept = Counter(clip["split"] for clip in clips if clip["kept"])
    return [
        _step("files found", len(videos), "cut into clips", unused),
        _step("clips cut", len(clips), "kept", refused),
        FunnelStep(
            title="clips kept",
            count=sum(kept.values()),
            segments=[
                Segment(name=split, count=kept.get(split, 0), kind="part")
                for split in (*SPLITS, *sorted(set(kept) - set(SPLITS)))
            ],
        ),
    ]


def _step(title: str, count: int, kept: str, lost: Counter[str]) -> FunnelStep:
    first = Segment(name=kept, count=count - sum(lost.values()), kind="kept")
    gone = [Segment(name=words(reason), count=number, kind="lost") for reason, number in lost.most_common()]
    return FunnelStep(title=title, count=count, segments=[first, *gone])


def rejected(dataset: "Artifact | None", clips: "Artifact | None", number: int) -> list[Rejected]:
    """Up to `number` clips that were left out, in turn over the reasons, with three frames each."""
    if dataset is None or clips is None or not number:
        return []
    by_reason: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in sorted(dataset.table("clips").to_pylist(), key=lambda row: row["clip_id"]):
        if not row["kept"]:
            by_reason[row["reason"]].append(row)
    found: list[Rejected] = []
    turn = 0
    while len(found) < number and any(len(rows) > turn for rows in by_reason.values()):
        for reason in sorted(by_reason):
            if len(by_reason[reason]) > turn and len(found) < number:
                shown = _show(by_reason[reason][turn], clips)
                if shown is not None:
                    found.append(shown)
        turn += 1
    return sorted(found, key=lambda one: one.reason)


def _show(row: dict[str, Any], clips: "Artifact") -> Rejected | None:
    """One clip; None (and a line in the log) where its frames cannot be read any more."""
    path = _clip_path(row, clips)
    try:
        strip = filmstrip(str(clips.fetch(path))) if path else None
    except WfmError as error:
        get_logger(__name__).warning("no frames of rejected clip %s: %s", row["clip_id"][:12], error)
        return None
    if strip is None:
        return None
    return Rejected(
        reason=words(row["reason"]),
        detail=detail(row),
        source=short_source(row["source"]),
        span=f"{row['start_seconds']:.2f}–{row['end_seconds']:.2f} s",
        jpeg_base64=base64.b64encode(strip).decode(),
    )


def _clip_path(row: dict[str, Any], clips: "Artifact") -> str:
    """Where a clip's file lies: in the part whose name its video's id begins with."""
    for entry in clips.iterate_parts():
        path = f"parts/{entry.name}/clips/{row['clip_id']}.mp4"
        if row["video_id"].startswith(entry.name) and clips.has_file(path):
            return path
    return ""


def detail(row: dict[str, Any]) -> str:
    """What was measured that speaks for the reason; "" where there is nothing to say."""
    if row["reason"] == "duplicate":
        how = "same bytes as" if row["duplicate_tier"] == "bytes" else f"cosine {row['duplicate_cosine']:.3f} with"
        return f"{how} clip {row['duplicate_of'][:12]}"
    column, form = _evidence().get(row["reason"], ("", ""))
    value = row.get(column)
    return form.format(value) if value is not None else ""


@functools.cache
def _evidence() -> dict[str, tuple[str, str]]:
    """Reason -> the number that shows it, and that in words."""
    declared = {limit.reason: (row.name, row.evidence(limit)) for row in measurements() for limit in row.limits}
    return {"too_short": ("num_frames", "{:.0f} frames"), **declared}


def filmstrip(path: str) -> bytes:
    """First, middle and last frame of a clip as one JPEG. Raises DataError for a file that cannot be read."""
    import cv2

    from wfm.data.decode import read_frames

    frames, _ = read_frames(path)
    height, width = frames.shape[1:3]
    size = (max(2, round(width * STRIP_HEIGHT / height)), STRIP_HEIGHT)
    three = [
        cv2.resize(frames[at], size, interpolation=cv2.INTER_AREA) for at in (0, len(frames) // 2, len(frames) - 1)
    ]
    done, data = cv2.imencode(".jpg", np.hstack(three)[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 80])
    if not done:
        raise ValueError(f"{path}: its frames could not be written as JPEG")
    return bytes(data.tobytes())
