"""What a model family is to the rest of the house: one object, its card, with a folder of its own under `wfm/families`.

    card.py    the `Family`: configs, the tokenizer it needs, labels for people, costs, weights. No torch at import
    fit.py     its `Fitting`: how it is built from data, its objective, what is watched (opened by the card, when asked)
    draw.py    its `Drawing`: how it continues a past (opened likewise)

Training, generation, evaluation, the page, the planner and the commands are handed a family, or loop over `FAMILIES`; nothing
else imports one's modules, names one or asks which it is. Entry points of the group `wfm.families` register more.

A family overrides no more than its own mathematics: what is not abstract here has a default that suits a plain model.
Torch-free, so that keys are computed from it.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from wfm.config import Config
from wfm.errors import ConfigError
from wfm.registry import Registry, resolve

if TYPE_CHECKING:
    from torch import Tensor, nn

    from wfm.models.video_tokenizer import TokenizerCard, VideoTokenizer

PARTS = ("card", "network", "fit", "draw")
"""Into what a family's code is divided for keys: reading its labels, running its network, training it, drawing from it."""

PAST = "past"
"""The condition that every world model has, and its tensor: the given frames."""

FAMILIES = Registry(
    "wfm.families",
    "family",
    {
        name: f"wfm.families.{name}.card:FAMILY"
        for name in ("tokenizer", "diffusion", "diffusion_decoder", "autoregressive")
    },
)


@dataclass(frozen=True)
class Variant:
    """One way of drawing that held-out windows are predicted by."""

    mode: str
    "What `Drawing.draw` is asked for."
    label: str
    "What people call it, after the family: `one-step mean`."


class Family(ABC):
    """The card of a family. One instance of each, in its `card.py`."""

    name: ClassVar[str]
    "As configs and model folders say it."
    makes: ClassVar[Literal["tokenizer", "world_model", "decoder"]]
    "Kind of artifact that its training commits."
    takes: ClassVar[Literal["", "continuous", "discrete"]] = ""
    "Kind of tokenizer that a world model works on: its latents, or its tokens."
    title: ClassVar[str]
    "For people, as a heading: `Diffusion`."
    config: ClassVar[type[Config]]
    "What a model folder's `config.json` holds; its class says `FAMILY = name`."
    network: ClassVar[str]
    "`module:class`, or a function, that makes the network of a config."
    training: ClassVar[type[Config]]
    "Configuration of its training stage."
    sampling: ClassVar[type[Config] | None] = None
    "Of a world model: how futures are drawn from it; None: as `wfm.generation.config.SamplingConfig` says, and no more."
    fit: ClassVar[str]
    """`module:object`: the `Fitting` of a world model; of a tokenizer or decoder the function of inputs by name, config and
    ranks that makes its `wfm.training.task.Task`."""
    draw: ClassVar[str] = ""
    "`module:object`: the `Drawing` of a world model; of a decoder the class that shows tokens (`Shows`)."
    variants: ClassVar[Mapping[str, Variant]] = {}
    "By name, in the order in which they are made and listed. A twin with shuffled actions is made beside the headline one."
    headline: ClassVar[str] = ""
    "The variant that the family is judged by first."
    modes: ClassVar[tuple[str, ...]] = ()
    "Every mode that `Drawing.draw` knows, a draw from the distribution first, then best single guesses."
    own: ClassVar[tuple[str, ...]] = ()
    "Names of the conditions that the network's config has fields for; of all others it is told as `conditions`."
    weight_fields: ClassVar[tuple[str, ...]] = ()
    "Fields of the training config that `weight_count` is made of."
    costs: ClassVar[str] = ""
    "`module:function` of `cost`; empty: not known."
    versions: ClassVar[Mapping[str, int]] = {}
    "Part of `PARTS` -> version of its results, raised by hand; 1 where nothing is said."

    @property
    def parts(self) -> tuple[str, ...]:
        """Those of `PARTS` that it has."""
        return tuple(part for part in PARTS if part in ("card", "network") or getattr(self, part))

    def modules(self, part: str) -> tuple[str, ...]:
        """The modules that a part of the family's code begins with, this card's own aside."""
        paths = {"network": (self.network,), "fit": (self.network, self.fit), "draw": (self.network, self.draw)}
        return tuple(path.partition(":")[0] for path in paths.get(part, ()) if path)

    def network_class(self) -> Any:
        """What makes the network of a config. Loads torch."""
        return resolve(self.network)

    def fitting(self) -> Any:
        """How one is trained: see `fit`, and `wfm.training.fit`. Loads torch."""
        return resolve(self.fit)

    def drawing(self) -> "Drawing":
        """How futures are drawn from one. Loads torch."""
        return resolve(self.draw)  # type: ignore[no-any-return]

    def mode_of(self, variant: str) -> str:
        """The mode of a variant, or of the headline where no variant is called so."""
        return self.variants.get(variant, self.variants[self.headline]).mode

    def require_tokenizer(self, tokenizer: "TokenizerCard") -> None:
        """Raise ConfigError for a tokenizer of the other kind."""
        if self.takes and tokenizer.discrete != (self.takes == "discrete"):
            wanted = "with levels" if self.takes == "discrete" else "without levels"
            raise ConfigError(f"family {self.name} needs a {self.takes} tokenizer: train one {wanted}")

    def blocks(self, model: Any) -> "list[nn.Module]":
        """The repeated blocks of its network, first to last: what is checkpointed, compiled, sharded and frozen one by one. A
        network without any has none."""
        return list(getattr(model, "blocks", ()))

    def head(self, model: Any) -> "list[nn.Module]":
        """What stands behind the last block, and learns with it."""
        return []

    def cost(
        self,
        config: Any,
        video: Any,
        *,
        batch: int,
        text_tokens: int,
        tokenizer: "TokenizerCard | None" = None,
    ) -> Any:
        """The `wfm.models.cost.Cost` of a model for `batch` videos; without a `Video`, one of its usual size."""
        if not self.costs:
            raise ConfigError(f"family {self.name}: its costs are not known")
        return resolve(self.costs)(config, video, batch=batch, text_tokens=text_tokens, tokenizer=tokenizer)

    def presets(self) -> Mapping[str, Config]:
        """Published models by name."""
        return {}

    def weight_count(self, config: Any) -> float:
        """Roughly how many weights a training config's model has: what the time of a step goes by."""
        return 1.0

    def passes(self, sampling: Any) -> int:
        """Roughly how often the network is asked for one window: what the time of drawing goes by."""
        return 1

    def layers(self, config: Any) -> int:
        """How many blocks a training config's model has."""
        return 0

    def shown_motion(self, config: Any) -> bool:
        """Whether a training config's model is shown what constant motion makes of the past."""
        return False

    def problems(
        self, config: Any, tokenizer: "TokenizerCard | None", encoded: Any, source: str
    ) -> Iterator[tuple[str, str]]:
        """What of a training config cannot work with this tokenizer and these windows (the config of the node `source`, which
        encodes them), each as (field, what to do); an empty field: the words stand alone. None: not part of the plan."""
        return iter(())


