"""Read the signals of every clip of a data set, its sidecars such as actions, that conditions are made of, and make those that
conditions make of frames.

Reads `dataset`; works in its parts, and decodes video for the latter alone. Layout of the output: `wfm.data.signals`.

    python -m components.encode_signals --spec URL --input dataset=KEY --key-out PATH
"""

import json
from typing import Annotated, Any

from components.context import PartContext
from components.entrypoint import Context, Result, main
from wfm.conditions.condition import CONDITIONS, parse
from wfm.config import Config, added
from wfm.data.dataset_parts import part_plan, part_shards
from wfm.registry import Named


class EncodeSignalsConfig(Config):
    """Which signals are read, every sidecar of the splits' clips, and which are made."""

    splits: tuple[str, ...] = ("train", "val", "test")
    "Splits of the data set to read: those that are trained on and those that are predicted."
    mirror_signs: dict[str, tuple[float, ...]] = {}
    """Signal -> what mirroring multiplies each of its components by: -1 where left and right change places. Needed of every
    signal when encode_latents.mirror is on."""
    conditions: Annotated[dict[str, dict[str, Any]], Named(CONDITIONS)] = added({})
    "Conditions that make a signal of a clip's frames: name -> its fields, as the training has them."
    size: tuple[int, int] = added((64, 64))
    "Height and width of the frames that they see [pixels]."


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
    from wfm.conditions.tracks import with_tracks
    from wfm.data.shards import iter_samples
    from wfm.data.signals import write_signals
    from wfm.data.windows import clip_signals

    shards, exclude = part_shards(part.open_store(), part.arguments, part.name, part.config.splits)
    makers = parse(part.config.conditions)
    clips = {
        split: [
            with_tracks(clip_signals(sample), sample, makers, part.config.size)
            for path in paths
            for sample in iter_samples(path)
            if sample.key not in exclude
        ]
        for split, paths in shards.items()
    }
    write_signals(clips, part.out)
    return Result(counts={"clips": sum(map(len, clips.values()))})


CONFIG = EncodeSignalsConfig

if __name__ == "__main__":
    main(__spec__.name, CONFIG, run)
