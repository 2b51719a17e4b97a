"""A published world model as its users see it: ``wfm.load`` and ``predict``. `wfm generate` is these two.

model = load("model/diffusion@latest")
video = model.predict("clip.mp4", actions="moves.csv", seconds=1)
video.save("next.mp4")
"""

import copy
import functools
import math
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from wfm.actions import ActionSpec
from wfm.artifacts.environment import open_store
from wfm.artifacts.missing_store import require_store
from wfm.artifacts.pulled import pulled_folder
from wfm.conditions.condition import Reads
from wfm.errors import ConfigError, InputError
from wfm.generation.from_artifacts import fetch_bundle, fetch_decoder, open_decoder
from wfm.generation.given_actions import Actions, Camera, given_actions, require_one
from wfm.generation.past_clip import Past, past_of_frames, read_past
from wfm.generation.video import Video
from wfm.generation.watching import new_frames, watched, windows_of
from wfm.generation.world_model import WorldCard, WorldModel, guides
from wfm.generation.write_video import from_uint8, to_uint8
from wfm.models.seeding import check_seed

if TYPE_CHECKING:
    from wfm.artifacts import Store

SIDECAR_VERSION = 1
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def load(
    model: str | os.PathLike[str],
    *,
    store: str | os.PathLike[str] = "",
    device: str = "cpu",
    dtype: str = "float32",
    decoder: str | os.PathLike[str] = "",
    text_encoder: str | os.PathLike[str] = "",
) -> "PublishedModel":
    """Open a published world model.

    model: its name in the store (``diffusion``, ``model/diffusion``, ``model/diffusion@latest``), its key or the first 8 or
    more digits of it, or a folder that ``wfm artifacts pull`` made. store: where names and keys are looked up; empty:
    ``WFM_STORE``, or ``wfm-store`` in the current folder. device: as torch names it (``cpu``, ``cuda``, ``cuda:1``). dtype:
    what the network computes in, ``float32`` (as it was evaluated), ``bfloat16`` or ``float16``; the tokenizer stays in
    float32. decoder: what shows the model's tokens in place of its tokenizer (a name, a key, a folder). text_encoder: the
    folder of the encoder of captions, for a model that reads them and whose encoder is no installed package.

    Raises InputError (or a kind of it: ConfigError, DataError) that says what was tried for a model that is not there, for a
    word that means a folder and a name, a damaged bundle, a device that this machine has not.
    """
    return load_from(
        functools.cache(lambda: require_store(open_store(store))), model,
        device=device, dtype=dtype, decoder=decoder, text_encoder=text_encoder,
    )  # fmt: skip


def load_from(
    store: "Callable[[], Store]",
    model: str | os.PathLike[str],
    *,
    device: str = "cpu",
    dtype: str = "float32",
    decoder: str | os.PathLike[str] = "",
    text_encoder: str | os.PathLike[str] = "",
) -> "PublishedModel":
    """`load` out of a store that is opened already, if one is needed at all."""
    _check_device(device)
    if dtype not in DTYPES:
        raise ConfigError(f"dtype {dtype!r}: choose {', '.join(DTYPES)}")
    with tempfile.TemporaryDirectory(prefix="wfm-load-") as scratch:
        folder = pulled_folder(model, kind="model", mark="card.json", store=store)
        key, decoder_key = "", ""
        if folder is None:
            folder, key = fetch_bundle(store(), os.fspath(model), Path(scratch) / "bundle")
        world = WorldModel.load(folder, device=device)
        if decoder:
            shown = pulled_folder(decoder, kind="decoder", mark="model/config.json", store=store)
            if shown is None:
                shown, decoder_key = fetch_decoder(store(), os.fspath(decoder), Path(scratch) / "decoder")
            world.use_decoder(open_decoder(shown))
    world.model.to(DTYPES[dtype])
    facts = {
        "model": {"name": world.card.name, "key": key, "given_as": os.fspath(model), "family": world.card.family},
        "decoder": {"given_as": os.fspath(decoder), "key": decoder_key} if decoder else None,
        "computed": {"device": device, "dtype": dtype},
    }
    return PublishedModel(world, key, facts, store, os.fspath(text_encoder))


