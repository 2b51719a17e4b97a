"""A world model as its users see it: past frames and actions in, future frames out.

A bundle is a folder: ``tokenizer/`` and ``model/`` (each a model folder, see wfm.models.folder) and ``card.json`` (a
`WorldCard`).

    world = WorldModel.load(folder)
    video = world.generate(past, actions, num_frames=33, seeds=[0, 1])
"""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import pydantic
import torch
from torch import Tensor, nn

from wfm.actions import ActionSpec
from wfm.config import Config
from wfm.errors import ConfigError, DataError
from wfm.generation.config import SamplingConfig, with_sampling
from wfm.generation.prompts import PromptEncoder
from wfm.generation.reading import ConditionReading
from wfm.generation.rollout import Given, Rollout, Shows, latent_frames
from wfm.log import get_logger
from wfm.models.family import FAMILIES, Family, FamilyConfig
from wfm.models.fast_cpu import fast_cpu
from wfm.models.finite import require_finite
from wfm.models.folder import ModelCard, load_model
from wfm.models.seeding import check_seed

SCHEMA_VERSION = 2

_log = get_logger(__name__)


class WorldCard(FamilyConfig):
    """What a bundle promises: the window it was trained on and how futures are drawn from it. ``card.json`` holds
    exactly this."""

    schema_version: int = SCHEMA_VERSION
    name: str = ""
    "Name it was published under; empty for an unpublished one."
    family: str
    "Family of the model."
    size: tuple[int, int]
    "Height and width of a frame [pixels]."
    fps: float
    "Frames a second [1/s]; also the rate of the actions."
    num_frames: int
    "Frames of a training window: given and predicted together."
    past_frames: int
    "How many of them are given."
    sampling: pydantic.SerializeAsAny[SamplingConfig] = pydantic.Field(default_factory=SamplingConfig)
    "How futures are drawn."
    evaluation: dict[str, Any] = pydantic.Field(default_factory=dict)
    "Figures of the evaluation it was published with."
    inputs: dict[str, str] = pydantic.Field(default_factory=dict)
    "Artifacts it was made from: role -> key."

    @classmethod
    def of_family(cls, family: Family) -> type[Config] | None:
        """With the family's sampling."""
        return with_sampling(WorldCard, family)


