"""A bundle: everything it takes to use a world model, in one folder, with the figures of its evaluation beside it."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wfm.errors import DataError
from wfm.generation.world_model import WorldCard, WorldModel
from wfm.models.folder import fetch_model

if TYPE_CHECKING:
    from wfm.artifacts import Artifact, Store


def write_bundle(store: "Store", inputs: Mapping[str, "Artifact"], out: Path, *, name: str, scratch: Path) -> WorldCard:
    """Write the bundle of artifacts ``tokenizer``, ``model`` and ``evaluation`` into ``out`` and open it once, to be
    sure.

    The evaluation must be of this very model and tokenizer, or DataError is raised: figures of another model are worse
    than none.
    """
    judged = store.artifact(inputs["evaluation"].manifest.inputs["generated"])
    for role in ("tokenizer", "model"):
        if judged.manifest.inputs.get(role) != inputs[role].key:
            raise DataError(
                f"the evaluation judged {role} {str(judged.manifest.inputs.get(role))[:12]}, to be published is "
                f"{inputs[role].key[:12]}: evaluate this one first"
            )
    with judged.open("card.json") as file:
        made = json.load(file)
    with inputs["evaluation"].open("metrics.json") as file:
        metrics = json.load(file)
    for role in ("tokenizer", "model"):
        shutil.copytree(fetch_model(inputs[role], scratch / role), out / role, dirs_exist_ok=True)
    card = WorldCard.parse(
        {
            **{field: made[field] for field in ("family", "size", "fps", "num_frames", "past_frames", "sampling")},
            "name": name or made["family"],
            "evaluation": metrics,
            "inputs": {role: artifact.key for role, artifact in sorted(inputs.items())},
        }
    )
    (out / "card.json").write_text(json.dumps(card.resolved(), indent=1, sort_keys=True) + "\n")
    world = WorldModel.load(out)
    (out / "README.md").write_text(readme(world))
    return card


def readme(world: WorldModel) -> str:
    """The bundle's card for people: what goes in, what comes out, how good it was."""
    card, spec = world.card, world.action_spec
    parameters = sum(p.numel() for p in world.model.parameters())
    actions = "\n".join(f"| `{name}` | {unit} |" for name, unit in zip(spec.names, spec.units, strict=True))
    lines = [
        f"# {card.name}: {card.family} world model",
        "",
        f"Takes {card.past_frames} frames of {card.size[0]} x {card.size[1]} at {card.fps:g} frames/s and predicts the next "
        f"{card.num_frames - card.past_frames}; longer futures are rolled out window by window. {parameters:,} parameters.",
        "",
        "```",
        f"wfm generate {card.name} --past CLIP.mp4 [--action FILE | --camera FILE]"
        + (" [--text CAPTION --guidance 4]" if world.reads_text else ""),
        "```",
        "",
        f"Actions, one row per frame at {spec.rate_hz:g} rows/s, in frame: {spec.frame}"
        if spec.width
        else "Takes no actions.",
        "",
        *(["| action | unit |", "|---|---|", actions, ""] if spec.width else []),
        "## Evaluation on held-out clips",
        "",
        *(f"- {name}: {value}" for name, value in _plain(card.evaluation)),
        "",
        "All figures, with intervals and subsets, are in `card.json` under `evaluation`.",
        "",
        "## Made from",
        "",
        *(f"- {role}: `{key}`" for role, key in sorted(card.inputs.items())),
        "",
    ]
    return "\n".join(lines)


def _plain(metrics: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """The top-level entries of an evaluation that are single values."""
    return [(name, value) for name, value in sorted(metrics.items()) if isinstance(value, str | int | float)]
