"""diffusers folders, both ways: `CosmosTransformer3DModel` and `AutoencoderKLCosmos` of Cosmos 1.0.

    config.json                                 _class_name says which
    diffusion_pytorch_model.safetensors         or shards with an index

Parameter names are the same on both sides, so only the configuration is translated. What one side cannot say is an error
that names the field: a converted model gives the same numbers or is not made.
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from wfm.errors import ConfigError, DataError
from wfm.models.convert.conversion import Conversion, Statistics
from wfm.models.convert.filling import check_entries, fill, network_for
from wfm.models.convert.misfits import AUTOENCODER, TRANSFORMER, refuse
from wfm.models.convert.reading import open_tensors, read_json
from wfm.models.convert.writing import find_tensors, save_sharded, write_json
from wfm.models.diffusion.config import DiffusionConfig
from wfm.models.diffusion.network import DiffusionTransformer
from wfm.models.tokenizer.config import TokenizerConfig
from wfm.models.tokenizer.network import Tokenizer

STEM = "diffusion_pytorch_model"
QK_NORM_EPS = 1e-5
"""Epsilon of the query and key norms in diffusers; the original has 1e-6."""

_DEFAULT_CHANNELS, _DEFAULT_MEAN = 16, (0.11362758, -0.0171717, 0.03071163, 0.02046862)
"""Channels, and as many latent frames, of the table that diffusers writes into every autoencoder that was given none, and
its first numbers: that of CV8x8x8."""
_SAME_NAME = (
    "num_attention_heads", "attention_head_dim", "num_layers", "mlp_ratio", "text_embed_dim", "adaln_lora_dim", "max_size",
    "patch_size", "rope_scale", "concat_padding_mask",
)  # fmt: skip
_LATER_MODELS = {"use_crossattn_projection": False, "img_context_dim_in": None, "controlnet_block_every_n": None}
"""Options of Cosmos 2 and 2.5 in diffusers, and their value in Cosmos 1.0."""
_OPTIONS = _SAME_NAME + tuple(_LATER_MODELS) + (
    "in_channels", "out_channels", "extra_pos_embed_type", "crossattn_proj_in_channels", "encoder_hidden_states_channels",
    "img_context_num_tokens", "img_context_dim_out",
)  # fmt: skip


def from_diffusers(
    folder: str | os.PathLike[str], *, dtype: torch.dtype | None = None, device: str = "cpu", mapped: bool = True
) -> nn.Module:
    """The model of a diffusers folder: a `DiffusionTransformer` or a `Tokenizer`, in evaluation mode.

    dtype None keeps that of the file; `mapped` weights stay in the file until they are touched (see
    `reading.ByteRanges`). Raises DataError for a folder or file that is not what it claims, ConfigError for a model
    of diffusers that has no counterpart.
    """
    return read_diffusers(folder, dtype=dtype, device=device, mapped=mapped).module


def read_diffusers(
    folder: str | os.PathLike[str], *, dtype: torch.dtype | None = None, device: str = "cpu", mapped: bool = True
) -> Conversion:
    """As `from_diffusers`, with the configuration and the latents' statistics."""
    path = Path(folder)
    values = _read_config(path)
    try:
        config, statistics, left_out = _parse(values, str(path / "config.json"))
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:  # a value of another kind altogether
        raise ConfigError(f"{path / 'config.json'}: a value is of the wrong kind ({str(error)[:200]})") from None
    network: nn.Module
    mapped = mapped or dtype is not None or device != "cpu"  # what changes is only passing through
    with open_tensors(find_weights(path), mapped=mapped) as file:
        make = DiffusionTransformer if isinstance(config, DiffusionConfig) else Tokenizer
        network = network_for(lambda: make(config), file.entries, str(path / "config.json"))  # type: ignore[arg-type]
        wanted = network.state_dict()
        check_entries(wanted, file.entries, str(file.path), hint="Do config.json and the weights belong together?")
        fill(network, dict.fromkeys(wanted, file), {name: name for name in wanted}, dtype=dtype, device=device)
    return Conversion(network.eval(), config, statistics, left_out)


