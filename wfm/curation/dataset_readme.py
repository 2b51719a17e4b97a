"""``README.md`` of a data set: its card in words and tables, for whoever is handed the folder.

What is not known is said to be unknown: a video whose licence or consent nobody stated is listed so, never passed over.
"""

from collections.abc import Iterable
from typing import Any

from wfm.curation.dataset_card import UNKNOWN

SHOWN_SOURCES = 100
"""So many source videos are listed with their rights; the rest stand in ``videos.parquet``."""

_EXCLUDED = "**Excluded since:**"

Source = tuple[str, ...]
"""(name, video id, licence, consent, rights holder, url)."""


def readme(card: dict[str, Any], sources: Iterable[Source]) -> str:
    """The page; `sources` are the first usable videos, at most `SHOWN_SOURCES`."""
    clips, videos = card["clips"], card["videos"]
    seconds = sum(split["seconds"] for split in card["splits"].values())
    lines = [
        "# Video clips for training world models",
        "",
        f"{clips['kept']:,} clips ({seconds / 3600:,.2f} h) from {videos['ok']:,} videos. Refused: "
        f"{clips['total'] - clips['kept']:,} of {clips['total']:,} clips; not used: {videos['total'] - videos['ok']:,} of "
        f"{videos['total']:,} files; the reasons stand below.",
        "",
        "WebDataset shards under `shards/<split>/`; Megatron-Energon opens the folder as it is (`.nv-meta/`). A sample has",
        "`.mp4`, `.json` (facts, scores, caption), `.txt` (caption), and where known `.emb.npy` and `.actions.parquet`.",
        "`clips.parquet` has every clip ever cut, kept or not; `videos.parquet` every input file with its rights. What",
        "`exclude` of `.nv-meta/split.yaml` names (shards, and samples as `shard/key`) is still in the shards: Energon and",
        "`wfm` leave it out, other readers must do so themselves (`wfm.data.exclusions.exclusions_of`).",
        "",
        "## Splits",
        "",
        "No source video, no session and no group of duplicates is in two splits.",
        "",
        *_table(
            ("split", "clips", "sessions", "hours", "shards", "GB"),
            [
                (name, s["clips"], s["sessions"], f"{s['seconds'] / 3600:.2f}", s["shards"], f"{s['bytes'] / 1e9:.3f}")
                for name, s in card["splits"].items()
            ],
        ),
        "",
        "## Licence and consent",
        "",
        *_rights(card, sources),
        "",
        "## What was left out",
        "",
        *_table(("clips refused because", "clips"), list(card["clips_refused"].items())),
        "",
        *_table(("files not used because", "files"), list(card["videos_not_used"].items())),
        "",
        "## What is in it",
        "",
        *_table(("bin", "clips"), list(card["bins"].items())),
        "",
        *_table(("captions from", "clips"), list(card["caption_sources"].items())),
        "",
        *_counted("category", card["categories"]),
        *_counted("cluster", card["clusters"]),
        *_counted("type of video", card["video_types"]),
        "Scores of the kept clips"
        + (" (quantiles and sessions estimated from a sample):" if card["estimated"] else ":"),
        "",
        *_table(
            ("score", "min", "5 %", "median", "95 %", "max"),
            [(name, *(f"{value:.4g}" for value in s.values())) for name, s in card["scores_kept"].items()],
        ),
        "",
    ]
    return "\n".join(lines)


def with_excluded(page: str, entries: int) -> str:
    """The page after clips were left out of a finished data set: a line below the title, in place of an earlier one."""
    lines = [line for line in page.split("\n") if not line.startswith(_EXCLUDED)]
    note = f"{_EXCLUDED} {entries:,} clips or shards (`.nv-meta/split.yaml`); the figures below are of all that was written."
    return "\n".join([*lines[:1], *([note] if entries else []), *lines[1:]])


def _rights(card: dict[str, Any], sources: Iterable[Source]) -> list[str]:
    listed = list(sources)
    unknown = sum(r["videos"] for r in card["rights"] if UNKNOWN in (r["licence"], r["consent"]))
    lines = [
        f"For {unknown:,} of {card['videos']['ok']:,} videos licence or consent is unknown: nobody stated it at ingest.",
        "",
        *_table(
            ("licence", "consent", "videos", "clips"),
            [(r["licence"], r["consent"], r["videos"], r["clips"]) for r in card["rights"]],
        ),
        "",
        *_table(
            ("video", "id", "licence", "consent", "rights holder", "url"),
            [(name, key[:16], *rest) for name, key, *rest in listed],
        ),
    ]
    if len(listed) < card["videos"]["ok"]:
        lines += ["", f"The other {card['videos']['ok'] - len(listed):,} videos: columns of `videos.parquet`."]
    return lines


def _counted(name: str, counts: dict[str, int]) -> list[str]:
    """A table of clips by something that not every data set has."""
    return [*_table((name, "clips"), list(counts.items())), ""] if counts else []


def _table(heads: tuple[str, ...], rows: list[tuple[Any, ...]]) -> list[str]:
    if not rows:
        return [f"({heads[0]}: none)"]
    cells = [[_cell(value) for value in row] for row in rows]
    return ["| " + " | ".join(row) + " |" for row in (list(heads), ["---"] * len(heads), *cells)]


def _cell(value: Any) -> str:
    """A table cell; text from outside cannot break the table or become markup."""
    text = f"{value:,}" if isinstance(value, int) else str(value)
    for mark in "\\|`<>[]*_":
        text = text.replace(mark, "\\" + mark)
    return " ".join(text.split())
