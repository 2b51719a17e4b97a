"""wfm: from raw video to a trained, evaluated, published world foundation model.

The storeys; imports go down only (checked by ``lint-imports``):

    pipelines/                                    DAGs as data, one emitter per engine, the CLI
    components/                                   one thin entry point per stage
    wfm.recipes                                   named configs: demo, demo_cluster, smoke
    wfm.catalogue                                 cards of models and data sets, and a catalogue of them
    wfm.families                                  a folder each: the card, its fitting, its drawing
    wfm.evaluation   wfm.training   wfm.generation
    wfm.conditions                                what models are conditioned on, one file each
    wfm.models       wfm.curation   wfm.simulation
    wfm.cluster                                   what a stage asks of Kubernetes, and the objects it becomes
    wfm.data         wfm.parallel   wfm.parts
    wfm.artifacts  wfm.records  wfm.actions  wfm.registry  wfm.config  wfm.errors
    wfm.log  wfm.credentials  wfm.process  wfm.crash_points  wfm.pulse  the ground floor: no torch

Read in this order: `pipelines/stages.py` (the table is the flow), `components/split_clips.py` (what a stage is),
`wfm/curation/cut/split.py` (what a step is), `wfm/artifacts/__init__.py` (what a stage leaves behind).
"""

__all__ = ["__version__"]

__version__ = "0.1.0"
