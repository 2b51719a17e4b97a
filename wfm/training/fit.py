"""Training of every family: tokenizers, decoders, world models. One function; what is a family's own is its `Task`.

    fit(open_task(inputs, config, ranks), config, out=..., scratch=...) -> what was done

open_task reads what a family reads of the stage's inputs; fit orders the samples, seeds, builds, steps, keeps and saves.
"""

import shutil
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from wfm.data.loader.loading import Loader
from wfm.data.mixture import Mixture
from wfm.data.passes import stops_passes
from wfm.models.family import FAMILIES, Family, Fitting
from wfm.models.folder import count_parameters, open_model, save_model
from wfm.models.parallel_config import ParallelConfig
from wfm.models.seeding import seed_everything
from wfm.parallel.ranks import ALONE, Ranks
from wfm.parallel.spread import gathered, mesh_over, shape_of_mesh, spread_over
from wfm.training.checkpoint import Scratch
from wfm.training.config import TrainedConfig
from wfm.training.device import place
from wfm.training.encoded import sources_of
from wfm.training.external_files import external_files
from wfm.training.fit_world_model import world_task
from wfm.training.loop import TrainingResult, train
from wfm.training.order import mixture_note, order_note, order_of, require_alike_batches, require_whole_shares
from wfm.training.task import Learner, Task

if TYPE_CHECKING:
    from wfm.artifacts import Artifact


def open_task(inputs: "Mapping[str, Artifact]", config: Any, ranks: Ranks = ALONE) -> Task:
    """What the family that `config` names makes of a stage's inputs, which are artifacts by name. Raises ConfigError and
    DataError for those that do not fit."""
    family: Family = FAMILIES.load(config.family)
    fitting = family.fitting()
    if not isinstance(fitting, Fitting):
        task: Task = fitting(inputs, config, ranks)
        return task
    tokenizer, _ = open_model(inputs["tokenizer"], config.tokenizer_family)
    return world_task(sources_of(inputs), tokenizer, config)


@stops_passes
def fit(
    task: Task,
    config: TrainedConfig,
    *,
    out: Path,
    scratch: Scratch,
    stopping: Callable[[], bool] = lambda: False,
    mixture: Mixture | None = None,
    ranks: Ranks = ALONE,
) -> dict[str, Any]:
    """Train on the samples of a task, drawn as `config.training` and `mixture` say, and close it. Rank 0 writes `out/model/`,
    what belongs to it, and `out/metrics.jsonl`. Returns what was done, as a stage says it in its manifest."""
    settings, parallel = config.training, getattr(config, "parallel", ParallelConfig())
    shape_of_mesh(ranks.size, parallel.shard, parallel.replicate)  # refused now
    require_whole_shares(settings, ranks.size)
    if settings.threads:
        torch.set_num_threads(settings.threads)
    with closing(task):
        order = order_of(settings, task.samples, mixture)  # refused now, and not after a pass over all samples
        drawn = {name: task.samples[name] for names in order.sources.values() for name in names}
        require_alike_batches(order, drawn)
        note = mixture_note(task.samples.values(), mixture)
        # in the answer, not in the fingerprint: a checkpoint of another order is refused, and the run not begun anew
        ordered = order_note(order, settings.steps)
        seed_everything(settings.seed)
        learner = task.begin()
        # the samples are closed before the loader: reads that hang end then, and with them its threads
        with Loader(drawn, order, place(settings), transform=task.transform) as loader, closing(task):
            result = train(
                learner.model,
                learner.objective,
                loader,
                settings,
                scratch=scratch,
                stopping=stopping,
                validate=learner.validate,
                rival=learner.rival,
                run={"config": config.what(), "files": external_files(config), **note},
                description=config.family,
                ranks=ranks,
                work=learner.work,
                spread=lambda model: spread_over(
                    mesh_over(ranks, shard=parallel.shard, replicate=parallel.replicate, device=loader.config.device),
                    model,
                    FAMILIES.load(config.family).blocks(model),
                ),
            )
    tensors = gathered(learner.model, ranks, keep=ranks.leads)
    if ranks.leads:
        _save(learner, tensors, result, out)
    return {**task.counts, "parameters": count_parameters(learner.model), **result.told(), **note, **ordered}


def _save(learner: Learner, tensors: Mapping[str, Tensor], result: TrainingResult, out: Path) -> None:
    extra = {"validation": result.final, **learner.extra}
    folder = out / "model"
    save_model(learner.model, learner.card, folder, action_spec=learner.action_spec, extra=extra, tensors=tensors)
    for name, (module, card, told) in learner.beside.items():
        save_model(module, card, out / name, extra=told)
    shutil.copyfile(result.curve, out / "metrics.jsonl")
