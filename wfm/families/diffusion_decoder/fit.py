"""How a diffusion decoder is trained, on windows that were encoded by both tokenizers.

open_decoder(inputs, config, ranks) -> what `wfm.training.fit` trains
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from wfm.data.encoded_samples import Words, words
from wfm.data.passes import batches, close_all, counters_of, read_many, tensors_of
from wfm.data.psnr import psnr
from wfm.data.samples import Samples
from wfm.errors import ConfigError, DataError
from wfm.families.diffusion_decoder.card import DecoderTrainingConfig
from wfm.models.diffusion_decoder.config import DecoderConfig
from wfm.models.diffusion_decoder.network import DiffusionDecoder, on_grid
from wfm.models.diffusion_decoder.objective import DecoderObjective
from wfm.models.folder import open_model
from wfm.models.parallelize import parallelize
from wfm.models.seeding import seeded_generator
from wfm.models.video_tokenizer import VideoTokenizer
from wfm.parallel.ranks import ALONE, Ranks
from wfm.pulse import beat
from wfm.training.config import filled
from wfm.training.device import device_of
from wfm.training.encoded import LATENTS, Encoded, read_encoded
from wfm.training.held_out import Batch, held_out, mean_over
from wfm.training.order import require_buckets
from wfm.training.task import Learner, Task

if TYPE_CHECKING:
    from wfm.artifacts import Artifact


def open_decoder(inputs: "Mapping[str, Artifact]", config: DecoderTrainingConfig, ranks: Ranks = ALONE) -> Task:
    """A decoder on the windows that both `inputs["latents"]` and `inputs["tokens"]` hold, which `tokenizer`, the continuous
    one, and `tokenizer_discrete` made. The former is kept beside it: it makes video of what the decoder draws."""
    require_buckets(config.training, config.family)
    tokenizer, card = open_model(inputs["tokenizer"], config.tokenizer_family)
    discrete, _ = open_model(inputs["tokenizer_discrete"], config.tokenizer_family)
    continuous, coded = (read_encoded(inputs[name], reading=config.training.reading) for name in ("latents", "tokens"))
    samples = joined(continuous.train[LATENTS], coded.train[LATENTS])

    def begin() -> Learner:
        model = build_decoder(config, continuous, samples, discrete.config.levels)
        objective = DecoderObjective(config.objective)
        held = []
        if continuous.val and coded.val:
            held.append(joined(continuous.val[LATENTS], coded.val[LATENTS]))
        validate = validation(objective, tokenizer, held, config) if held else None
        beside = {"tokenizer": (tokenizer, card.config, card.extra)}
        return Learner(model, objective, model.decoder_config, validate, beside=beside)

    both = len(continuous.train[LATENTS].ids) + len(coded.train[LATENTS].ids)
    counts = {"samples": len(samples), "left_out": both - 2 * len(samples)}
    return Task({LATENTS: samples}, begin, counts, held=(continuous, coded))


@dataclass(frozen=True)
class PairedSamples:
    """Samples that stand in both of two, as `latents` and `tokens`; a row of them is one of each."""

    latents: Samples
    tokens: Samples
    of_latents: np.ndarray
    "int64 [N]: row of each among the latents."
    of_tokens: np.ndarray
    "int64 [N]: among the tokens."

    def __len__(self) -> int:
        return len(self.of_latents)

    @cached_property
    def ids(self) -> Sequence[str]:
        """Of the samples."""
        return Words(words(self.latents.ids).take(pa.array(self.of_latents)))

    @property
    def shapes(self) -> np.ndarray:
        """int64 [N, 3]: of the latents, whose grid is the finer one."""
        return self.latents.shapes[self.of_latents]

    @property
    def sizes(self) -> np.ndarray:
        """int64 [N]: bytes of both."""
        return self.latents.sizes[self.of_latents] + self.tokens.sizes[self.of_tokens]

    @cached_property
    def identity(self) -> str:
        """sha256 of both, and of which of them go together."""
        pairs = np.stack([self.of_latents, self.of_tokens]).astype("<i8").tobytes()
        return sha256(f"{self.latents.identity}\x1f{self.tokens.identity}\x1f".encode() + pairs).hexdigest()

    def read(self, row: int) -> dict[str, Tensor]:
        """Latents `[C, T, h, w]` and tokens `[T, h', w']`."""
        return self.read_many([row])[0]

    def read_many(self, rows: Sequence[int]) -> list[dict[str, Tensor]]:
        """The same of several."""
        latents = read_many(self.latents, self.of_latents[rows].tolist())
        tokens = read_many(self.tokens, self.of_tokens[rows].tolist())
        pairs = zip(latents, tokens, strict=True)
        return [{"latents": one["latents"], "tokens": other["tokens"]} for one, other in pairs]

    @property
    def counters(self) -> Counter[str]:
        """What reading both did so far."""
        return counters_of(self.latents, self.tokens)

    def close(self) -> None:
        """Nothing is read any more."""
        close_all(self.latents, self.tokens)


def joined(latents: Samples, tokens: Samples) -> PairedSamples:
    """The windows that stand in both, with `latents` and `tokens`. Raises DataError when there is none, ConfigError for
    latents and tokens that have changed places or do not fit each other."""
    held, coded = tensors_of(latents), tensors_of(tokens)
    if "latents" not in held or "tokens" not in coded:
        raise ConfigError(
            f"latents hold {sorted(held)}, tokens hold {sorted(coded)}: give what the continuous tokenizer "
            "encoded as latents and what the discrete one did as tokens"
        )
    found = pc.fill_null(pc.index_in(words(latents.ids), value_set=words(tokens.ids)), -1).to_numpy().astype(np.int64)
    rows = np.flatnonzero(found >= 0)
    if not len(rows):
        raise DataError("latents and tokens have no window in common: encode the same data set with the same windows")
    both = PairedSamples(latents, tokens, rows, found[rows])
    frames, coded_frames = latents.shapes[rows, 0], tokens.shapes[both.of_tokens, 0]
    if (other := np.flatnonzero(frames != coded_frames)).size:
        raise ConfigError(
            f"a window has {frames[other[0]]} latent frames and {coded_frames[other[0]]} of tokens: the decoder "
            "needs tokenizers of one temporal compression"
        )
    return both


def build_decoder(
    config: DecoderTrainingConfig, data: Encoded, samples: Samples, levels: tuple[int, ...]
) -> DiffusionDecoder:
    """The decoder with everything that follows from the data filled in, and its prior fitted."""
    network = filled(
        config.model.denoiser.network, {"in_channels": len(data.statistics["mean"])}, "model.denoiser.network"
    )
    known = {"statistics_frames": len(data.statistics["mean"][0]), "fps": data.fps}
    denoiser = {**filled(config.model.denoiser, known, "model.denoiser"), "network": network}
    card = {**filled(config.model, {"levels": list(levels)}, "model"), "denoiser": denoiser}
    model = DiffusionDecoder(DecoderConfig.parse(card))
    parallelize(model.network.blocks, config.parallel)
    model.statistics.set(torch.tensor(data.statistics["mean"]), torch.tensor(data.statistics["std"]))
    if model.token_prior is not None:
        model.token_prior.fit(coded_windows(model, samples))
    return model


def coded_windows(model: DiffusionDecoder, samples: Samples) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches of codes on the latents' grid and of latents in the model's units, one pass over the samples."""
    for _, batch in batches(samples, size=64):
        codes = model.embedding.quantizer.codes(batch["tokens"])
        yield on_grid(codes, batch["latents"]), model.normalise(batch["latents"])
        beat("prior")


