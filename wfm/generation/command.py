"""The library half of ``wfm generate MODEL --past CLIP [--action FILE | --camera FILE]``: files in, an mp4 and a JSON
sidecar out."""

import json
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from wfm.artifacts.atomic import put_in_place, require_free, write_new
from wfm.conditions.condition import Reads
from wfm.errors import ConfigError, InputError
from wfm.generation.action_files import read_actions
from wfm.generation.camera_files import read_camera
from wfm.generation.from_artifacts import fetch_bundle, fetch_decoder, open_decoder
from wfm.generation.past_clip import read_past
from wfm.generation.watching import watched
from wfm.generation.world_model import WorldCard, WorldModel, guides
from wfm.generation.write_video import from_uint8, to_uint8, write_mp4
from wfm.models.seeding import check_seed

if TYPE_CHECKING:
    from wfm.artifacts import Store

SIDECAR_VERSION = 1


class Written(NamedTuple):
    """The two files of a generation."""

    video: Path
    sidecar: Path


def generate_from_files(
    store: "Store",
    model_name_or_path: str,
    past: str | os.PathLike[str],
    action_file: str | os.PathLike[str] | None = None,
    camera_file: str | os.PathLike[str] | None = None,
    out: str | os.PathLike[str] = "future.mp4",
    seed: int = 0,
    mode: str = "",
    num_frames: int = 0,
    text: str = "",
    text_encoder: str = "",
    guidance: float | None = None,
    negative_text: str = "",
    decoder: str = "",
    force: bool = True,
) -> Written:
    """Continue a video file with a published model and write ``out`` (mp4) and ``out`` with the suffix ``.json``.

    model_name_or_path: a bundle folder, ``model/NAME@ALIAS``, a key, or just NAME. mode: one of the family's
    (`Family.modes`); empty means that of its headline variant. num_frames: given and predicted frames together; 0 means
    the training window. Without a file of actions the model runs without them. text: a caption of the future, for a model that
    reads text; text_encoder: the folder of its encoder when that is no package. guidance: strength in the standard
    convention (1 is none), in place of the model's own; negative_text: what guidance moves away from. decoder: one that
    shows a model's tokens (a folder, a key, or its name in the store). Nothing is written unless everything went well;
    without ``force`` never over another file. Raises InputError (or a kind of it) for whatever is wrong with what was given.
    """
    target = Path(out)
    _check_target(target, force)
    check_seed(seed)
    _check_one_file(action_file, camera_file)
    world, key, decoder_key = _open(store, model_name_or_path, decoder)
    if guidance is not None:
        world.card = with_guidance(world.card, guidance)
    if text or negative_text:
        world.open_text(text_encoder)
    total = num_frames or world.card.num_frames
    mode = mode or world.family.mode_of("")
    given = read_past(Path(past), world.card)
    actions, note = _actions(world, action_file, camera_file, total)
    _check_guidance(world, guidance, {"captions": text or negative_text or None, "actions": actions})
    with watched(world, total, mode):
        video = world.generate(
            torch.from_numpy(np.ascontiguousarray(from_uint8(given.frames)))[None],
            None if actions is None else actions[None],
            num_frames=total, seeds=[seed], mode=mode, text=[text] if text else None, negative_text=negative_text,
        )  # fmt: skip
    sidecar = {
        **_of_model(world, model_name_or_path, key, _sources(store, key)),
        "seed": seed,
        "mode": mode,
        "num_frames": total,
        "past": given.choices,
        "actions": note,
        "text": {"caption": text, "negative": negative_text, "encoder": world.model_card.extra["text"]}
        if text or negative_text
        else None,
        "decoder": {"given_as": decoder, "key": decoder_key} if decoder else None,
    }
    return _write(target, to_uint8(video[0].numpy()), world.card.fps, sidecar, force)


def _open(store: "Store", model: str, decoder: str) -> tuple[WorldModel, str, str]:
    """The model, its key and that of the decoder that shows its tokens; empty where there is none in the store."""
    with tempfile.TemporaryDirectory(prefix="wfm-generate-") as scratch:
        folder, key = fetch_bundle(store, model, Path(scratch) / "bundle")
        world, decoder_key = WorldModel.load(folder), ""
        if decoder:
            folder, decoder_key = fetch_decoder(store, decoder, Path(scratch) / "decoder")
            world.use_decoder(open_decoder(folder))
    return world, key, decoder_key


