"""Which order a run reads its samples in: by its recipe (`data_config`), with the weights of a mixture where there is one."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from wfm.data.mixture import Mixture, mixture_of, read_mixture
from wfm.data.order import Batching, BatchOrder, Lane, Order, Packing, Phase, Phases, Source
from wfm.data.order.batches import Bucket
from wfm.data.order.sources import Pieces
from wfm.data.passes import tensors_of
from wfm.data.seeds import mix
from wfm.errors import ConfigError, DataError
from wfm.log import get_logger
from wfm.training.config import TrainingConfig
from wfm.training.data_config import PhaseConfig, lanes_of, require_covered

if TYPE_CHECKING:
    from wfm.artifacts import Artifact
    from wfm.data.samples import Samples

RunOrder = Order | BatchOrder | Phases


def read_weights(config: TrainingConfig, categories: "Artifact | None" = None) -> Mixture | None:
    """The mixture of a run: of the artifact ``categories`` (`components.classify_clips`) or of the file
    ``config.mixture``; None where neither is given. Raises ConfigError for both."""
    if categories is None:
        return read_mixture(Path(config.mixture)) if config.mixture else None
    if config.mixture:
        raise ConfigError(
            f"training.mixture = {config.mixture!r}, and classify_clips made a mixture too: leave one of them out"
        )
    return mixture_of(categories.table("mixture"), f"categories {categories.key[:12]}")


def mixture_note(sources: "Iterable[Samples]", mixture: Mixture | None) -> dict[str, Any]:
    """What a run says of its mixture: its hash, and the share of each category in what is drawn. Empty without one, and then
    no id is looked at."""
    if mixture is None:
        return {}
    ids = [name for samples in sources for name in samples.ids]
    shares = {name: round(share, 6) for name, share in mixture.shares(ids).items()}
    return {"mixture": {"sha256": mixture.sha256, "shares": shares}}


def order_of(config: TrainingConfig, sources: "Mapping[str, Samples]", mixture: Mixture | None = None) -> RunOrder:
    """The order of a run by its recipe, of samples by the names that the recipe uses; drawn by `mixture` where there is one.

    Raises, before anything is read, ConfigError for a source that is not there or is in no lane, and for phases that do not
    cover the run; DataError, naming source and phase, where nothing is left to draw or a sample is above the budget.
    """
    recipe = config.data
    phases = recipe.phases or (PhaseConfig(),)
    lanes = lanes_of(recipe, sources)
    require_covered(recipe, config.steps)
    weights = None if mixture is None else _weights(sources, mixture)
    known = {
        name: Source.of(name, held, 1, None if weights is None else weights[name]) for name, held in sources.items()
    }
    made = []
    for number, (phase, of_phase) in enumerate(zip(phases, lanes, strict=True)):
        where = f"phases[{number}]: " if recipe.phases else ""
        seed = mix(config.seed, "phase", number) if number else config.seed
        drawn = [
            Lane(
                name,
                [_limited(known[each], rate, phase, where) for each, rate in lane.sources.items() if rate],
                lane.rate,
            )
            for name, lane in of_phase.items()
            if lane.rate
        ]
        try:
            made.append(Phase(_order(drawn, config, phase, seed), phase.steps))
        except (ConfigError, DataError) as error:
            raise type(error)(f"{where}{error}") from None
    return Phases(made) if recipe.phases else made[0].order


def require_buckets(config: TrainingConfig, family: str, takes_packs: bool = False) -> None:
    """Raise ConfigError for a recipe of packs where the family trains on batches of one shape."""
    if config.data.mode != "buckets" and not takes_packs:
        raise ConfigError(
            f"training.data.mode is {config.data.mode!r}, and family {family} trains on batches of one shape: set 'buckets'"
        )


def require_whole_shares(config: TrainingConfig, ranks: int) -> None:
    """Raise ConfigError for packs that so many ranks do not divide."""
    packs = config.data.packing.packs
    if config.data.mode == "packs" and packs % ranks:
        fits = [count for count in range(1, packs + 1) if packs % count == 0]
        raise ConfigError(
            f"training.data.packing.packs is {packs}, and {ranks} ranks do not divide the packs of a step: some would have "
            f"more than others. Train on {', '.join(map(str, fits))} ranks, or set a multiple of {ranks}: another order"
        )


def require_alike_batches(order: RunOrder, sources: "Mapping[str, Samples]") -> None:
    """Raise ConfigError, naming lane, shape and sources, where samples would stand in one batch that do not hold the same (such
    as `extrapolated`). One sample of each source is read, where there are several."""
    if not order.bucketed:
        return  # samples of a pack are put together by what they hold
    held = {name: tensors_of(samples) for name, samples in sources.items()} if len(sources) > 1 else {}
    if len(set(held.values())) < 2:
        return
    for lane, pieces in order.pieces().items():
        seen: dict[tuple[int, ...], str] = {}
        for name, drawn in zip(order.sources[lane], pieces, strict=True):
            for shape in map(tuple, np.unique(drawn.shapes, axis=0).tolist() if drawn.shapes is not None else []):
                first = seen.setdefault(shape, name)
                if held[first] != held[name]:
                    raise ConfigError(
                        f"lane {lane!r}: samples of {list(shape)} of {first} hold {sorted(held[first])}, those of {name} "
                        f"{sorted(held[name])}, and a batch has both: encode them alike, or give each a lane of its own"
                    )


def source_shares(config: TrainingConfig, names: Collection[str]) -> dict[str, float]:
    """Of all samples that a run draws, the share of each source, by the recipe's rates; batches of all steps count alike.
    Raises ConfigError for a recipe of other sources."""
    recipe = config.data
    phases = recipe.phases or (PhaseConfig(),)
    lanes = lanes_of(recipe, names)
    first, shares = 0, dict.fromkeys(names, 0.0)
    for phase, of_phase in zip(phases, lanes, strict=True):
        left = max(config.steps - first, 0)
        steps = min(phase.steps or left, left)
        first += steps
        for lane in of_phase.values():
            of_steps = steps / config.steps * lane.rate / sum(each.rate for each in of_phase.values())
            for name, rate in lane.sources.items():
                shares[name] += of_steps * rate / sum(lane.sources.values())
    total = sum(shares.values())
    return {name: share / total for name, share in shares.items()}


def order_note(order: RunOrder, steps: int) -> dict[str, Any]:
    """What a run says of its order, and what a log warns of: of each lane's sources how many samples are drawn, how many are
    above the budget and how many tokens of those are left out; and buckets that have less than one step in the run."""
    lanes = {
        lane: dict(zip(order.sources[lane], map(_counts, pieces), strict=True))
        for lane, pieces in order.pieces().items()
    }
    rare = [bucket for bucket in _buckets(order, steps) if bucket.steps < 1]
    log = get_logger(__name__)
    for lane, name, counts in ((lane, name, counts) for lane, held in lanes.items() for name, counts in held.items()):
        if counts["oversized"]:
            log.warning(
                "lane %s, source %s: samples above the budget, and what is left out of them: %s", lane, name, counts
            )
    if rare:
        samples = sum(bucket.samples for bucket in rare)
        log.warning("%d samples are of %d shapes too rare for one batch in %d steps", samples, len(rare), steps)
    return {"order": {"sha256": order.sha256, "lanes": lanes, "rare": [asdict(bucket) for bucket in rare]}}


def _counts(held: Pieces) -> dict[str, int]:
    samples = int((np.diff(np.asarray(held.rows), prepend=-1) > 0).sum())
    return {"samples": samples, "oversized": held.oversized, "tokens_left": held.tokens_left}


def _buckets(order: RunOrder, steps: int) -> list[Bucket]:
    if isinstance(order, BatchOrder):
        return order.buckets(steps)
    if not isinstance(order, Phases):
        return []
    found = []
    for number, phase in enumerate(order.phases):
        own = min(phase.steps, steps) if phase.steps else steps
        steps -= own
        if isinstance(phase.order, BatchOrder):
            found += [replace(each, lane=f"{number}/{each.lane}") for each in phase.order.buckets(own)]
    return found


def _order(lanes: list[Lane], config: TrainingConfig, phase: PhaseConfig, seed: int) -> Order | BatchOrder:
    recipe = config.data
    tokens = phase.tokens or recipe.tokens
    if recipe.mode == "packs":
        return Order(lanes, Packing(tokens, **recipe.packing.resolved(), oversize=recipe.oversize), seed)
    samples = 0 if tokens else phase.batch_size or config.batch_size
    return BatchOrder(lanes, Batching(samples, tokens, recipe.oversize), seed)


def _limited(source: Source, rate: int, phase: PhaseConfig, where: str) -> Source:
    """The samples that the phase allows, at this rate; weights with a mean of 1 over them."""
    assert source.shapes is not None
    frames, height, width = source.shapes.T
    chosen = frames >= phase.min_frames
    for most, values in ((phase.max_frames, frames), (phase.max_height, height), (phase.max_width, width)):
        if most:
            chosen = chosen & (values <= most)
    if not chosen.any():
        limits = {name: limit for name, limit in phase.resolved().items() if name[:4] in ("min_", "max_") and limit}
        raise DataError(
            f"{where}source {source.name!r}: none of {len(chosen)} samples is within {limits}: nothing to train on"
        )
    held = source if chosen.all() else source.only(chosen)
    if held.weights is None and held.rate == rate:
        return held  # another would be looked at again
    if held.weights is None:
        return replace(held, rate=rate)
    if not held.weights.any():
        raise DataError(
            f"{where}source {source.name!r}: the mixture gives all {len(held.weights)} samples the weight 0"
        )
    return replace(held, rate=rate, weights=held.weights / held.weights.mean())


def _weights(sources: "Mapping[str, Samples]", mixture: Mixture) -> dict[str, np.ndarray]:
    every = np.array(mixture.of_samples([each for held in sources.values() for each in held.ids]))
    ends = np.cumsum([len(held.ids) for held in sources.values()])
    return dict(zip(sources, np.split(every, ends[:-1]), strict=True))
