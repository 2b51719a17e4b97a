"""Train a diffusion decoder on windows that were encoded by both tokenizers.

fit_decoder(latents, tokens, tokenizer, levels, config, out=..., scratch=...) -> what was done
"""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from wfm.data.loader.arrays import ArrayDataset
from wfm.data.loader.loading import Loader
from wfm.data.mixture import Mixture
from wfm.data.psnr import psnr
from wfm.data.seeds import mix
from wfm.errors import ConfigError, DataError
from wfm.families.diffusion_decoder.card import DecoderTrainingConfig
from wfm.models.diffusion_decoder.config import DecoderConfig
from wfm.models.diffusion_decoder.network import DiffusionDecoder, on_grid
from wfm.models.diffusion_decoder.objective import DecoderObjective
from wfm.models.folder import count_parameters, save_model
from wfm.models.parallelize import parallelize
from wfm.models.seeding import seed_everything, seeded_generator
from wfm.models.video_tokenizer import VideoTokenizer
from wfm.parallel.ranks import ALONE, Ranks
from wfm.pulse import beat
from wfm.training.checkpoint import Scratch
from wfm.training.config import filled
from wfm.training.encoded import Encoded, read_encoded
from wfm.training.loop import train
from wfm.training.order import data_plan, mixture_note

if TYPE_CHECKING:
    from wfm.artifacts import Artifact


def fit_decoder(
    latents: "Artifact",
    tokens: "Artifact",
    tokenizer: VideoTokenizer,
    levels: tuple[int, ...],
    config: DecoderTrainingConfig,
    *,
    out: Path,
    scratch: Scratch,
    stopping: Callable[[], bool] = lambda: False,
    mixture: Mixture | None = None,
    ranks: Ranks = ALONE,
) -> dict[str, Any]:
    """Train on the windows that both `latents` and `tokens` hold; `tokenizer` is the continuous one, `levels` are the discrete
    one's. Rank 0 writes `out/model/` and `out/metrics.jsonl`."""
    if config.training.threads:
        torch.set_num_threads(config.training.threads)
    continuous, discrete = read_encoded(latents), read_encoded(tokens)
    samples = joined(continuous.train, discrete.train)
    held = None
    if continuous.val is not None and discrete.val is not None:
        held = joined(continuous.val, discrete.val)
    note = mixture_note(samples.sample_ids, mixture)
    seed_everything(config.training.seed)
    model = build_decoder(config, continuous, samples, levels)
    objective = DecoderObjective(config.objective)
    result = train(
        model,
        objective,
        Loader(samples, data_plan(samples.sample_ids, config.training, mixture)),
        config.training,
        scratch=scratch,
        stopping=stopping,
        validate=None if held is None else validation(objective, tokenizer, held, config),
        run={"config": config.what(), **note},
        description="decoder",
        ranks=ranks,
    )
    if ranks.leads:
        save_model(model, model.decoder_config, out / "model", extra={"validation": result.final})
        shutil.copyfile(result.curve, out / "metrics.jsonl")
    return {
        "samples": len(samples),
        "left_out": len(continuous.train) + len(discrete.train) - 2 * len(samples),
        "parameters": count_parameters(model),
        "steps": result.steps,
        "resumed_from": result.resumed_from,
        "samples_per_second": result.samples_per_second,
        "validation": result.final,
        **note,
    }


def joined(latents: ArrayDataset, tokens: ArrayDataset) -> ArrayDataset:
    """The windows that stand in both, with `latents` and `tokens`. Raises DataError when there is none, ConfigError for
    latents and tokens that have changed places or do not fit each other."""
    if "latents" not in latents.arrays or "tokens" not in tokens.arrays:
        raise ConfigError(
            f"latents hold {sorted(latents.arrays)}, tokens hold {sorted(tokens.arrays)}: give what the continuous tokenizer "
            "encoded as latents and what the discrete one did as tokens"
        )
    places = {name: i for i, name in enumerate(tokens.sample_ids)}
    rows = [i for i, name in enumerate(latents.sample_ids) if name in places]
    if not rows:
        raise DataError("latents and tokens have no window in common: encode the same data set with the same windows")
    names = tuple(latents.sample_ids[i] for i in rows)
    arrays = {
        "latents": latents.arrays["latents"][rows],
        "tokens": tokens.arrays["tokens"][[places[name] for name in names]],
    }
    if arrays["latents"].shape[2] != arrays["tokens"].shape[1]:
        raise ConfigError(
            f"a window has {arrays['latents'].shape[2]} latent frames and {arrays['tokens'].shape[1]} of tokens: the decoder "
            "needs tokenizers of one temporal compression"
        )
    return ArrayDataset(names, arrays)


def build_decoder(
    config: DecoderTrainingConfig, data: Encoded, samples: ArrayDataset, levels: tuple[int, ...]
) -> DiffusionDecoder:
    """The decoder with everything that follows from the data filled in, and its prior fitted."""
    latents, tokens = samples.arrays["latents"], samples.arrays["tokens"]
    network = filled(config.model.denoiser.network, {"in_channels": latents.shape[1]}, "model.denoiser.network")
    known = {"statistics_frames": len(data.statistics["mean"][0]), "fps": data.fps}
    denoiser = {**filled(config.model.denoiser, known, "model.denoiser"), "network": network}
    card = {**filled(config.model, {"levels": list(levels)}, "model"), "denoiser": denoiser}
    model = DiffusionDecoder(DecoderConfig.parse(card))
    parallelize(model.network.blocks, config.parallel)
    model.statistics.set(torch.tensor(data.statistics["mean"]), torch.tensor(data.statistics["std"]))
    if model.token_prior is not None:
        codes = torch.cat([on_grid(model.embedding.quantizer.codes(part), latents[:1]) for part in tokens.split(256)])
        model.token_prior.fit(codes, model.normalise(latents))
    return model


def validation(
    objective: DecoderObjective, tokenizer: VideoTokenizer, held: ArrayDataset, config: DecoderTrainingConfig
) -> Callable[[Any], dict[str, float]]:
    """A function of the model: its loss on held-out windows with fixed noise, and the PSNR [dB] of the one-step mean against
    the reconstruction of the true latents, both decoded."""
    order = sorted(range(len(held)), key=lambda i: mix(0, held.sample_ids[i]))[: config.validation_windows or None]
    batch = held.rows(order)
    batch["seeds"] = torch.tensor([mix(0, "validation", held.sample_ids[i]) for i in order])
    truth = tokenizer.decode(batch["latents"]).clamp(-1, 1)

    def validate(model: DiffusionDecoder) -> dict[str, float]:
        loss, values = objective.loss(model, batch, 0)
        beat("validation")
        clean = model.normalise(batch["latents"])
        top = config.objective.sigma_max
        noise = torch.stack([torch.randn(clean.shape[1:], generator=seeded_generator(int(s))) for s in batch["seeds"]])
        mean = model.denoise(noise * top, top, model.conditioned(batch["tokens"], clean))
        beat("validation")
        error = (tokenizer.decode(model.denormalise(mean)).clamp(-1, 1) - truth).square().mean(dim=(1, 2, 3, 4))
        return {"loss": float(loss), **values, "mean_psnr": float(psnr(error, peak=2.0).mean())}

    return validate
