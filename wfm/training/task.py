"""What a family makes of its inputs and its config, for `wfm.training.fit` to train: the samples, and who learns from them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from wfm.actions import ActionSpec
from wfm.config import Config
from wfm.data.loader.work import Transform
from wfm.data.passes import close_all
from wfm.data.samples import Samples
from wfm.training.objective import Objective, Rival, SummedObjective

Validate = Callable[[Any], dict[str, float]]
"""Figures of a model on held-out samples; a loss among them or not."""


@dataclass(frozen=True)
class Learner:
    """Who learns, and what is kept of it."""

    model: nn.Module
    objective: Objective | SummedObjective
    card: Config
    "Of the model folder."
    validate: Validate | None = None
    "None: nothing is held out."
    rival: Rival | None = None
    action_spec: ActionSpec | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)
    "What the model folder says besides."
    beside: Mapping[str, tuple[nn.Module, Config, Mapping[str, Any]]] = field(default_factory=dict)
    "Further models that belong to it, by the folder they are kept in: module, config, extra."


@dataclass(frozen=True)
class Task:
    """Opened inputs; nothing is built yet."""

    samples: Mapping[str, Samples]
    "The train split, by the names that the recipe of the data knows."
    begin: Callable[[], Learner]
    "Builds the model and what it starts with. Called once, with torch's generators seeded."
    counts: Mapping[str, int]
    "What the answer says of the inputs."
    transform: Transform | None = None
    "Of each batch (`Loader`)."
    held: tuple[Any, ...] = ()
    "What else is open."

    def close(self) -> None:
        """Nothing is read any more."""
        close_all(*self.samples.values())
        for one in self.held:
            one.close()
