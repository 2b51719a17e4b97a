"""A taxonomy by zero-shot: every clip gets the category whose description lies nearest, and categories get weights.

A category is a name and some sentences that describe it; its vector is the mean of theirs, from the same encoder that made the
clips' vectors: the text tower where the clips were embedded by a model that has one, the sentence encoder where captions were.
Categories share a direction ("a video of ..."), which is taken off both sides, so that they are told apart by what differs. A
clip that no category is near enough to, or that two are equally near to, is ``other``, never forced.

Weights say how often a clip of the train split is drawn, relative to the mean of 1: those given by hand as shares, the rest by
(share of clips) ^ ``evenness``: 1 keeps the corpus as it is, 0 makes all categories equally frequent. No clip is drawn more
than ``most_repeats`` times as often as the mean, whatever its category wants; what that leaves undone is said
(`Mixture.reached`).
"""

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import pydantic

from wfm.config import AtLeastZero, Config, Cosine
from wfm.curation.rows import CategoryRow, MixtureRow
from wfm.curation.select.kept_clips import KeptClips, Sentences
from wfm.errors import ConfigError

OTHER = "other"
NO_CLIP = 0.0
"""Weight of a category without a clip to train on."""

PHYSICAL_WORLD: dict[str, list[str]] = {
    "driving": ["A view from a moving car.", "Cars drive along a road."],
    "manipulation": ["Hands handle an object.", "A robot arm grasps and moves an object."],
    "people": ["People walk, work or do sports.", "A person moves."],
    "navigation": ["The camera moves through rooms.", "A walk through a building or a street."],
    "first person": ["A video from the eyes of a person.", "A view from a camera worn on the head."],
    "nature": ["Water, fire, clouds or trees move.", "An animal in the wild."],
    "camera moves": ["The camera flies over a landscape.", "The camera pans and zooms."],
    "rendered": ["A rendered scene of simple shapes.", "A video game or an animation."],
}
"""The kinds of video that Cosmos 1.0 was trained on, as its paper names them."""


class TaxonomyConfig(Config):
    """Categories, when a clip belongs to one, and how often each is drawn."""

    categories: dict[str, list[str]] = PHYSICAL_WORLD
    "Name of each category -> sentences that describe it."
    least_cosine: Cosine = 0.0
    "A clip whose nearest category is further away than this (after the common direction is taken off) is other."
    least_margin: AtLeastZero = 0.0
    "So is one whose two nearest categories differ by less than this."
    shares: dict[str, float] = {}
    "Wanted share of what is drawn, by category; what is not named shares the rest."
    evenness: float = pydantic.Field(0.5, ge=0, le=1)
    "Exponent of the shares that are not given: 1 as the corpus has it, 0 all alike."
    most_repeats: float = pydantic.Field(4.0, ge=1)
    "A clip is drawn at most this many times as often as the mean."

    @pydantic.model_validator(mode="after")
    def _sane(self) -> "TaxonomyConfig":
        if len(self.categories) < 2:
            raise ValueError(f"categories has {len(self.categories)} entries: give 2 or more, name -> sentences")
        for name, sentences in self.categories.items():
            if not name.strip() or name == OTHER or not sentences or not all(text.strip() for text in sentences):
                raise ValueError(
                    f"category {name!r}: needs a name other than {OTHER!r} and sentences that are not empty"
                )
        for name, share in self.shares.items():
            if name not in self.categories and name != OTHER:
                raise ValueError(f"shares names {name!r}; the categories are {', '.join(self.categories)}, {OTHER}")
            if not 0 <= share <= 1:
                raise ValueError(f"shares.{name} is {share}: a share is 0 to 1")
        if sum(self.shares.values()) > 1 + 1e-9:
            raise ValueError(f"shares add up to {sum(self.shares.values()):g}, more than 1")
        return self


@dataclasses.dataclass(frozen=True)
class Mixture:
    """Categories by name: how many clips to train on, what share was wanted and what the weights reach."""

    clips: dict[str, int]
    wanted: dict[str, float]
    reached: dict[str, float]
    weights: dict[str, float]


@dataclasses.dataclass(frozen=True)
class Classified:
    """What every clip was taken for, in the order of the clips, and how often each is drawn."""

    categories: list[CategoryRow]
    weights: list[MixtureRow]
    mixture: Mixture


