"""What `wfm weights` does: a checkpoint looked at, brought in as a model folder of ours, or written for others."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch

from wfm.errors import ConfigError, DataError
from wfm.models.convert.bundle import FOLDERS, LEFT_OUT, PARTS, is_bundle, require_fit
from wfm.models.convert.conversion import Conversion, Statistics
from wfm.models.convert.cosmos import bare_name, cosmos_names, files_of, network_of, read_cosmos, to_cosmos
from wfm.models.convert.diffusers_folder import (
    diffusers_config,
    find_weights,
    read_diffusers,
    refuse_pipeline,
    to_diffusers,
)
from wfm.models.convert.filling import WEIGHT_DTYPES, without_weights
from wfm.models.convert.names import reason_left_out
from wfm.models.convert.reading import open_tensors
from wfm.models.convert.tensor_file import Entry
from wfm.models.diffusion.config import DenoiserConfig, DiffusionConfig
from wfm.models.diffusion.denoiser import Denoiser
from wfm.models.folder import load_model, read_card, save_model
from wfm.models.presets import PRESETS
from wfm.models.tokenizer.config import TokenizerConfig

_UNITS = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}


@dataclass(frozen=True)
class Contents:
    """A file of tensors, described."""

    path: Path
    kind: str
    entries: dict[str, Entry] = field(default_factory=dict)

    @property
    def count(self) -> int:
        """Numbers in all tensors."""
        return sum(entry.count for entry in self.entries.values())

    @property
    def nbytes(self) -> int:
        """Size of all tensors [bytes]."""
        return sum(entry.nbytes for entry in self.entries.values())

    def by_dtype(self) -> dict[str, int]:
        """Numbers of each dtype."""
        counts: dict[str, int] = {}
        for entry in self.entries.values():
            counts[entry.dtype] = counts.get(entry.dtype, 0) + entry.count
        return dict(sorted(counts.items()))


def inspect_weights(source: Path, *, allow_pickle_file: bool = False) -> list[Contents]:
    """What is in a file, or in the weights of a folder, without reading a tensor."""
    found = []
    for path in _weight_files(source):
        with open_tensors(path, allow_pickle_file=allow_pickle_file) as file:
            found.append(Contents(path, file.kind, dict(sorted(file.entries.items()))))
    return found


def fitting_presets(contents: Iterable[Contents]) -> list[str]:
    """Names of the presets whose tensors these are, exactly; in the original's names or in ours and diffusers'."""
    shapes = {name: entry.shape for one in contents for name, entry in one.entries.items()}
    theirs = {bare_name(name): shape for name, shape in shapes.items()}
    theirs = {name: shape for name, shape in theirs.items() if reason_left_out(name) is None}
    family = "tokenizer" if "quant_conv.bias" in shapes or "quant_conv.conv3d.bias" in shapes else "diffusion"
    family = "autoregressive" if "tok_embeddings.weight" in theirs else family
    fits = []
    for name, preset in PRESETS.items():
        if preset.family != family:
            continue
        network = without_weights(lambda config=preset.config: network_of(config))  # type: ignore[misc]
        ours = {key: tuple(tensor.shape) for key, tensor in network.state_dict().items()}
        if shapes == ours or theirs == {key: ours[own] for own, key in cosmos_names(network).items()}:
            fits.append(name)
    return fits


def import_weights(
    source: Path,
    out: Path,
    *,
    preset: str = "",
    statistics: Path | None = None,
    allow_pickle_file: bool = False,
    dtype: str = "",
    max_shard_bytes: int | None = None,
    dry_run: bool = False,
) -> Conversion:
    """Bring a diffusers folder (no `preset`) or an original checkpoint (`preset`) in as a model folder at `out`.

    A transformer becomes a denoiser: with the uncertainty the checkpoint holds, and the latents' statistics of `statistics`,
    the folder of an imported tokenizer. `dry_run` checks everything and writes nothing.
    """
    kind = dtype_named(dtype)
    _refuse_same(source, out)
    if not source.exists():
        raise DataError(f"{source}: no such file or folder")
    refuse_pipeline(source)
    if preset:
        read = _read_original(source, preset, allow_pickle_file, kind)
    else:
        if not (source / "config.json").is_file():
            raise ConfigError(
                f"preset: {source} is no diffusers folder (it has no config.json), so say which of {', '.join(PRESETS)} it is"
            )
        read = read_diffusers(source, dtype=kind)
    if isinstance(read.config, DiffusionConfig | DenoiserConfig):
        read = as_denoiser(read, _table_of(statistics))
    elif statistics is not None:
        raise ConfigError("statistics: only a transformer takes a tokenizer's statistics, and this is a tokenizer")
    if not dry_run:
        extra = {"source": source.name, "preset": preset, "left_out": read.left_out, **_extra_of(read.statistics)}
        save_model(read.module, read.config, out, extra=extra, max_shard_bytes=max_shard_bytes)
    return read


def export_weights(
    model: Path,
    out: Path,
    *,
    to: Literal["diffusers", "cosmos"],
    dtype: str = "",
    max_shard_bytes: int | None = None,
    dry_run: bool = False,
) -> list[str]:
    """Write a model folder for diffusers, or under the original's names; of a bundle both of its models (`bundle`). Returns
    what was left out, a line each. Raises ConfigError with every field and tensor that the format has no place for.
    """
    require_fit(model, to)
    if is_bundle(model):
        _refuse_same(model, out)
        left = list(LEFT_OUT)
        for part in PARTS:
            written = out / FOLDERS[to][part]
            found = export_weights(
                model / part, written, to=to, dtype=dtype, max_shard_bytes=max_shard_bytes, dry_run=dry_run
            )
            left += [f"{part}: {line}" for line in found]
        return left
    module, card = load_model(model, dtype="saved")
    statistics = _statistics_of(card.extra) if isinstance(card.config, TokenizerConfig) else None
    left = []
    _refuse_same(model, out)
    if isinstance(module, Denoiser):
        cosmos_names(module)  # refuses a denoiser that is more than Cosmos's
        left = ["the denoiser's latent statistics: they go with the tokenizer, which has its own"]
        if to == "diffusers":
            if module.logvar is not None:
                left.append("the learned uncertainty (logvar): diffusers has no place for it")
            module = module.network
    if dry_run:
        _ = diffusers_config(module, statistics) if to == "diffusers" else cosmos_names(module)
        return left
    write = to_diffusers if to == "diffusers" else to_cosmos
    write(module, out, statistics=statistics, dtype=dtype_named(dtype), max_shard_bytes=max_shard_bytes)
    return left


def dtype_named(name: str) -> torch.dtype | None:
    """A dtype by its torch name; None for no name."""
    if name and name not in WEIGHT_DTYPES:
        raise ConfigError(f"dtype: {name!r}; choose from {', '.join(WEIGHT_DTYPES)}, or leave it as it is")
    return getattr(torch, name) if name else None


def bytes_named(size: str) -> int | None:
    """`5GB` -> 5,000,000,000; None for no size."""
    if not size:
        return None
    match = re.fullmatch(r"([0-9]{1,18}(?:\.[0-9]{1,18})?)\s*([A-Za-z]*)", size.strip())
    if match is None or match[2].upper() not in _UNITS:
        raise ConfigError(f"max shard size: {size!r}; give a number and a unit such as 500MB, 5GB or 2GiB")
    return int(float(match[1]) * _UNITS[match[2].upper()])


def _refuse_same(source: Path, out: Path) -> None:
    if source.resolve() == out.resolve():
        raise ConfigError(f"out: {out} is the source itself, whose files would be replaced; give another folder")


def _weight_files(source: Path) -> list[Path]:
    if not source.is_dir():
        return [source]
    refuse_pipeline(source)
    if (theirs := find_weights(source)).is_file():
        return [theirs]
    return files_of(source)


def _read_original(source: Path, preset: str, allow_pickle_file: bool, dtype: torch.dtype | None) -> Conversion:
    """With the uncertainty, where the checkpoint holds one."""
    held = any(
        name.startswith("logvar.")
        for one in inspect_weights(source, allow_pickle_file=allow_pickle_file)
        for name in one.entries
    )
    return read_cosmos(source, preset, allow_pickle_file=allow_pickle_file, denoiser=held, dtype=dtype)


def _table_of(tokenizer: Path | None) -> Statistics | None:
    """The latents' statistics in the card of an imported tokenizer."""
    if tokenizer is None:
        return None
    if (table := _statistics_of(read_card(tokenizer).extra)) is None:
        raise DataError(
            f"{tokenizer}: this tokenizer's card has no latent statistics; import it together with its mean_std.pt (--pt)"
        )
    return table


