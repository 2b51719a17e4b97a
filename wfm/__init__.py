"""wfm: from raw video to a trained, evaluated, published world foundation model.

The front door, for Python (`docs/api.md`); each name is loaded when it is first asked for, and `import wfm` loads nothing else:

    model = wfm.load("model/diffusion@latest")            # PublishedModel: wfm/generation/published.py
    video = model.predict("clip.mp4", seconds=1)          # Video: wfm/generation/video.py
    for sample in wfm.dataset("curated"):                 # Dataset, ClipSample: wfm/data/dataset.py
    run = wfm.run("curate", videos="films/")              # Run: pipelines/api/run.py
    store = wfm.store("s3://bucket/store")                # Store, Artifact: pipelines/api/store.py

The storeys; imports go down only (checked by ``lint-imports``; the front door names modules of any storey, and imports none):

    pipelines/                                    DAGs as data, one emitter per engine, the CLI
    components/                                   one thin entry point per stage
    wfm.recipes                                   named configs: demo, demo_cluster, smoke, progressive
    wfm.catalogue                                 cards of models and data sets, and a catalogue of them
    wfm.families                                  a folder each: the card, its fitting, its drawing
    wfm.evaluation   wfm.training   wfm.generation
    wfm.conditions                                what models are conditioned on, one file each
    wfm.models       wfm.curation   wfm.simulation
    wfm.cluster                                   what a stage asks of Kubernetes, and the objects it becomes
    wfm.data         wfm.parallel   wfm.parts
    wfm.artifacts  wfm.records  wfm.actions  wfm.registry  wfm.config  wfm.errors
    wfm.log  wfm.terminal_table  wfm.credentials  wfm.process  wfm.crash_points  wfm.pulse   the ground floor: no torch

Read in this order: `pipelines/stages.py` (the table is the flow), `components/split_clips.py` (what a stage is),
`wfm/curation/cut/split.py` (what a step is), `wfm/artifacts/__init__.py` (what a stage leaves behind).
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipelines.api.run import Run as Run
    from pipelines.api.run import RunFailed as RunFailed
    from pipelines.api.run import start_run as run
    from pipelines.api.run import submit_run as submit
    from pipelines.api.store import Artifact as Artifact
    from pipelines.api.store import Store as Store
    from pipelines.api.store import open_store as store
    from pipelines.commands.run_answers import RunStatus as RunStatus
    from pipelines.commands.run_answers import StageRow as StageRow
    from wfm.actions import ActionSpec as ActionSpec
    from wfm.data.dataset import ClipSample as ClipSample
    from wfm.data.dataset import Dataset as Dataset
    from wfm.data.dataset import open_dataset as dataset
    from wfm.errors import Cancelled as Cancelled
    from wfm.errors import ConfigError as ConfigError
    from wfm.errors import DataError as DataError
    from wfm.errors import InputError as InputError
    from wfm.errors import MissingPackage as MissingPackage
    from wfm.errors import TryAgain as TryAgain
    from wfm.errors import WfmError as WfmError
    from wfm.generation.published import PublishedModel as PublishedModel
    from wfm.generation.published import load as load
    from wfm.generation.video import Video as Video

__version__ = "0.1.0"

_HOMES = {
    "load": ("wfm.generation.published", "load"),
    "dataset": ("wfm.data.dataset", "open_dataset"),
    "run": ("pipelines.api.run", "start_run"),
    "submit": ("pipelines.api.run", "submit_run"),
    "store": ("pipelines.api.store", "open_store"),
    "PublishedModel": ("wfm.generation.published", "PublishedModel"),
    "Video": ("wfm.generation.video", "Video"),
    "ActionSpec": ("wfm.actions", "ActionSpec"),
    "Dataset": ("wfm.data.dataset", "Dataset"),
    "ClipSample": ("wfm.data.dataset", "ClipSample"),
    "Run": ("pipelines.api.run", "Run"),
    "RunStatus": ("pipelines.commands.run_answers", "RunStatus"),
    "StageRow": ("pipelines.commands.run_answers", "StageRow"),
    "Store": ("pipelines.api.store", "Store"),
    "Artifact": ("pipelines.api.store", "Artifact"),
    "RunFailed": ("pipelines.api.run", "RunFailed"),
    "WfmError": ("wfm.errors", "WfmError"),
    "InputError": ("wfm.errors", "InputError"),
    "ConfigError": ("wfm.errors", "ConfigError"),
    "DataError": ("wfm.errors", "DataError"),
    "MissingPackage": ("wfm.errors", "MissingPackage"),
    "TryAgain": ("wfm.errors", "TryAgain"),
    "Cancelled": ("wfm.errors", "Cancelled"),
}
"""What a user of Python asks for -> where it stands, and its name there."""

__all__ = [
    "ActionSpec",
    "Artifact",
    "Cancelled",
    "ClipSample",
    "ConfigError",
    "DataError",
    "Dataset",
    "InputError",
    "MissingPackage",
    "PublishedModel",
    "Run",
    "RunFailed",
    "RunStatus",
    "StageRow",
    "Store",
    "TryAgain",
    "Video",
    "WfmError",
    "__version__",
    "dataset",
    "load",
    "run",
    "store",
    "submit",
]
_EXTRAS = {"load": "train", "PublishedModel": "train", "Video": "train"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    home, there = _HOMES[name]
    try:
        return getattr(import_module(home), there)
    except ModuleNotFoundError as error:
        if name not in _EXTRAS:
            raise
        from wfm.errors import MissingPackage

        raise MissingPackage(str(error.name), extra=_EXTRAS[name], purpose=f"wfm.{name}") from error


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
