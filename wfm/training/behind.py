"""Parts of a checkpoint are written behind the training's back, by every rank its own.

    main thread                             thread of a rank
    begin(): parts are copied, steps go on  writes its files, says so in `rank-00001.json` beside them
                                            rank 0 waits for all of these, and then names the checkpoint
    wait(): before the next one, and at the end

Threads meet by these files alone, in a folder that all ranks see: they take no part in the ranks' calls. A rank that dies in it
leaves a folder without a name, which the next start removes.
"""

import dataclasses
import json
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from wfm.artifacts.atomic import replace_on_disk
from wfm.artifacts.listing import FileEntry
from wfm.artifacts.verified import hash_file
from wfm.errors import TryAgain
from wfm.parallel.ranks import Ranks
from wfm.training.sharded import half_written, write_parts

_LOOK_SECONDS = 0.02
Taken = Mapping[str, tuple[Mapping[str, Tensor], Mapping[str, Any]]]
"""Copies of what a rank writes, and where in the whole tensors it belongs, by stem."""
Then = Callable[[tuple[FileEntry, ...]], None]


class Writer:
    """One write at a time; all ranks have one, and call the same."""

    def __init__(self, ranks: Ranks, patience: float) -> None:
        self._rank, self._size, self._patience = ranks.rank, ranks.size, patience
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def begin(self, folder: Path, taken: Taken, then: Then) -> None:
        """Write into `folder`, which all ranks were given; rank 0 calls `then` with the files of all."""
        assert self._thread is None  # `wait` comes first
        self._thread = threading.Thread(target=self._work, args=(folder, taken, then), name="parts", daemon=True)
        self._thread.start()

    def wait(self) -> None:
        """Until what was begun is written, and on rank 0 named. Raises what went wrong with it, on the rank where it did."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def _work(self, folder: Path, taken: Taken, then: Then) -> None:
        try:
            files = []
            for stem, (parts, places) in taken.items():
                path = write_parts(parts, places, folder, stem, self._rank, self._size)
                half_written()
                files.append(FileEntry(path.name, *hash_file(path, fsync=True)))
            if self._rank:
                said = json.dumps([dataclasses.asdict(entry) for entry in files]).encode()
                replace_on_disk(folder / _said(self._rank), said, fsync=False)
                return
            for rank in range(1, self._size):
                files += self._heard(folder / _said(rank), rank)
            then(tuple(sorted(files, key=lambda entry: entry.path)))
        except BaseException as error:  # for whoever waits
            self._error = error

    def _heard(self, path: Path, rank: int) -> list[FileEntry]:
        until = time.monotonic() + self._patience
        while not path.exists():
            if time.monotonic() > until:
                raise TryAgain(f"rank {rank} has not written its part of {path.parent.name} for {self._patience:g} s")
            time.sleep(_LOOK_SECONDS)
        found = [FileEntry(**entry) for entry in json.loads(path.read_bytes())]
        path.unlink()
        return found


def _said(rank: int) -> str:
    return f"rank-{rank:05d}.json"
