"""A diffusion decoder for the tokens of the main job: what the autoregressive model says, shown better.

dataset ─┬─ tokenizer (continuous) ─ latents ─┬─ decoder
         └─ tokenizer (discrete) ─── tokens ──┘

Beside the main job it costs the last stage alone: the others are that job's, under the same keys.
"""

from pipelines.dags.curate import curation_nodes
from pipelines.dags.graph import Graph, GraphNode, Settings, node
from pipelines.dags.promotion import Promotion


def decoder(settings: Settings, videos: str, names: Promotion) -> Graph:
    """Everything up to the decoder, published as ``decoder/<dataset>``."""
    return Graph(name="decoder", nodes=(*curation_nodes(settings, videos, names), *_nodes(settings, names)))


def decoder_of_dataset(settings: Settings, simulated: bool, names: Promotion) -> Graph:
    """The same from a dataset on."""
    return Graph(name="decoder", nodes=_nodes(settings, names))


def _nodes(settings: Settings, names: Promotion) -> tuple[GraphNode, ...]:
    encoded = [
        one
        for tokens in ("continuous", "discrete")
        for one in (
            node(f"train_tokenizer_{tokens}", "train_tokenizer", settings, dataset="write_shards"),
            node(
                f"encode_latents_{tokens}",
                "encode_latents",
                settings,
                dataset="write_shards",
                tokenizer=f"train_tokenizer_{tokens}",
            ),
        )
    ]
    last = node(
        "train_decoder",
        "train_decoder",
        settings,
        promote=names.of_decoder(),
        latents="encode_latents_continuous",
        tokens="encode_latents_discrete",
        tokenizer="train_tokenizer_continuous",
        tokenizer_discrete="train_tokenizer_discrete",
    )
    return (*encoded, last)