def _check_device(device: str) -> None:
    """Raise ConfigError for a device that torch does not know, or that is not here."""
    try:
        wanted = torch.device(device)
    except RuntimeError as error:
        raise ConfigError(f"device {device!r}: {str(error).splitlines()[0]}") from None
    here = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
    if str(wanted) not in (*here, *(["cuda"] if len(here) > 1 else [])):
        raise ConfigError(f"device {device!r} is not on this machine: choose {', '.join(here)}")


class PublishedModel:
    """A world model that is loaded. Cheap to ask again: nothing that a prediction is told stays for the next one."""

    def __init__(
        self,
        world: WorldModel,
        key: str,
        facts: Mapping[str, Any],
        store: "Callable[[], Store]",
        text_encoder: str = "",
    ) -> None:
        self.world = world
        "Tokenizer and network, on tensors in [-1, 1]."
        self.key = key
        "Key of its artifact; empty for a folder."
        self._facts, self._store, self._text_encoder = dict(facts), store, text_encoder

    def __repr__(self) -> str:
        card = self.card
        return (
            f"PublishedModel({card.name or card.family}: {card.past_frames} frames of {card.size[0]}x{card.size[1]} at "
            f"{card.fps:g}/s -> {new_frames(card)} more; actions: {', '.join(self.action_spec.names) or 'none'})"
        )

    @property
    def card(self) -> WorldCard:
        """What it was published as: name, family, size (height, width) [pixels], fps [1/s], num_frames of a window,
        past_frames of them given, how futures are drawn, the artifacts that it was made from."""
        return self.world.card

    @property
    def figures(self) -> dict[str, Any]:
        """The figures of the evaluation that it was published with, as ``metrics.json`` has them; empty without one."""
        return self.card.evaluation

    @property
    def action_spec(self) -> ActionSpec:
        """Names, units, frame and rate of its actions; width 0: it takes none."""
        return self.world.action_spec

    @property
    def modes(self) -> tuple[str, ...]:
        """The ways in which it can be drawn; the first is a random draw."""
        return self.world.family.modes

    @property
    def reads_text(self) -> bool:
        """Whether it was trained with captions."""
        return self.world.reads_text

    def predict(
        self,
        past: str | os.PathLike[str] | np.ndarray,
        actions: Actions | None = None,
        *,
        camera: Camera | None = None,
        text: str = "",
        negative_text: str = "",
        seconds: float | None = None,
        frames: int | None = None,
        seed: int = 0,
        mode: str = "",
        guidance: float | None = None,
    ) -> Video:
        """Continue a clip.

        past: a video file, whose last ``past_frames`` moments at the model's rate are taken; or frames uint8
        ``[T, H, W, 3]`` (RGB), the last ``past_frames`` of them, which are taken to come at the model's rate. Either is
        cropped about its centre and scaled to the model's size.

        actions: what happens, in the units of `action_spec`: a file (CSV, JSON, Parquet), a dict of columns by name, each
        optionally with its unit (``{"camera_orbit_rate [deg/s]": 30}``; one value holds for every row), or an array ``[rows,
        A]`` in the order of the spec. Rows are one for each predicted frame, or one for every frame with the given ones.
        camera: the camera's columns alone, or its poses, as a file or a dict; in place of actions. Without both the model
        predicts without actions. text: a caption of the future; negative_text: what guidance moves away from.

        seconds: how far into the future [s]; frames: how many frames, given and predicted together (as ``len(video.frames)``);
        without both the window that the model was trained on. More than that window is rolled out window by window, each from
        the last ``past_frames`` of the one before, and the video says so (`Video.windows`, `Video.note`).

        seed: 0 to 2**64 - 1; the same seed gives the same video. mode: one of `modes`; empty: the one that it was evaluated
        in. guidance: strength in the standard convention (1 is none), in place of the model's own.

        Raises InputError (or a kind of it: ConfigError, DataError) that names the field and value that does not fit, before
        anything is drawn.
        """
        check_seed(seed)
        require_one(actions, camera)
        total = self._total(seconds, frames)
        if text or negative_text:
            self.world.open_text(self._text_encoder)
        world = self._guided(guidance)
        mode = mode or world.family.mode_of("")
        given = _past(past, world.card)
        rows, note = given_actions(actions, camera, self.action_spec, past=world.card.past_frames, total=total)
        _check_guidance(world, guidance, {"captions": text or negative_text or None, "actions": rows})
        pixels = torch.from_numpy(np.ascontiguousarray(from_uint8(given.frames)))[None]
        with watched(world, total, mode):
            drawn = world.generate(
                pixels.to(world.reading.weight.device), None if rows is None else rows[None],
                num_frames=total, seeds=[seed], mode=mode, text=[text] if text else None, negative_text=negative_text,
            )  # fmt: skip
        windows = windows_of(world, total)
        sidecar = {
            **self._of_model(world.card),
            "seed": seed,
            "mode": mode,
            "num_frames": total,
            "past": given.choices,
            "actions": note,
            "text": {"caption": text, "negative": negative_text, "encoder": world.model_card.extra["text"]}
            if text or negative_text
            else None,
            "rollout": {"windows": windows, "words": _words(world.card, total, windows)},
        }
        return Video(
            to_uint8(drawn[0].cpu().numpy()), world.card.fps, world.card.past_frames, windows, sidecar["rollout"]["words"],
            sidecar
        )  # fmt: skip

    def _total(self, seconds: float | None, frames: int | None) -> int:
        card = self.card
        if seconds is not None and frames is not None:
            raise ConfigError(f"seconds is {seconds} and frames is {frames}: give one")
        if seconds is not None:
            if not isinstance(seconds, int | float) or not 0 < seconds < math.inf:
                raise ConfigError(f"seconds is {seconds!r}; give a positive number")
            return card.past_frames + max(1, round(seconds * card.fps))
        if frames is None:
            return card.num_frames
        if isinstance(frames, bool) or not isinstance(frames, int) or frames <= card.past_frames:
            raise ConfigError(
                f"frames is {frames!r}: nothing to predict; it counts the {card.past_frames} given frames, too: give a whole "
                f"number above {card.past_frames}, such as {card.num_frames}"
            )
        return frames

    def _guided(self, guidance: float | None) -> WorldModel:
        """The model with guidance of this strength; the one that is kept stays as it is."""
        if guidance is None:
            return self.world
        world = copy.copy(self.world)
        world.card = with_guidance(world.card, guidance)
        return world

    def _of_model(self, card: WorldCard) -> dict[str, Any]:
        """What the sidecar says of the model alone."""
        return {
            "schema_version": SIDECAR_VERSION,
            **self._facts,
            "past_frames": card.past_frames,
            "fps": card.fps,
            "sampling": card.sampling.resolved(),
            "action_spec": self.action_spec.resolved(),
            "lineage": {"inputs": card.inputs, "sources": self._sources},
        }

    @functools.cached_property
    def _sources(self) -> list[str]:
        """The files that it was trained from, as far as the store still knows; empty for a folder."""
        return sorted(set(self._store().lineage(self.key).sources())) if self.key else []


