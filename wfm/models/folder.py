"""A model as a folder: `config.json` says what it is, `model.safetensors` holds every tensor, and nothing else is
needed.

    config.json          {schema_version, family, config, action_spec, extra}
    model.safetensors    one entry for each parameter and persistent buffer; or shards with an index, see convert.writing

Loading accounts for every key: a missing, extra or wrongly shaped one is refused, as is an unknown family or a newer
schema. There is no pickle, so a folder from elsewhere cannot run code. A model is in memory once while it is loaded.
"""

import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from wfm.actions import ActionSpec
from wfm.config import Config
from wfm.errors import ConfigError, DataError
from wfm.models.convert.filling import check_entries, fill, network_for
from wfm.models.convert.reading import open_tensors, read_json
from wfm.models.convert.tensor_file import Entry
from wfm.models.convert.writing import find_tensors, save_sharded, save_tensors, write_json
from wfm.models.family import FAMILIES, family_of
from wfm.models.fast_cpu import fast_cpu

if TYPE_CHECKING:
    from wfm.artifacts import Artifact

__all__ = [
    "SCHEMA_VERSION", "ModelCard", "count_parameters", "fetch_model", "load_exactly", "load_model", "load_tensors",
    "open_model", "read_card", "save_model", "save_tensors", "write_json",
]  # fmt: skip

STEM = "model"
SCHEMA_VERSION = 1
_OLDER = "If an older wfm trained it, train it again, or open it with that version"


@dataclass(frozen=True)
class ModelCard:
    """What a model folder says about itself."""

    family: str
    config: Config
    action_spec: ActionSpec
    extra: dict[str, Any] = field(default_factory=dict)


def save_model(
    module: nn.Module,
    config: Config,
    folder: str | os.PathLike[str],
    *,
    action_spec: ActionSpec | None = None,
    extra: Mapping[str, Any] | None = None,
    max_shard_bytes: int | None = None,
    tensors: Mapping[str, Tensor] | None = None,
) -> None:
    """Write `module` and what it takes to build it again. The folder is created; each file is replaced as a whole.

    Weights are one file, or shards of at most `max_shard_bytes`; `tensors`: these in the place of the module's, where they are
    spread over ranks. Raises ConfigError for a configuration class that
    belongs to no family.
    """
    path = Path(folder)
    path.mkdir(parents=True, exist_ok=True)
    family = family_of(config)
    if not isinstance(config, family.config):
        raise ConfigError(
            f"{type(config).__name__} is a part of family {family.name}, whose models are saved with a {family.config.__name__}"
        )
    save_sharded(module.state_dict() if tensors is None else tensors, path, STEM, max_shard_bytes=max_shard_bytes)
    card = {
        "schema_version": SCHEMA_VERSION,
        "family": family.name,
        "config": config.resolved(),
        "action_spec": (action_spec or ActionSpec.null()).resolved(),
        "extra": dict(extra or {}),
    }
    write_json(card, path / "config.json")


def load_model(
    folder: str | os.PathLike[str], *, device: str = "cpu", dtype: torch.dtype | Literal["saved"] | None = None
) -> tuple[Any, ModelCard]:
    """The network of a folder, in evaluation mode, and its card. Raises DataError for a folder that is not a
    model.

    dtype None: that of a network newly made (float32), whatever the file has; "saved": that of the file.
    """
    path = Path(folder)
    card = read_card(path)
    make = FAMILIES.load(card.family).network_class()
    # Copied, not mapped: a loaded model lives long, and its folder may be replaced or collected meanwhile
    passing = device != "cpu" or isinstance(dtype, torch.dtype)
    with open_tensors(find_tensors(path, STEM), mapped=passing) as file:
        network = network_for(lambda: make(card.config), file.entries, str(path / "config.json"))
        wanted = network.state_dict()
        check_entries(wanted, file.entries, str(path), hint=_OLDER)
        fill(
            network, dict.fromkeys(wanted, file), {name: name for name in wanted},
            dtype=None if dtype == "saved" else dtype, as_built=dtype is None, device=device,
        )  # fmt: skip
    return network.eval(), card


