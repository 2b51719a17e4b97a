"""Where encoded records (`wfm.data.records`) lie, with the files of their table of lengths: an artifact, whose parts' tables
are read as one, or a folder that ``wfm artifacts pull`` made. `wfm.data.lengths` reads the table.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from wfm.artifacts.address import below

if TYPE_CHECKING:
    from wfm.artifacts import Artifact

OPENERS = 16
"""Parts that are opened at once, and whose tables are fetched at once."""


@dataclass(frozen=True)
class TableFile:
    """A Parquet file of the table of lengths."""

    label: str
    "What it is called in errors."
    fetch: Callable[[], Path]
    "Its local path."
    is_checked: bool
    "By what a manifest says of its bytes, whenever it is fetched."


class RecordPlace(Protocol):
    """Where records lie."""

    store: Any
    "The `Store` whose credentials the shards are read with; None: those of the environment."

    def files(self) -> list[TableFile]:
        """The table of lengths in pieces, in their order."""

    def address(self, shard: str) -> str:
        """A path or an address, by the path that the table says."""

    def size(self, shard: str) -> int:
        """How many bytes it has; -1 where there is no such shard."""


class _OfArtifact:
    """An artifact's, in its store."""

    def __init__(self, artifact: "Artifact") -> None:
        self._artifact, self.store = artifact, artifact.store
        # each waits for its manifest: thousands of parts one after the other take minutes on a bucket
        with ThreadPoolExecutor(OPENERS, thread_name_prefix="parts") as threads:
            entries = list(artifact.iterate_parts())
            opened = threads.map(artifact.open_part, entries)
            self._parts = dict(zip((entry.name for entry in entries), opened, strict=True))
        self._sizes: dict[str, int] = {}
        self._urls: dict[str, str] = {}
        for one in (artifact, *self._parts.values()):
            for file in one.files("shards/"):
                self._sizes[file.path], self._urls[file.path] = file.size, one.url

    def __str__(self) -> str:
        return f"{self._artifact.kind} {self._artifact.key[:12]}"

    def files(self) -> list[TableFile]:
        parts = ((f"parts/{name}/", part) for name, part in self._parts.items())
        return [
            TableFile(f"{head}{path}", partial(of.fetch, path), True)
            for head, of in (("", self._artifact), *parts)
            for path in _of_table(of)
        ]

    def address(self, shard: str) -> str:
        return f"{self._urls[shard]}/{shard}"

    def size(self, shard: str) -> int:
        return self._sizes.get(shard, -1)


def _of_table(artifact: "Artifact") -> list[str]:
    paths = [entry.path for entry in artifact.files("samples.parquet")]
    return [path for path in paths if path == "samples.parquet" or path.startswith("samples.parquet/")]


class _OfFolder:
    """A folder's."""

    store = None

    def __init__(self, root: Path) -> None:
        self._root = root

    def __str__(self) -> str:
        return str(self._root)

    def files(self) -> list[TableFile]:
        whole = self._root / "samples.parquet"
        pieces = sorted(whole.glob("*.parquet")) if whole.is_dir() else [whole] if whole.is_file() else []
        return [TableFile(str(piece), partial(Path, piece), False) for piece in pieces]

    def address(self, shard: str) -> str:
        return str(below(self._root, shard))

    def size(self, shard: str) -> int:
        found = below(self._root, shard)
        return found.stat().st_size if found.is_file() else -1


def place_of(source: "Artifact | Path") -> RecordPlace:
    """Of an artifact or a pulled folder."""
    return _OfFolder(source) if isinstance(source, Path) else _OfArtifact(source)
