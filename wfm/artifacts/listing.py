"""Lists that may grow with the corpus, kept as trees of at most 4,096 entries a node.

A small list lies inside the manifest. A larger one is cut into node files of 4,096 sorted entries each, in the
attempt's folder; the
manifest then holds one `Child` a node (or a node of nodes) with its size, hash, and first and last name, so that a
reader that wants
one name opens one node, and what it opens is checked.
"""

import hashlib
import json
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from pydantic import BaseModel, ConfigDict

from wfm.errors import DataError

NODE_ENTRIES = 4096
NODE_FOLDER = ".listing"  # inside the attempt; a stage cannot write there


@dataclass(frozen=True)
class FileEntry:
    """One file of an artifact: path relative to the artifact, size in bytes, sha256 (hex)."""

    path: str
    size: int
    sha256: str

    @property
    def name(self) -> str:
        return self.path


@dataclass(frozen=True)
class PartEntry:
    """One part of an artifact.

    `name`: the part's name in this artifact; `key`: its key under `parts/`; `digest`: sha256 over the sorted (path,
    sha256) of its
    files; `counts`: what the part counted; `generation`: which commit of the key.
    """

    name: str
    key: str
    digest: str
    counts: dict[str, int] = field(default_factory=dict)
    generation: int = 1


Entry = FileEntry | PartEntry


class Child(BaseModel):
    """A node file: where it lies in the attempt, what it must hash to, and which names it covers."""

    model_config = ConfigDict(frozen=True)
    path: str
    size: int
    sha256: str
    first: str
    last: str
    count: int
    depth: int
    """0: its entries are files or parts; above: they are children themselves."""


class Listing(BaseModel):
    """The root of a tree: either `entries` (at most 4,096) or `children`."""

    model_config = ConfigDict(frozen=True)
    count: int = 0
    bytes: int = 0
    """Sum of the files' sizes; 0 for a list of parts."""
    entries: tuple[dict[str, Any], ...] = ()
    children: tuple[Child, ...] = ()


Write = Callable[[str, bytes], None]
Read = Callable[[Child], bytes]


def build(entries: Sequence[Entry], label: str, write: Write, node_entries: int = NODE_ENTRIES) -> Listing:
    """Make the tree of `entries` (sorted by name here); nodes go out through `write(path in the attempt, bytes)`."""
    ordered = sorted(entries, key=lambda entry: entry.name)
    total = sum(entry.size for entry in ordered if isinstance(entry, FileEntry))
    rows = [asdict(entry) for entry in ordered]
    if len(rows) <= node_entries:
        return Listing(count=len(rows), bytes=total, entries=tuple(rows))
    names = [entry.name for entry in ordered]
    spans = [(names[i], names[min(i + node_entries, len(names)) - 1]) for i in range(0, len(names), node_entries)]
    children = _write_nodes(rows, spans, label, 0, write, node_entries, [node_entries] * len(spans), len(rows))
    while len(children) > node_entries:
        groups = [children[i : i + node_entries] for i in range(0, len(children), node_entries)]
        depth = children[0].depth + 1
        spans = [(group[0].first, group[-1].last) for group in groups]
        counts = [sum(child.count for child in group) for group in groups]
        dumped = [child.model_dump() for child in children]
        children = _write_nodes(dumped, spans, label, depth, write, node_entries, counts, len(rows))
    return Listing(count=len(rows), bytes=total, children=tuple(children))


def _write_nodes(
    rows: list[dict[str, Any]],
    spans: list[tuple[str, str]],
    label: str,
    depth: int,
    write: Write,
    node_entries: int,
    counts: list[int],
    total: int,
) -> list[Child]:
    children = []
    for number, (first, last) in enumerate(spans):
        chunk = rows[number * node_entries : (number + 1) * node_entries]
        data = json.dumps({"schema_version": 1, "entries": chunk}, ensure_ascii=False, separators=(",", ":")).encode()
        path = f"{NODE_FOLDER}/{label}-{depth}-{number:06d}.json"
        write(path, data)
        count = len(chunk) if depth == 0 else counts[number]
        digest = hashlib.sha256(data).hexdigest()
        children.append(
            Child(path=path, size=len(data), sha256=digest, first=first, last=last, count=count, depth=depth)
        )
    if depth == 0 and sum(child.count for child in children) != total:
        raise AssertionError(f"listing {label} lost entries")
    return children


def iterate(listing: Listing, read: Read, prefix: str = "") -> Iterator[dict[str, Any]]:
    """Entries whose name begins with `prefix`, in order of name; opens only the nodes that can hold such names."""
    for row in listing.entries:
        if _name(row).startswith(prefix):
            yield row
    for child in listing.children:
        yield from _iterate_child(child, read, prefix)


def _iterate_child(child: Child, read: Read, prefix: str) -> Iterator[dict[str, Any]]:
    if prefix and (child.last < prefix or child.first[: len(prefix)] > prefix):
        return
    for row in _rows(child, read):
        if child.depth > 0:
            yield from _iterate_child(Child(**row), read, prefix)
        elif _name(row).startswith(prefix):
            yield row


def find(listing: Listing, read: Read, name: str) -> dict[str, Any] | None:
    """The entry of that name, or None."""
    rows: Sequence[dict[str, Any]] = listing.entries
    children: Sequence[Child] = listing.children
    while children:
        at = bisect_left([child.last for child in children], name)
        if at == len(children) or children[at].first > name:
            return None
        child = children[at]
        rows = _rows(child, read)
        children = [Child(**row) for row in rows] if child.depth > 0 else ()
    at = bisect_left([_name(row) for row in rows], name)
    return rows[at] if at < len(rows) and _name(rows[at]) == name else None


def _rows(child: Child, read: Read) -> list[dict[str, Any]]:
    data = read(child)
    if len(data) != child.size or hashlib.sha256(data).hexdigest() != child.sha256:
        raise DataError(
            f"the list {child.path} of this artifact is damaged: its hash is not the one in the manifest; "
            "invalidate the artifact and rerun"
        )
    rows: list[dict[str, Any]] = json.loads(data)["entries"]
    return rows


def _name(row: dict[str, Any]) -> str:
    name: str = row["path"] if "path" in row else row["name"]
    return name
