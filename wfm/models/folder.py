"""A model as a folder: `config.json` says what it is, `model.safetensors` holds every tensor, and nothing else is
needed.

    config.json          {schema_version, family, config, action_spec, extra}
    model.safetensors    one entry for each parameter and persistent buffer

Loading accounts for every key: a missing, extra or wrongly shaped one is refused, as is an unknown family or a newer
schema. There is no pickle, so a folder from elsewhere cannot run code.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor, nn

from wfm.actions import ActionSpec
from wfm.config import Config
from wfm.errors import ConfigError, DataError

SCHEMA_VERSION = 1


class Family(NamedTuple):
    """Where the classes of a family live: `module:config class` and `module:network class`."""

    config: str
    network: str


FAMILIES: dict[str, Family] = {
    "tokenizer": Family("wfm.models.tokenizer.config:TokenizerConfig", "wfm.models.tokenizer.network:Tokenizer"),
    "diffusion": Family("wfm.models.diffusion.config:DenoiserConfig", "wfm.models.diffusion.denoiser:Denoiser"),
    "autoregressive": Family(
        "wfm.models.autoregressive.config:AutoregressiveConfig",
        "wfm.models.autoregressive.network:AutoregressiveTransformer",
    ),
}


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
) -> None:
    """Write `module` and what it takes to build it again. The folder is created; each file is replaced as a whole.

    Raises ConfigError for a configuration class that belongs to no family.
    """
    path = Path(folder)
    path.mkdir(parents=True, exist_ok=True)
    save_tensors(module.state_dict(), path / "model.safetensors")
    card = {
        "schema_version": SCHEMA_VERSION,
        "family": family_of(config),
        "config": config.resolved(),
        "action_spec": (action_spec or ActionSpec.null()).resolved(),
        "extra": dict(extra or {}),
    }
    write_json(card, path / "config.json")


def load_model(folder: str | os.PathLike[str], *, device: str = "cpu") -> tuple[Any, ModelCard]:
    """The network of a folder, in evaluation mode, and its card. Raises DataError for a folder that is not a
    model."""
    path = Path(folder)
    card = read_card(path)
    network = _resolve(FAMILIES[card.family].network)(card.config)
    load_exactly(network, load_tensors(path / "model.safetensors"), str(path))
    return network.to(device).eval(), card


def read_card(folder: str | os.PathLike[str]) -> ModelCard:
    """What a folder holds, without its weights."""
    path = Path(folder) / "config.json"
    try:
        values = json.loads(path.read_text())
    except FileNotFoundError:
        raise DataError(f"{folder}: no config.json here, so this is not a model folder") from None
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise DataError(f"{path}: not JSON ({error})") from None
    version = values.get("schema_version")
    if not isinstance(version, int) or version > SCHEMA_VERSION:
        raise DataError(f"{path}: schema_version {version!r}, this wfm reads up to {SCHEMA_VERSION}: use a newer wfm")
    family = values.get("family")
    if family not in FAMILIES:
        raise DataError(f"{path}: unknown family {family!r}; this wfm knows {', '.join(sorted(FAMILIES))}")
    config = _resolve(FAMILIES[family].config).parse(values["config"])
    return ModelCard(family, config, ActionSpec.parse(values["action_spec"]), dict(values.get("extra", {})))


def family_of(config: Config) -> str:
    """The family whose configuration class `config` is."""
    here = f"{type(config).__module__}:{type(config).__name__}"
    for name, family in FAMILIES.items():
        if family.config == here:
            return name
    raise ConfigError(f"{here} is not the configuration of a model family; choose from {', '.join(sorted(FAMILIES))}")


def load_exactly(module: nn.Module, tensors: Mapping[str, Tensor], source: str) -> None:
    """Copy `tensors` into `module`, refusing any key or shape that does not match exactly. Raises DataError."""
    wanted = module.state_dict()
    problems = [f"missing {name}" for name in sorted(set(wanted) - set(tensors))]
    problems += [f"unexpected {name}" for name in sorted(set(tensors) - set(wanted))]
    problems += [
        f"{name} is {list(tensors[name].shape)}, wanted {list(wanted[name].shape)}"
        for name in sorted(set(wanted) & set(tensors))
        if tensors[name].shape != wanted[name].shape
    ]
    if problems:
        more = f" and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise DataError(f"{source}: the tensors do not fit the model: {'; '.join(problems[:5])}{more}")
    module.load_state_dict(dict(tensors), strict=True)


def save_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Write tensors as safetensors, atomically; the same tensors always give the same bytes."""
    from safetensors.torch import save_file

    temporary = path.with_name(f".{path.name}.tmp")
    ordered = {name: tensors[name].detach().cpu().contiguous().clone() for name in sorted(tensors)}
    save_file(ordered, str(temporary))
    os.replace(temporary, path)


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file. Raises DataError when it is missing or not one."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(str(path))
    except (FileNotFoundError, SafetensorError) as error:
        raise DataError(f"{path}: not a readable safetensors file ({error})") from None


def write_json(values: Mapping[str, Any], path: Path) -> None:
    """Write JSON, atomically, keys sorted."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(json.dumps(values, indent=1, sort_keys=True) + "\n")
    os.replace(temporary, path)


def _resolve(name: str) -> Any:
    module, attribute = name.split(":")
    return getattr(import_module(module), attribute)


def count_parameters(module: nn.Module) -> int:
    """Learnable numbers of a model."""
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)