def as_denoiser(read: Conversion, table: Statistics | None = None) -> Conversion:
    """A transformer that was read (`read_diffusers`, `read_cosmos`) as the `Denoiser` that samplers and training take.

    table: statistics of the tokenizer's latents; without them latents count as normalised already. Nothing is copied.
    """
    network, uncertainty = read.module, None
    if isinstance(read.module, Denoiser):
        network, uncertainty = read.module.network, read.module.logvar
    assert isinstance(read.config, DiffusionConfig | DenoiserConfig)
    inner = read.config.network if isinstance(read.config, DenoiserConfig) else read.config
    config = DenoiserConfig.parse(
        {
            "network": inner.resolved(),
            "uncertainty": 0 if uncertainty is None else uncertainty[1].in_features,
            "statistics_frames": 16 if table is None else table.mean.shape[1],
            "image_statistics": table is not None and table.image_mean is not None,
            "published_mask": inner.condition_mask,
        }
    )
    denoiser = without_weights(lambda: Denoiser(config))
    denoiser.network, denoiser.logvar = network, uncertainty  # type: ignore[assignment]
    if table is not None:
        denoiser.statistics.set(table.mean, table.std, image_mean=table.image_mean, image_std=table.image_std)
    return Conversion(denoiser.eval(), config, table, read.left_out)


def _extra_of(statistics: Statistics | None) -> dict[str, Any]:
    """Statistics as a model card keeps them."""
    tables = {} if statistics is None else vars(statistics)
    return {f"latents_{name}": table.tolist() for name, table in tables.items() if table is not None}


def _statistics_of(extra: dict[str, Any]) -> Statistics | None:
    """The inverse of `_extra_of`."""
    tables = {name: extra.get(f"latents_{name}") for name in ("mean", "std", "image_mean", "image_std")}
    if tables["mean"] is None or tables["std"] is None:
        return None
    return Statistics(**{name: None if table is None else torch.tensor(table) for name, table in tables.items()})  # type: ignore[arg-type]
