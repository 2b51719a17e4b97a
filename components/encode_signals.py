"""Read the signals of every clip of a data set, its sidecars such as actions, that conditions are made of.

Reads `dataset`; works in its parts, and decodes no video. Layout of the output: `wfm.data.signals`.

    python -m components.encode_signals --spec URL --input dataset=KEY --key-out PATH
"""

import json

from components.context import PartContext
from components.entrypoint import Context, Result, main
from wfm.config import Config
from wfm.data.dataset_parts import part_plan, part_shards


class EncodeSignalsConfig(Config):
    """Which signals are read: every sidecar of the splits' clips."""

    splits: tuple[str, ...] = ("train", "val", "test")
    "Splits of the data set to read: those that are trained on and those that are predicted."
    mirror_signs: dict[str, tuple[float, ...]] = {}
    """Signal -> what mirroring multiplies each of its components by: -1 where left and right change places. Needed of every
    signal when encode_latents.mirror is on."""


def run(ctx: Context[EncodeSignalsConfig]) -> Result:
    """Every part of the data set, then what the signals mean in all of them."""
    from wfm.data.signals import MEANINGS, merge_meanings

    inputs, arguments = part_plan(ctx.inputs["dataset"], ())
    entries = ctx.map_parts(inputs, read_part, arguments)
    meanings = merge_meanings(json.loads(ctx.store.part(entry.key).fetch(MEANINGS).read_text()) for entry in entries)
    (ctx.out / MEANINGS).write_text(json.dumps(meanings, indent=1, sort_keys=True) + "\n")
    clips = sum(entry.counts["clips"] for entry in entries)
    return Result(counts={"inputs": clips, "outputs": clips}, parts=entries, extra={"signals": sorted(meanings)})


def read_part(part: "PartContext[EncodeSignalsConfig]") -> Result:
    """One part of the data set."""
    from wfm.data.shards import iter_samples
    from wfm.data.signals import write_signals
    from wfm.data.windows import clip_signals

    shards, exclude = part_shards(part.open_store(), part.arguments, part.name, part.config.splits)
    clips = {
        split: [clip_signals(sample) for path in paths for sample in iter_samples(path) if sample.key not in exclude]
        for split, paths in shards.items()
    }
    write_signals(clips, part.out)
    return Result(counts={"clips": sum(map(len, clips.values()))})


CONFIG = EncodeSignalsConfig

if __name__ == "__main__":
    main(__spec__.name, CONFIG, run)
