"""The main job: raw video -> two trained, evaluated, published world models and a page about them.

curation ─> dataset ─┬─ tokenizer (continuous) ─ latents ─ diffusion ──────┬─ generate ─ evaluate ─ publish ─┬─ page
                     ├─ tokenizer (discrete) ─── tokens ── autoregressive ─┴─ generate ─ evaluate ─ publish ─┘
                     └─ signals, text: of the same samples, for both models

The stages of `OPTIONAL` are there only if a setting is made for them: encode_text, and encode_latents_small, the same windows
at another size. With it a model of latents trains on both, `latents_full` and `latents_small`: when and at what rates says
the recipe (`wfm.recipes.progressive`).
"""

from pipelines.dags.curate import curation_nodes
from pipelines.dags.graph import Graph, GraphNode, Settings, following, gated, node
from pipelines.dags.promotion import Promotion
from wfm.models.family import FAMILIES, Family

SMALL = "encode_latents_small"
OPTIONAL = ("encode_text", SMALL)
OTHERS = ("train_tokenizer_continuous", "train_tokenizer_discrete", "train_decoder")
"""What else is trained: no family is looked for under these names."""
MADE = "world_model"


def world_model(settings: Settings, videos: str, names: Promotion) -> Graph:
    """Everything, from ``videos`` or from simulated ones."""
    curated = curation_nodes(settings, videos, names)
    made = model_nodes(settings, names, simulated=not videos)
    return Graph(name="world_model", nodes=(*curated, *made), page="write_report")


def models_of_dataset(settings: Settings, simulated: bool, names: Promotion) -> Graph:
    """The same from a dataset on."""
    return Graph(name="world_model", nodes=model_nodes(settings, names, simulated=simulated), page="write_report")


def model_nodes(settings: Settings, names: Promotion, *, simulated: bool) -> tuple[GraphNode, ...]:
    """The nodes after the dataset; ``simulated``: what simulation knows is there for the evaluation."""
    nodes: list[GraphNode] = [node("encode_signals", "encode_signals", settings, dataset="write_shards")]
    beside = {"signals": "encode_signals"}
    if "encode_text" in settings:
        nodes.append(node("encode_text", "encode_text", settings, dataset="write_shards"))
        beside["text"] = "encode_text"
    truth = {"raw": "simulate_videos"} if simulated else {}
    mixture = {"mixture": "classify_clips"} if "classify_clips" in settings else {}
    families = families_of(settings)
    for family in families:
        tokenizer, latents, model = f"train_tokenizer_{family.takes}", f"encode_latents_{family.takes}", train(family)
        made, figures = f"generate_{family.name}", f"evaluate_{family.name}"
        if all(one.name != tokenizer for one in nodes):
            nodes += [
                node(tokenizer, "train_tokenizer", settings, dataset="write_shards"),
                node(latents, "encode_latents", settings, dataset="write_shards", tokenizer=tokenizer),
            ]
        encoded = {"latents": latents}
        if SMALL in settings and family.takes == "continuous":
            if all(one.name != SMALL for one in nodes):
                nodes.append(node(SMALL, "encode_latents", settings, dataset="write_shards", tokenizer=tokenizer))
            encoded = {"latents_full": latents, "latents_small": SMALL}
        published = f"publish_{family.name}"
        own = {name: {"family": family.name, **settings.get(name, {})} for name in (model, made, published)}
        nodes += [
            node(model, "train_world_model", own, **encoded, tokenizer=tokenizer, **beside, **mixture),
            following(
                node(
                    made,
                    "generate_videos",
                    own,
                    dataset="write_shards",
                    signals="encode_signals",
                    latents=latents,
                    tokenizer=tokenizer,
                    model=model,
                ),
                conditions=model,
            ),
            node(figures, "evaluate_model", settings, generated=made, **truth),
            gated(
                node(
                    published,
                    "publish_model",
                    own,
                    promote=names.of_model(family.name),
                    tokenizer=tokenizer,
                    model=model,
                    evaluation=figures,
                ),
                names.gate,
            ),
        ]
    return (*nodes, _page(settings, families))


def train(family: Family) -> str:
    """The node that trains a family's model."""
    return f"train_{family.name}"


def families_of(settings: Settings) -> list[Family]:
    """The families of world models that a recipe has settings to train, in its order; without any, those built in."""
    named = [family for family in map(_trained_by, settings) if family is not None]
    return named or [family for family in map(FAMILIES.load, FAMILIES.built_in) if family.makes == MADE]


def is_plug_in(node_name: str) -> bool:
    """Whether a node trains a family of another package: it is there once a setting is made for it."""
    family = _trained_by(node_name)
    return family is not None and family.name not in FAMILIES.built_in


def _trained_by(node_name: str) -> Family | None:
    """The family of world models that a node of this name trains."""
    before, _, name = node_name.partition("_")
    if before != "train" or node_name in OTHERS or name not in FAMILIES:
        return None
    family: Family = FAMILIES.load(name)
    return family if family.makes == MADE else None


def _page(settings: Settings, families: list[Family]) -> GraphNode:
    tokenizers = dict.fromkeys(family.takes for family in families)
    return node(
        "write_report",
        "write_report",
        settings,
        dataset="write_shards",
        videos="ingest_videos",
        clips="split_clips",
        selection="select_clips",
        **{f"evaluated_{family.name}": f"evaluate_{family.name}" for family in families},
        **{f"generated_{family.name}": f"generate_{family.name}" for family in families},
        **{f"tokenizer_{takes}": f"train_tokenizer_{takes}" for takes in tokenizers},
        **{f"model_{family.name}": train(family) for family in families},
        **{f"published_{family.name}": f"publish_{family.name}" for family in families},
    )