def classify_kept(kept: KeptClips, encode: Sentences, config: TaxonomyConfig) -> Classified:
    """A category for every kept clip, by descriptions as ``encode`` puts them beside the clips' vectors, and weights by
    those of the train split. Raises like `classify` and `mixture`."""
    described = {name: encode(sentences) for name, sentences in config.categories.items()}
    chosen, cosines, margins = classify(kept.vectors, described, config)
    mixed = mixture([name for name, split in zip(chosen, kept.splits, strict=True) if split == "train"], config)
    categories = [
        CategoryRow(clip_id=clip_id, category=name, category_cosine=float(cosine), category_margin=float(margin))
        for clip_id, name, cosine, margin in zip(kept.clip_ids, chosen, cosines, margins, strict=True)
    ]
    return Classified(categories, mixture_rows(kept.clip_ids, chosen, mixed), mixed)


def classify(
    vectors: np.ndarray, descriptions: Mapping[str, np.ndarray], config: TaxonomyConfig
) -> tuple[list[str], np.ndarray, np.ndarray]:
    """(category a clip, cosine [N], margin [N]) of clips float [N, D], by descriptions name -> float [sentences, D].

    A clip of zeros (nothing is said of it, or it has no contrast) is other. Raises ConfigError for
    descriptions of another width.
    """
    names = list(config.categories)
    means = np.stack([_unit(np.asarray(descriptions[name], np.float32)).mean(axis=0) for name in names])  # [C, D]
    if means.shape[1] != vectors.shape[1]:
        raise ConfigError(
            f"the descriptions have {means.shape[1]} numbers, the clips {vectors.shape[1]}: not one encoder"
        )
    common = _unit(means).mean(axis=0)
    common /= max(float(np.linalg.norm(common)), 1e-12)
    axes = _unit(means - (means @ common)[:, None] * common)
    clips = _unit(vectors.astype(np.float32))
    cosines = _unit(clips - (clips @ common)[:, None] * common) @ axes.T  # [N, C]
    order = np.argsort(-cosines, axis=1, kind="stable")
    rows = np.arange(len(cosines))
    best, second = cosines[rows, order[:, 0]], cosines[rows, order[:, 1]]
    near = (best >= config.least_cosine) & (best - second >= config.least_margin) & vectors.any(axis=1)
    chosen = [names[column] if ok else OTHER for column, ok in zip(order[:, 0], near, strict=True)]
    return chosen, best, best - second


def mixture(chosen: Sequence[str], config: TaxonomyConfig) -> Mixture:
    """Weights of the categories that have clips, by those to train on. Raises ConfigError when there is no clip, or a share is
    wanted of a category without any."""
    counts = Counter(chosen)
    if not counts:
        raise ConfigError("there is no clip to train on: nothing can be mixed")
    empty = [name for name, share in config.shares.items() if share > 0 and not counts[name]]
    if empty:
        raise ConfigError(
            f"shares wants {', '.join(empty)}, of which there is no clip: take it out, or describe it better"
        )
    total = len(chosen)
    present = [name for name in (*config.categories, OTHER) if counts[name]]
    free = [name for name in present if name not in config.shares]
    rest = 1 - sum(config.shares.values())
    if not free and rest > 1e-9:
        raise ConfigError(f"shares gives every category one, and they add up to {1 - rest:g}: make it 1")
    powers = {name: (counts[name] / total) ** config.evenness for name in free}
    wanted = {name: config.shares.get(name, 0.0) for name in present}
    wanted |= {name: rest * power / sum(powers.values()) for name, power in powers.items()}
    reached = _capped(wanted, {name: config.most_repeats * counts[name] / total for name in present})
    weights = {name: reached[name] * total / counts[name] for name in present}
    return Mixture({name: counts[name] for name in present}, wanted, reached, weights)


def mixture_rows(clip_ids: Sequence[str], chosen: Sequence[str], mixed: Mixture) -> list[MixtureRow]:
    """A row a clip, in the order given; a category of which there is nothing to train on weighs 0."""
    return [
        MixtureRow(clip_id=clip_id, category=name, weight=mixed.weights.get(name, NO_CLIP))
        for clip_id, name in zip(clip_ids, chosen, strict=True)
    ]


def _capped(wanted: dict[str, float], most: dict[str, float]) -> dict[str, float]:
    """Shares that add up to 1, none above its ``most``; what a capped one leaves goes to the others, in their proportion."""
    capped: set[str] = set()
    shares = dict(wanted)
    while over := [name for name in shares if name not in capped and shares[name] > most[name] + 1e-12]:
        capped.update(over)
        left = 1 - sum(most[name] for name in capped)
        open_ = {name: wanted[name] for name in wanted if name not in capped}
        total = sum(open_.values())
        if total <= 0:  # nobody may take it: shared out by what there is
            open_ = {name: most[name] for name in open_}
            total = sum(open_.values())
        shares = {name: most[name] if name in capped else left * open_[name] / total for name in wanted}
    return shares


def _unit(x: np.ndarray) -> np.ndarray:
    return x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-12)