class WorldModel:
    """A tokenizer and a network of any family behind one ``generate``."""

    def __init__(self, tokenizer: Any, model: nn.Module, model_card: ModelCard, card: WorldCard) -> None:
        if model_card.family != card.family:
            raise ConfigError(
                f"the card says family {card.family!r}, the model folder {model_card.family!r}: not one bundle"
            )
        self.family: Family = FAMILIES.load(card.family)
        self.family.require_tokenizer(tokenizer.config)
        self.drawing = self.family.drawing()
        self.tokenizer, self.model = fast_cpu(tokenizer.eval()), fast_cpu(model.eval())
        self.model_card, self.card = model_card, card
        self._prompts: PromptEncoder | None = None
        self._warned: set[str] = set()
        self.decoder: Shows | None = None
        weight = next(self.model.parameters())
        meanings = {"extrapolated": {"given_frames": model_card.extra.get("extrapolate_from", 0)}}
        self.reading = ConditionReading(model.config, model_card.action_spec, card.fps, weight, meanings)
        self.reading.require_given(card.past_frames)
        for frames in (card.past_frames, card.num_frames):
            latent_frames(self.tokenizer, frames)

    @property
    def action_spec(self) -> ActionSpec:
        """What an action means to this model; width 0: it takes none."""
        return self.model_card.action_spec

    @property
    def reads_text(self) -> bool:
        """Whether the model was trained with captions."""
        return bool(self.reading.that_read("captions"))

    def open_text(self, folder: str = "") -> PromptEncoder:
        """The encoder of this model's captions, opened once; `folder`: see `PromptEncoder.of_model`."""
        if self._prompts is None or folder:
            device = str(next(self.model.parameters()).device)
            note = self.model_card.extra.get("text") if self.reads_text else None
            self._prompts = PromptEncoder.of_model(note, folder=folder, device=device)
        return self._prompts

    def use_decoder(self, decoder: Shows) -> None:
        """Show this model's tokens by a decoder. Raises ConfigError for a model without tokens, or of others."""
        levels = self.tokenizer.config.levels
        if not levels or decoder.levels != levels:
            raise ConfigError(
                f"the decoder reads tokens of levels {decoder.levels}, this {self.card.family} model "
                f"speaks {f'tokens of levels {levels}' if levels else 'in continuous latents'}: give the decoder of its "
                "tokenizer"
            )
        self.decoder = decoder

    @classmethod
    def load(cls, folder: str | os.PathLike[str], *, device: str = "cpu") -> Self:
        """Open a bundle folder. Raises DataError for one that is incomplete, of a newer schema, or does not fit
        together."""
        path = Path(folder)
        card = read_card(path)
        tokenizer, tokenizer_card = load_model(path / "tokenizer", device=device)
        if FAMILIES.load(tokenizer_card.family).makes != "tokenizer":
            raise DataError(f"{path / 'tokenizer'} holds a model of family {tokenizer_card.family!r}, not a tokenizer")
        model, model_card = load_model(path / "model", device=device)
        return cls(tokenizer, model, model_card, card)

    @torch.no_grad()
    def generate(
        self,
        past: Tensor,
        actions: np.ndarray | Tensor | None = None,
        *,
        num_frames: int | None = None,
        seeds: list[int],
        mode: str = "",
        text: Sequence[str] | None = None,
        negative_text: str = "",
        signals: Mapping[str, np.ndarray] | None = None,
    ) -> Tensor:
        """Continue ``past [B, 3, P, H, W]`` in [-1, 1] to ``num_frames = T`` frames ``[B, 3, T, H, W]``; the first P
        as given, bit for bit.

        actions: raw units ``[B, T, A]`` (a row for every frame; the row of frame t acts between t and t + 1), or None
        where none are known. text: a caption for each sequence, or None for the empty text. negative_text: what guidance moves
        away from, in place of the empty text; it needs guidance that drops the text. signals: what further conditions read, by
        name, raw units ``[B, T, ...]``, and ``has_<name>`` bool ``[B]`` where not every sequence has it. seeds: one each;
        sequence b depends on ``past[b], actions[b], text[b], seeds[b]`` alone. T may exceed the training window: the
        future is then rolled out window by window, each started from the last P frames of the one before, with a seed
        derived from (seed, window). The same call on the same machine gives the same bits. Raises ConfigError for what
        does not fit. mode: one of the family's; empty: its first, a draw.
        """
        mode = mode or self.family.modes[0]
        if mode not in self.family.modes:
            raise ConfigError(f"mode {mode!r}: the {self.family.name} family can do {', '.join(self.family.modes)}")
        total = self.card.num_frames if num_frames is None else num_frames
        self._check(past, total, seeds)
        require_finite(past, "the past")
        self._check_actions(actions, past.shape[0], total)
        given = self._given(actions, text, past.shape[0], negative_text)._replace(signals=dict(signals or {}))
        size, rollout = self.sampling_batch, self.rollout()
        rows = []
        for start in range(0, past.shape[0], size):
            chosen = list(range(start, min(start + size, past.shape[0])))
            filled = chosen + [chosen[-1]] * (size - len(chosen))  # always `size` rows: see SamplingConfig.batch_size
            part = rollout.run(past[filled], given.rows(filled), total, [seeds[i] for i in filled], mode)
            rows.append(part[: len(chosen)])
        return torch.cat(rows)

    def rollout(self) -> Rollout:
        """How futures are rolled out from this model."""
        card = self.card
        return Rollout(
            self.tokenizer,
            self.model,
            self.drawing,
            card.sampling,
            card.num_frames,
            card.size,
            self.reading,
            self.decoder,
        )

    @property
    def sampling_batch(self) -> int:
        """Rows of every batch that goes through the networks."""
        return self.card.sampling.batch_size

    def _check_actions(self, actions: np.ndarray | Tensor | None, batch: int, total: int) -> None:
        """Raise ConfigError for actions that do not fit, and warn of such as are far from all that the model was shown."""
        if actions is None or self.action_spec.width == 0:
            if actions is not None and np.shape(actions)[-1] != 0:
                raise ConfigError(f"actions of {np.shape(actions)[-1]} components were given; this model takes none")
            return
        raw = np.asarray(actions)
        if raw.shape[:2] != (batch, total):
            raise ConfigError(f"actions have shape {raw.shape}, wanted [{batch}, {total}, {self.action_spec.width}]")
        seen = self.action_spec.normalise(raw)
        if not np.isfinite(seen).all():
            at = tuple(np.argwhere(~np.isfinite(seen))[0])
            raise ConfigError(
                f"actions: {self.action_spec.names[at[-1]]} is {raw[at]} in row {at[-2]}: give numbers of a size that can be"
            )
        shown = self.model_card.extra.get("action_range")
        for name, words in self.action_spec.far(raw, shown).items():
            if name not in self._warned:
                self._warned.add(name)
                _log.warning("%s", words)

    def _given(
        self, actions: np.ndarray | Tensor | None, text: Sequence[str] | None, batch: int, negative_text: str
    ) -> Given:
        given = Given() if actions is None or not self.action_spec.width else Given(np.asarray(actions))
        if text is not None:
            if len(text) != batch:
                raise ConfigError(f"{len(text)} captions for {batch} sequences: give one each")
            given = given._replace(text=self._embedded(text))
        if negative_text:
            if not guides(self.card.sampling):
                raise ConfigError(
                    f"negative_text is what guidance moves away from; the {self.family.name} family has none"
                )
            given = given._replace(negative=self._embedded([negative_text]))
        return given

    def _embedded(self, text: Sequence[str]) -> dict[str, Tensor]:
        embeddings, lengths = self.open_text().encode(text)
        weight = next(self.model.parameters())
        (reader,) = self.reading.that_read("captions").values()  # as `open_text` has looked
        return dict(zip(reader.tensor_names(), (embeddings.to(weight), lengths.to(weight.device)), strict=True))

    def _check(self, past: Tensor, total: int, seeds: list[int]) -> None:
        if past.ndim != 5 or past.shape[1] != 3 or tuple(past.shape[3:]) != self.card.size:
            raise ConfigError(
                f"past has shape {tuple(past.shape)}, wanted [B, 3, P, {self.card.size[0]}, {self.card.size[1]}]"
            )
        if len(seeds) != past.shape[0]:
            raise ConfigError(f"{len(seeds)} seeds for {past.shape[0]} sequences: give one each")
        for seed in seeds:
            check_seed(seed)
        given = past.shape[2]
        self.reading.require_given(given)
        latent_frames(self.tokenizer, given)
        if not given < min(total, self.card.num_frames):
            raise ConfigError(
                f"{given} frames given, {total} wanted, windows of {self.card.num_frames}: nothing to predict"
            )


