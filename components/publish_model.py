"""Bundle a tokenizer, a world model and its evaluation into one folder that `wfm generate` and `WorldModel.load` open.

The bundle: `tokenizer/`, `model/`, `card.json` (window, sampling, figures, lineage) and `README.md`. The pipeline then
promotes it to `model/<family>@latest`.

    python -m components.publish_model --spec URL --input tokenizer=KEY --input model=KEY --input evaluation=KEY
    --key-out PATH
"""

from typing import Annotated

from components.entrypoint import Context, Result, main
from wfm.config import Config
from wfm.models.family import FAMILIES
from wfm.registry import Named


class PublishModelConfig(Config):
    """What is bundled, and how it is called."""

    family: Annotated[str, Named(FAMILIES, "draw")] = ""
    "Family of the world model; the pipeline says it."
    tokenizer_family: Annotated[str, Named(FAMILIES, "network")] = "tokenizer"
    "Family of its tokenizer."
    name: str = ""
    "Name on the card; empty: the family."


def run(ctx: Context[PublishModelConfig]) -> Result:
    """Write the bundle and open it once."""
    from wfm.generation.publish import write_bundle

    card = write_bundle(ctx.store, ctx.inputs, ctx.out, name=ctx.config.name, scratch=ctx.scratch)
    return Result(counts={"inputs": len(ctx.inputs), "outputs": 1}, extra={"name": card.name, "family": card.family})


CONFIG = PublishModelConfig

if __name__ == "__main__":
    main(__spec__.name, CONFIG, run)
