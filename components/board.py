"""Where the ranks of a stage leave word for one another: each has one place, which it alone rewrites and all may read.

No collective is needed to write or read, so a rank that hangs in one, or is gone, is seen by the others.

FolderBoard    a folder of this machine, made by our own guard (`pipelines/engines/guard.py`): nothing listens
StoreBoard     torch's store, as torchrun and the training operators set it up: across machines
"""

import os
import socket
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from wfm.artifacts.atomic import replace_on_disk
from wfm.errors import ConfigError, TryAgain

if TYPE_CHECKING:
    from torch.distributed import Store as TorchStore  # type: ignore[attr-defined]

FOLDER = "WFM_RANKS_FOLDER"
_CONNECT_SECONDS, _PAUSE_SECONDS = 5.0, 0.2
_CALL_SECONDS = 300.0
"""For one call of torch's store, once it listens."""


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


def open_board(rank: int, size: int, seconds: float, environment: Mapping[str, str] = os.environ) -> Board:
    """The board of the ranks that the environment names; torch's store may take `seconds` to answer at first.

    Raises ConfigError when it does not say where they meet, BoardLost when that store does not answer.
    """
    if environment.get(FOLDER):
        return FolderBoard(Path(environment[FOLDER]))
    missing = [name for name in ("MASTER_ADDR", "MASTER_PORT") if not environment.get(name)]
    if missing:
        raise ConfigError(
            f"WORLD_SIZE is {size}, but {' and '.join(missing)} does not say where the ranks meet: start them with torchrun "
            "(python -m torch.distributed.run), or one process without RANK and WORLD_SIZE"
        )
    host, port = environment["MASTER_ADDR"], environment["MASTER_PORT"]
    if not (port.isdecimal() and 0 < int(port) < 65536):
        raise ConfigError(f"MASTER_PORT={port!r} is no port: give a number from 1 to 65535, the same to all ranks")
    hosted = rank == 0 and environment.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
    if not hosted:
        _await_listener(host, int(port), seconds, rank)
    import datetime

    from torch.distributed import PrefixStore, TCPStore  # type: ignore[attr-defined]

    patience = datetime.timedelta(seconds=_CALL_SECONDS)
    try:  # not torch's rendezvous, which waits for all ranks and cannot say who is missing
        store = TCPStore(host, int(port), None, hosted, patience, wait_for_workers=False, multi_tenant=True)
    except RuntimeError as error:
        raise BoardLost(f"rank {rank}, torch's store at {host}:{port}: {str(error).splitlines()[0][:300]}") from error
    # an agent's store outlives a restart of the ranks: theirs must not read what those before them said
    start = environment.get("TORCHELASTIC_RESTART_COUNT", "0")
    return StoreBoard(PrefixStore(f"wfm/{start}/{size}", store), hosted=hosted)


def _await_listener(host: str, port: int, seconds: float, rank: int) -> None:
    """Wait until something listens there; torch's own wait may take half as long again. Raises BoardLost."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            socket.create_connection((host, port), _CONNECT_SECONDS).close()
            return
        except OSError as error:  # no such name yet, too: that of a pod comes with it
            if time.monotonic() > deadline:
                raise BoardLost(
                    f"rank {rank}: rank 0 did not come within {seconds:.0f} s: nothing listens at {host}:{port} ({error})"
                ) from error
        time.sleep(_PAUSE_SECONDS)
