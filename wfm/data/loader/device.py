"""Batches on their way to where they are used, ahead of use.

On a CPU there is nothing to do. The CUDA half is written to the rules of torch's streams and has not been run: there was no
GPU at hand.
"""

import re
from typing import Any

import torch
from torch import Tensor

from wfm.data.loader.batches import Batch, PackedBatch
from wfm.data.loader.grouped import GroupedBatch
from wfm.errors import ConfigError

Made = Batch | PackedBatch | GroupedBatch
"""What a batch may be: of one shape, packs as they came, or packs by shape."""
_STAY = re.compile("seeds|packs|fps|.*_lengths")
"""Tensors that are read as numbers, which would wait for the device."""


def on_device(batch: Batch, device: torch.device) -> Batch:
    """A batch of one shape where it is computed with; what is read as numbers stays in host memory, as in every batch that a
    loader hands out."""
    return {name: tensor if _STAY.fullmatch(name) else tensor.to(device) for name, tensor in batch.items()}


class Mover:
    """Copies on a stream of its own, so that a step in progress is not held up, and the next one need not wait."""

    def __init__(self, device: str, pin: bool) -> None:
        """Raises ConfigError for a GPU that is not there."""
        if device != "cpu" and not torch.cuda.is_available():
            raise ConfigError(
                f"loader.device: {device!r}, and torch sees no GPU here: take 'cpu', or a machine that has one"
            )
        self._device, self._pin = torch.device(device), pin
        self._stream = torch.cuda.Stream(self._device) if self._device.type == "cuda" else None

    def send(self, batch: Made) -> tuple[Made, Any]:
        """Begin to copy, in whichever thread made the batch. What `take` needs: the copy, and the event at its end."""
        if self._stream is None:
            return batch, None
        with torch.cuda.stream(self._stream):
            moved = self._each(batch, self._copy)
            event = torch.cuda.Event()
            event.record(self._stream)
        return moved, event

    def take(self, batch: Made, event: Any) -> Made:
        """From here on the current stream may use it: it waits for the copy, the processor does not."""
        if event is not None:
            stream = torch.cuda.current_stream(self._device)
            stream.wait_event(event)
            self._each(batch, lambda tensor: _used_on(tensor, stream))
        return batch

    def _copy(self, tensor: Tensor) -> Tensor:
        return (tensor.pin_memory() if self._pin else tensor).to(self._device, non_blocking=True)

    @staticmethod
    def _each(batch: Made, act: Any) -> Made:
        """`act` on what is trained on; counts and lengths of packs, which lay out the work, stay with the processor."""
        if isinstance(batch, dict):
            return {name: tensor if _STAY.fullmatch(name) else act(tensor) for name, tensor in batch.items()}
        if isinstance(batch, GroupedBatch):
            return GroupedBatch(tuple(Mover._each(each, act) for each in batch.batches))  # type: ignore[misc]
        samples = tuple({name: act(tensor) for name, tensor in sample.items()} for sample in batch.samples)
        return PackedBatch(samples, batch.bounds, batch.lengths, batch.starts, batch.seeds, batch.epochs, batch.sources)


def _used_on(tensor: Tensor, stream: Any) -> Tensor:
    """Its memory is not given to others before the stream is past what it was used for."""
    tensor.record_stream(stream)
    return tensor
