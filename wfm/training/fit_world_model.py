"""Train a world model, of either family, on encoded windows.

fit_world_model(latents, tokenizer, config, out=..., scratch=...) -> what was done
"""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from wfm.config import Config
from wfm.data.loader import ArrayDataset, Loader
from wfm.data.mixture import Mixture
from wfm.data.psnr import psnr
from wfm.data.seeds import mix
from wfm.errors import ConfigError, DataError
from wfm.models.autoregressive import AutoregressiveConfig, AutoregressiveObjective, AutoregressiveTransformer
from wfm.models.diffusion import Conditions, Denoiser, DenoiserConfig, DenoisingObjective
from wfm.models.diffusion.objective import shown_past
from wfm.models.folder import count_parameters, load_model, save_model
from wfm.models.parallelize import parallelize
from wfm.models.seeding import seed_everything, seeded_generator
from wfm.models.tokenizer import Tokenizer, TokenizerConfig
from wfm.training.config import WorldTrainingConfig, filled
from wfm.training.encoded import Encoded, read_encoded
from wfm.training.loop import train
from wfm.training.objective import Objective
from wfm.training.order import data_plan, mixture_note
from wfm.training.outside import outside_files

if TYPE_CHECKING:
    from wfm.artifacts import Artifact


def fit_world_model(
    latents: "Artifact",
    tokenizer: Tokenizer,
    config: WorldTrainingConfig,
    *,
    signals: "Artifact | None" = None,
    text: "Artifact | None" = None,
    out: Path,
    scratch: Path,
    stopping: Callable[[], bool] = lambda: False,
    mixture: Mixture | None = None,
) -> dict[str, Any]:
    """Train on the train split of `latents`, with the `signals` and the `text` of the same samples, drawn by `mixture`; watch
    the val split. Writes `out/model/` and `out/metrics.jsonl`."""
    if config.training.threads:
        torch.set_num_threads(config.training.threads)
    data = read_encoded(latents, signals, text)
    seed_everything(config.training.seed)
    model, objective, card = build(config, tokenizer.config, data)
    go_on(model, card, config)
    loader = Loader(data.train, data_plan(data.train.sample_ids, config.training, mixture))
    note = mixture_note(data.train.sample_ids, mixture)
    seen = data.train.arrays.get("actions")
    result = train(
        model,
        objective,
        loader,
        config.training,
        scratch=scratch,
        stopping=stopping,
        validate=validation(objective, tokenizer, data.val, config),
        run={"config": config.what(), "files": outside_files(config), **note},
        description=config.family,
    )
    save_model(
        model,
        card,
        out / "model",
        action_spec=data.action_spec,
        extra={
            "validation": result.final,
            "guess_from": data.guess_from,
            **({"text": data.text} if data.text else {}),
            **({"action_range": data.action_spec.range_of(seen.numpy())} if seen is not None else {}),
        },
    )
    shutil.copyfile(scratch / "metrics.jsonl", out / "metrics.jsonl")
    return {
        "samples": len(data.train),
        "parameters": count_parameters(model),
        "steps": result.steps,
        "resumed_from": result.resumed_from,
        "samples_per_second": result.samples_per_second,
        "validation": result.final,
        **note,
    }


