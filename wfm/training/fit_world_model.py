"""What training a world model, of the family that its config names, takes: samples, network, objective, what is watched.

world_task(sources, tokenizer, config) -> what `wfm.training.fit` trains
"""

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import numpy as np
from torch import nn

from wfm.conditions.condition import parse
from wfm.config import Config
from wfm.data.loader.grouped import grouped
from wfm.data.samples import Samples
from wfm.errors import ConfigError, DataError
from wfm.models.family import FAMILIES, Family, Fitting
from wfm.models.folder import load_model
from wfm.models.parallelize import parallelize
from wfm.models.slots import Geometry
from wfm.models.video_tokenizer import TokenizerCard, VideoTokenizer
from wfm.pulse import beat
from wfm.training.config import WorldTrainingConfig
from wfm.training.device import device_of
from wfm.training.encoded import Encoded, Source, read_encoded
from wfm.training.held_out import Batch, held_out, mean_over
from wfm.training.joined import JoinedSamples
from wfm.training.objective import Objective
from wfm.training.order import require_buckets, source_shares
from wfm.training.task import Learner, Task


def world_task(sources: Mapping[str, Source], tokenizer: VideoTokenizer, config: WorldTrainingConfig) -> Task:
    """A world model on the train split of the `sources`, drawn as `config.training` says; the val split is watched."""
    family: Family = FAMILIES.load(config.family)
    fitting: Fitting = family.fitting()
    require_buckets(config.training, config.family, fitting.takes_packs)
    packs = config.training.data.mode == "packs"
    require_whole(sources, config)
    shares = source_shares(config.training, sources)
    own = parse({name: {} for name in family.own})
    data = read_encoded(
        sources, parse(config.conditions), own, shares, config.training.reading,
        shared_sessions=config.training.data.shared_sessions,
    )  # fmt: skip

    def begin() -> Learner:
        model, objective, card = build(config, tokenizer.config, data)
        fitting.require_shapes(model, config, shapes_of(data.train.values()))
        if packs:
            fitting.limit_packs(objective, model, config, data)
        go_on(model, card, config)
        return Learner(
            model,
            objective,
            card,
            validation(objective, tokenizer, data.val, config),
            action_spec=data.action_spec,
            extra={
                "extrapolate_from": data.extrapolate_from,
                **({"text": data.text} if data.text else {}),
                **({"action_range": data.action_range} if data.action_range else {}),
            },
            work=partial(fitting.work, card),
        )

    counts = {"samples": sum(len(samples.ids) for samples in data.train.values())}
    return Task(data.train, begin, counts, transform=grouped if packs else None, held=(data,))


def require_whole(sources: Mapping[str, Source], config: WorldTrainingConfig) -> None:
    """Raise ConfigError for a recipe that cuts samples whose signals are of their whole length."""
    oversize = config.training.data.oversize
    told = [name for name, source in sources.items() if source.signals is not None]
    if told and oversize in ("cut", "split"):
        raise ConfigError(
            f"training.data.oversize is {oversize!r}, and {', '.join(told)} have signals, which are of whole samples: set "
            "'leave_out' or 'refuse', or encode shorter ones (encode_latents.max_frames)"
        )


def shapes_of(sources: Iterable[Samples]) -> list[tuple[int, int, int]]:
    """The shapes (frames, height, width) of all samples, each once, in order."""
    found = {tuple(shape) for samples in sources for shape in np.unique(samples.shapes, axis=0).tolist()}
    return sorted(found)


def text_length_of(data: Encoded) -> int:
    """Of the longest caption of the training samples, in tokens; 0 without text."""
    return max(
        (samples.text_length for samples in data.train.values() if isinstance(samples, JoinedSamples)), default=0
    )


def build(config: WorldTrainingConfig, tokenizer: TokenizerCard, data: Encoded) -> tuple[nn.Module, Objective, Config]:
    """The network, its objective, and its configuration with everything that follows from the data filled in."""
    family: Family = FAMILIES.load(config.family)
    fitting: Fitting = family.fitting()
    require_one_rate(data, fitting.tells_rates(config, data), fitting.rates_hint)
    family.require_tokenizer(tokenizer)
    card = fitting.settle(config, tokenizer, data)
    model = family.network_class()(card)
    parallelize(family.blocks(model), config.parallel)
    fitting.begin(model, config, data)
    return model, fitting.objective(config), card


def go_on(model: nn.Module, card: Config, config: WorldTrainingConfig) -> None:
    """Start `model` from `config.initial`, as its family allows, and freeze what `config.unfrozen_layers` leaves out. Raises
    ConfigError for another network and for more layers than there are."""
    family: Family = FAMILIES.load(config.family)
    if config.initial:
        initial, found = load_model(config.initial)
        if found.family != config.family:
            raise ConfigError(
                f"initial = {config.initial!r} is another network: of family {found.family}, not {config.family}"
            )
        family.fitting().go_on(model, card, initial, found.config, config.initial)
    if config.unfrozen_layers < 0:
        return
    blocks = family.blocks(model)
    if config.unfrozen_layers > len(blocks):
        raise ConfigError(f"unfrozen_layers is {config.unfrozen_layers}, the network has {len(blocks)} blocks")
    learning = [*blocks[len(blocks) - config.unfrozen_layers :], *family.head(model)]
    model.requires_grad_(False)
    for part in learning:
        part.requires_grad_(True)


def known_of(tokenizer: TokenizerCard, data: Encoded) -> dict[str, Any]:
    """What every family takes from the data."""
    geometry = Geometry(tokenizer.temporal_compression, data.fps)
    return {
        **{name: value for one in data.own.values() for name, value in one.own_fields().items()},
        "conditions": {name: one.slot_config(geometry).resolved() for name, one in data.conditions.items()},
        "temporal_compression": tokenizer.temporal_compression,
        "fps": data.fps,
    }


def require_one_rate(data: Encoded, tells_rates: bool, hint: str) -> None:
    """Raise DataError for latents of several frame rates and a model that is not told which; `hint`: what would tell it."""
    slow, fast = data.rates or (data.fps, data.fps)
    if fast - slow > 0.01 * fast and not tells_rates:
        raise DataError(
            f"the latents mix frame rates, {slow:g} to {fast:g} a second: resample the clips to one rate"
            + (f", or {hint}" if hint else "")
        )


def validation(
    objective: Objective, tokenizer: VideoTokenizer, held: Mapping[str, Samples], config: WorldTrainingConfig
) -> Callable[[Any], dict[str, float]] | None:
    """A function of the model: its loss on held-out samples with fixed noise, and the family's own figures. None without
    held-out samples."""
    if not held:
        return None
    watched = held_out(held.values(), config.validation_windows, config.training)
    fitting: Fitting = FAMILIES.load(config.family).fitting()

    def figures(model: Any, batch: Batch) -> dict[str, float]:
        loss, values = objective.loss(model, batch, 0)
        beat("validation")
        return {"loss": float(loss), **values, **fitting.figures(model, tokenizer, batch, config)}

    def validate(model: Any) -> dict[str, float]:
        tokenizer.to(device_of(model))
        return mean_over(watched, model, lambda batch: figures(model, batch))

    return validate
