"""The original Cosmos checkpoints, both ways.

    transformers    model.pt                           `net.*` (the prefix may be missing), `logvar.*`
    autoregressive  model.pt                           `tok_embeddings.*`, `layers.*`; all behind `model.` or not
    tokenizers      autoencoder.jit, or encoder.jit and decoder.jit; mean_std.pt, image_mean_std.pt beside them

or the same tensors as safetensors, which is what `to_cosmos` writes unless the file is to be a `.pt`. A checkpoint does not say
what it is: the preset does, and every name and shape must be the preset's.
"""

import os
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from wfm.artifacts.atomic import whole_file
from wfm.config import Config
from wfm.errors import ConfigError, DataError
from wfm.models.autoregressive.config import AutoregressiveConfig
from wfm.models.autoregressive.network import AutoregressiveTransformer
from wfm.models.convert.archive import load_pickle_file
from wfm.models.convert.conversion import Conversion, Statistics
from wfm.models.convert.filling import check_entries, fill, without_weights
from wfm.models.convert.misfits import refuse
from wfm.models.convert.names import causal_name, reason_left_out, tokenizer_name, transformer_name
from wfm.models.convert.reading import open_tensors
from wfm.models.convert.tensor_file import Entry, TensorFile
from wfm.models.convert.writing import INDEX_SUFFIX, find_tensors, save_sharded
from wfm.models.diffusion.config import DenoiserConfig, DiffusionConfig
from wfm.models.diffusion.denoiser import Denoiser
from wfm.models.diffusion.network import DiffusionTransformer
from wfm.models.presets import preset as find_preset
from wfm.models.tokenizer.config import TokenizerConfig
from wfm.models.tokenizer.network import Tokenizer

STEM = "model"
_PREFIX = "net."
_PREFIXES = (_PREFIX, "model.")
_STATISTICS = ("mean_std.pt", "image_mean_std.pt")
_WHOLE = ("model.pt", "autoencoder.jit")
_HALVES = ("encoder.jit", "decoder.jit")


def from_cosmos(
    source: str | os.PathLike[str],
    preset: str | Config,
    *,
    allow_pickle_file: bool = False,
    denoiser: bool = False,
    dtype: torch.dtype | None = None,
    device: str = "cpu",
    mapped: bool = True,
) -> nn.Module:
    """The model of an original checkpoint: a `DiffusionTransformer` or a `Tokenizer`, in evaluation mode; a `Denoiser`
    around the transformer, with its learned uncertainty, where `denoiser`.

    source: a file, or a folder as it was published. preset: a name (see `wfm.models.presets`) or a configuration.
    `allow_pickle_file` lets `.pt` files be read (weights only). dtype None keeps that of the file. Raises DataError for
    a file that is damaged, not to be trusted, or not of this preset.
    """
    return read_cosmos(
        source,
        preset,
        allow_pickle_file=allow_pickle_file,
        denoiser=denoiser,
        dtype=dtype,
        device=device,
        mapped=mapped,
    ).module


def read_cosmos(
    source: str | os.PathLike[str],
    preset: str | Config,
    *,
    allow_pickle_file: bool = False,
    denoiser: bool = False,
    dtype: torch.dtype | None = None,
    device: str = "cpu",
    mapped: bool = True,
) -> Conversion:
    """As `from_cosmos`, with the configuration, the latents' statistics and what was left out."""
    path, config = Path(source), _config_of(preset)
    if denoiser and isinstance(config, DiffusionConfig):
        config = DenoiserConfig(network=config, uncertainty=128, published_mask=config.condition_mask)
    network = without_weights(lambda: network_of(config))
    mapped = mapped or dtype is not None or device != "cpu"  # what changes is only passing through
    files = [open_tensors(file, allow_pickle_file=allow_pickle_file, mapped=mapped) for file in files_of(path)]
    try:
        homes, entries = _merged(files)
        names = cosmos_names(network)
        left_out = _left_out(entries, names)
        wanted = {names[ours]: tensor for ours, tensor in network.state_dict().items() if ours in names}
        check_entries(
            wanted,
            {bare_name(theirs): entry for theirs, entry in entries.items() if theirs not in left_out},
            str(path),
            hint=f"Is it a checkpoint of {preset if isinstance(preset, str) else type(config).__name__}?",
        )
        prefixed = {bare_name(theirs): theirs for theirs in entries}
        fill(network, homes, {ours: prefixed[theirs] for ours, theirs in names.items()}, dtype=dtype, device=device)
    finally:
        for file in files:
            file.close()
    statistics = None
    if isinstance(config, TokenizerConfig):
        statistics, unread = _statistics_beside(path, config.latent_channels, allow_pickle_file)
        left_out |= unread
    return Conversion(network.eval(), config, statistics, left_out)