class Fitting(ABC):
    """How a world model is trained. `wfm.training.fit` does the rest: reads, orders, steps, keeps, saves.

    `config` is the family's training config, `data` a `wfm.training.encoded.Encoded`.
    """

    free_fields: ClassVar[frozenset[str]] = frozenset()
    "Fields of the network's config in which a model that training goes on from may differ."
    new_tensors: ClassVar[tuple[str, ...]] = ()
    "Beginnings of names of tensors which such a model may lack: they start new."
    takes_packs: ClassVar[bool] = False
    "Whether its objective takes packs (`wfm.data.loader.grouped.GroupedBatch`) besides batches of one shape."
    rates_hint: ClassVar[str] = ""
    "What to set, so that the model is told frame rates apart; empty: it cannot be."

    @abstractmethod
    def settle(self, config: Any, tokenizer: "TokenizerCard", data: Any) -> Config:
        """The network's config with everything that follows from the data filled in. Raises ConfigError for what does not
        fit."""

    @abstractmethod
    def objective(self, config: Any) -> Any:
        """Its `wfm.training.objective.Objective`."""

    def begin(self, model: Any, config: Any, data: Any) -> None:
        """Set what is not learned by steps: statistics, what is fitted in closed form."""
        return None

    def require_shapes(self, model: Any, config: Any, shapes: "Sequence[tuple[int, int, int]]") -> None:
        """Raise ConfigError, before the first step, for training samples (frames, height, width of their latents) that the
        network of `model` cannot take; unless a family says so, it takes one shape."""
        if len(shapes) > 1:
            raise ConfigError(
                f"family {config.family} takes one shape (frames, height, width), and the training samples are of "
                f"{len(shapes)}: {', '.join(map(str, shapes[:4]))}; encode windows of one size and length, or train another "
                "family"
            )

    def limit_packs(self, objective: Any, model: Any, config: Any, data: Any) -> None:
        """Tell an objective of packs how large they are at most, where its network is compiled for packs of one size."""
        return None

    def tells_rates(self, config: Any, data: Any) -> bool:
        """Whether the model is told the frame rate of each sample, so that the latents may be of several."""
        return False

    def go_on(self, model: "nn.Module", card: Config, initial: "nn.Module", found: Config, source: str) -> None:
        """Take the weights of `initial`, a model of the same family with config `found`, for `model` of config `card`. Raises
        ConfigError naming the fields in which it is another network."""
        held, wanted = found.resolved(), card.resolved()
        other = [name for name in wanted if name not in self.free_fields and held.get(name) != wanted[name]]
        if other:
            differing = "; ".join(f"{name}: {held.get(name)!r}, here {wanted[name]!r}" for name in other)
            raise ConfigError(f"initial = {source!r} is another network: {differing}")
        missing, extra = model.load_state_dict(initial.state_dict(), strict=False)
        if extra or any(not name.startswith(self.new_tensors) for name in missing):
            raise ConfigError(f"initial = {source!r}: lacks {missing}, holds {extra} besides")

    def figures(
        self, model: Any, tokenizer: "VideoTokenizer", batch: "Mapping[str, Tensor]", config: Any
    ) -> dict[str, float]:
        """What is watched of held-out samples beside the loss."""
        return {}


