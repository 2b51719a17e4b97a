"""Train a world model, of the family that its config names, on encoded windows.

fit_world_model(latents, tokenizer, config, out=..., scratch=...) -> what was done
"""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from wfm.conditions.condition import parse
from wfm.config import Config
from wfm.data.loader.arrays import ArrayDataset
from wfm.data.loader.loading import Loader
from wfm.data.mixture import Mixture
from wfm.data.seeds import mix
from wfm.errors import ConfigError, DataError
from wfm.models.family import FAMILIES, Family, Fitting
from wfm.models.folder import count_parameters, load_model, save_model
from wfm.models.parallelize import parallelize
from wfm.models.seeding import seed_everything
from wfm.models.slots import Geometry
from wfm.models.video_tokenizer import TokenizerCard, VideoTokenizer
from wfm.parallel.ranks import ALONE, Ranks
from wfm.pulse import beat
from wfm.training.checkpoint import Scratch
from wfm.training.config import WorldTrainingConfig
from wfm.training.encoded import Encoded, read_encoded
from wfm.training.external_files import external_files
from wfm.training.loop import train
from wfm.training.objective import Objective
from wfm.training.order import data_plan, mixture_note

if TYPE_CHECKING:
    from wfm.artifacts import Artifact


def fit_world_model(
    latents: "Artifact",
    tokenizer: VideoTokenizer,
    config: WorldTrainingConfig,
    *,
    signals: "Artifact | None" = None,
    text: "Artifact | None" = None,
    out: Path,
    scratch: Scratch,
    stopping: Callable[[], bool] = lambda: False,
    mixture: Mixture | None = None,
    ranks: Ranks = ALONE,
) -> dict[str, Any]:
    """Train on the train split of `latents`, with the `signals` and the `text` of the same samples, drawn by `mixture`; watch
    the val split. Rank 0 writes `out/model/` and `out/metrics.jsonl`."""
    if config.training.threads:
        torch.set_num_threads(config.training.threads)
    own = FAMILIES.load(config.family).own
    data = read_encoded(latents, signals, text, parse(config.conditions), parse({name: {} for name in own}))
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
        run={"config": config.what(), "files": external_files(config), **note},
        description=config.family,
        ranks=ranks,
    )
    if ranks.leads:
        save_model(
            model,
            card,
            out / "model",
            action_spec=data.action_spec,
            extra={
                "validation": result.final,
                "extrapolate_from": data.extrapolate_from,
                **({"text": data.text} if data.text else {}),
                **({"action_range": data.action_spec.range_of(seen.numpy())} if seen is not None else {}),
            },
        )
        shutil.copyfile(result.curve, out / "metrics.jsonl")
    return {
        "samples": len(data.train),
        "parameters": count_parameters(model),
        "steps": result.steps,
        "resumed_from": result.resumed_from,
        "samples_per_second": result.samples_per_second,
        "validation": result.final,
        **note,
    }


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
    rates = data.train.arrays.get("fps", torch.tensor([data.fps]))
    slow, fast = float(rates.min()), float(rates.max())
    if fast - slow > 0.01 * fast and not tells_rates:
        raise DataError(
            f"the latents mix frame rates, {slow:g} to {fast:g} a second: resample the clips to one rate"
            + (f", or {hint}" if hint else "")
        )


def validation(
    objective: Objective, tokenizer: VideoTokenizer, held: ArrayDataset | None, config: WorldTrainingConfig
) -> Callable[[Any], dict[str, float]] | None:
    """A function of the model: its loss on held-out samples with fixed noise, and the family's own figures. None without
    held-out samples."""
    if held is None:
        return None
    order = sorted(range(len(held)), key=lambda i: mix(0, held.sample_ids[i]))[: config.validation_windows or None]
    batch = held.rows(order)
    batch["seeds"] = torch.tensor([mix(0, "validation", held.sample_ids[i]) for i in order])
    fitting: Fitting = FAMILIES.load(config.family).fitting()

    def validate(model: Any) -> dict[str, float]:
        loss, values = objective.loss(model, batch, 0)
        beat("validation")
        return {"loss": float(loss), **values, **fitting.figures(model, tokenizer, batch, config)}

    return validate
