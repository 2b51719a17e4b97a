"""Runs of every family, a few hundred weights each, in fp64, so that a difference between numbers of ranks is an error and not
rounding. By name: `RUNS[name]()` is a model, its objective, a rival or None, arrays of samples, and what differs in the
config. Batches of 6: alike for 2 ranks, unequal for 4, and two of 8 have nothing."""

import hashlib
import math
import threading
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from wfm.data.captions import CaptionTable
from wfm.data.loader import ArrayDataset, Loader
from wfm.data.order import one_shape
from wfm.families.autoregressive.build import transformer
from wfm.families.diffusion.build import denoiser
from wfm.families.tokenizer.card import TokenizerTrainingConfig
from wfm.families.tokenizer.fit import rival_of
from wfm.models.autoregressive import AutoregressiveConfig, AutoregressiveObjective, AutoregressiveObjectiveConfig
from wfm.models.diffusion.config import DenoiserConfig, EDMConfig
from wfm.models.diffusion.objective import DenoisingObjective
from wfm.models.diffusion_decoder.config import DecoderConfig
from wfm.models.diffusion_decoder.network import DiffusionDecoder
from wfm.models.diffusion_decoder.objective import DecoderObjective
from wfm.models.loss import Mean, Summed
from wfm.models.tokenizer import Tokenizer, TokenizerObjective
from wfm.parallel.ranks import ALONE, Ranks
from wfm.parallel.spread import Whole
from wfm.training.config import TrainingConfig
from wfm.training.joint import JointObjective
from wfm.training.loop import TrainingResult, train
from wfm.training.objective import Objective, Rival, SummedObjective

SAMPLES, BATCH = 11, 6
NETWORK = {
    "in_channels": 3, "concat_padding_mask": False, "num_attention_heads": 2, "attention_head_dim": 12, "num_layers": 2,
    "adaln_lora_dim": 4, "max_size": (8, 16, 16),
}  # fmt: skip
TOKENIZER = {
    "model": {
        "temporal_compression": 4, "spatial_compression": 4, "latent_channels": 3, "channels": [8, 8], "mid_blocks": 0,
        "encoder_blocks": 1, "decoder_blocks": 1, "mid_attention": False, "linear_code": True,
    },
    "image_every": 3, "images_per_window": 2,
}  # fmt: skip
RIVAL = {
    "error": "l1", "perceptual": {"after": 0.1}, "gram": {"after": 0.06}, "flow": {"after": 0.01},
    "adversarial": {
        "weight": {"after": 0.1, "start": 2}, "lead_steps": 1, "adaptive": True, "r1": 0.1, "r1_every": 4, "channels": 8,
        "levels": 2, "learning_rate": 1e-3,
    },
}  # fmt: skip


@dataclass
class Run:
    """What a run needs beside its ranks."""

    model: nn.Module
    objective: Any
    arrays: dict[str, Tensor]
    captions: CaptionTable | None = None
    rival: Rival | None = None
    training: dict[str, Any] = field(default_factory=dict)


def shaken(model: nn.Module) -> nn.Module:
    """In fp64, with every layer doing something: zero-initialised ones would hide what stands behind them."""
    for parameter in model.double().parameters():
        if float(parameter.detach().abs().max()) == 0:
            nn.init.normal_(parameter, std=0.1)
    return model


def drawn(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(len(shape)))


def texts() -> CaptionTable:
    """Captions of one to three tokens: a share of a batch is padded to a length of its own."""
    lengths = torch.tensor([1, 3, 2])
    return CaptionTable(drawn(int(lengths.sum()), 10), lengths, torch.arange(SAMPLES) % 3)


def diffusion(ranks: Ranks, **training: Any) -> Run:
    """With actions that some samples lack, text, past and learned uncertainty, each dropped in a share of the samples; Muon."""
    network = {**NETWORK, "condition_mask": True, "text_embed_dim": 10}
    config = {
        "network": network,
        "temporal_compression": 4,
        "statistics_frames": 2,
        "uncertainty": 8,
        "action_width": 2,
    }
    objective = EDMConfig(condition_latents=(0, 1), action_dropout=0.3, text_dropout=0.4)
    arrays = {
        "latents": drawn(SAMPLES, 3, 3, 4, 4),
        "actions": drawn(SAMPLES, 9, 2),
        "has_actions": torch.arange(SAMPLES) % 4 != 0,
    }
    model = shaken(denoiser(DenoiserConfig.parse(config)))
    return Run(model, DenoisingObjective(objective), arrays, texts(), training={"optimizer": "muon", **training})