@dataclass(frozen=True)
class Ask:
    """One window that a `Drawing` is to fill: past given, future wanted, in the tokenizer's space."""

    frames: int
    "Latent frames of the whole window, the given ones included."
    seeds: list[int]
    "One a sequence; a sequence depends on its own alone."
    mode: str
    "One of `Family.modes`."
    sampling: Any
    "The family's sampling config."
    tensors: "Mapping[str, Tensor]" = field(default_factory=dict)
    """Of the model's conditions, by the names of their tensors, `[B, ...]` each (`wfm.conditions`), the past among them; a
    condition whose tensors are not here is absent."""
    negative: "Mapping[str, Tensor]" = field(default_factory=dict)
    "Tensors of a negative prompt, `[1, ...]`, which guidance moves away from."

    @property
    def past(self) -> "Tensor":
        """What is given: latents `[B, C, p, h, w]` in the tokenizer's units, or tokens int64 `[B, p, h, w]`."""
        return self.tensors[PAST]


class Drawing(ABC):
    """How a world model continues a past. `wfm.generation` does the rest: encodes, rolls out, decodes, writes."""

    keeps_tokens: ClassVar[bool] = False
    "Whether a long video is continued in the tokenizer's space, never decoded and encoded again between windows."

    @abstractmethod
    def draw(self, model: Any, ask: Ask) -> "Tensor":
        """The whole window, `[B, C, frames, h, w]` or `[B, frames, h, w]`, its given frames as they are. Raises ConfigError
        for a mode that this model does not have."""

    def watched(self, model: Any) -> "nn.Module":
        """The module whose passes progress is counted by."""
        return model  # type: ignore[no-any-return]

    def passes(self, model: Any, sampling: Any, mode: str, grid: tuple[int, int, int]) -> int:
        """Passes of `watched` that one window takes at most; `grid`: latent (frames to predict, rows, columns)."""
        return 1


class FamilyConfig(Config):
    """A stage's config whose fields are those of the family that it names: parsed, overridden and keyed as that family's own
    class, so that no other family's field is in it."""

    family: str

    @classmethod
    def of_family(cls, family: Family) -> type[Config] | None:
        """The class of a family; None where it has none of this stage."""
        raise NotImplementedError

    @classmethod
    def class_of(cls, values: Mapping[str, Any]) -> type[Config]:
        """The class that `values` are read by. Raises ConfigError for a missing or unknown family, and one of another kind."""
        name = values.get("family", cls.model_fields["family"].default)
        if not isinstance(name, str):
            raise ConfigError(f"{cls.__name__}: field 'family': say which; choices: {', '.join(cls.choices())}")
        if name not in FAMILIES:
            raise ConfigError(f"field 'family': unknown family {name!r}. Choices: {', '.join(FAMILIES.names())}")
        kind = cls.of_family(FAMILIES.load(name))
        if kind is None or not issubclass(kind, cls):
            raise ConfigError(f"{cls.__name__}: field 'family' = {name!r}: choices are {', '.join(cls.choices())}")
        return kind

    @classmethod
    def choices(cls) -> tuple[str, ...]:
        """The families that this stage can be of."""
        found = {name: cls.of_family(FAMILIES.load(name)) for name in FAMILIES.names()}
        return tuple(name for name, kind in found.items() if kind is not None and issubclass(kind, cls))

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> Self:
        """The config as the named family's class, an instance of this one too."""
        kind = cls.class_of(values)
        if kind is not cls:
            cls._refuse_others(values, kind)
            return kind.parse(values)  # type: ignore[return-value]
        return super().parse({"family": cls.model_fields["family"].default, **values})

    @classmethod
    def _refuse_others(cls, values: Mapping[str, Any], kind: type[Config]) -> None:
        """Raise ConfigError for fields that another family has: whoever changed the family left them standing."""
        foreign = [name for name in values if name not in kind.model_fields]
        for other in cls.choices() if foreign else ():
            theirs = cls.of_family(FAMILIES.load(other))
            held = [name for name in foreign if theirs is not None and name in theirs.model_fields]
            if held:
                raise ConfigError(
                    f"{cls.__name__}: field 'family' = {values.get('family')!r}, and {', '.join(held)} are of family {other}: "
                    "leave them out, or name that family"
                )


def family_of(config: Config) -> Family:
    """The family whose configuration `config` is. Raises ConfigError for a class that belongs to none."""
    name = getattr(type(config), "FAMILY", "")
    if not name:
        raise ConfigError(
            f"{type(config).__module__}:{type(config).__name__} is not the configuration of a model family; choose from "
            f"{', '.join(FAMILIES.names())}"
        )
    return FAMILIES.load(name)  # type: ignore[no-any-return]
