"""THE table: every stage, what it takes, what it gives, and what it needs to run. Read it top to bottom: it is the flow.

A stage and its component have one name. ``inputs`` maps an input's name to the kind of artifact it must be; a trailing
``?`` marks one that may be absent. ``kind`` says how an engine on a cluster runs it: ``container`` (one pod), ``daskjob``
(a Dask cluster of workers) or ``torchjob`` (ranks). ``version`` is raised by hand when a change is meant to make new results;
an unmeant change shows as a stale lock (`lock.py`). What a stage needs to run is a matter of node and profile
(``resources`` in a recipe, ``--set NODE.resources.gpu=8``); here stand defaults for a laptop.
"""

from collections.abc import Collection

from wfm.cluster.resources import Kind, Resources
from wfm.cluster.settings import Image
from wfm.config import AboveZero, Config, Natural
from wfm.errors import ConfigError

__all__ = ["STAGES", "TABLE", "Image", "Kind", "Resources", "StageRow", "stage"]


class StageRow(Config):
    """One row of the table."""

    name: str
    "Stage, and component ``components/<name>.py``."
    inputs: dict[str, str] = {}
    """Input name -> kind of artifact; a trailing ``?`` on the kind: may be absent. A trailing ``*`` on the name: one for each
    family or the like, any number; where the same name without it stands there too, they may take its place."""
    output: str
    "Kind of artifact it commits."
    image: Image
    "Which of ``images/`` it runs in."
    resources: Resources = Resources()
    "What a node of it needs where its profile says nothing: a laptop's share."
    retries: Natural = 3
    "Further tries when the outcome says ``try_again`` or the process was killed."
    timeout_seconds: AboveZero = 3600.0
    "Wall time one attempt may take [s]."
    kind: Kind = "container"
    version: int = 1
    deterministic: bool = True
    "Whether the same key always means the same bytes on one machine (checked by ``tests/faults``)."
    reads_truth: bool = False
    "Whether it may open what only simulation knows (tests and evaluation)."
    watches: bool = False
    "Whether a node of it without inputs looks at files outside: they may change, so its key is sure when it has run."

    def kind_of(self, name: str) -> str:
        """Kind of the input `name`, with its ``?``; empty for an input that the stage does not have."""
        if name in self.inputs:
            return self.inputs[name]
        several = (kind for known, kind in self.inputs.items() if known.endswith("*") and name.startswith(known[:-1]))
        return next(several, "")

    def lacking(self, given: Collection[str]) -> list[str]:
        """Inputs that must be there and are not among those ``given``."""
        needed = [name for name, kind in self.inputs.items() if not kind.endswith("?") and not name.endswith("*")]
        return [
            name
            for name in needed
            if name not in given
            and not (f"{name}_*" in self.inputs and any(each.startswith(f"{name}_") for each in given))
        ]

    @property
    def component(self) -> str:
        """Module below ``components``."""
        return self.name


def _row(
    name: str,
    inputs: dict[str, str],
    output: str,
    image: Image,
    *,
    cpu: float = 1.0,
    memory_gib: float = 2.0,
    **more: object,
) -> StageRow:
    resources = Resources(cpu=cpu, memory_gib=memory_gib)
    return StageRow.parse(
        {"name": name, "inputs": inputs, "output": output, "image": image, "resources": resources, **more}
    )


# fmt: off
TABLE: tuple[StageRow, ...] = (
    # raw video -> a curated dataset
    _row("simulate_videos", {}, "raw_videos", "curation", kind="daskjob", cpu=2, memory_gib=3,
         timeout_seconds=7200, version=2),
    _row("ingest_videos", {"raw": "raw_videos?"}, "videos", "curation", kind="daskjob", cpu=2, version=3, watches=True),
    _row("split_clips", {"videos": "videos"}, "clips", "curation", kind="daskjob", cpu=2, version=4),
    _row("score_clips", {"clips": "clips"}, "scores", "curation", kind="daskjob", cpu=2,
         version=4),
    _row("caption_clips", {"clips": "clips"}, "captions", "curation", kind="daskjob", cpu=1),
    _row("embed_clips", {"clips": "clips", "scores": "scores?"}, "embeddings", "curation", kind="daskjob", cpu=2),
    _row("dedup_clips", {"clips": "clips", "embeddings": "embeddings", "scores": "scores"}, "duplicates", "curation",
         version=3),
    _row("select_clips", {"clips": "clips", "scores": "scores", "duplicates": "duplicates", "embeddings": "embeddings?"},
         "selection", "curation"),
    _row("cluster_clips", {"selection": "selection", "captions": "captions", "embeddings": "embeddings?"}, "clusters",
         "training", memory_gib=3),
    _row("classify_clips", {"selection": "selection", "captions": "captions", "embeddings": "embeddings?"}, "categories",
         "training", memory_gib=3),
    _row("write_shards", {"videos": "videos", "clips": "clips", "scores": "scores", "captions": "captions",
                          "selection": "selection", "embeddings": "embeddings?", "clusters": "clusters?",
                          "categories": "categories?"}, "dataset", "curation", kind="daskjob", cpu=2, version=6),
    # dataset -> models
    _row("train_tokenizer", {"dataset": "dataset"}, "tokenizer", "training", kind="torchjob", memory_gib=2.5,
         timeout_seconds=7 * 86400, version=3),
    _row("encode_latents", {"dataset": "dataset", "tokenizer": "tokenizer"}, "latents", "training", kind="daskjob", version=5),
    _row("encode_signals", {"dataset": "dataset"}, "signals", "curation", kind="daskjob"),
    _row("encode_text", {"dataset": "dataset"}, "text", "training", kind="daskjob"),
    _row("train_world_model", {"latents": "latents", "latents_*": "latents", "tokenizer": "tokenizer", "signals": "signals?",
                               "signals_*": "signals", "text": "text?", "text_*": "text", "mixture": "categories?"},
         "world_model", "training", kind="torchjob", memory_gib=2.5, timeout_seconds=30 * 86400, version=6),
    _row("train_decoder", {"latents": "latents", "tokens": "latents", "tokenizer": "tokenizer",
                           "tokenizer_discrete": "tokenizer"}, "decoder", "training", kind="torchjob", memory_gib=2.5,
         timeout_seconds=7 * 86400, version=3),
    # models -> futures, figures, names
    _row("generate_videos", {"dataset": "dataset", "signals": "signals", "latents": "latents", "tokenizer": "tokenizer",
                             "model": "world_model"}, "generated", "training", kind="daskjob",
         memory_gib=2.5, version=6),
    _row("evaluate_model", {"generated": "generated", "raw": "raw_videos?"}, "report", "training", reads_truth=True, version=3),
    _row("publish_model", {"tokenizer": "tokenizer", "model": "world_model", "evaluation": "report"}, "model", "control",
         version=2),
    _row("write_report", {"dataset": "dataset", "videos": "videos?", "clips": "clips?", "selection": "selection?",
                          "tokenizer_*": "tokenizer", "model_*": "world_model", "generated_*": "generated",
                          "evaluated_*": "report", "published_*": "model"},
         "page", "control", memory_gib=3, deterministic=False, version=4),  # shows timings and costs
)
# fmt: on

STAGES: dict[str, StageRow] = {row.name: row for row in TABLE}


def stage(name: str) -> StageRow:
    """The row of a stage; raises `ConfigError` with the choices."""
    if name not in STAGES:
        raise ConfigError(f"unknown stage {name!r}. Choices: {', '.join(STAGES)}")
    return STAGES[name]
