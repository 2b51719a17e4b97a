"""Encode every window of a data set once: latents or tokens.

Reads `dataset` and `tokenizer`; works in the data set's parts. Layout of the output: `wfm.training.encode`.

    python -m components.encode_latents --spec URL --input dataset=KEY --input tokenizer=KEY --key-out PATH
"""

from collections import Counter

from components.context import PartContext
from components.entrypoint import Context, Result, main
from wfm.data.dataset_parts import VIDEO, part_plan, part_shards
from wfm.training.encode_config import EncodingConfig


class EncodeLatentsConfig(EncodingConfig):
    """Which windows are encoded; see `wfm.training.config`."""


def run(ctx: Context[EncodeLatentsConfig]) -> Result:
    """Every part of the data set, then statistics of the whole, and what Energon reads beside the shards."""
    from wfm.data.energon import write_energon
    from wfm.training.encode import REASONS
    from wfm.training.moments import write_summary

    tokenizer = ctx.inputs["tokenizer"]
    weights = sorted((entry.path, entry.sha256) for entry in tokenizer.files("model/"))
    inputs, arguments = part_plan(ctx.inputs["dataset"], VIDEO, {"tokenizer": weights})
    entries = ctx.map_parts(
        inputs, encode_part, {name: {**one, "tokenizer": tokenizer.key} for name, one in arguments.items()}
    )
    folders = []
    for entry in entries:
        folders.append(ctx.scratch / "summary" / entry.name)
        ctx.store.part(entry.key).fetch_tree("moments.json", folders[-1])
    write_summary(folders, ctx.out)
    tables = (ctx.store.part(entry.key).table("members") for entry in entries)
    write_energon(tables, ctx.config.splits, ctx.out)
    counts = Counter[str]()
    for entry in entries:
        counts.update(entry.counts)
    return Result(
        counts={
            "inputs": counts["clips"],
            "outputs": counts["windows"],
            "frames_left_over": counts["frames_left_over"],
        },
        skipped={reason: counts[reason] for reason in REASONS},
        parts=entries,
    )


def encode_part(part: "PartContext[EncodeLatentsConfig]") -> Result:
    """One part of the data set."""
    from wfm.training.encode import encode_part as encoded

    shards, exclude = part_shards(part.open_store(), part.arguments, part.name, part.config.splits)
    made = encoded(part, shards, exclude)
    return Result(counts={"inputs": 0, "outputs": made["windows"], **made})


CONFIG = EncodeLatentsConfig

if __name__ == "__main__":
    main(__spec__.name, CONFIG, run)
