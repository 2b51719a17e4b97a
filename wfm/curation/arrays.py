"""Which array library does the array maths: numpy on a CPU, cupy on a GPU, one code above ``array-api-compat``.

A step asks ``array_module(device)`` once and builds its arrays from it; functions that are given arrays ask
``array_namespace(x)`` and never name a library. Decoding always ends in numpy, on the host.
"""

from typing import Any

import numpy as np

from wfm.errors import ConfigError, MissingPackage

DEVICES = ("cpu", "cuda")


def array_module(device: str) -> Any:
    """The array API namespace for ``"cpu"`` or ``"cuda"``."""
    if device == "cpu":
        import array_api_compat.numpy as module

        return module
    if device == "cuda":
        try:
            import array_api_compat.cupy as module  # type: ignore[no-redef]
        except ImportError:
            raise MissingPackage("cupy", extra="gpu", purpose="device='cuda' in curation") from None
        return module
    raise ConfigError(f"device = {device!r}: choices are {', '.join(DEVICES)}")


def to_numpy(x: Any) -> np.ndarray:
    """A host copy of an array of either library."""
    return np.asarray(x.get() if hasattr(x, "get") else x)


def unit(xp: Any, frames: np.ndarray) -> Any:
    """uint8 pictures -> float32 in 0..1, on the device."""
    return xp.astype(xp.asarray(frames), xp.float32) / 255


def block_means(x: Any, rows: int, columns: int) -> Any:
    """[..., H, W] -> [..., rows, columns], the mean of each block; a border that does not divide is left out."""
    height, width = x.shape[-2] // rows, x.shape[-1] // columns
    x = x[..., : rows * height, : columns * width]
    x = x.reshape((*x.shape[:-2], rows, height, columns, width))
    return x.mean(axis=-1).mean(axis=-2)


def box_mean(xp: Any, x: Any, radius: int) -> Any:
    """[H, W] -> [H, W], the mean over the (2 radius + 1) square around each pixel, clipped at the border."""
    for axis in (-2, -1):
        x = _running_mean(xp, x, radius, axis)
    return x


def _running_mean(xp: Any, x: Any, radius: int, axis: int) -> Any:
    size = x.shape[axis]
    total = xp.cumulative_sum(x, axis=axis, include_initial=True, dtype=xp.float64)
    index = xp.arange(size)
    low = xp.clip(index - radius, 0, size)
    high = xp.clip(index + radius + 1, 0, size)
    shape = [1, 1]
    shape[axis] = size
    sums = xp.take(total, high, axis=axis) - xp.take(total, low, axis=axis)
    return xp.astype(sums / xp.reshape(xp.astype(high - low, xp.float64), tuple(shape)), x.dtype)
