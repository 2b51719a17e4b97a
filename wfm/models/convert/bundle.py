"""A published world model, which is two models, written for others; or else all that their format has no place for.

diffusers    OUT/transformer, OUT/vae         as the folders of a pipeline are called there
cosmos       OUT/model, OUT/tokenizer
"""

from pathlib import Path

from wfm.config import Config
from wfm.errors import ConfigError
from wfm.models.convert.cosmos import network_of
from wfm.models.convert.filling import without_weights
from wfm.models.convert.misfits import Misfit, Peer, misfits
from wfm.models.diffusion.config import DenoiserConfig, DiffusionConfig
from wfm.models.family import family_of
from wfm.models.folder import read_card
from wfm.models.tokenizer.config import TokenizerConfig

PARTS = ("model", "tokenizer")
FOLDERS = {
    "diffusers": {"model": "transformer", "tokenizer": "vae"},
    "cosmos": {"model": "model", "tokenizer": "tokenizer"},
}
"""What the parts of a bundle are called by each peer."""
LEFT_OUT = (
    "card.json: the window, how futures are drawn, the evaluation",
    "action_spec of the model: what an action means, its units and its scale",
)
"""What neither peer has a file for."""


def is_bundle(folder: Path) -> bool:
    """Whether a folder is a published world model, not one model."""
    return all((folder / path).is_file() for path in ("card.json", *(f"{part}/config.json" for part in PARTS)))


def unfit(config: Config, to: Peer) -> list[str]:
    """Every field and every tensor that the peer's format has no place for, a line each, and how many it needs that are not
    there; none where the model fits."""
    if to == "diffusers" and not isinstance(config, DenoiserConfig | DiffusionConfig | TokenizerConfig):
        return [f"diffusers has no class for a {family_of(config).name} model"]
    found = misfits(config, to)
    return [*(f"field {one.words}" for one in found), *(_tensors(config, found) if found else ())]


def require_fit(source: Path, to: Peer) -> None:
    """Raise ConfigError, with all that does not fit, for a model folder or a bundle that cannot be written for the peer."""
    folders = {part: source / part for part in PARTS} if is_bundle(source) else {"": source}
    lines = {part: unfit(read_card(folder).config, to) for part, folder in folders.items()}
    told = [f"  {part}{': ' if part else ''}{line}" for part, found in lines.items() for line in found]
    if told:
        fits = [folders[part] for part, found in lines.items() if not found]
        alone = f"; {fits[0]} fits and can be written alone" if fits else ""
        raise ConfigError(
            f"{source} cannot be written for {to}: it has no place for\n"
            + "\n".join(told)
            + f"\nnothing was written{alone}"
        )


def _tensors(config: Config, found: list[Misfit]) -> list[str]:
    """Tensors that come of the fields that do not fit: those that a twin without them has not, or has in another shape."""
    values = config.resolved()
    for one in found:
        *way, last = one.field.split(".")
        inner = values
        for step in way:
            inner = inner[step]
        inner[last] = one.wanted
    try:
        twin = type(config).parse(values)
    except ConfigError as error:
        return [f"tensors: not known which, no such model can be made without these fields ({error})"]
    ours, theirs = (_shapes(each) for each in (config, twin))
    lines = [f"tensor {name} {list(shape)}" for name, shape in ours.items() if name not in theirs]
    lines += [
        f"tensor {name} {list(shape)}, the peer's has {list(theirs[name])}"
        for name, shape in ours.items()
        if name in theirs and theirs[name] != shape
    ]
    missing = [name for name in theirs if name not in ours]
    return [*lines, *([f"and lacks {len(missing)} tensors that it needs, such as {missing[0]}"] if missing else [])]


def _shapes(config: Config) -> dict[str, tuple[int, ...]]:
    network = without_weights(lambda: network_of(config))
    return {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
