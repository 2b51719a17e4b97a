"""Encode the captions of a data set once, for models that follow text.

Reads `dataset`; works in its parts. Layout of the output: `wfm.data.captions`.

    python -m components.encode_text --spec URL --input dataset=KEY --key-out PATH
"""

from collections.abc import Mapping
from typing import Any, Self

import pydantic

from components.context import PartContext
from components.entrypoint import Context, Result, main
from wfm.config import Config
from wfm.data.dataset_parts import TEXT, part_plan, part_shards
from wfm.models.text.config import TextConfig


class EncodeTextConfig(Config):
    """Which captions are encoded, and by what."""

    splits: tuple[str, ...] = ("train", "val", "test")
    "Splits of the data set whose captions are encoded."
    mirror: bool = False
    "Encode what the captions say of every training clip's mirror image too; needed when encode_latents.mirror is on."
    text: TextConfig = TextConfig(encoder="minilm")
    "The encoder."

    @pydantic.model_validator(mode="after")
    def _has_an_encoder(self) -> Self:
        if not self.text.used:
            raise ValueError(
                "text.encoder is 'none': choose minilm, or folder with text.folder; or leave encode_text out"
            )
        return self


def external_inputs(config: EncodeTextConfig, inputs: Mapping[str, str], store: Any) -> dict[str, str]:
    """The text encoder comes from outside, so it enters the key by the hash of its files."""
    from wfm.models.text.identity import encoder_identity

    return {"text_encoder": encoder_identity(config.text)}


def run(ctx: Context[EncodeTextConfig]) -> Result:
    """Every part of the data set."""
    from wfm.models.text.identity import encoder_note

    seen = ctx.external_inputs if ctx.external_inputs is not None else external_inputs(ctx.config, {}, ctx.store)
    inputs, arguments = part_plan(ctx.inputs["dataset"], TEXT, seen)
    entries = ctx.map_parts(inputs, encode_part, arguments)
    clips, captions = (sum(entry.counts[name] for entry in entries) for name in ("clips", "captions"))
    return Result(
        counts={"inputs": clips, "outputs": captions},
        parts=entries,
        extra={"text": encoder_note(ctx.config.text)},
    )


def encode_part(part: "PartContext[EncodeTextConfig]") -> Result:
    """One part of the data set."""
    from wfm.training.encode_text import encode_captions

    config = part.config
    shards, exclude = part_shards(part.open_store(), part.arguments, part.name, config.splits)
    return Result(counts=encode_captions(shards, config.text, part.out, mirror=config.mirror, exclude=exclude))


CONFIG = EncodeTextConfig

if __name__ == "__main__":
    main(__spec__.name, CONFIG, run)
