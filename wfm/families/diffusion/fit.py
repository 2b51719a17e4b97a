"""How a denoiser is trained: config settled by the data, statistics and prior in closed form, objective, what is watched."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from wfm.conditions.extrapolation import require_encoded
from wfm.conditions.past import video_frames
from wfm.data.passes import batches
from wfm.data.psnr import psnr
from wfm.errors import ConfigError
from wfm.families.diffusion import cost
from wfm.families.diffusion.card import DiffusionTrainingConfig, given_frames
from wfm.models.cost.work import Work
from wfm.models.diffusion.conditioning import Conditions
from wfm.models.diffusion.config import DenoiserConfig
from wfm.models.diffusion.denoiser import Denoiser
from wfm.models.diffusion.inputs import grid_of
from wfm.models.diffusion.objective import DenoisingObjective
from wfm.models.diffusion.pack import PackLimits
from wfm.models.diffusion.prior import PriorFit
from wfm.models.family import Fitting
from wfm.models.presence import present_of, tensors_of
from wfm.models.seeding import seeded_generator
from wfm.models.video_tokenizer import TokenizerCard, VideoTokenizer
from wfm.pulse import beat
from wfm.training.config import filled
from wfm.training.data_config import pack_bounds
from wfm.training.encoded import Encoded
from wfm.training.fit_world_model import known_of, shapes_of, text_length_of


class DiffusionFitting(Fitting):
    """Of a `Denoiser`."""

    takes_packs = True
    rates_hint = "(a diffusion model without actions) set diffusion.fps_positions, so that the model is told each"

    def settle(self, config: DiffusionTrainingConfig, tokenizer: TokenizerCard, data: Encoded) -> DenoiserConfig:
        """The denoiser with everything that follows from the data filled in."""
        if config.diffusion.extrapolate:
            require_encoded("diffusion", data.extrapolate_from)
            require_given_frames(config, tokenizer, data)
        known = {
            "in_channels": tokenizer.latent_channels,
            "text_embed_dim": data.text_width,
            "concat_padding_mask": False,  # windows are resized whole, so nothing in them is padding
        }
        network = filled(config.diffusion.network, known, "diffusion.network")
        network["condition_mask"] = max(config.denoising.condition_latents) > 0  # the objective decides
        known = {**known_of(tokenizer, data), "statistics_frames": len(data.statistics["mean"][0])}
        return DenoiserConfig.parse({**filled(config.diffusion, known, "diffusion"), "network": network})

    def objective(self, config: DiffusionTrainingConfig) -> DenoisingObjective:
        """EDM or rectified flow."""
        return DenoisingObjective(config.denoising)

    def work(self, card: DenoiserConfig, shape: tuple[int, int, int], text_tokens: int) -> Work:
        """By its closed formulas."""
        return cost.work(card, shape, text_tokens)

    def begin(self, model: Denoiser, config: DiffusionTrainingConfig, data: Encoded) -> None:
        """Statistics of the latents, and the linear prior."""
        mean = torch.tensor(data.statistics["mean"])
        model.statistics.set(mean, whitened(torch.tensor(data.statistics["std"]), config.whitening))
        if model.prior is None:
            return
        given = max(config.denoising.condition_latents)
        prior, weights = PriorFit(model.prior), data.weights()
        shown = None if model.prior_extrapolated is None else PriorFit(model.prior_extrapolated, given=given)
        for source, samples in data.train.items():
            if not weights[source]:
                continue  # nothing of it is drawn
            for _, batch in batches(samples, ("latents", "extrapolated")):
                latents = model.normalise(batch["latents"])
                prior.add(latents, weight=weights[source])
                if shown is not None and "extrapolated" in batch:
                    shown.add(latents, model.normalise(batch["extrapolated"]), weights[source])
                beat("prior")
        prior.finish()
        if shown is not None:
            shown.finish()

    def require_shapes(
        self, model: Denoiser, config: DiffusionTrainingConfig, shapes: Sequence[tuple[int, int, int]]
    ) -> None:
        """Any that `max_size` allows and patches divide; images are one frame of which nothing is given."""
        for shape in shapes:
            grid_of(model.config.network_config, shape)

    def limit_packs(
        self, objective: DenoisingObjective, model: Denoiser, config: DiffusionTrainingConfig, data: Encoded
    ) -> None:
        """With compiled blocks each pack is filled up to what any may hold, so that all are one graph."""
        if config.parallel.compile:
            objective.limits = pack_limits(model, config, data)

    def tells_rates(self, config: DiffusionTrainingConfig, data: Encoded) -> bool:
        """With rotary positions in seconds, and no actions, which are given as rates."""
        return config.diffusion.fps_positions and not data.action_spec.width

    def figures(
        self, model: Denoiser, tokenizer: VideoTokenizer, batch: Mapping[str, Tensor], config: DiffusionTrainingConfig
    ) -> dict[str, float]:
        """`mean_psnr`, where something is given and something is left to predict."""
        if not 0 < max(config.denoising.condition_latents) < batch["latents"].shape[2]:
            return {}
        return {"mean_psnr": mean_psnr(model, tokenizer, batch, config)}


def pack_limits(model: Denoiser, config: DiffusionTrainingConfig, data: Encoded) -> PackLimits:
    """The most that a pack holds: tokens, samples and frames. Raises ConfigError for contexts other than the text, of
    whose length nothing is known."""
    others = [name for name in model.network.config.contexts if name != "text"]
    if others:
        raise ConfigError(
            f"parallel.compile with training.data.mode 'packs': nothing says how long {', '.join(others)} may be; set "
            "parallel.compile=false, or 'buckets'"
        )
    most = pack_bounds(config.training.data, shapes_of(data.train.values()))
    _, p, q = model.network.config.patch_size
    return PackLimits(most.tokens // (p * q), most.samples, most.frames, max(1, most.samples * text_length_of(data)))


def require_given_frames(config: DiffusionTrainingConfig, tokenizer: TokenizerCard, data: Encoded) -> None:
    """Raise ConfigError unless every number of given latents is that of the frames which the extrapolation was made from."""
    counts = config.denoising.condition_latents
    wanted = given_frames(counts, tokenizer)
    if wanted != [data.extrapolate_from]:
        raise ConfigError(
            f"{config.diffusion.objective}.condition_latents = {counts} means {wanted} given frames; the "
            f"latents' extrapolation was made from {data.extrapolate_from}: set encode_latents.extrapolate_from, or give one "
            "count that fits"
        )


def whitened(std: Tensor, share: float) -> Tensor:
    """Divisors `[C, 2]` between the channels' own deviations (share 1) and their common root mean square (share
    0)."""
    common = std.square().mean(0, keepdim=True).sqrt()
    return std**share * common ** (1 - share)


def mean_psnr(
    model: Denoiser, tokenizer: VideoTokenizer, batch: Mapping[str, Tensor], config: DiffusionTrainingConfig
) -> float:
    """PSNR [dB] of the one-step mean against the reconstruction, both decoded, on frames that are not given."""
    given = max(config.denoising.condition_latents)
    clean = model.normalise(batch["latents"])
    generators = [seeded_generator(int(seed)) for seed in batch["seeds"]]
    noise = torch.stack([torch.randn(clean.shape[1:], generator=g) for g in generators]).to(clean)
    top = config.denoising.sigma_max
    slots = model.config.slots
    tensors = tensors_of(slots, batch) | {"past": batch["latents"][:, :, :given]}
    fps = batch.get("fps") if model.config.fps_positions else None
    conditions = Conditions(tensors, present_of(slots, batch, {}), fps=fps)
    # packed: keys and values of a context are made inside the blocks, whose weights nobody else sees where they are spread
    mean = model.denoise(noise * top, top, model.prepare(conditions, clean, packed=True))
    beat("validation")
    seen = video_frames(given, tokenizer.config.temporal_compression)
    made = tokenizer.decode(model.denormalise(mean))[:, :, seen:].clamp(-1, 1)
    beat("validation")
    truth = tokenizer.decode(batch["latents"].to(mean))[:, :, seen:].clamp(-1, 1)
    return float(psnr((made - truth).square().mean(dim=(1, 2, 3, 4)), peak=2.0).mean())


FITTING = DiffusionFitting()