def frozen(ranks: Ranks) -> Run:
    """Only the last block learns."""
    run = diffusion(ranks, optimizer="adamw")
    run.model.requires_grad_(False)
    run.model.network.transformer_blocks[-1].requires_grad_(True)
    return run


def autoregressive(ranks: Ranks) -> Run:
    """With actions, text, noise on the input and a Medusa head."""
    config = AutoregressiveConfig(
        levels=(4, 4), dim=24, layers=2, heads=4, kv_heads=2, head_dim=12, ffn_dim=40, text_embed_dim=10, action_width=2,
        temporal_compression=4, medusa_heads=1,
    )  # fmt: skip
    arrays = {
        "tokens": torch.randint(16, (SAMPLES, 3, 2, 2), generator=torch.Generator().manual_seed(5)),
        "actions": drawn(SAMPLES, 9, 2),
    }
    objective = AutoregressiveObjective(AutoregressiveObjectiveConfig(input_noise=0.2, action_dropout=0.4))
    return Run(shaken(transformer(config)), objective, arrays, texts())


def decoder(ranks: Ranks) -> Run:
    """A diffusion decoder, whose windows start later at every second step."""
    network = {**NETWORK, "num_layers": 1, "text_embed_dim": 0}
    values = {"levels": (4, 3), "token_channels": 5, "denoiser": {"statistics_frames": 2, "network": network}}
    tokens = torch.randint(12, (SAMPLES, 4, 2, 2), generator=torch.Generator().manual_seed(5))
    arrays = {"latents": drawn(SAMPLES, 3, 4, 4, 4), "tokens": tokens}
    objective = DecoderObjective(EDMConfig(condition_latents=(0,), text_dropout=0.3))
    return Run(shaken(DiffusionDecoder(DecoderConfig.parse(values))), objective, arrays)


def tokenizer(ranks: Ranks, loss: dict[str, Any] | None = None) -> Run:
    """Images at every third step; with the loss `RIVAL` every term, and a discriminator as hard as all others together."""
    config = TokenizerTrainingConfig.parse({**TOKENIZER, "loss": loss or {}, "training": {"learning_rate": 2e-3}})
    model = shaken(Tokenizer(config.model))
    objective = TokenizerObjective(config.loss, ranks=ranks)
    for fixed in (objective.features, objective.flow, objective.discriminator):
        if fixed is not None:
            fixed.double()
    penalty = config.loss.adversarial.r1_every
    joint = JointObjective(objective, every=config.image_every, per_window=2, penalty_every=penalty)
    video = drawn(SAMPLES, 3, 5, 16, 16).clamp(-1, 1)
    return Run(model, joint, {"video": video}, rival=rival_of(objective, config, joint))


def adversarial(ranks: Ranks) -> Run:
    return tokenizer(ranks, RIVAL)


class Counted:
    """A loss over what counts of each sample, 0 to 5 of its numbers: a mean over unequal counts. By `Ranks.mean` it is that of
    the whole batch; `broken`, it is the mean of the ranks' means."""

    def __init__(self, ranks: Ranks, *, broken: bool = False) -> None:
        self.ranks = ALONE if broken else ranks

    def loss(self, model: nn.Module, batch: Mapping[str, Tensor], step: int) -> tuple[Tensor, dict[str, float]]:
        counts = torch.arange(5) < batch["counts"][:, None]  # [B, 5]
        error = (model(batch["x"])[:, 0] - batch["x"].sum(-1)).square()  # [B]
        each = (error[:, None] * counts).sum(1)
        mean = self.ranks.mean(float(counts.sum()) / len(counts))
        return each.mean() / mean, {"counted": mean}


def counted(ranks: Ranks, *, broken: bool = False) -> Run:
    arrays = {"x": drawn(SAMPLES, 4), "counts": torch.arange(SAMPLES) % 6}
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1)).double()
    return Run(model, Counted(ranks, broken=broken), arrays)


