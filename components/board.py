"""Where the ranks of a stage leave word for one another: each has one place, which it alone rewrites and all may read.

No collective is needed to write or read, so a rank that hangs in one, or is gone, is seen by the others.

FolderBoard    a folder of this machine, made by our own guard (`pipelines/engines/guard.py`): nothing listens
StoreBoard     torch's store, as torchrun and the training operators set it up: across machines
"""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from wfm.artifacts.atomic import replace_on_disk
from wfm.errors import ConfigError, TryAgain

if TYPE_CHECKING:
    from torch.distributed import Store as TorchStore  # type: ignore[attr-defined]

FOLDER = "WFM_RANKS_FOLDER"
_JOIN_SECONDS = 300.0
"""How long torch's store may take to answer at first: pods of one job start minutes apart."""


class BoardLost(TryAgain):
    """What the ranks tell one another cannot be written or read."""


class Board(Protocol):
    """Where ranks leave word."""

    hosted: bool
    "Whether it ends with this process."

    def put(self, rank: int, data: bytes) -> None:
        """Rewrite the word of a rank. Raises BoardLost."""

    def read(self, ranks: Iterable[int]) -> dict[int, bytes]:
        """The words of ranks; who said nothing yet is left out. Raises BoardLost."""

    def ended(self) -> dict[int, int]:
        """Rank -> exit code (negative: signal) of those whose end somebody saw."""


class FolderBoard:
    """Words as files."""

    hosted = False

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def put(self, rank: int, data: bytes) -> None:
        """Rewrite the word of a rank, whole at once."""
        try:
            replace_on_disk(self._folder / f"said-{rank}", data, fsync=False)
        except OSError as error:
            raise BoardLost(f"the folder of the ranks cannot be written: {error}") from error

    def read(self, ranks: Iterable[int]) -> dict[int, bytes]:
        """The words that are there."""
        said = {rank: self._folder / f"said-{rank}" for rank in ranks}
        try:
            return {rank: path.read_bytes() for rank, path in said.items() if path.exists()}
        except OSError as error:
            raise BoardLost(f"the folder of the ranks cannot be read: {error}") from error

    def ended(self) -> dict[int, int]:
        """What the guard noted."""
        found = {}
        for path in self._folder.glob("ended-*"):
            number = path.name.removeprefix("ended-")
            if number.isdecimal():
                found[int(number)] = int(path.read_text())
        return found


class StoreBoard:
    """Words in torch's store, through a connection of their own: one that waits for a key would keep all others waiting."""

    def __init__(self, store: "TorchStore", *, hosted: bool) -> None:
        self.hosted = hosted
        self._store: Any = store
        self._there: list[int] = []

    def put(self, rank: int, data: bytes) -> None:
        """Rewrite the word of a rank."""
        try:
            self._store.set(f"said/{rank}", data)
        except RuntimeError as error:
            raise BoardLost(f"torch's store cannot be written: {str(error).splitlines()[0][:300]}") from error

    def read(self, ranks: Iterable[int]) -> dict[int, bytes]:
        """The words that are there."""
        try:
            self._there += [r for r in ranks if r not in self._there and self._store.check([f"said/{r}"])]
            said = self._store.multi_get([f"said/{rank}" for rank in self._there]) if self._there else []
        except RuntimeError as error:
            raise BoardLost(f"torch's store cannot be read: {str(error).splitlines()[0][:300]}") from error
        return dict(zip(self._there, said, strict=True))

    def ended(self) -> dict[int, int]:
        """Nobody notes it here: a rank's own word, or its silence, tells."""
        return {}


def place(environment: Mapping[str, str] = os.environ) -> tuple[int, int]:
    """(rank, number of ranks) of this process as its environment says; (0, 1) where it says nothing. Raises ConfigError for
    words that are none."""
    given = {name: environment.get(name, default) for name, default in (("RANK", "0"), ("WORLD_SIZE", "1"))}
    if all(word.isdecimal() for word in given.values()) and int(given["RANK"]) < int(given["WORLD_SIZE"]):
        return int(given["RANK"]), int(given["WORLD_SIZE"])
    raise ConfigError(
        f"the environment says RANK={given['RANK']!r} and WORLD_SIZE={given['WORLD_SIZE']!r}: RANK runs from 0 to "
        "WORLD_SIZE - 1. torchrun sets both; for one process unset them"
    )


def open_board(rank: int, size: int, environment: Mapping[str, str] = os.environ) -> Board:
    """The board of the ranks that the environment names. Raises ConfigError when it does not say where they meet, BoardLost
    when torch's store does not answer."""
    if environment.get(FOLDER):
        return FolderBoard(Path(environment[FOLDER]))
    missing = [name for name in ("MASTER_ADDR", "MASTER_PORT") if not environment.get(name)]
    if missing:
        raise ConfigError(
            f"WORLD_SIZE is {size}, but {' and '.join(missing)} does not say where the ranks meet: start them with torchrun "
            "(python -m torch.distributed.run), or one process without RANK and WORLD_SIZE"
        )
    import datetime

    from torch.distributed import PrefixStore, rendezvous  # type: ignore[attr-defined]

    try:
        store, _, _ = next(iter(rendezvous("env://", rank, size, timeout=datetime.timedelta(seconds=_JOIN_SECONDS))))
    except (RuntimeError, ValueError) as error:
        where = f"{environment['MASTER_ADDR']}:{environment['MASTER_PORT']}"
        raise BoardLost(f"rank {rank} of {size} met nobody at {where}: {str(error).splitlines()[0][:300]}") from error
    # an agent's store outlives a restart of the ranks: theirs must not read what those before them said
    start = environment.get("TORCHELASTIC_RESTART_COUNT", "0")
    hosted = rank == 0 and environment.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
    return StoreBoard(PrefixStore(f"wfm/{start}/{size}", store), hosted=hosted)
