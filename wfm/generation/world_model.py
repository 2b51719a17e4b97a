"""A world model as its users see it: past frames and actions in, future frames out.

A bundle is a folder: ``tokenizer/`` and ``model/`` (each a model folder, see wfm.models.folder) and ``card.json`` (a
`WorldCard`).

    world = WorldModel.load(folder)
    video = world.generate(past, actions, num_frames=33, seeds=[0, 1])
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import pydantic
import torch
from torch import Tensor, nn

from wfm.actions import ActionSpec
from wfm.config import Config
from wfm.data.loader import as_frames, as_video
from wfm.data.motion import extrapolate
from wfm.data.seeds import derived_seed
from wfm.errors import ConfigError, DataError
from wfm.generation.config import SamplingConfig
from wfm.generation.prompts import PromptEncoder
from wfm.generation.rollout import future_latents, future_tokens, require_mode
from wfm.generation.token_decoder import TokenDecoder
from wfm.log import get_logger
from wfm.models.autoregressive.network import AutoregressiveTransformer
from wfm.models.diffusion.denoiser import Denoiser
from wfm.models.fast_cpu import fast_cpu
from wfm.models.finite import require_finite
from wfm.models.folder import ModelCard, load_model
from wfm.models.seeding import check_seed
from wfm.models.tokenizer.network import Tokenizer

SCHEMA_VERSION = 1

_log = get_logger(__name__)


class Told(NamedTuple):
    """Embeddings `[B, L, D]` and lengths `[B]` of the captions, and of the negative prompt (one row for all); None: none."""

    text: Tensor | None = None
    lengths: Tensor | None = None
    negative: Tensor | None = None
    negative_lengths: Tensor | None = None


"""Text embeddings `[B, L, D]` and lengths `[B]`, or nothing."""


class WorldCard(Config):
    """What a bundle promises: the window it was trained on and how futures are drawn from it. ``card.json`` holds
    exactly this."""

    schema_version: int = SCHEMA_VERSION
    name: str = ""
    "Name it was published under; empty for an unpublished one."
    family: str
    "diffusion or autoregressive."
    size: tuple[int, int]
    "Height and width of a frame [pixels]."
    fps: float
    "Frames a second [1/s]; also the rate of the actions."
    num_frames: int
    "Frames of a training window: given and predicted together."
    past_frames: int
    "How many of them are given."
    sampling: SamplingConfig = pydantic.Field(default_factory=SamplingConfig)
    "How futures are drawn."
    evaluation: dict[str, Any] = pydantic.Field(default_factory=dict)
    "Figures of the evaluation it was published with."
    inputs: dict[str, str] = pydantic.Field(default_factory=dict)
    "Artifacts it was made from: role -> key."


class WorldModel:
    """A tokenizer and a network of either family behind one ``generate``."""

    def __init__(self, tokenizer: Tokenizer, model: nn.Module, model_card: ModelCard, card: WorldCard) -> None:
        if model_card.family != card.family:
            raise ConfigError(
                f"the card says family {card.family!r}, the model folder {model_card.family!r}: not one bundle"
            )
        if card.family == "autoregressive" and not tokenizer.config.discrete:
            raise ConfigError("an autoregressive model needs a discrete tokenizer; this bundle's has no levels")
        if card.family == "diffusion" and tokenizer.config.discrete:
            raise ConfigError("a diffusion model needs a continuous tokenizer; this bundle's is discrete")
        self.tokenizer, self.model = fast_cpu(tokenizer.eval()), fast_cpu(model.eval())
        self.model_card, self.card = model_card, card
        self._prompts: PromptEncoder | None = None
        self._warned: set[str] = set()
        self.decoder: TokenDecoder | None = None
        shown = model_card.extra.get("guess_from", card.past_frames)
        if model_card.config.resolved().get("extrapolate") and shown != card.past_frames:
            raise ConfigError(
                f"the model was trained to be shown what follows {shown} frames, and is asked with {card.past_frames}: "
                f"set past_frames={shown}"
            )
        self._require_motion(card.past_frames)
        for frames in (card.past_frames, card.num_frames):
            self._latent_frames(frames)

    @property
    def action_spec(self) -> ActionSpec:
        """What an action means to this model; width 0: it takes none."""
        return self.model_card.action_spec

    @property
    def reads_text(self) -> bool:
        """Whether the model was trained with captions."""
        assert isinstance(self.model, Denoiser | AutoregressiveTransformer)
        network = self.model.config.network if isinstance(self.model, Denoiser) else self.model.config
        return network.text_embed_dim > 0

    def open_text(self, folder: str = "") -> PromptEncoder:
        """The encoder of this model's captions, opened once; `folder`: see `PromptEncoder.of_model`."""
        if self._prompts is None or folder:
            device = str(next(self.model.parameters()).device)
            note = self.model_card.extra.get("text") if self.reads_text else None
            self._prompts = PromptEncoder.of_model(note, folder=folder, device=device)
        return self._prompts

    def use_decoder(self, decoder: TokenDecoder) -> None:
        """Show this model's tokens by a diffusion decoder. Raises ConfigError for a model without tokens, or of others."""
        levels = self.tokenizer.config.levels
        if self.card.family != "autoregressive" or decoder.decoder.decoder_config.levels != levels:
            raise ConfigError(
                f"the decoder reads tokens of levels {decoder.decoder.decoder_config.levels}, this {self.card.family} model "
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
        if tokenizer_card.family != "tokenizer":
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
        mode: str = "sample",
        text: Sequence[str] | None = None,
        negative_text: str = "",
    ) -> Tensor:
        """Continue ``past [B, 3, P, H, W]`` in [-1, 1] to ``num_frames = T`` frames ``[B, 3, T, H, W]``; the first P
        as given, bit for bit.

        actions: raw units ``[B, T, A]`` (a row for every frame; the row of frame t acts between t and t + 1), or None
        for the null action. text: a caption for each sequence, or None for the empty text. negative_text: what guidance moves
        away from, in place of the empty text; it needs guidance that drops the text. seeds: one for each sequence;
        sequence b depends on ``past[b], actions[b], text[b], seeds[b]`` alone. T may exceed the training window: the
        future is then rolled out window by window, each started from the last P frames of the one before, with a seed
        derived from (seed, window). The same call on the same machine gives the same bits. Raises ConfigError for what
        does not fit.
        """
        require_mode(self.card.family, mode)
        total = self.card.num_frames if num_frames is None else num_frames
        self._check(past, total, seeds)
        require_finite(past, "the past")
        known = self._normalised(actions, past.shape[0], total)
        told = self._told(text, past.shape[0], negative_text)
        size = self.sampling_batch
        rows = []
        for start in range(0, past.shape[0], size):
            chosen = list(range(start, min(start + size, past.shape[0])))
            filled = chosen + [chosen[-1]] * (size - len(chosen))  # always `size` rows: see SamplingConfig.batch_size
            acts = _rows(known, filled)
            words = told._replace(text=_rows(told.text, filled), lengths=_rows(told.lengths, filled))
            part = self._roll_out(past[filled], acts, words, total, [seeds[i] for i in filled], mode)
            rows.append(part[: len(chosen)])
        return torch.cat(rows)

    @property
    def sampling_batch(self) -> int:
        """Rows of every batch that goes through the networks."""
        return self.card.sampling.batch_size

    def _roll_out(
        self, past: Tensor, actions: Tensor | None, text: Told, total: int, seeds: list[int], mode: str
    ) -> Tensor:
        """``[B, 3, total, H, W]``, window by window."""
        if isinstance(self.model, AutoregressiveTransformer) and not self.model.config.extrapolate:
            return self._roll_out_tokens(past, actions, text, total, seeds, mode)
        video, given, window = past, past.shape[2], 0
        while video.shape[2] < total:
            start = video.shape[2] - given
            length = min(self.card.num_frames, self._whole(total - start))
            acts = None if actions is None else _window(actions, start, length)
            drawn = [seed if window == 0 else derived_seed(seed, window) for seed in seeds]
            future = self._one_window(video[:, :, start:], acts, text, length, drawn, mode)
            video = torch.cat([video, future[:, :, given : given + total - video.shape[2]]], dim=2)
            window += 1
        return video

    def _roll_out_tokens(
        self, past: Tensor, actions: Tensor | None, text: Told, total: int, seeds: list[int], mode: str
    ) -> Tensor:
        """The same in tokens: each window goes on from the last tokens of the one before, which are never decoded and encoded
        again, and the whole is decoded at once. (A model that is shown the extrapolated past needs frames.)"""
        assert isinstance(self.model, AutoregressiveTransformer)
        tokens, step = self.tokenizer.tokens(past), self.tokenizer.config.temporal_compression
        given, wanted = tokens.shape[1], self._latent_frames(self._whole(total))
        longest, window = self._latent_frames(self.card.num_frames), 0
        while tokens.shape[1] < wanted:
            start = tokens.shape[1] - given
            frames = min(longest, wanted - start)
            found = future_tokens(
                self.model,
                tokens[:, start:],
                None if actions is None else _window(actions, start * step, 1 + (frames - 1) * step),
                frames=frames,
                seeds=[seed if window == 0 else derived_seed(seed, window) for seed in seeds],
                mode=mode,
                sampling=self.card.sampling,
                text=text.text,
                text_lengths=text.lengths,
            )
            tokens = torch.cat([tokens, found[:, given:]], dim=1)
            window += 1
        video = self._decoded(tokens, seeds)
        return torch.cat([past, video[:, :, past.shape[2] : total]], dim=2)

    def _decoded(self, tokens: Tensor, seeds: list[int]) -> Tensor:
        """Video of tokens, by the diffusion decoder where there is one."""
        if self.decoder is None:
            return _shown(self.tokenizer.decode_tokens(tokens))
        return self.decoder.decode(tokens, self.card.size, seeds=[derived_seed(seed, "decoder") for seed in seeds])

    def _one_window(
        self, past: Tensor, actions: Tensor | None, text: Told, length: int, seeds: list[int], mode: str
    ) -> Tensor:
        """The decoded window ``[B, 3, length, H, W]``, clamped to [-1, 1]; its first frames are the tokenizer's
        reconstruction."""
        frames, sampling = self._latent_frames(length), self.card.sampling
        guess = self._extrapolated(past, length)
        if isinstance(self.model, Denoiser):
            latents = future_latents(
                self.model,
                self.tokenizer.encode(past),
                actions,
                frames=frames,
                seeds=seeds,
                mode=mode,
                sampling=sampling,
                guess=None if guess is None else self.tokenizer.encode(guess),
                text=text.text,
                text_lengths=text.lengths,
                negative_text=text.negative,
                negative_lengths=text.negative_lengths,
            )
            return _shown(self.tokenizer.decode(latents))
        assert isinstance(self.model, AutoregressiveTransformer)
        tokens = future_tokens(
            self.model,
            self.tokenizer.tokens(past),
            actions,
            frames=frames,
            seeds=seeds,
            mode=mode,
            sampling=sampling,
            guess=None if guess is None else self.tokenizer.tokens(guess),
            text=text.text,
            text_lengths=text.lengths,
        )
        return self._decoded(tokens, seeds)

    def _extrapolated(self, past: Tensor, length: int) -> Tensor | None:
        """``past`` followed by what constant motion makes of it, ``[B, 3, length, H, W]``, for a model that is shown it."""
        assert isinstance(self.model, Denoiser | AutoregressiveTransformer)
        if not self.model.config.extrapolate:
            return None
        frames = as_frames(past).cpu().numpy()
        future = torch.from_numpy(extrapolate(frames, length - frames.shape[1]))
        return torch.cat([past, as_video(future).to(past)], dim=2)

    def _normalised(self, actions: np.ndarray | Tensor | None, batch: int, total: int) -> Tensor | None:
        if actions is None or self.action_spec.width == 0:
            if actions is not None and np.shape(actions)[-1] != 0:
                raise ConfigError(f"actions of {np.shape(actions)[-1]} components were given; this model takes none")
            return None
        raw = np.asarray(actions)
        if raw.shape[:2] != (batch, total):
            raise ConfigError(f"actions have shape {raw.shape}, wanted [{batch}, {total}, {self.action_spec.width}]")
        weight = next(self.model.parameters())
        seen = self.action_spec.normalise(raw)
        if not np.isfinite(seen).all():
            at = tuple(np.argwhere(~np.isfinite(seen))[0])
            raise ConfigError(
                f"actions: {self.action_spec.names[at[-1]]} is {raw[at]} in row {at[-2]}: give numbers of a size that can be"
            )
        known = self.model_card.extra.get("action_range")
        for name, words in self.action_spec.far(raw, known).items():
            if name not in self._warned:
                self._warned.add(name)
                _log.warning("%s", words)
        return torch.from_numpy(seen).to(weight)

    def _told(self, text: Sequence[str] | None, batch: int, negative_text: str) -> Told:
        told = Told()
        if text is not None:
            if len(text) != batch:
                raise ConfigError(f"{len(text)} captions for {batch} sequences: give one each")
            embeddings, lengths = self._embedded(text)
            told = told._replace(text=embeddings, lengths=lengths)
        if negative_text:
            if not isinstance(self.model, Denoiser):
                raise ConfigError("negative_text is what guidance moves away from; autoregressive decoding has none")
            embeddings, lengths = self._embedded([negative_text])
            told = told._replace(negative=embeddings, negative_lengths=lengths)
        return told

    def _embedded(self, text: Sequence[str]) -> tuple[Tensor, Tensor]:
        embeddings, lengths = self.open_text().encode(text)
        weight = next(self.model.parameters())
        return embeddings.to(weight), lengths.to(weight.device)

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
        self._require_motion(given)
        self._latent_frames(given)
        if not given < min(total, self.card.num_frames):
            raise ConfigError(
                f"{given} frames given, {total} wanted, windows of {self.card.num_frames}: nothing to predict"
            )

    def _require_motion(self, given: int) -> None:
        if given < 2 and self.model_card.config.resolved().get("extrapolate"):
            raise ConfigError(
                f"past_frames is {given}; this model is shown what the motion of the given frames leads to (extrapolate), and "
                "one frame has none: give 2 or more"
            )

    def _latent_frames(self, frames: int) -> int:
        try:
            return self.tokenizer.config.latent_frames(frames)
        except ValueError as error:
            raise ConfigError(str(error)) from None

    def _whole(self, frames: int) -> int:
        """The next number of frames that the tokenizer takes."""
        step = self.tokenizer.config.temporal_compression
        return 1 + -(-(frames - 1) // step) * step


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
    return WorldCard.parse(values)


def _shown(video: Tensor) -> Tensor:
    """Decoded frames within [-1, 1]. Raises DataError for what is not finite: clamped, infinity would be white."""
    return require_finite(video, "the decoded future").clamp(-1, 1)


def _rows(values: Tensor | None, index: list[int]) -> Tensor | None:
    return None if values is None else values[index]


def _window(actions: Tensor, start: int, length: int) -> Tensor:
    """Rows start..start + length of ``[B, T, A]``; past the end the last row is repeated."""
    index = torch.arange(start, start + length, device=actions.device).clamp(max=actions.shape[1] - 1)
    return actions[:, index]