class Terms(Summed):
    """A loss of two terms with counts of their own: over what counts of each sample (`counted`), and over samples."""

    def counts(self, model: nn.Module, batch: Mapping[str, Tensor], step: int) -> dict[str, float]:
        return {"counted": float(batch["counts"].sum()), "samples": float(len(batch["counts"]))}

    def sums(
        self, model: nn.Module, batch: Mapping[str, Tensor], step: int
    ) -> tuple[dict[str, Tensor], dict[str, Mean]]:
        error = (model(batch["x"])[:, 0] - batch["x"].sum(-1)).square()  # [B]
        sums = {"counted": (error * batch["counts"]).sum(), "samples": 0.3 * error.sqrt().sum()}
        return sums, {"error": Mean(error.detach().sum(), len(error)), "of_none": Mean(error.detach().sum() * 0, 0)}


def terms(ranks: Ranks) -> Run:
    run = counted(ranks)
    return Run(run.model, Terms(), run.arrays)


class Sparse(nn.Module):
    """A layer that only samples of its sign pass through: a rank may have no gradient for one, and none of them for `never`."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down, self.never = nn.Linear(4, 1), nn.Linear(4, 1), nn.Linear(4, 1)

    def forward(self, x: Tensor) -> Tensor:
        parts = [
            layer(x[chosen]) for layer, chosen in ((self.up, x[:, 0] > 0), (self.down, x[:, 0] <= 0)) if chosen.any()
        ]
        return torch.cat(parts)


class Squares:
    def loss(self, model: nn.Module, batch: Mapping[str, Tensor], step: int) -> tuple[Tensor, dict[str, float]]:
        return (model(batch["x"]) - 1).square().mean(), {}


def sparse(ranks: Ranks) -> Run:
    return Run(Sparse().double(), Squares(), {"x": drawn(SAMPLES, 4)})


RUNS: dict[str, Callable[[Ranks], Run]] = {
    "diffusion": diffusion, "frozen": frozen, "autoregressive": autoregressive, "decoder": decoder, "tokenizer": tokenizer,
    "adversarial": adversarial, "counted": counted, "sparse": sparse, "terms": terms,
}  # fmt: skip


class Watched:
    """An objective that notes what each batch was made of."""

    def __init__(self, objective: Objective, ranks: Ranks) -> None:
        self.objective, self.ranks = objective, ranks
        self.seen: list[list[int]] = []

    def loss(self, model: Any, batch: Mapping[str, Tensor], step: int) -> tuple[Tensor, dict[str, float]]:
        self.seen.append(batch["seeds"].tolist() if self.ranks.share else [])
        return self.objective.loss(model, batch, step)


class WatchedSums(Watched):
    """The same of one that says its sums and counts."""

    def counts(self, model: Any, batch: Any, step: int) -> dict[str, float]:
        return self.objective.counts(model, batch, step)  # type: ignore[attr-defined]

    def sums(self, model: Any, batch: Any, step: int) -> tuple[dict[str, Tensor], dict[str, Mean]]:
        self.seen.append(batch["seeds"].tolist() if self.ranks.share else [])
        return self.objective.sums(model, batch, step)  # type: ignore[attr-defined]


STRICT = {"most_left_out": 3, "least_steps": 4, "window": 6, "spike_ratio": 100.0}
"""A guard. (The adversarial run's second player comes in with a jump of 14 times the median.)"""
PLANTED = {9: 1e4, 13: math.nan}
"""Batch of the order -> what its loss is multiplied by."""


class Planted(Watched):
    """An objective whose loss is spoilt on one rank, at some of its calls: one for each batch of the order."""

    def __init__(self, objective: Objective, ranks: Ranks, at: Mapping[int, float], rank: int) -> None:
        super().__init__(objective, ranks)
        self.at, self.rank, self.calls = at, rank, 0

    def factor(self) -> float:
        """Of this call."""
        factor = self.at.get(self.calls, 1.0) if self.ranks.rank == self.rank else 1.0
        self.calls += 1
        return factor

    def loss(self, model: Any, batch: Mapping[str, Tensor], step: int) -> tuple[Tensor, dict[str, float]]:
        loss, values = super().loss(model, batch, step)
        return loss * self.factor(), values

    def is_image_step(self, step: int) -> bool:
        return bool(getattr(self.objective, "is_image_step", lambda step: False)(step))


class PlantedSums(Planted, WatchedSums):
    """The same of one that says its sums and counts."""

    def sums(self, model: Any, batch: Any, step: int) -> tuple[dict[str, Tensor], dict[str, Mean]]:
        sums, values = super().sums(model, batch, step)
        factor = self.factor()
        return {name: total * factor for name, total in sums.items()}, values


def planted(ranks: Ranks, at: Mapping[int, float] = PLANTED, rank: int = 1) -> Callable[[Objective], Objective]:
    def change(objective: Objective) -> Objective:
        kind = PlantedSums if isinstance(objective, SummedObjective) else Planted
        return kind(objective, ranks, at, rank)

    return change


@dataclass
class Done:
    """What came out of a run."""

    model: nn.Module
    rival: nn.Module | None
    result: TrainingResult
    seen: list[list[int]]
    "The seeds of this rank's share of each batch."

    def weights(self) -> dict[str, Tensor]:
        """Those of both players."""
        theirs = {} if self.rival is None else self.rival.state_dict()
        return {**self.model.state_dict(), **{f"rival.{name}": tensor for name, tensor in theirs.items()}}


def run(
    name: str,
    scratch: Path,
    ranks: Ranks = ALONE,
    *,
    made: Run | None = None,
    change: Callable[[Any], Any] | None = None,
    stopping: Callable[[], bool] = lambda: False,
    validate: Callable[[Any], dict[str, float]] | None = None,
    omitted: Collection[int] = (),
    order: Any = None,
    spread: Callable[[nn.Module], Whole] = lambda model: Whole(),
    **training: Any,
) -> Done:
    """Train for 20 steps, or as `training` says, on an order (None: of batches of one shape) that leaves out the steps
    `omitted`."""
    with _ONE_GENERATOR:  # of all threads
        torch.manual_seed(0)
        made = made or RUNS[name](ranks)
    data = ArrayDataset(tuple(f"s{i}" for i in range(SAMPLES)), made.arrays, made.captions)
    values = {
        "steps": 20,
        "batch_size": BATCH,
        "warmup_steps": 2,
        "log_every": 1,
        "learning_rate": 1e-2,
        "ema_share": 0.1,
    }
    config = TrainingConfig.parse({**values, **made.training, **training})
    objective = made.objective if change is None else change(made.objective)
    watched = (WatchedSums if isinstance(objective, SummedObjective) else Watched)(objective, ranks)
    order = order or one_shape(data.sample_ids, config.batch_size, 3)
    result = train(
        made.model, watched, Without(omitted, data, order, transform=in_fp64), config, scratch=scratch,
        stopping=stopping, validate=validate, rival=made.rival, ranks=ranks, spread=spread,
    )  # fmt: skip
    return Done(made.model, None if made.rival is None else made.rival.module, result, watched.seen)


class Without(Loader):
    """Leaves some steps of its order out."""

    def __init__(self, omitted: Collection[int], *given: Any, **more: Any) -> None:
        super().__init__(*given, **more)
        self.omitted = set(omitted)

    def next(self, *given: Any, **more: Any) -> Any:
        batch = super().next(*given, **more)
        return self.next(*given, **more) if self.handed()[0] in self.omitted else batch


_ONE_GENERATOR = threading.Lock()


def in_fp64(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.double() if tensor.is_floating_point() else tensor for name, tensor in batch.items()}


def worst(one: Mapping[str, Tensor], two: Mapping[str, Tensor]) -> float:
    """The largest difference of two sets of weights."""
    assert set(one) == set(two)
    return max(float((one[name].double() - two[name].double()).abs().max()) for name in one)


def whole_batches(shares: list[list[list[int]]]) -> list[list[int]]:
    """The global batches that ranks saw, `shares[rank][step]`: sample i was rank i % ranks's."""
    return [
        [share[i // len(shares)] for i in range(BATCH) for share in [shares[i % len(shares)][step]]]
        for step in range(len(shares[0]))
    ]


def hash_of_batches(batches: list[list[int]]) -> str:
    return hashlib.sha256(repr(batches).encode()).hexdigest()
