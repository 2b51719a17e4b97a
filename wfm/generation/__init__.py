"""Futures: from a trained world model of any family to video. How one window is drawn lies with the family
(`wfm.models.family.Drawing`); what all share lies here.

Rooms, in reading order:

    config          how futures are drawn, as far as families share it: SamplingConfig; torch-free
    sampler_config  SamplerConfig: how a denoiser is sampled; torch-free
    samplers        diffusion samplers (Euler, Heun, RES-2AB, DPM-Solver++, flow) over a plain ``denoise(x, sigma)``
    rollout         Rollout: a future of any length, window by window, each drawn by the model's family
    prompts         captions, encoded as they were in training
    world_model     WorldModel: load a bundle, ``generate(past, actions, text) -> video``; long futures window by window
    held_out_plan   which held-out windows are predicted, with which actions, in which parts (held_out_config: as asked);
                    torch-free
    held_out        those of one part in every variant: what evaluation judges
    from_artifacts  world models out of the store
    publish         the bundle of a model and its evaluation
    published       ``wfm.load``: PublishedModel, a user's files and arrays in, a Video out (video); given_actions, past_clip,
                    action_files, camera_files: what it is told (watching: how far it is); command: ``wfm generate``
"""

from typing import Any

__all__ = ["SamplingConfig", "WorldCard", "WorldModel", "generate_from_files"]

_HOMES = {
    "SamplingConfig": "config",
    "WorldCard": "world_model",
    "WorldModel": "world_model",
    "generate_from_files": "command",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