def _check_guidance(world: WorldModel, guidance: float | None, told: dict[Reads, Any]) -> None:
    """Raise ConfigError for guidance that moves away from nothing: of what the model is told, it must drop something."""
    if guidance in (None, 1.0):
        return
    met = world.reading.that_read(*(what for what, value in told.items() if value is not None))
    dropped = world.card.sampling.guidance.drop  # type: ignore[attr-defined]
    if not met.keys() & set(dropped):
        raise ConfigError(
            f"guidance is {guidance} and nothing that it moves away from is given ({', '.join(dropped)}): it would change "
            "nothing; give a caption, actions or a camera path, or leave it out"
        )


def _of_model(world: WorldModel, given_as: str, key: str, sources: list[str]) -> dict[str, Any]:
    """What the sidecar says of the model alone."""
    card = world.card
    return {
        "schema_version": SIDECAR_VERSION,
        "model": {"name": card.name, "key": key, "given_as": given_as, "family": card.family},
        "past_frames": card.past_frames,
        "fps": card.fps,
        "sampling": card.sampling.resolved(),
        "action_spec": world.action_spec.resolved(),
        "lineage": {"inputs": card.inputs, "sources": sources},
    }


def _actions(
    world: WorldModel,
    action_file: str | os.PathLike[str] | None,
    camera_file: str | os.PathLike[str] | None,
    total: int,
) -> tuple[np.ndarray | None, dict[str, Any]]:
    """Raw actions ``[total, A]`` or None, and what was done to get them."""
    if action_file is None and camera_file is None:
        return None, {"kind": "none", "words": "no action was given: the model without its actions"}
    if action_file is not None:
        kind, name, rows = "action", Path(action_file).name, read_actions(Path(action_file), world.action_spec)
    else:
        assert camera_file is not None
        kind, name, rows = "camera", Path(camera_file).name, read_camera(Path(camera_file), world.action_spec)
    given = world.card.past_frames
    future = total - given
    if len(rows) in (total, total - 1):
        words = "rows cover the given and the predicted frames"
    elif len(rows) == future:
        rows = np.concatenate([np.repeat(rows[:1], given - 1, axis=0), rows])
        words = (
            "rows cover the predicted frames alone; the first one is taken to have acted during the given frames too"
        )
    else:
        raise InputError(
            f"{name}: {len(rows)} rows; give {future} (one for each predicted frame, the first acting between the last given "
            f"frame and the first predicted one), or {total} (one for every frame, the {given} given ones included)"
        )
    if len(rows) == total - 1:
        rows = np.concatenate([rows, rows[-1:]])  # what acts after the last frame is never seen
    return rows, {"kind": kind, "file": name, "words": words, "rows": rows.tolist()}


def with_guidance(card: WorldCard, scale: float) -> WorldCard:
    """The card with guidance of this strength in the standard convention. Raises ConfigError for a family without it."""
    if not guides(card.sampling):
        raise ConfigError(f"guidance: the {card.family} family has none")
    values = card.sampling.resolved()
    guided = {**values, "guidance": {**values["guidance"], "scale": scale, "convention": "standard"}}
    return card.model_copy(update={"sampling": type(card.sampling).parse(guided)})


def _sources(store: "Store", key: str) -> list[str]:
    """The files that the model was trained from, as far as the store still knows; empty for a bundle that is not in
    it."""
    return sorted(set(store.lineage(key).sources())) if key else []


def _check_one_file(action_file: str | os.PathLike[str] | None, camera_file: str | os.PathLike[str] | None) -> None:
    if action_file is not None and camera_file is not None:
        raise InputError(
            "both an action file and a camera file were given: give one (an action file may hold camera actions)"
        )


def _check_target(target: Path, force: bool) -> None:
    if target.suffix.lower() != ".mp4":
        raise InputError(f"{target}: the output is an mp4; give a name that ends in .mp4")
    if not target.parent.is_dir():
        raise InputError(f"{target.parent}: no such folder to write into")
    require_free(target, target.with_suffix(".json"), force=force)


def _write(target: Path, frames: np.ndarray, fps: float, sidecar: dict[str, Any], force: bool) -> Written:
    """Both files under temporary names first; then the sidecar and, last, the video take their places."""
    beside = target.with_suffix(".json")
    content = json.dumps(sidecar, indent=1, sort_keys=True) + "\n"
    made = target.with_name(f".{target.stem}.{os.getpid()}.mp4")
    try:
        write_mp4(made, frames, fps)
        write_new(beside, content.encode(), force=force)
        put_in_place(made, target, force=force)
    finally:
        made.unlink(missing_ok=True)
    return Written(target, beside)
