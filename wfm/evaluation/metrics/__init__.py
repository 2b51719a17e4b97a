"""The metrics: one file each, found by its being here. `wfm.evaluation.metric` says what a file declares.

psnr  ssim                                nearness of pixels
perceptual_distance  kernel_distance      on the fixed Gabor pyramid (`wfm.evaluation.features`), no outside weights
objects  camera                           what only a known world allows to ask

Keys: `from wfm.evaluation.metrics import ...` takes a name from a package, for which the code id of a stage counts every
module of the package, so that a new file makes the reports anew.
"""

import functools
import importlib
import pkgutil
from typing import Literal

from wfm.errors import ConfigError
from wfm.evaluation.metric import PLUG_INS, FrameMetric, Metric, SetMetric, WorldMetric

__all__ = ["all_metrics", "frame_metric", "world_metrics"]


@functools.cache
def all_metrics(plug_ins: tuple[str, ...] = ()) -> tuple[Metric, ...]:
    """The declared rows by place, and those of other packages that are named; loads no torch.

    Raises ConfigError for a file that declares none, and for the name of another's.
    """
    rows: dict[str, Metric] = {}
    for found in sorted(pkgutil.iter_modules(__path__), key=lambda found: found.name):
        module = importlib.import_module(f"{__name__}.{found.name}")
        for row in getattr(module, "METRICS", (getattr(module, "METRIC", None),)):
            if not isinstance(row, Metric):
                raise ConfigError(
                    f"{module.__name__}: no METRIC (nor METRICS), which a file here must define (wfm.evaluation.metric)"
                )
            if row.name in rows:
                raise ConfigError(f"{module.__name__}: a metric {row.name!r} is there already; choose another name")
            rows[row.name] = row
    for name in plug_ins:
        row = PLUG_INS.load(name)
        if not isinstance(row, FrameMetric | SetMetric) or row.name in rows:
            raise ConfigError(
                f"metric {name!r} ({PLUG_INS.path(name)}): it must be a FrameMetric or a SetMetric whose name is none of"
                f" {', '.join(rows)}"
            )
        rows[row.name] = row
    return tuple(sorted(rows.values(), key=lambda row: (row.place, row.name)))


def world_metrics(section: Literal["objects", "camera"]) -> list[WorldMetric]:
    """The rows of a section, in their order."""
    return [row for row in all_metrics() if isinstance(row, WorldMetric) and row.section == section]


def frame_metric(name: str) -> FrameMetric:
    """The row of that name that has paired gains. Raises ConfigError with the choices."""
    rows = {row.name: row for row in all_metrics() if isinstance(row, FrameMetric)}
    if name not in rows:
        raise ConfigError(f"no metric {name!r} with gains; choices: {', '.join(rows)}")
    return rows[name]
