"""The denoiser D: the network F inside its formulation. What training saves and samplers call.

    tokenizer's latents -> statistics -> x = x0 + sigma n -> D(x; sigma) = m + c_skip (x - m) + c_out F(c_in (x - m)) -> x0

The factors are those of `edm` or `flow`; m and the deviation they are made for come from the linear prior (0 and
sigma_data without one). Noise levels are one number a sample `[B]`, or one a latent frame `[B, T]`.

Given frames (video2world, Cosmos section 5.1.3) are a condition as any, `past`: absent, this is text2world. The network's
input holds the past there, scaled as nearly clean latents are (c_in at the past's own small noise level, whatever the level of
the rest), a channel says so, and the output is the past itself. Cosmos scales the past by c_in(s_aug) / c_in(s) and then
everything by c_in(s): the same.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wfm.errors import ConfigError
from wfm.models.at_hand import at_hand
from wfm.models.diffusion import edm, flow
from wfm.models.diffusion.conditioning import Conditions, given_mask, last_given
from wfm.models.diffusion.config import DenoiserConfig
from wfm.models.diffusion.inputs import Context, Vector
from wfm.models.diffusion.network import DiffusionTransformer
from wfm.models.diffusion.pack import Group, PackLimits, forward_pack
from wfm.models.diffusion.prior import LinearPrior
from wfm.models.diffusion.statistics import LatentStatistics
from wfm.models.slots import Place, of_slot, require_known


@dataclass(frozen=True)
class Prepared:
    """Conditions worked out for one shape: what no noise level changes, computed once for all steps of a sampler."""

    past: Tensor | None
    "`[B, C, T, H, W]`, clean; None: nothing is given."
    mask: Tensor | None
    "bool `[B, 1, T, 1, 1]`: given frames."
    seen: Tensor | None
    "The past as the network's input holds it, noise added and scaled."
    release_below: Tensor | None
    "`[B, 1, 1, 1, 1]`: noise level at and below which given frames are denoised too; None: never."
    extra: Tensor | None
    "Channels concatenated after the latents: what the diffusion decoder shows of its tokens."
    mean: Tensor | None
    "The prior's guess `[B, C, T, H, W]`; None: 0."
    deviation: Tensor
    "What the guess misses, `[B, C, T, 1, 1]`, or sigma_data as one number."
    network: dict[str, Any] = field(default_factory=dict)
    "Further arguments of the network."


class _Begun(NamedTuple):
    """What stands before the network, and what its answer is put together with."""

    inputs: Tensor
    feature: Tensor
    "c_noise."
    factors: edm.Scaling
    left: Tensor
    "Noisy latents less the prior's guess."
    held: Tensor | None
    "bool: frames that come back as the past."


class RandomFourier(nn.Module):
    """sqrt(2) cos(frequency x + phase), drawn once: `[...]` -> `[..., features]` (Cosmos `logvar.0`)."""

    freqs: Tensor
    phases: Tensor

    def __init__(self, features: int) -> None:
        super().__init__()
        self.register_buffer("freqs", 2 * torch.pi * torch.randn(features))
        self.register_buffer("phases", 2 * torch.pi * torch.rand(features))

    def forward(self, x: Tensor) -> Tensor:
        return (x[..., None] * self.freqs + self.phases).cos() * 2**0.5


class Denoiser(nn.Module):
    """See the module. Latents are `[B, C, T, H, W]`; inside, in units whose deviation is `sigma_data`.

    encoders: `wfm.models.slots.Encoder` by condition; the tensor of one without enters its slot as it is.
    """

    def __init__(self, config: DenoiserConfig, encoders: Mapping[str, nn.Module] | None = None) -> None:
        super().__init__()
        self.config = config
        unknown = sorted(set(encoders or ()) - set(config.slots))
        if unknown:
            raise ConfigError(
                f"encoders: {', '.join(unknown)}; this model's conditions: {', '.join(config.slots) or 'none'}"
            )
        network = config.network_config
        channels = network.in_channels
        self.network = DiffusionTransformer(network)
        self.statistics = LatentStatistics(
            channels, config.statistics_frames, config.sigma_data, image=config.image_statistics
        )
        self.prior: LinearPrior | None = None
        self.prior_extrapolated: LinearPrior | None = None
        if config.linear_prior:
            self.prior = LinearPrior(channels, network.max_size[0], config.sigma_data)
            if config.extrapolate:
                self.prior_extrapolated = LinearPrior(
                    channels, network.max_size[0], config.sigma_data, extrapolated=True
                )
        self.encoders = nn.ModuleDict(dict(encoders or {}))
        self.logvar: nn.Sequential | None = None
        if config.uncertainty:
            head = nn.Linear(config.uncertainty, 1, bias=False)
            nn.init.zeros_(head.weight)  # u = 0: the plain loss, until something is learned
            self.logvar = nn.Sequential(RandomFourier(config.uncertainty), head)

    # Units

    def normalise(self, latents: Tensor, *, video: bool | None = None) -> Tensor:
        """Tokenizer's units -> deviation sigma_data; `video`: see `LatentStatistics`."""
        return self.statistics.normalise(latents, video=video)

    def denormalise(self, latents: Tensor, *, video: bool | None = None) -> Tensor:
        """The inverse of `normalise`."""
        return self.statistics.denormalise(latents, video=video)

    # The formulation

    def scaling(self, sigma: Tensor, deviation: Tensor | float) -> edm.Scaling:
        """The factors of this model's objective at noise levels broadcast against the deviation."""
        rule: Callable[[Tensor, Tensor | float], edm.Scaling]
        rule = edm.scaling if self.config.objective == "edm" else flow.scaling
        return rule(sigma, deviation)

    def noise_feature(self, sigma: Tensor) -> Tensor:
        """c_noise, like `sigma`: ln(sigma) / 4, or the flow's t."""
        if self.config.objective == "edm":
            return edm.noise_feature(sigma)
        return flow.time_of(sigma, self.config.sigma_data)

    def uncertainty(self, sigma: Tensor) -> Tensor | None:
        """u(sigma), like `sigma`; None for a model that has learned none."""
        return None if self.logvar is None else self.logvar(self.noise_feature(sigma))[..., 0]

    def forward(self, noisy: Tensor, sigma: Tensor | float, conditions: Conditions | Prepared) -> Tensor:
        """`denoise`."""
        return self.denoise(noisy, sigma, conditions)

    def denoise(self, noisy: Tensor, sigma: Tensor | float, conditions: Conditions | Prepared) -> Tensor:
        """D(noisy; sigma): the expected clean latents, normalised units, `[B, C, T, H, W]`; given frames come back as
        the past.

        sigma: a number, `[B]` or `[B, T]`. Raises ConfigError for what does not fit.
        """
        ready = conditions if isinstance(conditions, Prepared) else self.prepare(conditions, noisy)
        begun = self._begun(noisy, sigma, ready)
        raw = self.network(begun.inputs, begun.feature, **ready.network)
        return self._clean(begun, raw, noisy, ready)

    def denoise_pack(
        self,
        noisy: Sequence[Tensor],
        sigma: Sequence[Tensor | float],
        ready: Sequence[Prepared],
        limits: PackLimits | None = None,
    ) -> list[Tensor]:
        """`denoise` of a pack: groups of samples of one shape each, which the network sees at once. ready: by
        `prepare(..., packed=True)`; limits: what it is padded to."""
        if len(noisy) == 1 and limits is None:
            return [self.denoise(noisy[0], sigma[0], ready[0])]
        begun = [self._begun(*each) for each in zip(noisy, sigma, ready, strict=True)]
        groups = [Group(one.inputs, one.feature, own.network) for one, own in zip(begun, ready, strict=True)]
        raw = forward_pack(self.network, groups, limits)
        return [self._clean(*each) for each in zip(begun, raw, noisy, ready, strict=True)]

    def _begun(self, noisy: Tensor, sigma: Tensor | float, ready: Prepared) -> "_Begun":
        levels = self.levels(sigma, noisy)  # [1], [B] or [B, T]
        if at_hand(levels) and self.config.objective == "edm" and not bool((levels > 0).all()):
            raise ConfigError(
                f"sigma is {levels.flatten().tolist()}: the network reads its logarithm, so give levels above 0"
            )
        s = spread(levels)
        factors = self.scaling(s, ready.deviation)
        left = noisy if ready.mean is None else noisy - ready.mean
        inputs = factors.inside * left
        held = ready.mask
        if held is not None and ready.release_below is not None:
            held = held & (s > ready.release_below)
        if held is not None:
            assert ready.seen is not None
            inputs = torch.where(held, ready.seen, inputs)
        if ready.extra is not None:
            inputs = torch.cat([inputs, ready.extra], dim=1)
        return _Begun(inputs.to(self.network.dtype), self.noise_feature(levels), factors, left, held)

    @staticmethod
    def _clean(begun: "_Begun", raw: Tensor, noisy: Tensor, ready: Prepared) -> Tensor:
        clean = begun.factors.skip * begun.left + begun.factors.out * raw.to(noisy.dtype)
        if ready.mean is not None:
            clean = clean + ready.mean
        if begun.held is not None:
            assert ready.past is not None
            clean = torch.where(begun.held, ready.past, clean)
        return clean.to(noisy.dtype)

    def levels(self, sigma: Tensor | float, like: Tensor) -> Tensor:
        """Noise levels `[1]`, `[B]` or `[B, T]` in fp32 or better (their logarithm must not be rounded to bf16)."""
        batch, frames = like.shape[0], like.shape[2]
        levels = torch.as_tensor(sigma, dtype=torch.promote_types(like.dtype, torch.float32), device=like.device)
        if levels.ndim == 0:
            return levels[None]  # one row of modulations serves all samples
        if tuple(levels.shape) not in ((1,), (batch,), (batch, frames)):
            raise ConfigError(
                f"sigma has shape {list(levels.shape)}; give a number, [{batch}] (samples), or [{batch}, {frames}] "
                "(samples, latent frames)"
            )
        return levels

    # What no noise level changes

    def prepare(self, conditions: Conditions, like: Tensor, *, packed: bool = False) -> Prepared:
        """Work out conditions for latents of the shape, dtype and device of `like`; packed: for `denoise_pack`, where no call
        is repeated, and for blocks that are spread over ranks: none of their weights is read. Raises ConfigError for what does
        not fit them or the model."""
        if like.ndim != 5 or like.shape[1] != self.config.network.in_channels:
            raise ConfigError(
                f"latents have shape {list(like.shape)}, wanted [B, {self.config.network.in_channels}, T, H, W]"
            )
        require_known(conditions.tensors, conditions.present, self.config.slots)
        past, given = self._past(conditions, like)
        sigma_data = torch.tensor(self.config.sigma_data, dtype=like.dtype, device=like.device)
        mask, shown, seen, release = None, None, None, None
        if past is not None:
            mask = given_mask(given, like.shape[2])
            augment = self.levels(conditions.augment_sigma, like)
            shown = past
            if conditions.augment_noise is not None:
                shown = past + spread(augment).to(past.dtype) * conditions.augment_noise.to(past) * mask
            seen = (shown * self.scaling(spread(augment), sigma_data).inside).to(like.dtype)
            release = spread(augment) if conditions.release_given else None
        extrapolated = self._extrapolated(conditions, shown, mask, like)
        mean, deviation = self._guess(conditions, shown, extrapolated, given)
        channels = self._channels(conditions, shown, extrapolated, given, like)
        return Prepared(
            past, mask, seen, release, None, mean, sigma_data if deviation is None else deviation,
            self._network_arguments(conditions, channels, given, mask, like, packed),
        )  # fmt: skip

    def _past(self, conditions: Conditions, like: Tensor) -> tuple[Tensor | None, Tensor]:
        """The past of the window's length, normalised, and how many of its frames are given, `[B]`; (None, zeros) where there
        is none."""
        noise, frames = conditions.augment_noise, like.shape[2]
        if noise is not None and noise.shape != like.shape:
            raise ConfigError(f"augment_noise has shape {list(noise.shape)}, wanted {list(like.shape)}")
        augment = torch.as_tensor(conditions.augment_sigma)
        if noise is None and at_hand(augment) and bool((augment != 0).any()):
            raise ConfigError("augment_sigma is not 0: give the unit noise, `augment_noise`, as well")
        past, said = conditions.tensors.get("past"), conditions.tensors.get("given")
        if past is None:
            if said is not None and at_hand(said) and bool((said != 0).any()):
                raise ConfigError(f"given is {said.tolist()} and there is no `past`: give its latents")
            return None, torch.zeros(len(like), dtype=torch.int64, device=like.device)
        if (
            past.ndim != 5
            or past.shape[:2] + past.shape[3:] != like.shape[:2] + like.shape[3:]
            or past.shape[2] > frames
        ):
            raise ConfigError(
                f"past has shape {list(past.shape)}, wanted {list(like.shape)} or fewer frames, of which the first `given` "
                "are read"
            )
        given = torch.as_tensor(past.shape[2] if said is None else said, device=like.device).expand(len(like))
        if at_hand(given) and (int(given.max()) > past.shape[2] or int(given.min()) < 0):
            raise ConfigError(f"given is {given.tolist()} of {past.shape[2]} latent frames: use 0 to {past.shape[2]}")
        if "past" in conditions.present:
            given = given * conditions.present["past"].to(given)
        past = self.normalise(past, video=frames > 1).to(like)
        return F.pad(past, (0, 0, 0, 0, 0, frames - past.shape[2])), given

    def _extrapolated(
        self, conditions: Conditions, shown: Tensor | None, mask: Tensor | None, like: Tensor
    ) -> Tensor | None:
        """The past, and where it is not given its extrapolation, for a model that is shown one; None: it is absent."""
        found = conditions.tensors.get("extrapolated")
        if found is None:
            return None
        found = self.normalise(found).to(like)
        return found if shown is None or mask is None else torch.where(mask, shown, found)

    def _guess(
        self, conditions: Conditions, shown: Tensor | None, extrapolated: Tensor | None, given: Tensor
    ) -> tuple[Tensor | None, Tensor | None]:
        """Mean and deviation of the priors: of that which sees the extrapolation, in samples that have one."""
        if shown is None or self.prior is None:
            return None, None
        if extrapolated is None or self.prior_extrapolated is None:
            found: tuple[Tensor, Tensor] = self.prior(shown, given)
            return found
        mean, deviation = self.prior_extrapolated(extrapolated, given)
        has = conditions.present.get("extrapolation")
        if has is not None and not (at_hand(has) and bool(has.all())):
            rows = has.to(mean.device)[:, None, None, None, None]
            plain, missed = self.prior(shown, given)
            mean, deviation = torch.where(rows, mean, plain), torch.where(rows, deviation, missed)
        return mean, deviation

    def _channels(
        self, conditions: Conditions, shown: Tensor | None, extrapolated: Tensor | None, given: Tensor, like: Tensor
    ) -> dict[str, Tensor]:
        """What stands beside the latents, `[B, width, T, H, W]` by name: of the past, at unit deviation, the last given frame
        everywhere and which frames are given; of each condition its own, zeros in samples without it."""
        found: dict[str, Tensor] = {}
        if shown is not None and self.config.repeat_last:
            found["past"] = last_given(shown, given).expand(-1, -1, shown.shape[2], -1, -1) / self.config.sigma_data
        if extrapolated is not None:
            found["extrapolation"] = extrapolated / self.config.sigma_data
        for name in of_slot(self.config.conditions, "channels"):
            channels = self._encoded(name, conditions, given, like)
            if channels is not None:
                found[name] = channels
        for name in found.keys() & conditions.present.keys() - {"past"}:
            has = conditions.present[name][:, None, None, None, None]
            found[name] = torch.where(has, found[name], torch.zeros_like(found[name]))
        if shown is not None and not self.config.published_mask:
            found["given"] = given_mask(given, like.shape[2]).expand(-1, -1, -1, *like.shape[3:])
        return {name: x.to(self.network.dtype) for name, x in found.items()}

    def _network_arguments(
        self,
        conditions: Conditions,
        channels: dict[str, Tensor],
        given: Tensor,
        mask: Tensor | None,
        like: Tensor,
        packed: bool,
    ) -> dict[str, Any]:
        """Everything the network is given besides latents and noise level."""
        arguments: dict[str, Any] = {"padding_mask": conditions.padding_mask}
        contexts = self._contexts(conditions, given, like)
        fps = conditions.fps
        if fps is None and self.config.fps_positions:
            fps = self.config.fps
        if packed or torch.is_grad_enabled():  # in training every call has weights of its own
            arguments |= {"contexts": contexts, "channels": channels, "fps": fps}
        else:
            arguments["contexts"] = {name: self.network.prepare_context(name, one) for name, one in contexts.items()}
            arguments["channels"] = self.network.prepare_channels(channels)
            arguments["shape"] = self.network.prepare_shape(like.shape[2:], fps)
        if self.config.published_mask and self.config.network.condition_mask:
            arguments["condition_mask"] = given_mask(given, like.shape[2]) if mask is None else mask
        return {**arguments, "vectors": self._vectors(conditions, given, like)}

    def _encoded(self, name: str, conditions: Conditions, given: Tensor, like: Tensor) -> Tensor | None:
        """What a condition puts into its slot; None: it is absent."""
        tensors = self.config.slots[name].tensors
        if tensors[0] not in conditions.tensors:
            return None
        if name not in self.encoders:
            return conditions.tensors[tensors[0]]
        mine = {tensor: conditions.tensors[tensor] for tensor in tensors if tensor in conditions.tensors}
        return self.encoders[name](mine, Place(like.shape[2], given))

    def _contexts(self, conditions: Conditions, given: Tensor, like: Tensor) -> dict[str, Context]:
        """Those that are there; in samples without one it is zeros, which have no keys and no values and add nothing."""
        found = {}
        for name, slot in of_slot(self.config.slots, "context").items():
            tokens = self._encoded(name, conditions, given, like)
            if tokens is None:
                continue
            if name in conditions.present:
                tokens = tokens * conditions.present[name][:, None, None].to(tokens)
            found[name] = Context(tokens, conditions.tensors.get(slot.tensors[1]) if len(slot.tensors) > 1 else None)
        return found

    def _vectors(self, conditions: Conditions, given: Tensor, like: Tensor) -> dict[str, Vector]:
        """`[B, T, features]` of each that is there."""
        found, (batch, frames) = {}, (like.shape[0], like.shape[2])
        for name, slot in of_slot(self.config.slots, "vector").items():
            features = self._encoded(name, conditions, given, like)
            if features is None:
                continue
            if features.ndim == 2:
                features = features[:, None].expand(-1, frames, -1)
            if features.shape != (batch, frames, slot.width):
                raise ConfigError(f"{name}: features {list(features.shape)}, wanted {[batch, frames, slot.width]}")
            found[name] = Vector(features.to(self.network.dtype), conditions.present.get(name))
        return found


def spread(levels: Tensor) -> Tensor:
    """`[1]`, `[B]` or `[B, T]` -> `[1 or B, 1, 1 or T, 1, 1]`, to be broadcast against latents."""
    return levels[:, None, None, None, None] if levels.ndim == 1 else levels[:, None, :, None, None]
