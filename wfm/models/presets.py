"""The published models by name: what family each belongs to and its configuration. Torch-free.

    family, config = preset("diffusion-7b")

    diffusion-7b, -14b [-v2w]        Cosmos 1.0's transformers for text (and, v2w, video) to world: the network alone;
                                     `DenoiserConfig(network=config)` is what training wraps around it (`published_mask=True`
                                     for v2w)
    ar-4b, -5b, -12b, -13b           Cosmos 1.0's autoregressive models over the tokens of dv8x16x16; 5b and 13b follow text
    cv8x8x8 ... dv8x16x16            video tokenizers; the figures are compression in time and along each side
    ci8x8 ... di16x16                image tokenizers

C: continuous latents of 16 channels, D: FSQ tokens of 64,000 symbols; -360p: made for small video, with Haar patches of 2 and
so one more step in the network. Names are read without regard to case, with or without the prefix of the release
(`Cosmos-Tokenize1-CV8x8x8-720p` is `cv8x8x8`).
"""

import difflib
from typing import Literal, NamedTuple

from wfm.config import Config
from wfm.errors import ConfigError
from wfm.models.autoregressive.config import AutoregressiveConfig
from wfm.models.diffusion.config import DiffusionConfig
from wfm.models.family import FAMILIES
from wfm.models.tokenizer.config import TokenizerConfig

FSQ_LEVELS = (8, 8, 8, 5, 5, 5)
_PREFIXES = ("cosmos-tokenize1-", "cosmos-0.1-tokenizer-", "cosmos-tokenizer-", "cosmos-")


class Preset(NamedTuple):
    """A published model."""

    family: str
    config: Config


def _diffusion(layers: int, heads: int, rope_scale: tuple[float, float, float], *, condition_mask: bool) -> Preset:
    """Width is 128 a head; everything else is as DiffusionConfig has it."""
    config = DiffusionConfig(
        num_layers=layers,
        num_attention_heads=heads,
        attention_head_dim=128,
        rope_scale=rope_scale,
        condition_mask=condition_mask,
    )
    return Preset("diffusion", config)


def _autoregressive(name: Literal["4b", "5b", "12b", "13b"]) -> Preset:
    return Preset("autoregressive", AutoregressiveConfig.cosmos(name))


def _video(time: int, space: int, *, discrete: bool = False, patch: int = 4, z_channels: int = 16) -> Preset:
    """CV or DV; `z_channels` is 256 in DV4x8x8-360p alone."""
    config = TokenizerConfig(
        temporal_compression=time,
        spatial_compression=space,
        patch_size=patch,
        latent_channels=len(FSQ_LEVELS) if discrete else 16,
        z_channels=z_channels,
        levels=FSQ_LEVELS if discrete else (),
    )
    return Preset("tokenizer", config)


def _image(space: int, *, discrete: bool = False, patch: int = 4) -> Preset:
    """CI or DI."""
    config = TokenizerConfig(
        dimensions=2,
        temporal_compression=1,
        spatial_compression=space,
        patch_size=patch,
        latent_channels=len(FSQ_LEVELS) if discrete else 16,
        z_channels=256 if discrete else 16,
        levels=FSQ_LEVELS if discrete else (),
    )
    return Preset("tokenizer", config)


PRESETS: dict[str, Preset] = {
    "diffusion-7b": _diffusion(28, 32, (2.0, 1.0, 1.0), condition_mask=False),
    "diffusion-7b-v2w": _diffusion(28, 32, (2.0, 1.0, 1.0), condition_mask=True),
    "diffusion-14b": _diffusion(36, 40, (2.0, 2.0, 2.0), condition_mask=False),
    "diffusion-14b-v2w": _diffusion(36, 40, (2.0, 2.0, 2.0), condition_mask=True),
    "ar-4b": _autoregressive("4b"),
    "ar-5b": _autoregressive("5b"),
    "ar-12b": _autoregressive("12b"),
    "ar-13b": _autoregressive("13b"),
    "cv4x8x8": _video(4, 8),
    "cv4x8x8-360p": _video(4, 8, patch=2),
    "cv8x8x8": _video(8, 8),
    "cv8x16x16": _video(8, 16),
    "dv4x8x8": _video(4, 8, discrete=True),
    "dv4x8x8-360p": _video(4, 8, discrete=True, patch=2, z_channels=256),
    "dv8x8x8": _video(8, 8, discrete=True),
    "dv8x16x16": _video(8, 16, discrete=True),
    "ci8x8": _image(8),
    "ci8x8-360p": _image(8, patch=2),
    "ci16x16": _image(16),
    "ci16x16-360p": _image(16, patch=2),
    "di8x8": _image(8, discrete=True),
    "di8x8-360p": _image(8, discrete=True, patch=2),
    "di16x16": _image(16, discrete=True),
    "di16x16-360p": _image(16, discrete=True, patch=2),
}
"""Name -> (family, config). 16-fold images with patches of 2 need a third halving, which the 3 levels just hold."""


def all_presets() -> dict[str, Preset]:
    """The published models of every registered family; a family of another package brings its own (`Family.presets`)."""
    found = dict(PRESETS)
    for name in FAMILIES.names():
        if name not in FAMILIES.built_in:
            theirs = FAMILIES.load(name).presets()
            found.update({short: Preset(name, config) for short, config in theirs.items() if short not in PRESETS})
    return found


def preset(name: str) -> Preset:
    """(family, config) of a published model. Raises ConfigError listing the names for an unknown one."""
    short = name.strip().lower()
    for prefix in _PREFIXES:
        short = short.removeprefix(prefix)
    short = short.removesuffix("-720p")  # the release's word for what is not -360p
    known = all_presets()
    if short not in known:
        near = difflib.get_close_matches(short, known, n=1, cutoff=0.7)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ConfigError(f"unknown preset {name!r}.{hint} Choices: {', '.join(known)}")
    return known[short]
