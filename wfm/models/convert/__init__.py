"""Weights in and out: diffusers folders and the original Cosmos checkpoints, both ways.

Rooms, in reading order:

    names              which tensor of ours is which tensor of theirs: pure functions on names, and what may be left out
    tensor_file        what a file of tensors is: names, shapes and dtypes first, the bytes of one tensor at a time after
    reading            such a file opened, of whatever kind
    archive            the zip archives that torch writes, and TorchScript read without running what is in it (module_pickle)
    filling            a network without weights, then its weights, each tensor once in memory
    writing            safetensors, in one file or in shards with an index
    misfits            fields of ours that a peer's format cannot say, all of them at once
    diffusers_folder   `from_diffusers`, `to_diffusers`
    cosmos             `from_cosmos`, `to_cosmos`
    bundle             a published world model, which is two models; every field and tensor that does not fit
    command            what `wfm weights` does: any of these to or from a model folder; `as_denoiser`

`from_diffusers` and `from_cosmos` give the bare network F of a transformer. To sample from it, or to train it further, it
becomes a `Denoiser`: `as_denoiser(read_diffusers(folder), statistics).module`, or `wfm weights import FOLDER OUT`, whose
OUT opens with `wfm.models.folder.load_model`.

Nothing that comes from elsewhere is trusted: a file is checked in full against the wanted names, shapes and dtypes before
the first tensor is read, and no file can run code.
"""

from typing import Any

__all__ = [
    "Conversion",
    "Statistics",
    "as_denoiser",
    "from_cosmos",
    "from_diffusers",
    "read_cosmos",
    "read_diffusers",
    "to_cosmos",
    "to_diffusers",
]

_HOMES = {
    "Conversion": "conversion",
    "Statistics": "conversion",
    "as_denoiser": "command",
    "from_cosmos": "cosmos",
    "read_cosmos": "cosmos",
    "to_cosmos": "cosmos",
    "from_diffusers": "diffusers_folder",
    "read_diffusers": "diffusers_folder",
    "to_diffusers": "diffusers_folder",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