def validation(
    objective: DecoderObjective, tokenizer: VideoTokenizer, held: Collection[Samples], config: DecoderTrainingConfig
) -> Callable[[Any], dict[str, float]]:
    """A function of the model: its loss on held-out windows with fixed noise, and the PSNR [dB] of the one-step mean against
    the reconstruction of the true latents, both decoded."""
    watched = held_out(held, config.validation_windows, config.training)

    def figures(model: DiffusionDecoder, batch: Batch) -> dict[str, float]:
        loss, values = objective.loss(model, batch, 0)
        beat("validation")
        clean = model.normalise(batch["latents"])
        top = config.objective.sigma_max
        noise = torch.stack([torch.randn(clean.shape[1:], generator=seeded_generator(int(s))) for s in batch["seeds"]])
        noise = noise.to(clean)
        mean = model.denoise(noise * top, top, model.conditioned(batch["tokens"], clean))
        beat("validation")
        made = tokenizer.decode(model.denormalise(mean)).clamp(-1, 1)
        error = (made - batch["truth"]).square().mean(dim=(1, 2, 3, 4))
        return {"loss": float(loss), **values, "mean_psnr": float(psnr(error, peak=2.0).mean())}

    @torch.no_grad()  # the truth is kept all run, and would keep its graph
    def validate(model: DiffusionDecoder) -> dict[str, float]:
        tokenizer.to(device := device_of(model))
        for batch in watched:
            if "truth" not in batch:
                batch["truth"] = tokenizer.decode(batch["latents"].to(device)).clamp(-1, 1).cpu()
                beat("validation")
        return mean_over(watched, model, lambda batch: figures(model, batch))

    return validate
