"""World models out of the store: from the artifacts of a run, or from a published bundle by name."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wfm.errors import ConfigError, DataError, InputError
from wfm.generation.config import SamplingConfig
from wfm.generation.rollout import Shows
from wfm.generation.world_model import WorldCard, WorldModel
from wfm.models.family import FAMILIES
from wfm.models.folder import open_model, read_card

if TYPE_CHECKING:
    from wfm.artifacts import Artifact, Store

CARD_VERSION = 1


def open_world(
    inputs: Mapping[str, "Artifact"],
    *,
    past_frames: int,
    sampling: SamplingConfig,
    family: str = "",
    tokenizer_family: str = "",
    conditions: Iterable[str] = (),
) -> WorldModel:
    """The unpublished world model of the artifacts ``tokenizer``, ``model`` and ``latents``; the latter's geometry is
    the window.

    Raises DataError when the model was trained with another tokenizer, or on other latents, than the ones given, and
    ConfigError for models of other families than those said, if any, and for one whose further conditions are others: only the
    code of what a stage's config names is in its key.
    """
    for role in ("tokenizer", "latents"):
        trained_with = inputs["model"].manifest.inputs.get(role)
        if trained_with is not None and trained_with != inputs[role].key:
            raise DataError(
                f"the model was trained with {role} {trained_with[:12]}, given is {inputs[role].key[:12]}: take one run's"
            )
    tokenizer, _ = open_model(inputs["tokenizer"], tokenizer_family)
    model, model_card = open_model(inputs["model"], family)
    frames, height, width = latent_shape(inputs["latents"])
    config = tokenizer.config
    card = WorldCard(
        family=model_card.family,
        size=(height * config.spatial_compression, width * config.spatial_compression),
        fps=model_card.config.fps,  # type: ignore[attr-defined]
        num_frames=1 + (frames - 1) * config.temporal_compression,
        past_frames=past_frames,
        sampling=sampling,
        inputs={role: artifact.key for role, artifact in inputs.items()},
    )
    world = WorldModel(tokenizer, model, model_card, card)
    if set(world.reading.further) != set(conditions):
        has, said = (", ".join(sorted(names)) or "none" for names in (world.reading.further, conditions))
        raise ConfigError(f"conditions: the model was trained with {has}, the config names {said}: name those")
    return world


def latent_shape(latents: "Artifact") -> tuple[int, int, int]:
    """(t, h, w) of the encoded windows, from the first row of their table of lengths.

    Raises DataError for an artifact without records, and for one of samples of their own shape.
    """
    if latents.manifest.config.get("take", "windows") != "windows":
        raise DataError(
            f"artifact {latents.key[:12]} holds samples of their own shape (take = 'clips'), windows are needed"
        )
    sides = ["latent_frames", "latent_height", "latent_width"]
    for _, table in latents.iterate_table("samples", sides):
        for row in table.slice(0, 1).to_pylist():
            t, h, w = (int(row[side]) for side in sides)
            return t, h, w
    raise DataError(f"artifact {latents.key[:12]} ({latents.kind}) holds no encoded windows")


def card_values(world: WorldModel, *, seed: int) -> dict[str, Any]:
    """What ``card.json`` beside generated videos holds, but for the keys of what they were made from."""
    card, family = world.card, FAMILIES.load(world.card.family)
    return {
        "schema_version": CARD_VERSION,
        "family": card.family,
        "title": family.title,
        "headline": family.headline,
        "labels": {name: variant.label for name, variant in family.variants.items()},
        "size": list(card.size),
        "fps": card.fps,
        "num_frames": card.num_frames,
        "past_frames": card.past_frames,
        "sampling": card.sampling.resolved(),
        "seed": seed,
        "action_spec": world.action_spec.resolved(),
    }


def fetch_bundle(store: "Store", name_or_path: str, into: Path) -> tuple[Path, str]:
    """(local bundle folder, artifact key or "") of a published model: a folder, a key, ``model/NAME@ALIAS``, or just
    NAME.

    Raises InputError naming what was tried.
    """
    return _fetch_named(store, name_or_path, into, kind="model", mark="card.json", what="published model")


def fetch_decoder(store: "Store", name_or_path: str, into: Path) -> tuple[Path, str]:
    """The same of a decoder of tokens: a folder with ``model/`` and ``tokenizer/``, a key, ``decoder/NAME@ALIAS`` or NAME."""
    return _fetch_named(store, name_or_path, into, kind="decoder", mark="model/config.json", what="decoder of tokens")


def open_decoder(folder: Path) -> Shows:
    """The decoder in a folder with ``model/`` and ``tokenizer/``. Raises DataError for a model of another kind."""
    family = FAMILIES.load(read_card(folder / "model").family)
    if family.makes != "decoder":
        raise DataError(f"{folder / 'model'} holds a model of family {family.name!r}, not a decoder of tokens")
    opened: Shows = family.drawing().load(folder)
    return opened


def _fetch_named(store: "Store", name_or_path: str, into: Path, *, kind: str, mark: str, what: str) -> tuple[Path, str]:
    if (Path(name_or_path) / mark).is_file():
        return Path(name_or_path), ""
    tried = [name_or_path] if "/" in name_or_path else [f"{kind}/{name_or_path}", name_or_path]
    tried = [name if "@" in name or "/" not in name else f"{name}@latest" for name in tried]
    problems = []
    for reference in tried:
        try:
            artifact = store.artifact(store.resolve(reference))
        except InputError as error:
            problems.append(f"{reference}: {error}")
            continue
        if artifact.kind != kind:
            raise InputError(f"{name_or_path!r} is an artifact of kind {artifact.kind!r}, wanted a {what}")
        artifact.fetch_tree("", into)
        return into, artifact.key
    raise InputError(f"no {what} {name_or_path!r}: it is no folder; " + "; ".join(problems))
