"""The points of a training as TensorBoard's event files, for whoever watches several runs side by side.

    pip install 'wfm[tensorboard]'
    --set diffusion.training.tensorboard=/runs        then: tensorboard --logdir /runs

The same numbers as in the curves and the clock, no others, under `training/`, `validation/` and `throughput/`. Each training
has a folder of its own, named by what it is of and by its fingerprint: a resumed one goes on in it, and TensorBoard forgets
the points that are made again. The package is loaded here alone.
"""

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from wfm.errors import ConfigError, MissingPackage

VALIDATION = "validation_"


class Board:
    """Writes points; does nothing without a folder."""

    def __init__(self, folder: str, name: str, first: int) -> None:
        """`name`: of the training. `first`: steps that are done already. Raises MissingPackage, and ConfigError for a folder
        that cannot be written."""
        self._writer: Any = None
        if not folder:
            return
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise MissingPackage("tensorboard", extra="tensorboard", purpose="training.tensorboard") from None
        try:
            self._writer = SummaryWriter(str(Path(folder) / name), purge_step=first + 1 if first else None)  # type: ignore[no-untyped-call]
        except OSError as error:
            raise ConfigError(
                f"training.tensorboard is {folder!r}, which cannot be written ({error}): name a folder of this machine"
            ) from error

    def add(self, step: int, values: Mapping[str, float], group: str = "training") -> None:
        """A point after `step` steps, at once to be seen."""
        if self._writer is None:
            return
        for name, value in values.items():
            where = f"validation/{name.removeprefix(VALIDATION)}" if name.startswith(VALIDATION) else f"{group}/{name}"
            self._writer.add_scalar(where, value, step)
        self._writer.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._writer is not None:
            self._writer.close()
