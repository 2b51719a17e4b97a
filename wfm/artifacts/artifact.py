"""A committed artifact, open for reading. What comes out has the size and hash that the manifest promises."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol

from wfm.artifacts import listing, tables
from wfm.artifacts.address import safe_path
from wfm.artifacts.copying import copy_into
from wfm.artifacts.listing import Child, FileEntry, PartEntry
from wfm.artifacts.manifest import Manifest
from wfm.artifacts.objects import Objects
from wfm.artifacts.verified import VerifiedFiles
from wfm.errors import DataError, InputError

if TYPE_CHECKING:
    import pyarrow as pa

_READERS = 16
_KEPT_NODES = 16  # opened list nodes kept in memory (4,096 entries each)


class Home(Protocol):
    """What an artifact asks of the store that it lies in (`wfm.artifacts.shelf`)."""

    objects: Objects
    verified: VerifiedFiles

    @property
    def url(self) -> str:
        """The store's address."""

    def open_generation(self, area: str, key: str, generation: int) -> "Artifact":
        """One commit of a key."""


class Artifact:
    """One commit of one key, an artifact or a part.

    Paths are relative to the artifact; files of a part appear as `parts/<part name>/<path>`.
    """

    def __init__(self, store: Home, folder: str, manifest: Manifest, forbidden: tuple[str, ...] = ()) -> None:
        self.manifest = manifest
        self._store = store
        self._files_folder = f"{folder}/attempts/{manifest.attempt}"
        self._folder = folder
        self._forbidden = forbidden
        self._nodes: dict[str, bytes] = {}

    def __repr__(self) -> str:
        return f"Artifact({self.manifest.kind} {self.key[:12]} by {self.manifest.stage})"

    @property
    def key(self) -> str:
        return self.manifest.key

    @property
    def kind(self) -> str:
        return self.manifest.kind

    @property
    def url(self) -> str:
        """Where the files lie (for people; read through `open` and `fetch`, which check)."""
        return f"{self._store.url}/{self._files_folder}"

    @property
    def store(self) -> Home:
        """The store that it lies in."""
        return self._store

    @property
    def parts(self) -> tuple[PartEntry, ...]:
        """Every part, in order of name."""
        return tuple(self.iterate_parts())

    def iterate_parts(self) -> Iterator[PartEntry]:
        """Parts in order of name, without holding all of them."""
        for row in listing.iterate(self.manifest.parts, self._read_node):
            yield PartEntry(**row)

    def part(self, name: str) -> "Artifact":
        """Open a part by name. Raises InputError for an unknown name, DataError when the part is not the one that
        was committed."""
        row = listing.find(self.manifest.parts, self._read_node, name)
        if row is None:
            names = [entry.name for entry, _ in zip(self.iterate_parts(), range(8), strict=False)]
            raise InputError(
                f"{self!r} has no part {name!r}: it has {self.manifest.parts.count} parts ({', '.join(names)} ...)"
            )
        return self.open_part(PartEntry(**row))

    def open_part(self, entry: PartEntry) -> "Artifact":
        """Open a part by its entry; several threads may. Raises DataError like `part`."""
        part = self._store.open_generation("parts", entry.key, entry.generation)
        if part.manifest.digest != entry.digest:
            raise DataError(
                f"part {entry.name!r} of {self!r} holds {part.manifest.digest[:12]}, {entry.digest[:12]} was committed: "
                "invalidate the artifact and rerun its stage"
            )
        return part.without(*self._forbidden)

    def entry(self, name: str) -> PartEntry:
        """What an artifact lists when this is one of its parts, under `name`."""
        manifest = self.manifest
        return PartEntry(name, self.key, manifest.digest, dict(manifest.counts), manifest.generation)

    def without(self, *folders: str) -> "Artifact":
        """The same artifact with some folders closed (`"truth/"`): their paths are not listed, and opening one
        raises InputError."""
        closed = tuple(folder.rstrip("/") + "/" for folder in folders)
        return Artifact(self._store, self._folder, self.manifest, tuple(dict.fromkeys(self._forbidden + closed)))

    def files(self, prefix: str = "") -> Iterator[FileEntry]:
        """Own files whose path begins with `prefix`, then those of the parts. Raises InputError when `prefix` is in
        a closed folder."""
        self._refuse(prefix)
        for row in listing.iterate(self.manifest.files, self._read_node, prefix):
            if not self._is_forbidden(row["path"]):
                yield FileEntry(**row)
        if not "parts/".startswith(prefix[:6]):
            return
        for entry in self.iterate_parts():
            head = f"parts/{entry.name}/"
            if head.startswith(prefix) or prefix.startswith(head):
                for inner in self.open_part(entry).files(prefix[len(head) :]):
                    yield FileEntry(head + inner.path, inner.size, inner.sha256)

    def file(self, path: str) -> FileEntry:
        """Size and hash of one file. Raises InputError when there is none of that path."""
        owner, inner = self._owner(path)
        row = listing.find(owner.manifest.files, owner._read_node, inner)
        if row is None:
            some = [entry.path for entry, _ in zip(self.files(), range(8), strict=False)]
            raise InputError(
                f"{self!r} has no file {path!r}: it has {', '.join(some)} ... (`wfm artifacts files {self.key[:12]}` lists all)"
            )
        return FileEntry(**row)

    def has_file(self, path: str) -> bool:
        """Whether there is a file of that path."""
        try:
            owner, inner = self._owner(path)
        except InputError:
            self._refuse(path)
            return False
        return listing.find(owner.manifest.files, owner._read_node, inner) is not None

    def open(self, path: str) -> BinaryIO:
        """A file of checked bytes, open for reading. Raises InputError for an unknown path, DataError for damaged
        bytes."""
        return open(self.fetch(path), "rb")

    def fetch(self, path: str) -> Path:
        """A local file of checked bytes (a remote store's comes through the cache). Read it, never write to it."""
        entry = self.file(path)
        owner, inner = self._owner(path)
        return self._store.verified.local(f"{owner._files_folder}/{inner}", FileEntry(inner, entry.size, entry.sha256))

    def fetch_tree(self, prefix: str, into: Path) -> list[Path]:
        """Copy every file whose path begins with `prefix` below the folder `into`, under its own path; returns the
        new files.

        Raises InputError when no file has the prefix, or when `into` holds another file of that name
        (`wfm.artifacts.copying`).
        """
        entries = list(self.files(prefix))
        if not entries:
            raise InputError(f"{self!r} has no file under {prefix!r}")
        return copy_into(self.fetch, [(entry, entry.path) for entry in entries], into, whose=repr(self))

    def table(self, name: str, columns: list[str] | None = None) -> "pa.Table":
        """The table `<name>.parquet` of this artifact and of all its parts, concatenated in order of part name.

        A table is one file, or a folder of Parquet files. Raises InputError when neither the artifact nor a part has
        it.
        """
        return tables.concatenate(
            [table for _, table in self.iterate_table(name, columns)], name, repr(self), self._table_names
        )

    def iterate_table(self, name: str, columns: list[str] | None = None) -> Iterator[tuple[str, "pa.Table"]]:
        """The same, one (part name, table) at a time, for tables that do not fit in memory; the artifact's own comes
        first, as ""."""
        self._refuse(f"{name}.parquet")
        safe_path(name)
        for entry in self._table_files(name):
            yield "", tables.read(self.fetch(entry.path), columns, entry.path)
        for part in self.iterate_parts():
            opened = self.open_part(part)
            for entry in opened._table_files(name):
                yield part.name, tables.read(opened.fetch(entry.path), columns, f"parts/{part.name}/{entry.path}")

    def _table_files(self, name: str) -> list[FileEntry]:
        paths = [f"{name}.parquet", f"{name}.parquet/"]
        rows = listing.iterate(self.manifest.files, self._read_node, paths[0])
        return [FileEntry(**row) for row in rows if row["path"] == paths[0] or row["path"].startswith(paths[1])]

    def _table_names(self) -> list[str]:
        names = set()
        for entry, _ in zip(self.files(), range(20_000), strict=False):
            path = entry.path.split("/", 2)[2] if entry.path.startswith("parts/") else entry.path
            head, found, _ = path.partition(".parquet")
            if found:
                names.add(head)
        return sorted(names)

    def _owner(self, path: str) -> tuple["Artifact", str]:
        self._refuse(safe_path(path))
        if not path.startswith("parts/"):
            return self, path
        _, name, inner = [*path.split("/", 2), ""][:3]
        part = self.part(name)
        part._refuse(inner)
        return part, inner

    def _refuse(self, path: str) -> None:
        if self._is_forbidden(path):
            raise InputError(
                f"{path!r} of {self!r} is closed to this stage: only stages that may read the truth can open it"
            )

    def _is_forbidden(self, path: str) -> bool:
        if path.startswith("parts/"):
            path = path.split("/", 2)[-1]
        return any(path.startswith(folder) or path == folder.rstrip("/") for folder in self._forbidden)

    def _read_node(self, child: Child) -> bytes:
        data = self._nodes.get(child.path)
        if data is None:
            try:
                data = self._store.objects.read(f"{self._files_folder}/{child.path}")
            except FileNotFoundError:
                raise DataError(f"{self!r} has lost its list {child.path}: invalidate it and rerun") from None
            while len(self._nodes) >= _KEPT_NODES:
                self._nodes.pop(next(iter(self._nodes)))
            self._nodes[child.path] = data
        return data

    def total_bytes(self) -> int:
        """Size of the files, those of the parts included (shared with other artifacts or not)."""
        with ThreadPoolExecutor(_READERS) as readers:  # in a bucket each is a request
            parts = readers.map(self.open_part, self.iterate_parts())
            return self.manifest.files.bytes + sum(part.manifest.files.bytes for part in parts)

    def summary(self) -> dict[str, Any]:
        """A flat record for lists and pages; ``bytes`` are those of its own files, without parts (`total_bytes`)."""
        manifest = self.manifest
        return {
            "key": self.key,
            "kind": manifest.kind,
            "stage": manifest.stage,
            "created_at": manifest.created_at,
            "generation": manifest.generation,
            "files": manifest.files.count,
            "bytes": manifest.files.bytes,
            "parts": manifest.parts.count,
            "counts": manifest.counts,
            "skipped": manifest.skipped,
        }
