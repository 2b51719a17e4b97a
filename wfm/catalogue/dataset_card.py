"""`DatasetSheet` -> its card in Markdown: how much there is, what was left out and why, whose it is, what it is not."""

from wfm.catalogue.markdown import code, front_matter, table, text
from wfm.catalogue.sheet import DatasetSheet
from wfm.curation.source.rights import UNKNOWN


def dataset_card(sheet: DatasetSheet, *, with_front_matter: bool = True) -> str:
    """The card."""
    hours = sum(split.seconds for split in sheet.splits.values()) / 3600
    name = sheet.names[0] if sheet.names else f"dataset {sheet.key[:12]}"
    without = sum(sheet.videos_without_clips.values())
    lines = [
        *([*front_matter(_front(sheet)), ""] if with_front_matter else []),
        f"# {text(name)}",
        "",
        f"{sheet.clips:,} clips ({hours:,.2f} h) of {max(sheet.videos_usable - without, 0):,} videos, for training world "
        "models.",
        "",
        *(
            [f"{sheet.images:,} of these are still images: clips of one frame, which add nothing to the hours.", ""]
            if sheet.images
            else []
        ),
        "## Funnel",
        "",
        *table(("step", "count", "left out"), funnel(sheet)),
        "",
        *_reasons("Files not used", sheet.videos_not_used),
        *_reasons("Videos that gave no clip, mostly because", sheet.videos_without_clips),
        *_reasons("Spans not cut", sheet.spans_not_cut),
        *_reasons("Clips refused", sheet.clips_refused),
        "## Splits",
        "",
        "No source video, no session and no group of duplicates is in two splits.",
        "",
        *table(
            ("split", "clips", "sessions", "hours", "shards", "GB"),
            [
                [
                    text(name),
                    f"{one.clips:,}",
                    f"{one.sessions:,}",
                    f"{one.seconds / 3600:.2f}",
                    f"{one.shards:,}",
                    f"{one.bytes / 1e9:.3f}",
                ]
                for name, one in sheet.splits.items()
            ],
            numbers=5,
        ),
        "",
        "## Licence and consent",
        "",
        *_rights(sheet),
        "",
        "## Figures",
        "",
        *_figures(sheet),
        "## Limits",
        "",
        *(f"- {limit}" for limit in limits_of(sheet)),
        "",
        "## How to use it",
        "",
        "WebDataset shards under `shards/SPLIT/`, with tables of every clip, kept or not; the folder's own `README.md` says "
        "what a sample holds and names each column.",
        "",
        "```",
        f"wfm artifacts pull {sheet.names[0] if sheet.names else sheet.key} OUT",
        "```",
        "",
        "## Lineage",
        "",
        f"Data set {code(sheet.key)}.",
        "",
        *table(
            ("made by", "kind", "key", "at"),
            [[text(s.stage), text(s.kind), code(s.key[:12]), text(s.created_at or s.problem)] for s in sheet.lineage],
        ),
        "",
    ]
    return "\n".join(lines)


def _front(sheet: DatasetSheet) -> dict[str, object]:
    return {
        "license": "unknown",
        "task_categories": ["video-to-video"],
        "tags": ["world-model", "webdataset", "video", *(["image"] if sheet.images else [])],
        "size_categories": [_category(sheet.clips)],
    }


def _category(count: int) -> str:
    """How Hugging Face names so many samples."""
    ends = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
    more = ((10**7, "1M<n<10M"), (10**8, "10M<n<100M"), (10**9, "100M<n<1B"))
    return next((name for end, name in (*ends, *more) if count < end), "n>1B")


def funnel(sheet: DatasetSheet) -> list[list[str]]:
    """From files found to clips kept: step, count, what was left out there."""
    without, spans = sum(sheet.videos_without_clips.values()), sum(sheet.spans_not_cut.values())
    return [
        ["files found", f"{sheet.videos:,}", f"{sheet.videos - sheet.videos_usable:,} not used"],
        ["usable videos", f"{sheet.videos_usable:,}", f"{without:,} gave no clip"],
        ["spans found", f"{sheet.clips_cut + spans:,}", f"{spans:,} not cut"],
        ["clips cut", f"{sheet.clips_cut:,}", f"{sheet.clips_cut - sheet.clips:,} refused"],
        ["clips kept", f"{sheet.clips:,}", ""],
    ]


def _reasons(heading: str, counts: dict[str, int]) -> list[str]:
    if not counts:
        return []
    told = ", ".join(f"{text(reason.replace('_', ' '))} {count:,}" for reason, count in sorted(counts.items()))
    return [f"{heading}: {told}.", ""]


def _rights(sheet: DatasetSheet) -> list[str]:
    if not sheet.rights:
        return ["Nothing is stated."]
    rows = [[text(one.licence), text(one.consent), f"{one.videos:,}", f"{one.clips:,}"] for one in sheet.rights]
    return [
        *table(("licence", "consent", "videos", "clips"), rows, numbers=2),
        "",
        "Nobody stated a licence for the collection as a whole; that of each video stands in `videos.parquet`.",
    ]


def _figures(sheet: DatasetSheet) -> list[str]:
    counts = [
        ("captions from", sheet.caption_sources),
        ("pictures", sheet.picture_sizes),
        ("with actions", {"yes": sheet.clips_with_actions, "no": max(sheet.clips - sheet.clips_with_actions, 0)}),
    ]
    lines = []
    for heading, held in counts:
        told = ", ".join(f"{text(name)} {count:,}" for name, count in sorted(held.items()))
        lines += [f"{heading[:1].upper()}{heading[1:]}: {told or 'not known'}.", ""]
    if sheet.scores:
        marks = ("min", "p05", "p50", "p95", "max")
        rows = [
            [text(name), *(f"{found[mark]:.4g}" if mark in found else "–" for mark in marks)]
            for name, found in sheet.scores.items()
        ]
        lines += [*table(("score", "min", "5 %", "median", "95 %", "max"), rows, numbers=5), ""]
    return lines


def limits_of(sheet: DatasetSheet) -> list[str]:
    """What nobody should conclude, in sentences of Markdown."""
    unknown = sum(one.videos for one in sheet.rights if UNKNOWN in (one.licence, one.consent))
    alone = [text(name) for name, split in sheet.splits.items() if split.sessions == 1]
    found = [
        f"{sheet.simulated_videos:,} of {sheet.videos:,} files are simulated: rendered by a physics engine, not "
        "filmed. They say nothing of real video."
        if sheet.simulated_videos
        else "",
        f"For {unknown:,} of {sheet.videos_usable:,} videos licence or consent is unknown: nobody stated it at ingest."
        if unknown
        else "",
        f"One session alone in {', '.join(alone)}: no interval can be given for what is measured there."
        if alone
        else "",
        f"{sheet.clips - sheet.clips_with_actions:,} clips have no actions."
        if sheet.clips > sheet.clips_with_actions
        else "",
        "Captions are made from attributes or by models, not written by people, and were not checked by any."
        if sheet.caption_sources and set(sheet.caption_sources) != {"none"}
        else "There are no captions.",
        "Quantiles, sessions and groups are estimated from a sample." if sheet.estimated else "",
        "Clips that were excluded since stand in the shards still; `.nv-meta/split.yaml` names them.",
    ]
    return [limit for limit in found if limit]
