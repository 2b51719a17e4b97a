"""What a configuration of ours says that a peer's format cannot: every field of it at once, each in words.

`cosmos` is the original's code, `diffusers` its `CosmosTransformer3DModel` and `AutoencoderKLCosmos`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from wfm.config import Config
from wfm.errors import ConfigError
from wfm.models.autoregressive.config import AutoregressiveConfig
from wfm.models.diffusion.config import DenoiserConfig, DiffusionConfig
from wfm.models.tokenizer.config import TokenizerConfig

Peer = Literal["diffusers", "cosmos"]
ORIGINAL, TRANSFORMER, AUTOENCODER = "the original", "CosmosTransformer3DModel", "AutoencoderKLCosmos"
_SOME_TEXT = 1024
"""Width of a text where the peer must have one."""


@dataclass(frozen=True)
class Misfit:
    """A field whose value has no place with a peer."""

    field: str
    "By its path in the configuration."
    wanted: Any
    "What the peer has in its place."
    words: str


def misfits(config: Config, to: Peer) -> list[Misfit]:
    """All of them, in the order of the fields; none where the model can be written."""
    if isinstance(config, DenoiserConfig):
        peer = ORIGINAL if to == "cosmos" else TRANSFORMER
        required: dict[str, Any] = {
            "repeat_last": False, "extrapolate": False, "linear_prior": False, "objective": "edm", "conditions": {},
        }  # fmt: skip
        if to == "diffusers":
            required["action_width"] = 0
        inner = [
            Misfit(f"network.{one.field}", one.wanted, f"network.{one.words}") for one in misfits(config.network, to)
        ]
        return [*_other(config, required, peer), *_mask(config, peer), *inner]
    if isinstance(config, DiffusionConfig):
        return list(_transformer(config, to))
    if isinstance(config, AutoregressiveConfig) and to == "cosmos":
        plain = {"order": "raster", "vocabulary": "flat", "patch": 1, "copy_bias": False, "extrapolate": False}
        return list(_other(config, {**plain, "action_width": 0, "conditions": {}}, ORIGINAL))
    if isinstance(config, TokenizerConfig):
        return list(_tokenizer(config, to))
    return []


def refuse(config: Config, to: Peer) -> None:
    """Raise ConfigError with every field that has no place with the peer."""
    if found := misfits(config, to):
        raise ConfigError("; ".join(one.words for one in found))


def _other(config: Config, required: Mapping[str, Any], peer: str) -> Iterator[Misfit]:
    for field, wanted in required.items():
        value = getattr(config, field)
        if value != wanted:
            yield Misfit(field, wanted, f"{field} is {value!r}, but {peer} has no other than {wanted!r}")


def _mask(config: DenoiserConfig, peer: str) -> Iterator[Misfit]:
    if config.network.condition_mask and not config.published_mask:
        words = f"published_mask is False, but {peer} has one product for latents and mask"
        yield Misfit("published_mask", True, words)


def _transformer(config: DiffusionConfig, to: Peer) -> Iterator[Misfit]:
    peer = ORIGINAL if to == "cosmos" else TRANSFORMER
    further: dict[str, Any] = {"action_dim": 0, "rope_theta": 10000.0} if to == "diffusers" else {}
    yield from _other(config, {"conditions": {}, **further}, peer)
    if not config.text_embed_dim:
        yield Misfit("text_embed_dim", _SOME_TEXT, f"text_embed_dim is 0, but {peer} always attends to a text")


def _tokenizer(config: TokenizerConfig, to: Peer) -> Iterator[Misfit]:
    required: dict[str, Any] = {"linear_code": False, "mid_blocks": 2, "mid_attention": True, "end_kernel": 3}
    if to == "diffusers":
        required = {
            "dimensions": 3, "levels": (), **required, "z_channels": config.latent_channels,
            "decoder_blocks": config.encoder_blocks + 1,
        }  # fmt: skip
    yield from _other(config, required, ORIGINAL if to == "cosmos" else AUTOENCODER)
