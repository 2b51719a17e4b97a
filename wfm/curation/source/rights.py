"""What is said of who may do what with a video: by a list (`wfm.records.Rights`), else by its attributes sidecar.

Two copies of the same bytes are one video. When lists say different things of them, all of it stands there. Of simulated
video, which nobody filmed and nobody is in, ``simulated`` is said in place of ``unknown``.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wfm.curation.source.sidecars import read_attributes
from wfm.records import Rights, Video

if TYPE_CHECKING:
    import pyarrow as pa

COLUMNS = ("licence", "consent", "rights_holder", "url")
UNKNOWN = "unknown"
"""What stands where nobody said a video's licence or consent."""
SIMULATED = "simulated"
_SPELLINGS = {"licence": ("licence", "license")}


def with_rights(videos: list[Video], fetch: Any, listed: Iterable[Rights] = ()) -> "pa.Table":
    """The table of videos with the `COLUMNS` of each, ``unknown`` or ``simulated`` where nobody said. ``fetch``: path of a
    sidecar -> file."""
    import pyarrow as pa

    of_bytes: dict[str, list[Rights]] = {}
    for row in listed:
        of_bytes.setdefault(row.video_id or row.source, []).append(row)
    found = []
    for video in videos:
        header = read_attributes(Path(fetch(video.attributes))) if video.attributes else {}
        rows = of_bytes.get(video.video_id or video.source, [])
        unstated = SIMULATED if is_simulated(video.source) else UNKNOWN
        found.append([_listed(rows, name) or _in_sidecar(header, name) or unstated for name in COLUMNS])
    table = Video.to_table(videos)
    for number, name in enumerate(COLUMNS):
        table = table.append_column(name, pa.array([row[number] for row in found], pa.string()))
    return table


def is_simulated(source: str) -> bool:
    """Whether a video was simulated: only `simulate_videos` puts videos into the store."""
    return source.startswith("wfm://")


def _listed(rows: list[Rights], name: str) -> str:
    return " | ".join(sorted({getattr(row, name).strip() for row in rows} - {""}))


def _in_sidecar(header: dict[str, Any], name: str) -> str:
    values = (str(header[key]).strip() for key in _SPELLINGS.get(name, (name,)) if header.get(key) is not None)
    return next((value for value in values if value), "")
