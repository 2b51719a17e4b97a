"""How good are the predicted videos, and how would one know? Read in this order:

config          what an evaluation looks at (torch-free: keys are computed from it)
schema          the shape of metrics.json: every figure, typed, with its interval
generated       the videos under judgement, as generate_videos left them
worlds          what the simulator knows about them (there is nothing for a user's own video)
subsets         moving, static, a fixed camera rate, a changing action
bootstrap       intervals: paired, clustered by session, that cover as often as they say

metric   metrics/                       a metric is a declared row: nearness to the truth, a file each, no outside weights
features  descriptor_scale              the fixed net that some of them see with
(what has to be beaten, a still and a constant motion: wfm.data.motion)
objects  camera  action_sensitivity     what only a known world allows to ask

measure         every metric on every set of videos, in batches
report          puts it together: `evaluate(...)` -> Metrics
results         files (metrics.json, Parquet) and the table a terminal shows
example_videos  side-by-side mp4
page/           the page of a run: one file, offline
"""

from typing import Any

__all__ = ["EvaluationConfig", "Metrics", "evaluate", "read_metrics", "result_table"]

_HOME = {
    "EvaluationConfig": "config",
    "Metrics": "schema",
    "evaluate": "report",
    "read_metrics": "schema",
    "result_table": "results",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
