"""Recipes as data: which samples a training reads at what rates, in batches of one shape or in packs, and in which phases.

    --set training.data.tokens=65536 --set training.data.mode=packs
    --set 'training.data.lanes={"images": {"sources": {"stills": 1}}, "videos": {"rate": 3, "sources": {"a": 2, "b": 1}}}'
    --set 'training.data.phases=[{"steps": 2000, "max_frames": 5, "max_height": 32}, {}]'

Sources are the stage's inputs of encoded samples, by their names. Without lanes all of them stand in one, at equal rates;
without phases everything holds from the first step to the last. Torch-free. What is made of it: `order.order_of`.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Literal, NamedTuple, Self

import pydantic

from wfm.config import Config, Count, Natural, how
from wfm.errors import ConfigError

Oversize = Literal["refuse", "leave_out", "cut", "split"]


class LaneConfig(Config):
    """Sources that share batches, or packs, at exact rates."""

    sources: dict[str, Natural]
    "Source -> its rate: of all samples of the lane, rate / (sum of the rates) are of it. 0: none."
    rate: Natural = 1
    "Of all steps, rate / (sum of the rates of the lanes) are of this lane, spread evenly. 0: none."

    @pydantic.model_validator(mode="after")
    def _drawn(self) -> Self:
        if not any(self.sources.values()):
            raise ValueError(f"sources are {self.sources!r}: one at least has a rate above 0")
        return self


class PhaseConfig(Config):
    """What holds for some steps. A number that is 0 is not limited, or as for the whole run."""

    steps: Natural = 0
    "How many, from the end of the phase before; 0, of the last phase alone: to the end of the run."
    lanes: dict[str, LaneConfig] = {}
    "Lanes of this phase, in place of the recipe's; empty: those."
    min_frames: Natural = 0
    "Samples of fewer frames (of latents: latent frames) are left out."
    max_frames: Natural = 0
    "Samples of more frames are left out; 1: still images alone."
    max_height: Natural = 0
    "Samples that are higher (of latents: in latent pixels) are left out."
    max_width: Natural = 0
    "Samples that are wider are left out."
    batch_size: Natural = 0
    "Samples of a batch, in place of `training.batch_size`; with a budget of tokens it says nothing."
    tokens: Natural = 0
    "Budget, in place of the recipe's."


class PackingConfig(Config):
    """How samples become packs, and packs become steps (`wfm.data.order.Packing`)."""

    packs: Count = 8
    "Packs of a step; data-parallel ranks divide them."
    streams: Count = 64
    "Virtual streams, for the life of a run; they divide the packs of a window."
    bins: Count = 8
    "Packs that a stream keeps open."
    age: Count = 512
    "Draws of its stream that a pack may stay open for."
    window: Count = 16
    "Steps whose packs are balanced together."
    dim: Count = 5120
    "Width of the network, for what attention costs."


class DataConfig(Config):
    """The recipe of a training."""

    mode: Literal["buckets", "packs"] = "buckets"
    """buckets: a batch holds samples of one shape (frames, height, width); packs: samples of any shape, one after the other
    under a budget of tokens."""
    tokens: Natural = 0
    """Budget: tokens of a pack, or of a batch, which then holds as many samples as it has room for, one at least. 0: batches
    hold `training.batch_size` samples; packs need a budget."""
    oversize: Oversize = "refuse"
    """A sample of more tokens than the budget: refuse: an error before the first step; leave_out: never drawn; cut: its first
    frames that fit; split: all its frames, in as few pieces as hold them. What is left out is counted."""
    packing: PackingConfig = PackingConfig()
    "Of packs."
    lanes: dict[str, LaneConfig] = {}
    "Lane -> its sources and rates; empty: one lane of all sources, at equal rates."
    phases: tuple[PhaseConfig, ...] = ()
    "One after the other; empty: one that lasts."
    shared_sessions: Literal["refuse", "allow"] = how("refuse")
    """A session that one source trains on and that another's validation watches: refuse: an error before the first step; allow:
    they are other recordings that happen to have one name. Changes nothing that is computed."""

    @pydantic.model_validator(mode="after")
    def _sane(self) -> Self:
        for number, phase in enumerate(self.phases[:-1]):
            if not phase.steps:
                raise ValueError(f"phases[{number}].steps is 0, and only the last phase lasts to the end of the run")
        for number, lanes in enumerate([self.lanes, *(phase.lanes for phase in self.phases)]):
            where = f"phases[{number - 1}].lanes" if number else "lanes"
            if lanes and not any(lane.rate for lane in lanes.values()):
                raise ValueError(f"{where} have the rate 0, all of them: one at least is above 0")
        for number, phase in enumerate(self.phases):
            if phase.max_frames and phase.min_frames > phase.max_frames:
                raise ValueError(
                    f"phases[{number}].min_frames is {phase.min_frames} and max_frames {phase.max_frames}: no sample is both"
                )
        if self.mode == "packs" and not all(
            [self.tokens] if not self.phases else [p.tokens or self.tokens for p in self.phases]
        ):
            raise ValueError("tokens is 0, and packs need a budget: give tokens, such as 65536")
        return self


def lanes_of(recipe: DataConfig, sources: Collection[str]) -> Sequence[Mapping[str, LaneConfig]]:
    """The lanes of each phase, in a recipe without phases of the one that lasts. Raises ConfigError for a source that is no
    input, and for an input that no lane of any phase draws from."""
    everything = {"all": LaneConfig(sources=dict.fromkeys(sources, 1))}
    lanes: list[Mapping[str, LaneConfig]] = [
        phase.lanes or recipe.lanes or everything for phase in recipe.phases or (PhaseConfig(),)
    ]
    named = {source: name for of_phase in lanes for name, lane in of_phase.items() for source in lane.sources}
    for source, lane in named.items():
        if source not in sources:
            raise ConfigError(
                f"training.data: lane {lane!r} draws from {source!r}, which is no input of this stage; inputs: "
                f"{', '.join(sorted(sources))}"
            )
    if unread := sorted(set(sources) - set(named)):
        raise ConfigError(f"training.data: no lane draws from {', '.join(unread)}: name it in one, or do not give it")
    return lanes


class PackBounds(NamedTuple):
    """The most that a pack of a recipe holds."""

    tokens: int
    "Frames times height times width."
    samples: int
    frames: int


def pack_bounds(recipe: DataConfig, shapes: Iterable[Sequence[int]]) -> PackBounds:
    """Of packs of samples of these shapes (frames, height, width): by the budget, and by the smallest sample, or where samples
    are cut by the smallest frame."""
    areas = [(frames, height * width) for frames, height, width in shapes]
    cut = recipe.oversize in ("cut", "split")
    budget = max(phase.tokens or recipe.tokens for phase in recipe.phases or (PhaseConfig(),))
    smallest = min(area if cut else frames * area for frames, area in areas)
    return PackBounds(budget, budget // smallest, budget // min(area for _, area in areas))


def require_covered(recipe: DataConfig, steps: int) -> None:
    """Raise ConfigError for phases that do not last as long as a run of `steps`, or of which one begins after its end."""
    first = 0
    for number, phase in enumerate(recipe.phases):
        if first >= steps:
            raise ConfigError(
                f"training.data.phases[{number}] begins at step {first}, and training.steps is {steps}: it has no step"
            )
        first += phase.steps or steps
    if recipe.phases and first < steps:
        raise ConfigError(
            f"training.data.phases are {first} steps, and training.steps is {steps}: leave out the steps of the last "
            "phase, and it lasts to the end"
        )
