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

INDEX_FILE = "samples.arrow"
OPENERS = 16
"""Parts that are opened at once, and whose tables are fetched at once."""


@dataclass(frozen=True)
class TableFile:
    """A Parquet file of the table of lengths, and its index."""

    label: str
    "What it is called in errors."
    fetch: Callable[[], Path]
    "Its local path."
    is_checked: bool
    "By what a manifest says of its bytes, whenever it is fetched."
    sha256: str = ""
    "Of its bytes, where it is checked."
    index: Callable[[], Path] | None = None
    "The local path of its index (`wfm.data.lengths_index`); None: it has none, as those of before."
    index_label: str = ""


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
        return [file for head, of in (("", self._artifact), *parts) for file in _of_table(of, head)]

    def address(self, shard: str) -> str:
        return f"{self._urls[shard]}/{shard}"

    def size(self, shard: str) -> int:
        return self._sizes.get(shard, -1)


def _of_table(artifact: "Artifact", head: str) -> list[TableFile]:
    """`head`: what is set before their paths in errors."""
    index, label = (partial(artifact.fetch, INDEX_FILE), head + INDEX_FILE) if _has_index(artifact) else (None, "")
    found = []
    for entry in artifact.files("samples.parquet"):
        fetch = partial(artifact.fetch, entry.path)
        if entry.path == "samples.parquet":
            found.append(TableFile(f"{head}{entry.path}", fetch, True, entry.sha256, index, label))
        elif entry.path.startswith("samples.parquet/"):
            found.append(TableFile(f"{head}{entry.path}", fetch, True, entry.sha256))
    return found


def _has_index(artifact: "Artifact") -> bool:
    return any(entry.path == INDEX_FILE for entry in artifact.files(INDEX_FILE))


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
        return [self._file(piece, len(pieces) == 1) for piece in pieces]

    def _file(self, piece: Path, alone: bool) -> TableFile:
        """With its index, where a writer or ``wfm artifacts pull`` has put it: the latter gives files that several parts have a
        folder each."""
        places = [self._root / "parts" / piece.stem / INDEX_FILE] + [self._root / INDEX_FILE] * alone
        for index in places:
            if index.is_file():
                return TableFile(str(piece), partial(Path, piece), False, "", partial(Path, index), str(index))
        return TableFile(str(piece), partial(Path, piece), False)

    def address(self, shard: str) -> str:
        return str(below(self._root, shard))

    def size(self, shard: str) -> int:
        found = below(self._root, shard)
        return found.stat().st_size if found.is_file() else -1


def place_of(source: "Artifact | Path") -> RecordPlace:
    """Of an artifact or a pulled folder."""
    return _OfFolder(source) if isinstance(source, Path) else _OfArtifact(source)