def build(
    config: WorldTrainingConfig, tokenizer: TokenizerConfig, data: Encoded
) -> tuple[nn.Module, Objective, Config]:
    """The network, its objective, and its configuration with everything that follows from the data filled in."""
    require_one_rate(config, data)
    require_guess(config, tokenizer, data)
    if config.family == "autoregressive":
        if not tokenizer.discrete:
            raise ConfigError("family autoregressive needs a discrete tokenizer: train one with levels")
        known = {**_known(tokenizer, data), "levels": list(tokenizer.levels)}
        known["text_embed_dim"] = data.train.captions.width if data.train.captions else 0
        causal = AutoregressiveConfig.parse(filled(config.autoregressive, known, "autoregressive"))
        transformer = AutoregressiveTransformer(causal)
        parallelize(transformer.layers, config.parallel)
        return transformer, AutoregressiveObjective(config.cross_entropy), causal
    if tokenizer.discrete:
        raise ConfigError("family diffusion needs a continuous tokenizer: train one without levels")
    card = denoiser_config(config, tokenizer, data)
    model = Denoiser(card)
    parallelize(model.network.blocks, config.parallel)
    mean = torch.tensor(data.statistics["mean"])
    model.statistics.set(mean, whitened(torch.tensor(data.statistics["std"]), config.whitening))
    if model.prior is not None:
        guess = data.train.arrays["guess"] if card.extrapolate else None
        model.prior.fit(
            model.normalise(data.train.arrays["latents"]),
            guess=None if guess is None else model.normalise(guess),
            given=max(config.denoising.condition_latents),
        )
    return model, DenoisingObjective(config.denoising), card


def go_on(model: nn.Module, card: Config, config: WorldTrainingConfig) -> None:
    """Start `model` from `config.initial`, and freeze what `config.unfrozen_layers` leaves out. Raises ConfigError for
    another network and for more layers than there are."""
    if config.initial:
        initial, found = load_model(config.initial)
        held, wanted = found.config.resolved(), card.resolved()
        other = [name for name in wanted if name != "medusa_heads" and held.get(name) != wanted[name]]
        if found.family != config.family or other:
            told = "; ".join(f"{name}: {held.get(name)!r}, here {wanted[name]!r}" for name in other)
            raise ConfigError(
                f"initial = {config.initial!r} is another network ({found.family}): {told or 'another family'}"
            )
        missing, extra = model.load_state_dict(initial.state_dict(), strict=False)
        if extra or any(not name.startswith("medusa.") for name in missing):
            raise ConfigError(f"initial = {config.initial!r}: lacks {missing}, holds {extra} besides")
    if config.unfrozen_layers < 0:
        return
    blocks = model.network.blocks if isinstance(model, Denoiser) else list(model.layers)  # type: ignore[arg-type]
    if config.unfrozen_layers > len(blocks):
        raise ConfigError(f"unfrozen_layers is {config.unfrozen_layers}, the network has {len(blocks)} blocks")
    learning = [*blocks[len(blocks) - config.unfrozen_layers :], *_last_parts(model)]
    model.requires_grad_(False)
    for part in learning:
        part.requires_grad_(True)


def _last_parts(model: nn.Module) -> list[nn.Module]:
    """What stands behind the last block."""
    if isinstance(model, Denoiser):
        return [model.network.norm_out, model.network.proj_out]
    assert isinstance(model, AutoregressiveTransformer)
    return [model.norm, model.output, *([model.medusa] if model.medusa is not None else [])]


def _known(tokenizer: TokenizerConfig, data: Encoded) -> dict[str, Any]:
    """What both families are told of the data."""
    return {
        "action_width": data.action_spec.width,
        "temporal_compression": tokenizer.temporal_compression,
        "fps": data.fps,
    }


def denoiser_config(config: WorldTrainingConfig, tokenizer: TokenizerConfig, data: Encoded) -> DenoiserConfig:
    """The denoiser with everything that follows from the data filled in."""
    known = {
        "in_channels": tokenizer.latent_channels,
        "text_embed_dim": data.train.captions.width if data.train.captions else 0,
        "concat_padding_mask": False,  # windows are resized whole, so nothing in them is padding
    }
    network = filled(config.diffusion.network, known, "diffusion.network")
    network["condition_mask"] = max(config.denoising.condition_latents) > 0  # the objective decides
    known = {**_known(tokenizer, data), "statistics_frames": len(data.statistics["mean"][0])}
    return DenoiserConfig.parse({**filled(config.diffusion, known, "diffusion"), "network": network})


