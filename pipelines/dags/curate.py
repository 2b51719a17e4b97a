"""Raw video -> a curated dataset, published as ``dataset/curated`` (`promotion`).

videos ─ ingest ─ split ─┬─ score ───┐
(a folder, a bucket,     ├─ caption ─┼─ select ─┬──────────────┬─ write_shards ─> dataset
 or simulate)            └─ embed ─ dedup       └ cluster, classify

The stages of `OPTIONAL` are there only if a setting is made for them. A clip is decoded once for its scores and its embedding:
score makes both, embed takes over what it finds.
"""

from pipelines.dags.graph import Graph, GraphNode, Settings, following, node
from pipelines.dags.promotion import Promotion

OPTIONAL = {"cluster_clips": "clusters", "classify_clips": "categories"}
"""Stage -> the input of write_shards that it makes."""


def curate(settings: Settings, videos: str, names: Promotion) -> Graph:
    """The curation of ``videos``, or of simulated ones when it is empty."""
    return Graph(name="curate", nodes=curation_nodes(settings, videos, names))


def curation_nodes(settings: Settings, videos: str, names: Promotion) -> tuple[GraphNode, ...]:
    """The nodes up to the dataset."""
    if videos:
        settings = {**settings, "ingest_videos": {**settings.get("ingest_videos", {}), "videos": videos}}
        first: tuple[GraphNode, ...] = (node("ingest_videos", "ingest_videos", settings),)
    else:
        first = (
            node("simulate_videos", "simulate_videos", settings),
            node("ingest_videos", "ingest_videos", settings, raw="simulate_videos"),
        )
    return (
        *first,
        node("split_clips", "split_clips", settings, videos="ingest_videos"),
        following(node("score_clips", "score_clips", settings, clips="split_clips"), embed="embed_clips"),
        node("caption_clips", "caption_clips", settings, clips="split_clips"),
        node("embed_clips", "embed_clips", settings, clips="split_clips", scores="score_clips"),
        node(
            "dedup_clips", "dedup_clips", settings, clips="split_clips", embeddings="embed_clips", scores="score_clips"
        ),
        node(
            "select_clips",
            "select_clips",
            settings,
            clips="split_clips",
            scores="score_clips",
            duplicates="dedup_clips",
            embeddings="embed_clips",
        ),
        *(
            node(name, name, settings, selection="select_clips", captions="caption_clips", embeddings="embed_clips")
            for name in OPTIONAL
            if name in settings
        ),
        node(
            "write_shards",
            "write_shards",
            settings,
            promote=names.of_dataset(),
            videos="ingest_videos",
            clips="split_clips",
            scores="score_clips",
            captions="caption_clips",
            selection="select_clips",
            embeddings="embed_clips",
            **{made: name for name, made in OPTIONAL.items() if name in settings},
        ),
    )