def to_diffusers(
    module: nn.Module,
    folder: str | os.PathLike[str],
    *,
    statistics: Statistics | None = None,
    dtype: torch.dtype | None = None,
    max_shard_bytes: int | None = None,
) -> list[Path]:
    """Write a `DiffusionTransformer` or `Tokenizer` as a folder that diffusers' `from_pretrained` opens.

    `statistics` go into an autoencoder's configuration. Returns the weight files. Raises ConfigError for a model that
    diffusers' classes cannot express.
    """
    values = diffusers_config(module, statistics)
    path = Path(folder)
    path.mkdir(parents=True, exist_ok=True)
    written = save_sharded(
        module.state_dict(), path, STEM, max_shard_bytes=max_shard_bytes, dtype=dtype, metadata={"format": "pt"}
    )
    write_json(values, path / "config.json", indent=2)
    return written


def diffusers_config(module: nn.Module, statistics: Statistics | None = None) -> dict[str, Any]:
    """The config.json of diffusers for a module. Raises ConfigError for what its classes cannot express."""
    if isinstance(module, DiffusionTransformer):
        return _transformer_values(module.config)
    if isinstance(module, Tokenizer):
        return _autoencoder_values(module.config, statistics)
    raise ConfigError(f"{type(module).__name__} has no class in diffusers; only DiffusionTransformer and Tokenizer do")


def find_weights(folder: Path) -> Path:
    """The file of weights of a diffusers folder, or the index of its shards: the plain one, or the one variant (`fp16`, `bf16`)
    that is there instead. Raises DataError where it is not clear which, naming what there is."""
    if (plain := find_tensors(folder, STEM)).is_file():
        return plain
    found = {
        path
        for pattern in (f"{STEM}.*.safetensors", f"{STEM}.safetensors.index.*.json", f"{STEM}.*.safetensors.index.json")
        for path in folder.glob(pattern)
        if re.fullmatch(r"[A-Za-z0-9_]+", _variant(path))
    }
    if len(found) > 1:
        names = ", ".join(sorted(path.name for path in found))
        raise DataError(
            f"{folder}: several variants of the weights and no plain {STEM}.safetensors: {names}; keep one of them"
        )
    if not found and (other := sorted(path.name for path in folder.glob(f"{STEM}*"))):
        raise DataError(
            f"{folder}: no {STEM}.safetensors, only {', '.join(other[:5])}; pickles (.bin) are not read, shards "
            "need their index; save as safetensors where they come from"
        )
    return found.pop() if found else plain


def _variant(path: Path) -> str:
    """`fp16` of diffusion_pytorch_model.fp16.safetensors and of ...safetensors.index.fp16.json."""
    name = path.name.removeprefix(f"{STEM}.").removesuffix(".index.json").removesuffix(".json")
    return name.removeprefix("safetensors.index.").removesuffix(".safetensors")


def refuse_pipeline(folder: Path) -> None:
    """Raise DataError for the folder of a whole pipeline, naming the folders in it that can be read."""
    if not (folder / "model_index.json").is_file() or (folder / "config.json").is_file():
        return
    parts = [path.name for path in sorted(folder.iterdir()) if (path / "config.json").is_file()]
    models = [name for name in parts if _class_in(folder / name) in (TRANSFORMER, AUTOENCODER)]
    raise DataError(
        f"{folder}: a pipeline of diffusers (model_index.json), which is several models; give one: "
        + (
            ", ".join(str(folder / name) for name in models)
            if models
            else f"none of {', '.join(parts) or 'its folders'} is read here"
        )
    )


def _class_in(folder: Path) -> object:
    try:
        return _read_config(folder)["_class_name"]
    except DataError:
        return None


