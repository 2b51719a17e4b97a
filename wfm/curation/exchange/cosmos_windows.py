"""Captions of a clip's windows, as cosmos-curate's metas hold them, to and from rows of ``caption_windows``.

There ``end_frame`` is the last frame of a window, here the one after it. There a caption's name begins with the model's; a
rewritten one is ``{model}_enhanced_caption``. Rows are dicts with the columns of `wfm.curation.rows.CaptionWindow`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from wfm.curation.source.untrusted_rows import count_of

REWRITTEN = ("long", "medium", "short")
_ENHANCED, _PLAIN = "_enhanced_caption", "_caption"
_FRAMES = ("start_frame", "end_frame")


def to_windows(rows: Sequence[Mapping[str, Any]], num_frames: int, caption: str, model: str) -> list[dict[str, Any]]:
    """``windows`` of a meta. A clip of which no window was captioned by itself has one, with the whole clip's caption."""
    if not rows:
        whole: dict[str, Any] = {"start_frame": 0, "end_frame": num_frames - 1}
        return [{**whole, f"{model or 'wfm'}{_PLAIN}": caption} if caption else whole]
    found = []
    for row in sorted(rows, key=lambda row: row["start_frame"]):
        window = {"start_frame": row["start_frame"], "end_frame": row["end_frame"] - 1}
        window[f"{row['model']}{_PLAIN}"] = row["caption"]
        if better := next((row[length] for length in REWRITTEN if row[length]), ""):
            window[f"{row['model']}{_ENHANCED}"] = better
        found.append(window)
    return found


def from_windows(windows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rows, without the clip they are of, of the windows that have a caption; of several models the first by name.

    Raises KeyError, TypeError or ValueError for windows that are none.
    """
    found = []
    for window in windows:
        start, end = (count_of(window[name]) for name in _FRAMES)
        if not 0 <= start <= end:
            raise ValueError(f"window of frames {start} to {end}")
        said = {
            name: text
            for name, text in sorted(window.items())
            if name.endswith(_PLAIN) and isinstance(text, str) and text
        }
        if not said:
            continue
        model = min(name.removesuffix(_ENHANCED if name.endswith(_ENHANCED) else _PLAIN) for name in said)
        plain, better = said.get(f"{model}{_PLAIN}", ""), said.get(f"{model}{_ENHANCED}", "")
        row = {
            "start_frame": start,
            "end_frame": end + 1,
            "caption": plain or better,
            "model": model,
            "prompt_sha256": "",
        }
        found.append({**row, "long": better})
    return found


def caption_of(rows: Sequence[Mapping[str, Any]]) -> tuple[str, str]:
    """(caption of the clip, its model) of rows from `from_windows`: what is said of its windows, one after the other."""
    if not rows:
        return "", ""
    return " ".join(row["long"] or row["caption"] for row in rows), str(rows[0]["model"])