def to_cosmos(
    module: nn.Module,
    target: str | os.PathLike[str],
    *,
    statistics: Statistics | None = None,
    dtype: torch.dtype | None = None,
    max_shard_bytes: int | None = None,
) -> list[Path]:
    """Write a `DiffusionTransformer`, `Denoiser`, `AutoregressiveTransformer` or `Tokenizer` under the original's names.

    target: a `.safetensors` or `.pt` file, or a folder, which gets model.safetensors (or shards) and, for `statistics`,
    mean_std.pt and image_mean_std.pt. A denoiser's uncertainty goes along as `logvar.*`; its statistics are the tokenizer's
    and do not. Returns the files written. Raises ConfigError for a model that the original's code cannot express.
    """
    path = Path(target)
    names = cosmos_names(module)
    prefix = "" if isinstance(module, Tokenizer | AutoregressiveTransformer) else _PREFIX
    state = module.state_dict()
    renamed = {
        theirs if theirs.startswith("logvar.") else prefix + theirs: state[ours] for ours, theirs in names.items()
    }
    if path.suffix in (".pt", ".pth"):
        if max_shard_bytes is not None:
            raise ConfigError(
                f"max_shard_bytes: a {path.suffix} file is never cut; write a folder or a .safetensors file"
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        _save_pickle({name: _to(tensor, dtype) for name, tensor in renamed.items()}, path)
        return [path]
    if path.suffix == ".safetensors":
        folder, stem = path.parent, path.stem
    elif path.suffix in (".jit", ".bin", ".ckpt"):
        raise ConfigError(f"target: {path.suffix} files are not written; use a folder, a .safetensors or a .pt file")
    else:
        folder, stem = path, STEM
    folder.mkdir(parents=True, exist_ok=True)
    written = save_sharded(renamed, folder, stem, max_shard_bytes=max_shard_bytes, dtype=dtype)
    if statistics is not None:
        written += _write_statistics(statistics, folder)
    return written


def cosmos_names(module: nn.Module) -> dict[str, str]:
    """Ours -> theirs (without `net.`) for every tensor that has a place in the original. Raises ConfigError for a model
    that its code cannot express."""
    if isinstance(module, Denoiser):
        refuse(module.config, "cosmos")
        inner = cosmos_names(module.network)
        logvar = {name: name for name in module.state_dict() if name.startswith("logvar.")}
        return {f"network.{ours}": theirs for ours, theirs in inner.items()} | logvar
    if isinstance(module, DiffusionTransformer):
        refuse(module.config, "cosmos")
        return {name: transformer_name(name) for name in module.state_dict()}
    if isinstance(module, AutoregressiveTransformer):
        refuse(module.config, "cosmos")
        return {name: causal_name(name) for name in module.state_dict()}
    if isinstance(module, Tokenizer):
        config = module.config
        refuse(config, "cosmos")
        levels = len(config.channels) - 1
        return {name: tokenizer_name(name, levels=levels, dimensions=config.dimensions) for name in module.state_dict()}
    raise ConfigError(
        f"{type(module).__name__} is none of Cosmos's; DiffusionTransformer, Denoiser, AutoregressiveTransformer and "
        "Tokenizer are"
    )


def _config_of(preset: str | Config) -> Config:
    config = find_preset(preset).config if isinstance(preset, str) else preset
    if not isinstance(config, DiffusionConfig | DenoiserConfig | AutoregressiveConfig | TokenizerConfig):
        raise ConfigError(
            f"preset: {type(config).__name__} is none of Cosmos's; give the name of a preset, a DiffusionConfig, "
            "DenoiserConfig, AutoregressiveConfig or TokenizerConfig"
        )
    return config


def network_of(config: Config) -> nn.Module:
    if isinstance(config, DenoiserConfig):
        return Denoiser(config)
    if isinstance(config, AutoregressiveConfig):
        return AutoregressiveTransformer(config)
    return DiffusionTransformer(config) if isinstance(config, DiffusionConfig) else Tokenizer(config)  # type: ignore[arg-type]


def files_of(path: Path) -> list[Path]:
    """The files that hold the weights."""
    if not path.is_dir():
        return [path]
    if (safe := find_tensors(path, STEM)).is_file():
        return [safe]
    for name in _WHOLE:
        if (path / name).is_file():
            return [path / name]
    halves = [path / name for name in _HALVES]
    if all(half.is_file() for half in halves):
        return halves
    raise DataError(
        f"{path}: no weights here; looked for {STEM}.safetensors, {STEM}{INDEX_SUFFIX}, {', '.join(_WHOLE)} "
        f"and {' with '.join(_HALVES)}"
    )


def _merged(files: list[TensorFile]) -> tuple[dict[str, TensorFile], dict[str, Entry]]:
    """Which file each tensor is in. Buffers that both halves of a tokenizer hold count once."""
    homes: dict[str, TensorFile] = {}
    entries: dict[str, Entry] = {}
    bare: dict[str, str] = {}
    for file in files:
        for name, entry in file.entries.items():
            if (other := bare.setdefault(bare_name(name), name)) in homes and reason_left_out(bare_name(name)) is None:
                raise DataError(f"{file.path}: {name} stands twice, also as {other} in {homes[other].path.name}")
            homes[name], entries[name] = file, entry
    return homes, entries


def bare_name(name: str) -> str:
    """Without the prefix that a checkpoint may put before all of its names."""
    for prefix in _PREFIXES:
        if name.startswith(prefix):
            return name.removeprefix(prefix)
    return name


def _left_out(entries: Mapping[str, Entry], names: Mapping[str, str]) -> dict[str, str]:
    """Tensors that the allow-list names and the network does not ask for."""
    asked = set(names.values())
    reasons = {name: reason_left_out(bare_name(name)) for name in entries if bare_name(name) not in asked}
    return {name: reason for name, reason in reasons.items() if reason is not None}


def _statistics_beside(path: Path, channels: int, allowed: bool) -> tuple[Statistics | None, dict[str, str]]:
    """Statistics in the folder of the weights, and which files of them were not read."""
    folder = path if path.is_dir() else path.parent
    present = [folder / name for name in _STATISTICS if (folder / name).is_file()]
    if not allowed:
        return None, {
            file.name: "latent statistics in a .pt file; pass allow_pickle_file=True (--pt)" for file in present
        }
    if folder / _STATISTICS[0] not in present:
        return None, {}
    statistics = Statistics.table(*_pair(folder / _STATISTICS[0]), channels, str(folder / _STATISTICS[0]))
    if folder / _STATISTICS[1] in present:
        statistics = statistics.with_images(*_pair(folder / _STATISTICS[1]), channels, str(folder / _STATISTICS[1]))
    return statistics, {}


def _pair(path: Path) -> tuple[object, object]:
    value = load_pickle_file(path)
    if not isinstance(value, tuple | list) or len(value) != 2:
        raise DataError(f"{path}: holds a {type(value).__name__}, not the two tensors mean and std")
    return value[0], value[1]


def _write_statistics(statistics: Statistics, folder: Path) -> list[Path]:
    written = [folder / _STATISTICS[0]]
    _save_pickle((statistics.mean.flatten(), statistics.std.flatten()), written[0])
    if statistics.image_mean is not None:
        written.append(folder / _STATISTICS[1])
        _save_pickle((statistics.image_mean, statistics.image_std), written[1])
    return written


def _save_pickle(value: object, path: Path) -> None:
    with whole_file(path) as temporary, temporary.open("wb") as file:
        torch.save(value, file)  # not to a path: its name would be in the bytes


def _to(tensor: Tensor, dtype: torch.dtype | None) -> Tensor:
    return tensor.detach().to(dtype) if dtype is not None and tensor.is_floating_point() else tensor.detach()