def _read_config(folder: Path) -> dict[str, Any]:
    refuse_pipeline(folder)
    path = folder / "config.json"
    try:
        values = read_json(path)
    except (FileNotFoundError, NotADirectoryError):
        raise DataError(f"{folder}: no config.json here, so this is not a model folder of diffusers") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not JSON ({error})") from None
    if not isinstance(values, dict) or values.get("_class_name") not in (TRANSFORMER, AUTOENCODER):
        found = values.get("_class_name") if isinstance(values, dict) else type(values).__name__
        raise DataError(f"{path}: _class_name is {found!r}; {TRANSFORMER} and {AUTOENCODER} are read")
    return values


def _parse(
    values: Mapping[str, Any], source: str
) -> tuple[DiffusionConfig | TokenizerConfig, Statistics | None, dict[str, str]]:
    """The configuration, the latents' statistics, and why a table of these was left out."""
    options = {name: value for name, value in values.items() if not name.startswith("_")}
    if values["_class_name"] == TRANSFORMER:
        return transformer_config(options, source), None, {}
    config = autoencoder_config(options, source)
    mean, std = options.get("latents_mean"), options.get("latents_std")
    if mean is None:  # diffusers then normalises by none, whatever std is
        unused = {} if std is None else {"latents_std": "latents_mean is null, so diffusers does not use it"}
        return config, None, unused
    if std is None:
        raise DataError(f"{source}: latents_mean without latents_std; give both, or null for both")
    if config.latent_channels != _DEFAULT_CHANNELS and _is_default(mean):
        reason = f"diffusers' default, for {_DEFAULT_CHANNELS} channels; this model has {config.latent_channels}"
        return config, None, {"latents_mean": reason, "latents_std": reason}
    return config, Statistics.table(mean, std, config.latent_channels, source), {}


def _is_default(mean: Any) -> bool:
    begin = mean[: len(_DEFAULT_MEAN)] if isinstance(mean, list) and len(mean) == _DEFAULT_CHANNELS**2 else []
    return len(begin) > 0 and all(
        isinstance(x, float) and abs(x - wanted) < 1e-6 for x, wanted in zip(begin, _DEFAULT_MEAN, strict=True)
    )


def transformer_config(options: Mapping[str, Any], source: str) -> DiffusionConfig:
    """diffusers' options of a CosmosTransformer3DModel -> ours. Options that are not given have diffusers' defaults."""
    _refuse_unknown(options, _OPTIONS, source)
    for name, plain in _LATER_MODELS.items():
        if options.get(name) not in (plain, None, False, 0):
            raise ConfigError(
                f"{source}: {name} is {options[name]!r}: a model of Cosmos 2 or later; Cosmos 1.0 has {plain!r}"
            )
    out = options.get("out_channels", 16)
    further = options.get("in_channels", 16) - out
    if further < 0:
        raise ConfigError(f"{source}: in_channels {options.get('in_channels')} are fewer than out_channels {out}")
    positions = options.get("extra_pos_embed_type", "learnable")
    if positions not in ("learnable", None):
        raise ConfigError(f"{source}: extra_pos_embed_type is {positions!r}; 'learnable' and null are known")
    defaults = {
        "num_attention_heads": 32, "attention_head_dim": 128, "num_layers": 28, "mlp_ratio": 4.0, "text_embed_dim": 1024,
        "adaln_lora_dim": 256, "max_size": (128, 240, 240), "patch_size": (1, 2, 2), "rope_scale": (2.0, 1.0, 1.0),
        "concat_padding_mask": True,
    }  # fmt: skip
    shared = {name: options.get(name, defaults[name]) for name in _SAME_NAME}
    return DiffusionConfig.parse(
        {
            **shared,
            "in_channels": out,
            "condition_mask": further == 1,  # video2world: 16 latent channels and the mask
            "extra_channels": 0 if further == 1 else further,
            "extra_pos_embed": positions is not None,
            "qk_norm_eps": QK_NORM_EPS,
        }
    )


def _transformer_values(config: DiffusionConfig) -> dict[str, Any]:
    refuse(config, "diffusers")
    plain = config.resolved()
    return {
        "_class_name": TRANSFORMER,
        **{name: plain[name] for name in _SAME_NAME},
        "in_channels": config.latent_channels + config.condition_mask,
        "out_channels": config.in_channels,
        "extra_pos_embed_type": "learnable" if config.extra_pos_embed else None,
    }


