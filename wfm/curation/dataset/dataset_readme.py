"""``README.md`` of a data set: its card in words and tables, for whoever is handed the folder.

What is not known is said to be unknown: a video whose licence or consent nobody stated is counted so, never passed over. What
is wholly empty is named, not shown.
"""

from collections.abc import Iterable
from typing import Any

from wfm.curation.dataset.column_words import PUBLIC, columns_of
from wfm.curation.source.rights import COLUMNS, SIMULATED, UNKNOWN

SHOWN_SOURCES = 100
"""So many source videos are listed with their rights; the rest stand in ``videos.parquet``."""

ENERGON = """\
from dataclasses import dataclass
import json

from megatron.energon import (
    Cooker, DefaultTaskEncoder, Sample, WorkerConfig, basic_sample_keys, get_loader, get_train_dataset, stateless,
)

@dataclass
class Clip(Sample):
    video: bytes  # H.264, HEVC or AV1 in mp4
    caption: str
    facts: dict

@stateless
def cook(sample: dict) -> Clip:
    caption, facts = sample["txt"].decode(), json.loads(sample["json"])
    return Clip(**basic_sample_keys(sample), video=sample["mp4"], caption=caption, facts=facts)

class Clips(DefaultTaskEncoder):
    decoder = None  # members as they lie there
    cookers = (Cooker(cook),)

    def batch(self, samples: list[Clip]) -> list[Clip]:
        return samples

    def encode_batch(self, batch: list[Clip]) -> list[Clip]:
        return batch

worker = WorkerConfig(rank=0, world_size=1, num_workers=0)
dataset = get_train_dataset(
    ".", task_encoder=Clips(), worker_config=worker, batch_size=8, shuffle_buffer_size=100, max_samples_per_sequence=100
)
for batch in get_loader(dataset):  # without end
    ...
"""
"""How Megatron-Energon is told to read a data set: it knows nothing of our members, so a cooker names them. Tests run it."""

ENERGON_WITH_IMAGES = ENERGON.replace(
    "    video: bytes  # H.264, HEVC or AV1 in mp4\n",
    "    kind: str  # video or image\n    data: bytes  # H.264, HEVC or AV1 in mp4; or jpg, png, webp\n",
).replace(
    'return Clip(**basic_sample_keys(sample), video=sample["mp4"], caption=caption, facts=facts)',
    'kind, data = facts.get("kind", "video"), next(sample[part] for part in ("mp4", "jpg", "png", "webp") if part in sample)\n'
    "    return Clip(**basic_sample_keys(sample), kind=kind, data=data, caption=caption, facts=facts)",
)
"""The same for a data set that holds still images too."""

_EXCLUDED = "**Excluded since:**"

Source = tuple[str, ...]
"""(name, video id, licence, consent, rights holder, url)."""


def readme(card: dict[str, Any], sources: Iterable[Source]) -> str:
    """The page; `sources` are the first usable videos, at most `SHOWN_SOURCES`."""
    lines = [
        *_beginning(card),
        "## Splits",
        "",
        "No source video, no session and no group of duplicates is in two splits.",
        "",
        *_splits(card),
        "",
        "## Licence and consent",
        "",
        *_rights(card, sources),
        "",
        "## What was left out",
        "",
        *_left_out(card),
        "## What is in it",
        "",
        *_contents(card),
        "## Megatron-Energon",
        "",
        "A sample is what the shard holds; a cooker says what a trainer makes of it:",
        "",
        "```python",
        *(ENERGON_WITH_IMAGES if "images" in card else ENERGON).splitlines(),
        "```",
        "",
        "## Columns",
        "",
        *_columns(card["filled_columns"]),
    ]
    return "\n".join(lines)


def _beginning(card: dict[str, Any]) -> list[str]:
    """How much there is, and how to read it."""
    clips, videos = card["clips"], card["videos"]
    seconds = sum(split["seconds"] for split in card["splits"].values())
    simulated = videos["simulated"]
    title = {0: "Video clips", videos["total"]: "Simulated video clips"}.get(simulated, "Video clips, some simulated")
    without = sum(card["videos_without_clips"].values())
    spans = sum(found["spans"] for found in card["spans_not_cut"].values())
    images = card.get("images", {})
    title += " and still images" if images else ""
    sources = "videos and images" if images else "videos"
    return [
        f"# {title} for training world models",
        "",
        *_images(images),
        f"{clips['kept']:,} clips ({seconds / 3600:,.2f} h) from {videos['ok'] - without:,} {sources}. Of {videos['total']:,} "
        f"files {videos['total'] - videos['ok']:,} were not used and {without:,} gave no clip; of "
        f"{clips['total'] + spans:,} spans {spans:,} were not cut and {clips['total'] - clips['kept']:,} were refused as "
        "clips. The reasons stand below.",
        "",
        *(
            [f"{simulated:,} of the files are simulated: rendered by a physics engine, not filmed.", ""]
            if simulated
            else []
        ),
        "WebDataset shards under `shards/<split>/`; Megatron-Energon opens the folder as it is (below). A sample has",
        "`.mp4`, `.json` (facts, scores, caption), `.txt` (caption), and where known `.emb.npy` and `.actions.parquet`.",
        "`clips.parquet` has every clip ever cut, kept or not; `skips.parquet` every span that was not cut; `videos.parquet`",
        "every input file with its rights. What `exclude` of `.nv-meta/split.yaml` names (shards, and samples as `shard/key`)",
        "is still in the shards: Energon and `wfm` leave it out, other readers must do so themselves",
        "(`wfm.data.exclusions.exclusions_of`).",
        "",
    ]


