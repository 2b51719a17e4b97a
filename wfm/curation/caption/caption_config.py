"""Where captions come from: the settings of the caption step, and of whom it asks."""

from typing import Literal, Self

import pydantic

from wfm.config import Config
from wfm.curation.caption.caption_windows import ShownConfig
from wfm.curation.caption.endpoint import EndpointConfig
from wfm.curation.caption.local_model import LocalConfig
from wfm.curation.caption.prompts import FIELDS, PRESETS, REWRITE_FIELDS, REWRITES, template


class RewriteConfig(Config):
    """Other wordings of what a model said; asked for without pictures."""

    lengths: tuple[Literal["short", "medium", "long"], ...] = ()
    "Which are made; columns of the table of windows."
    prompt: str = "rewrite"
    "Template: `rewrite`, @FILE, or the words, with {caption} and {length}."
    model: str = ""
    "Another model at the endpoint; empty: the one that captions."

    @pydantic.field_validator("prompt")
    @classmethod
    def _template(cls, given: str) -> str:
        text = template(given, REWRITES, REWRITE_FIELDS)
        if "{caption}" not in text:
            raise ValueError("a template for rewriting needs the field {caption}")
        return text


class CaptionConfig(Config):
    """Where captions come from."""

    source: Literal["attributes", "measured", "endpoint", "local"] = "attributes"
    """attributes: from the sidecar where there is one, else measured; measured: always from the pixels; endpoint: a model
    behind an OpenAI-compatible address (extra `caption`); local: a model in a local folder (extra `text`)."""
    prompt: str = "default"
    "Template that a model is asked with: a preset (`prompts`), @FILE, or the words, with {fields}."
    shown: ShownConfig = ShownConfig()
    "What a model is shown."
    rewrite: RewriteConfig = RewriteConfig()
    "Other wordings."
    length: Literal["caption", "short", "medium", "long"] = "caption"
    "Which wording becomes the clip's caption; all are kept in the table of windows."
    endpoint: EndpointConfig = EndpointConfig()
    "The model that is asked, for source=endpoint."
    local: LocalConfig = LocalConfig()
    "The model that is asked, for source=local."

    @pydantic.field_validator("prompt")
    @classmethod
    def _template(cls, given: str) -> str:
        return template(given, PRESETS, FIELDS)

    @pydantic.model_validator(mode="after")
    def _whole(self) -> Self:
        if self.source == "endpoint" and not (self.endpoint.url and self.endpoint.model):
            raise ValueError(
                f"source=endpoint with endpoint.url={self.endpoint.url!r} and endpoint.model={self.endpoint.model!r}: give both"
            )
        if self.source == "local" and not (self.local.folder and self.local.folder_sha256):
            raise ValueError(
                f"source=local with local.folder={self.local.folder!r} and local.folder_sha256="
                f"{self.local.folder_sha256!r}: give both"
            )
        if self.source == "local" and self.rewrite.model:
            raise ValueError(
                f"rewrite.model={self.rewrite.model!r} is for source=endpoint: a local model rewrites itself"
            )
        if self.length != "caption" and self.length not in self.rewrite.lengths:
            raise ValueError(
                f"length={self.length!r} is not among rewrite.lengths={list(self.rewrite.lengths)}: add it there"
            )
        return self