_AUTOENCODER_DEFAULTS: dict[str, Any] = {
    "in_channels": 3, "out_channels": 3, "latent_channels": 16, "encoder_block_out_channels": (128, 256, 512, 512),
    "decode_block_out_channels": (256, 512, 512, 512), "attention_resolutions": (32,), "resolution": 1024, "num_layers": 2,
    "patch_size": 4, "patch_type": "haar", "scaling_factor": 1.0, "spatial_compression_ratio": 8,
    "temporal_compression_ratio": 8, "latents_mean": None, "latents_std": None,
}  # fmt: skip


def autoencoder_config(options: Mapping[str, Any], source: str) -> TokenizerConfig:
    """diffusers' options of an AutoencoderKLCosmos -> ours. Options that are not given have diffusers' defaults."""
    _refuse_unknown(options, _AUTOENCODER_DEFAULTS, source)
    values = {**_AUTOENCODER_DEFAULTS, **options}
    channels = tuple(values["encoder_block_out_channels"])
    mirrored = (*channels[1:], channels[-1])
    for name, wanted in (
        ("out_channels", values["in_channels"]), ("decode_block_out_channels", mirrored), ("patch_type", "haar"),
        ("scaling_factor", 1.0),
    ):  # fmt: skip
        found = tuple(values[name]) if isinstance(values[name], list) else values[name]
        if found != wanted:
            raise ConfigError(f"{source}: {name} is {found}; ours has {wanted} with the rest of this configuration")
    sides = _sides(values["resolution"], values["patch_size"], len(channels) - 1)
    if sides & set(values["attention_resolutions"]):
        raise ConfigError(
            f"{source}: attention_resolutions {list(values['attention_resolutions'])} put attention into the levels, whose "
            f"sides are {sorted(sides)} by resolution and patch_size; ours attends in the middle only"
        )
    return TokenizerConfig.parse(
        {
            "in_channels": values["in_channels"],
            "channels": channels,
            "encoder_blocks": values["num_layers"],
            "decoder_blocks": values["num_layers"] + 1,
            "latent_channels": values["latent_channels"],
            "z_channels": values["latent_channels"],
            "patch_size": values["patch_size"],
            "spatial_compression": values["spatial_compression_ratio"],
            "temporal_compression": values["temporal_compression_ratio"],
        }
    )


def _autoencoder_values(config: TokenizerConfig, statistics: Statistics | None) -> dict[str, Any]:
    refuse(config, "diffusers")
    return {
        "_class_name": AUTOENCODER,
        "in_channels": config.in_channels,
        "out_channels": config.in_channels,
        "latent_channels": config.latent_channels,
        "encoder_block_out_channels": list(config.channels),
        "decode_block_out_channels": [*config.channels[1:], config.channels[-1]],
        # attention in the middle only: no level may have a side that stands here, and none is ever 0
        "attention_resolutions": [0] if 32 in _sides(1024, config.patch_size, len(config.channels) - 1) else [32],
        "resolution": 1024,
        "num_layers": config.encoder_blocks,
        "patch_size": config.patch_size,
        "patch_type": "haar",
        "scaling_factor": 1.0,
        "spatial_compression_ratio": config.spatial_compression,
        "temporal_compression_ratio": config.temporal_compression,
        "latents_mean": None if statistics is None else statistics.mean.flatten().tolist(),
        "latents_std": None if statistics is None else statistics.std.flatten().tolist(),
    }


def _sides(resolution: int, patch_size: int, levels: int) -> set[int]:
    """What diffusers compares with attention_resolutions: the side at each level, as if every level halved it."""
    return {resolution // patch_size >> level for level in range(levels)}


def _refuse_unknown(options: Mapping[str, Any], known: Any, source: str) -> None:
    if unknown := sorted(set(options) - set(known)):
        raise ConfigError(f"{source}: unknown options {', '.join(unknown)}; known are {', '.join(sorted(known))}")
