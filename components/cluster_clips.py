"""``selection``, ``captions`` (and ``embeddings``) -> ``clusters``: what belongs together among the kept clips, with names.

    python -m components.cluster_clips --spec SPEC --input selection=KEY --input captions=KEY [--input embeddings=KEY] \\
        --key-out PATH

Not in the pipeline until something is set for it, such as ``--set cluster_clips.clusters=20``. Writes
``clusters.parquet/<part>.parquet``, whose columns write_shards takes into the public table.
"""

from collections.abc import Mapping
from typing import Any

from components.entrypoint import Context, Result, main
from wfm.curation.rows import ClusterRow
from wfm.curation.select.cluster import ClusterConfig, cluster_rows
from wfm.curation.select.kept_clips import Space, kept_clips
from wfm.models.text.config import TextConfig
from wfm.models.text.identity import encoder_identity
from wfm.parts.tables import write_parts


class ClusterClipsConfig(ClusterConfig):
    """Which vectors are put in clusters, and how."""

    by: Space = "captions"
    "captions: what is said of a clip; looks: its embedding."
    text: TextConfig = TextConfig(encoder="minilm")
    "The sentence encoder, for captions."


def external_inputs(config: ClusterClipsConfig, inputs: Mapping[str, str], store: Any) -> dict[str, str] | None:
    """The text encoder comes from outside, so it enters the key by the hash of its files."""
    return {"text_encoder": encoder_identity(config.text)} if config.by == "captions" else None


def run(ctx: Context[ClusterClipsConfig]) -> Result:
    """Put every kept clip that can be compared in a cluster."""
    from wfm.models.text.sentences import SentenceEncoder

    if ctx.config.by == "looks":
        kept = kept_clips(ctx.inputs["selection"], ctx.inputs["captions"], embeddings=ctx.inputs["embeddings"])
    else:
        encode = SentenceEncoder(ctx.config.text)
        kept = kept_clips(ctx.inputs["selection"], ctx.inputs["captions"], encode=encode)
    found, rows = cluster_rows(kept, ctx.config)
    write_parts(rows, lambda row: kept.part_of[row.clip_id], ClusterRow, ctx.out, "clusters", kept.parts)
    counts = {"inputs": len(kept.clip_ids), "outputs": len(rows), "clusters": len(found.names)}
    return Result(counts=counts, skipped={"not_comparable": len(kept.clip_ids) - len(rows)})


CONFIG = ClusterClipsConfig

if __name__ == "__main__":
    main(__spec__.name, CONFIG, run)
