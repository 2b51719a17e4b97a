"""The main job: raw video -> two trained, evaluated, published world models and a page about them.

curation ─> dataset ─┬─ tokenizer (continuous) ─ latents ─ diffusion ──────┬─ generate ─ evaluate ─ publish ─┬─ page
                     ├─ tokenizer (discrete) ─── tokens ── autoregressive ─┴─ generate ─ evaluate ─ publish ─┘
                     └─ signals, text: of the same samples, for both models

encode_text is there only if a setting is made for it (`OPTIONAL`).
"""

from pipelines.dags.curate import curation_nodes
from pipelines.dags.graph import Graph, GraphNode, Settings, node

FAMILIES = {"diffusion": "continuous", "autoregressive": "discrete"}
"""Family of world model -> the tokenizer it works on."""
OPTIONAL = ("encode_text",)


def world_model(settings: Settings, videos: str, dataset: str) -> Graph:
    """Everything, from ``videos`` or from simulated ones."""
    curated = curation_nodes(settings, videos, dataset)
    return Graph(
        name="world_model", nodes=(*curated, *model_nodes(settings, simulated=not videos)), page="write_report"
    )


def models_of_dataset(settings: Settings, simulated: bool, name: str) -> Graph:
    """The same from a dataset on."""
    return Graph(name="world_model", nodes=model_nodes(settings, simulated=simulated), page="write_report")


def model_nodes(settings: Settings, *, simulated: bool) -> tuple[GraphNode, ...]:
    """The nodes after the dataset; ``simulated``: what simulation knows is there for the evaluation."""
    nodes: list[GraphNode] = [node("encode_signals", "encode_signals", settings, dataset="write_shards")]
    beside = {"signals": "encode_signals"}
    if "encode_text" in settings:
        nodes.append(node("encode_text", "encode_text", settings, dataset="write_shards"))
        beside["text"] = "encode_text"
    truth = {"raw": "simulate_videos"} if simulated else {}
    mixture = {"mixture": "classify_clips"} if "classify_clips" in settings else {}
    for family, tokens in FAMILIES.items():
        tokenizer, latents, model = f"train_tokenizer_{tokens}", f"encode_latents_{tokens}", f"train_{family}"
        made, figures = f"generate_{family}", f"evaluate_{family}"
        nodes += [
            node(tokenizer, "train_tokenizer", settings, dataset="write_shards"),
            node(latents, "encode_latents", settings, dataset="write_shards", tokenizer=tokenizer),
            node(model, "train_world_model", settings, latents=latents, tokenizer=tokenizer, **beside, **mixture),
            node(
                made,
                "generate_videos",
                settings,
                dataset="write_shards",
                latents=latents,
                tokenizer=tokenizer,
                model=model,
            ),
            node(figures, "evaluate_model", settings, generated=made, **truth),
            node(
                f"publish_{family}",
                "publish_model",
                settings,
                promote=f"model/{family}",
                tokenizer=tokenizer,
                model=model,
                evaluation=figures,
            ),
        ]
    return (*nodes, _page(settings))


def _page(settings: Settings) -> GraphNode:
    return node(
        "write_report",
        "write_report",
        settings,
        dataset="write_shards",
        videos="ingest_videos",
        clips="split_clips",
        selection="select_clips",
        **{family: f"evaluate_{family}" for family in FAMILIES},
        **{f"generated_{family}": f"generate_{family}" for family in FAMILIES},
        **{f"tokenizer_{tokens}": f"train_tokenizer_{tokens}" for tokens in FAMILIES.values()},
        **{f"model_{family}": f"train_{family}" for family in FAMILIES},
        **{f"published_{family}": f"publish_{family}" for family in FAMILIES},
    )
