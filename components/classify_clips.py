"""``selection``, ``captions`` (and ``embeddings``) -> ``categories``: a category for every kept clip, and its weight.

    python -m components.classify_clips --spec SPEC --input selection=KEY --input captions=KEY [--input embeddings=KEY] \\
        --key-out PATH

Not in the pipeline until something is set for it, such as ``--set classify_clips.categories='{"snow": ["It snows."], ...}'``.
Writes ``categories.parquet/<part>.parquet``, whose columns write_shards takes into the public table, and
``mixture.parquet/<part>.parquet``, which train_world_model draws its samples by: other weights rewrite no shard.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from components.entrypoint import Context, Result, main
from wfm.config import how
from wfm.curation.rows import CategoryRow, MixtureRow
from wfm.curation.select.kept_clips import Space, kept_clips
from wfm.curation.select.taxonomy import TaxonomyConfig, classify_kept
from wfm.models.text.config import TextConfig
from wfm.models.text.identity import encoder_identity
from wfm.parts.tables import write_parts


class ClassifyClipsConfig(TaxonomyConfig):
    """The categories, and what a clip is judged by."""

    by: Space = "captions"
    "captions: what is said of a clip; looks: its embedding, if a CLIP made it, whose text tower then reads the descriptions."
    text: TextConfig = TextConfig(encoder="minilm")
    "The sentence encoder, for captions."
    weights: str = how("")
    "For looks: local folder of the CLIP; empty: where embed_clips found it."


def external_inputs(config: ClassifyClipsConfig, inputs: Mapping[str, str], store: Any) -> dict[str, str] | None:
    """The text encoder comes from outside, so it enters the key by the hash of its files; a CLIP's is in that of the
    embeddings."""
    return {"text_encoder": encoder_identity(config.text)} if config.by == "captions" else None


def run(ctx: Context[ClassifyClipsConfig]) -> Result:
    """Judge every kept clip."""
    from wfm.curation.embed.text_tower import text_tower_of
    from wfm.models.text.sentences import SentenceEncoder

    config, selection, captions = ctx.config, ctx.inputs["selection"], ctx.inputs["captions"]
    encode: Any
    if config.by == "looks":
        encode = text_tower_of(ctx.inputs["embeddings"], config.weights)
        kept = kept_clips(selection, captions, embeddings=ctx.inputs["embeddings"])
    else:
        encode = SentenceEncoder(config.text)
        kept = kept_clips(selection, captions, encode=encode)
    found = classify_kept(kept, encode, config)
    empty = [name for name in config.categories if name not in found.mixture.clips]
    if empty:
        ctx.log.warning("no clip to train on is %s: nothing of it will be drawn", ", ".join(empty))
    write_parts(found.categories, lambda row: kept.part_of[row.clip_id], CategoryRow, ctx.out, "categories", kept.parts)
    write_parts(found.weights, lambda row: kept.part_of[row.clip_id], MixtureRow, ctx.out, "mixture", kept.parts)
    clips = len(kept.clip_ids)
    return Result(
        counts={"inputs": clips, "outputs": clips, "categories": len(found.mixture.clips)},
        extra={"mixture": dataclasses.asdict(found.mixture), "empty": empty},
    )


CONFIG = ClassifyClipsConfig

if __name__ == "__main__":
    main(__spec__.name, CONFIG, run)
