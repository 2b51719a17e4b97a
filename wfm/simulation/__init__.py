"""Worlds whose state is known, filmed as ordinary video. Read in this order:

config     what a corpus is made of (torch-free and MuJoCo-free: keys are computed from it)
scene      one world as plain data: objects, floor, walls
actions    what is commanded at each frame: camera rates, the actor's velocity
camera     where the cameras are: an orbit about the centre, poses, projection
session    a session from (seed, index): views, shots, junk and copies

backend    the one import of MuJoCo
world      the physics: one model whose slots are filled anew for each scene
render     colour frames, and how many pixels of each object they show
overlay    burned-in text

write      mp4 and Parquet files, the same bytes for the same frames
sidecars   actions, attributes, truth of one video
corpus     `simulate_session`, `simulate_corpus`: a session as files

ground_truth   video for the tests of curation, without MuJoCo: films whose joins are known, copies, burned-in words

A session's folder:

    videos/<name>.mp4            session_0003_view_0 ..., and session_0003_copy, _upload, _lobby where they are due
    actions/<name>.parquet       for views only: copies and the static video are plain files
    attributes/<name>.json
    truth/<name>.parquet
    truth/session_0003.json      what every file of the session is: kind, copies, cuts, shots
"""

from typing import Any

__all__ = ["SimulationConfig", "action_spec", "simulate_corpus", "simulate_session"]

_HOME = {
    "SimulationConfig": "config",
    "action_spec": "actions",
    "simulate_corpus": "corpus",
    "simulate_session": "corpus",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
