"""Named configurations: a recipe is a module with a function `settings()`.

    demo          the main job at 64x64 in minutes on two cores; figures in README come from it
    demo_cluster  the same under the same keys, with the machines of a real cluster
    smoke         the same flow, as small as it can be: every stage runs, nothing is learned
    progressive   its diffusion model on two sizes of latents: small ones first, then both blended

`settings()` gives plain values by node name (see `pipelines/dags/world_model.py`); what a recipe does not name keeps its
default. Under ``resources`` a node may say what it needs to run (`wfm.cluster.resources`), and under ``cluster`` what holds for
all of them (`pipelines.needs`), under ``promotion`` what the results are called and what they must show to be called so
(`pipelines.dags.promotion`); no key knows of either. A recipe imports no torch and runs nothing.
"""

__all__ = ["demo", "demo_cluster", "progressive", "smoke"]
