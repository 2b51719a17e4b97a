"""Everything in a run that changes as it learns: to files and back, whether it is whole or spread over ranks."""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from wfm.errors import DataError
from wfm.models.folder import save_tensors
from wfm.parallel.shards import mesh_of
from wfm.pulse import beat
from wfm.training.ema import Average
from wfm.training.optim import Optimizers
from wfm.training.sharded import half_written, parts_to_write, read_into, read_like, stored


@dataclass(frozen=True)
class Player:
    """A module that learns, and what makes it learn."""

    module: nn.Module
    optimizers: Optimizers


@dataclass(frozen=True)
class Learning:
    """Everything in a run that changes as it learns."""

    model: Player
    average: Average | None = None
    rival: Player | None = None

    @property
    def spread(self) -> bool:
        """Whether each rank holds a part of it alone."""
        return any(mesh_of(player.module.parameters()) is not None for _, _, player in self._players())

    def stems(self) -> Iterator[tuple[str, dict[str, Tensor]]]:
        """Every tensor there is, by the file that it goes into."""
        for stem, optimizer, player in self._players():
            yield stem, player.module.state_dict()
            yield optimizer, player.optimizers.tensors()
        if self.average is not None:
            yield "average", self.average.state_dict()

    def stateless(self) -> dict[str, list[str]]:
        """The parameters without an optimiser's state, by file: those that had no gradient yet."""
        return {optimizer: player.optimizers.stateless() for _, optimizer, player in self._players()}

    def save(self, folder: Path, stems: Iterable[tuple[str, dict[str, Tensor]]] | None = None) -> None:
        """Write every tensor, or those of `stems` in their place."""
        for stem, tensors in self.stems() if stems is None else stems:
            save_tensors(tensors, folder / f"{stem}.safetensors")
            if stem in ("model", "rival"):
                half_written()
            beat("save")

    def check(self, folder: Path, files: Collection[str], stateless: dict[str, list[str]]) -> None:
        """Raise DataError unless `load` would find exactly the tensors it needs in `files` of a folder. Reads headers only."""
        for stem, optimizer, player in self._players():
            stored(folder, stem, files).check(player.module.state_dict())
            if optimizer not in stateless:
                raise DataError(f"{folder}: it does not say which parameters of {optimizer} have no state")
            stored(folder, optimizer, files).check(player.optimizers.wanted(set(stateless[optimizer])))
        if self.average is not None:
            stored(folder, "average", files).check(self.average.state_dict())

    def load(self, folder: Path, files: Collection[str], stateless: dict[str, list[str]]) -> None:
        """Put the tensors of a checkpoint that was checked back in place, all of them, whatever number of ranks wrote it."""
        for stem, optimizer, player in self._players():
            read_into(player.module.state_dict(), stored(folder, stem, files))
            wanted = player.optimizers.wanted(set(stateless[optimizer]))
            player.optimizers.restore(read_like(wanted, stored(folder, optimizer, files)))
        if self.average is not None:
            read_into(self.average.state_dict(), stored(folder, "average", files))

    def _players(self) -> Iterator[tuple[str, str, Player]]:
        yield "model", "optimizer", self.model
        if self.rival is not None:
            yield "rival", "rival_optimizer", self.rival


def copied(tensors: dict[str, Tensor], rank: int) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What a rank writes, as it is now: the training goes on meanwhile."""
    parts, places = parts_to_write(tensors, rank)
    return {name: part.detach().to("cpu", copy=True) for name, part in parts.items()}, places
