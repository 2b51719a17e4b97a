"""The loader: from an order (`wfm.data.order`) and samples (`wfm.data.samples`) to batches, read ahead of use.

    with Loader({"clips": samples}, order, LoaderConfig(workers=4)) as loader:
        batch = loader.next()    # {"latents": [B, C, t, h, w], ..., "seeds": int64 [B]}, or a PackedBatch; the state moves on

Read in this order:

    loading  `Loader`: batch after batch, the state to go on from, what it waited for and what it had to leave out
    work     what one rank reads for one step: laid out, read in runs (stand-ins for what is damaged), made into a batch
    waiting  waiting for what threads read, stopped when it is asked for; one batch at a time
    ahead    the threads that do so ahead of use, in bounded memory
    batches  samples of one shape stacked; packs of samples of their own shape
    grouped  packs as dense batches, one for each shape: what models train on
    device   batches on their way to a GPU, beside the work on it
    replaced the samples that could not be read, each once; part of the state
    arrays   samples in memory
    config   `LoaderConfig`; torch-free

What is handed out depends on the order and on the data: not on threads, ranks, limits, or what was read ahead when a run ended.
"""

from typing import Any

__all__ = ["ArrayDataset", "Batch", "GroupedBatch", "Loader", "LoaderConfig", "PackedBatch"]

_HOMES = {
    "ArrayDataset": "arrays",
    "Batch": "batches",
    "GroupedBatch": "grouped",
    "Loader": "loading",
    "LoaderConfig": "config",
    "PackedBatch": "batches",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