def open_model(artifact: "Artifact", family: str = "", *, device: str = "cpu") -> tuple[Any, ModelCard]:
    """`load_model` of the one model folder in an artifact; every byte is verified on the way. On a CPU it comes as `fast_cpu`.

    Raises ConfigError for a model of another family than the one that a stage's config names: its code is not in the key.
    """
    with tempfile.TemporaryDirectory(prefix="wfm-model-") as scratch:
        folder = fetch_model(artifact, Path(scratch))
        found = read_card(folder).family
        if family and found != family:
            raise ConfigError(
                f"{artifact.kind} {artifact.key[:12]} is of family {found}, and the config names {family}"
            )
        network, card = load_model(folder, device=device)
    return fast_cpu(network), card


def fetch_model(artifact: "Artifact", into: Path) -> Path:
    """Copy an artifact's one model folder below `into` and return it. Raises DataError unless there is exactly one."""
    found = [entry.path for entry in artifact.files() if entry.path.rpartition("/")[2] == f"{STEM}.safetensors"]
    if len(found) != 1:
        raise DataError(
            f"artifact {artifact.key[:12]} ({artifact.kind}) holds {len(found)} model folders, wanted 1: {found}"
        )
    folder = found[0].rpartition("/")[0]
    artifact.fetch_tree(f"{folder}/" if folder else "", into)
    return into / folder


def read_card(folder: str | os.PathLike[str]) -> ModelCard:
    """What a folder holds, without its weights."""
    path = Path(folder) / "config.json"
    try:
        values = read_json(path)
    except (FileNotFoundError, NotADirectoryError):
        theirs = (path.parent / "model_index.json").is_file()
        hint = ": it holds a pipeline of diffusers; import one of its folders with wfm weights import" if theirs else ""
        raise DataError(f"{folder}: no config.json here, so this is not a model folder{hint}") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not JSON ({error})") from None
    if not isinstance(values, dict):
        raise DataError(f"{path}: a JSON object was expected")
    if "_class_name" in values and "schema_version" not in values:
        raise DataError(
            f"{folder}: a model of diffusers, not of ours; bring it in with: wfm weights import {folder} OUT"
        )
    version = values.get("schema_version")
    if not isinstance(version, int) or version > SCHEMA_VERSION:
        raise DataError(f"{path}: schema_version {version!r}, this wfm reads up to {SCHEMA_VERSION}: use a newer wfm")
    family = values.get("family")
    if not isinstance(family, str) or family not in FAMILIES.names():
        raise DataError(f"{path}: unknown family {family!r}; this wfm knows {', '.join(sorted(FAMILIES.names()))}")
    said, spec, extra = values.get("config"), values.get("action_spec"), values.get("extra", {})
    if not (isinstance(said, dict) and isinstance(spec, dict) and isinstance(extra, dict)):
        raise DataError(f"{path}: config, action_spec and extra must be JSON objects")
    config = FAMILIES.load(family).config.parse(said)
    return ModelCard(family, config, ActionSpec.parse(spec), extra)


def load_exactly(module: nn.Module, tensors: Mapping[str, Tensor], source: str) -> None:
    """Copy `tensors` into `module`, refusing any key or shape that does not match exactly. Raises DataError."""
    entries = {name: Entry(str(held.dtype).removeprefix("torch."), tuple(held.shape)) for name, held in tensors.items()}
    check_entries(module.state_dict(), entries, source)
    module.load_state_dict(dict(tensors), strict=True)


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file. Raises DataError when it is missing or not one."""
    with open_tensors(path, mapped=False) as file:
        return {name: file.read(name) for name in file.entries}


def count_parameters(module: nn.Module) -> int:
    """Learnable numbers of a model."""
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)