def read_card(folder: Path) -> WorldCard:
    """``card.json`` of a bundle. Raises DataError when it is missing, broken, or newer than this wfm."""
    path = folder / "card.json"
    try:
        values = json.loads(path.read_text())
    except FileNotFoundError:
        raise DataError(f"{folder}: no card.json here, so this is not a published world model") from None
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise DataError(f"{path}: not JSON ({error})") from None
    version = values.get("schema_version") if isinstance(values, dict) else None
    if not isinstance(version, int) or version > SCHEMA_VERSION:
        raise DataError(f"{path}: schema_version {version!r}, this wfm reads up to {SCHEMA_VERSION}: use a newer wfm")
    if version < 2:
        values = {**values, "schema_version": SCHEMA_VERSION, "sampling": _sampling_of_version_1(values, path)}
    return WorldCard.parse(values)


def _sampling_of_version_1(values: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """The sampling of a card that was written before families had samplings of their own: it held what every family draws
    by, and what guidance drops was called ``actions``, not by its condition's name."""
    held = FAMILIES.load(str(values.get("family"))).sampling or SamplingConfig
    said = values.get("sampling", {})
    guidance = said.get("guidance", {}) if isinstance(said, dict) else None
    if not isinstance(guidance, dict) or not isinstance(guidance.get("drop", []), list):
        raise DataError(f"{path}: sampling must be a JSON object, and its guidance.drop a list")
    if "drop" in guidance:
        guidance = {**guidance, "drop": ["action" if name == "actions" else name for name in guidance["drop"]]}
    return {name: value for name, value in {**said, "guidance": guidance}.items() if name in held.model_fields}


def guides(sampling: Config) -> bool:
    """Whether a family draws with guidance."""
    return "guidance" in type(sampling).model_fields