def _images(images: dict[str, int]) -> list[str]:
    """How many of the clips are still images, and what they look like; nothing where none is."""
    if not images:
        return []
    return [
        f"{images['kept']:,} of the clips below are still images, of {images['total']:,} from {images['files']:,} image files;",
        "they count as clips of one frame, add nothing to the hours, and lie in shards of their own (`image…`). In place of",
        "`.mp4` such a sample has `.jpg`, `.png` or `.webp`: upright, 8 bits, grey or RGB, sRGB, opaque; its `.json` says",
        "`kind: image`. Scores that take time are null.",
        "",
    ]


def _splits(card: dict[str, Any]) -> list[str]:
    """What there is of each split; still images, which are among the clips, where there are any."""
    images = "images" in card
    return _table(
        ("split", "clips", *(["images"] if images else []), "sessions", "hours", "shards", "GB"),
        [
            (
                name,
                s["clips"],
                *([s.get("images", 0)] if images else []),
                s["sessions"],
                f"{s['seconds'] / 3600:.2f}",
                s["shards"],
                f"{s['bytes'] / 1e9:.3f}",
            )
            for name, s in card["splits"].items()
        ],
    )


def with_excluded(page: str, entries: int) -> str:
    """The page after clips were left out of a finished data set: a line below the title, in place of an earlier one."""
    lines = [line for line in page.split("\n") if not line.startswith(_EXCLUDED)]
    note = f"{_EXCLUDED} {entries:,} clips or shards (`.nv-meta/split.yaml`); the figures below are of all that was written."
    return "\n".join([*lines[:1], *([note] if entries else []), *lines[1:]])


def _rights(card: dict[str, Any], sources: Iterable[Source]) -> list[str]:
    listed = list(sources)
    of_right = card["rights"]
    unknown = sum(right["videos"] for right in of_right if UNKNOWN in (right["licence"], right["consent"]))
    lines = [
        f"For {unknown:,} of {card['videos']['ok']:,} videos licence or consent is unknown: nobody stated it at ingest.",
        "",
        *_table(
            ("licence", "consent", "videos", "clips"),
            [(r["licence"], r["consent"], r["videos"], r["clips"]) for r in of_right],
        ),
    ]
    stated = [k for k in range(len(COLUMNS)) if any(row[2 + k] not in (UNKNOWN, SIMULATED) for row in listed)]
    if not stated:
        return [*lines, "", "Of no video anything is stated beyond that."]
    heads = ("video", "id", *(COLUMNS[k].replace("_", " ") for k in stated))
    lines += ["", *_table(heads, [(row[0], row[1][:16], *(row[2 + k] for k in stated)) for row in listed])]
    if len(listed) < card["videos"]["ok"]:
        lines += ["", f"The other {card['videos']['ok'] - len(listed):,} videos: columns of `videos.parquet`."]
    return lines


def _left_out(card: dict[str, Any]) -> list[str]:
    """Files, videos, spans and clips, counted by reason."""
    return [
        *_table(("files not used because", "files"), list(card["videos_not_used"].items())),
        "",
        *_table(("videos that gave no clip, mostly because", "videos"), list(card["videos_without_clips"].items())),
        "",
        *_table(
            ("spans not cut because", "spans", "hours"),
            [(code, f["spans"], f"{f['seconds'] / 3600:.2f}") for code, f in card["spans_not_cut"].items()],
        ),
        "",
        *_table(("clips refused because", "clips"), list(card["clips_refused"].items())),
        "",
    ]


def _contents(card: dict[str, Any]) -> list[str]:
    """Clips counted by what they are, and the scores of those that are kept."""
    return [
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


def _columns(filled: dict[str, list[str]]) -> list[str]:
    """Every column of the public tables with its meaning; those that hold nothing here by name alone."""
    lines = []
    for table in PUBLIC:
        if table not in filled:
            lines += [f"`{table}` is empty.", ""]
            continue
        words = columns_of(table)
        empty = [name for name in words if name not in filled[table]]
        lines += [*_table((table, "meaning"), [(name, words[name]) for name in words if name not in empty]), ""]
        if empty:
            lines += [f"Empty in this data set: {', '.join(f'`{name}`' for name in empty)}.", ""]
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