def require_one_rate(config: WorldTrainingConfig, data: Encoded) -> None:
    """Raise DataError for latents of several frame rates and a model that cannot tell them apart."""
    rates = data.train.arrays.get("fps", torch.tensor([data.fps]))
    slow, fast = float(rates.min()), float(rates.max())
    told = config.family == "diffusion" and config.diffusion.fps_positions and not data.action_spec.width
    if fast - slow > 0.01 * fast and not told:
        raise DataError(
            f"the latents mix frame rates, {slow:g} to {fast:g} a second: resample the clips to one rate, or (a diffusion "
            "model without actions) set diffusion.fps_positions, so that the model is told each"
        )


def require_guess(config: WorldTrainingConfig, tokenizer: TokenizerConfig, data: Encoded) -> None:
    """Raise ConfigError when a model is to be shown the extrapolated past and the samples do not hold just that."""
    family = config.family
    if not getattr(config, family).extrapolate:
        return
    if "guess" not in data.train.arrays:
        raise ConfigError(
            f"{family}.extrapolate is on and the latents hold no guess: encode them with guess_from, the frames given"
        )
    counts = config.denoising.condition_latents
    wanted = {1 + (count - 1) * tokenizer.temporal_compression for count in counts}
    if family == "diffusion" and wanted != {data.guess_from}:
        raise ConfigError(
            f"{config.diffusion.objective}.condition_latents = {counts} means {sorted(wanted)} given frames; the "
            f"latents' guess was made from {data.guess_from}: set encode_latents.guess_from, or give one count that fits"
        )


def whitened(std: Tensor, share: float) -> Tensor:
    """Divisors `[C, 2]` between the channels' own deviations (share 1) and their common root mean square (share
    0)."""
    common = std.square().mean(0, keepdim=True).sqrt()
    return std**share * common ** (1 - share)


def validation(
    objective: Objective, tokenizer: Tokenizer, held: ArrayDataset | None, config: WorldTrainingConfig
) -> Callable[[Any], dict[str, float]] | None:
    """A function of the model: its loss on held-out samples with fixed noise, and for diffusion the PSNR of the
    one-step mean against the tokenizer's reconstruction [dB] on the frames that are not given. None without held-out
    samples."""
    if held is None:
        return None
    order = sorted(range(len(held)), key=lambda i: mix(0, held.sample_ids[i]))[: config.validation_windows or None]
    batch = held.rows(order)
    batch["seeds"] = torch.tensor([mix(0, "validation", held.sample_ids[i]) for i in order])

    def validate(model: Any) -> dict[str, float]:
        loss, values = objective.loss(model, batch, 0)
        found = {"loss": float(loss), **values}
        given = max(config.denoising.condition_latents)
        if config.family == "diffusion" and 0 < given < batch["latents"].shape[2]:
            found["mean_psnr"] = mean_psnr(model, tokenizer, batch, config)
        return found

    return validate


def mean_psnr(model: Denoiser, tokenizer: Tokenizer, batch: dict[str, Tensor], config: WorldTrainingConfig) -> float:
    """PSNR [dB] of the one-step mean against the reconstruction, both decoded, on frames that are not given."""
    given = max(config.denoising.condition_latents)
    clean = model.normalise(batch["latents"])
    generators = [seeded_generator(int(seed)) for seed in batch["seeds"]]
    noise = torch.stack([torch.randn(clean.shape[1:], generator=g) for g in generators]).to(clean)
    top = config.denoising.sigma_max
    conditions = Conditions(
        past=shown_past(model, batch, clean, torch.full((len(clean),), given)),
        given=given,
        text=batch.get("text"),
        text_lengths=batch.get("text_lengths"),
        actions=batch.get("actions"),
        known=batch.get("has_actions"),
    )
    guess = model.denoise(noise * top, top, conditions)
    seen = 1 + (given - 1) * tokenizer.config.temporal_compression
    made = tokenizer.decode(model.denormalise(guess))[:, :, seen:].clamp(-1, 1)
    truth = tokenizer.decode(batch["latents"])[:, :, seen:].clamp(-1, 1)
    return float(psnr((made - truth).square().mean(dim=(1, 2, 3, 4)), peak=2.0).mean())
