"""Named configurations: a recipe is a module with a function `settings()`.

    demo     the main job at 64x64 in minutes on two cores; figures in README come from it
    smoke    the same flow, as small as it can be: every stage runs, nothing is learned

`settings()` gives plain values by node name (see `pipelines/dags/world_model.py`); what a recipe does not name keeps its
default. Under ``resources`` a node may say what it needs to run (`pipelines.stages.Resources`); no key knows of it. A recipe
imports no torch and runs nothing.
"""

__all__ = ["demo", "smoke"]