def _past(past: str | os.PathLike[str] | np.ndarray, card: WorldCard) -> Past:
    if isinstance(past, np.ndarray):
        return past_of_frames(past, card)
    if isinstance(past, str | os.PathLike):
        return read_past(Path(past), card)
    raise InputError(
        f"past is a {type(past).__name__}: give a video file, or frames uint8 [T, H, W, 3] as a numpy array"
    )


def _words(card: WorldCard, total: int, windows: int) -> str:
    """What a person should know of how far a video goes."""
    longest = card.num_frames
    if windows == 1:
        return f"one window of {total} frames" + (f", as in training ({longest})" if total == longest else "")
    return (
        f"{total} frames are more than the {longest} of a window of the training: rolled out in {windows} windows, each from "
        f"the last {card.past_frames} frames of the one before; what is wrong in one goes on in the next"
    )


def with_guidance(card: WorldCard, scale: float) -> WorldCard:
    """The card with guidance of this strength in the standard convention. Raises ConfigError for a family without it."""
    if not guides(card.sampling):
        raise ConfigError(f"guidance: the {card.family} family has none")
    values = card.sampling.resolved()
    guided = {**values, "guidance": {**values["guidance"], "scale": scale, "convention": "standard"}}
    return card.model_copy(update={"sampling": type(card.sampling).parse(guided)})


def _check_guidance(world: WorldModel, guidance: float | None, told: Mapping[Reads, Any]) -> None:
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
