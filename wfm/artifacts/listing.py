"""Lists that may grow with the corpus, kept as trees of at most 4,096 entries a node.

A small list lies inside the manifest. A larger one is cut into node files of 4,096 sorted entries each, in the
attempt's folder; the
manifest then holds one `Child` a node (or a node of nodes) with its size, hash, and first and last name, so that a
reader that wants
one name opens one node, and what it opens is checked.
"""

import hashlib
import itertools
import json
import re
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from wfm.artifacts import schema
from wfm.artifacts.schema import Count, Integer, Key, Number, RelativePath, Word
from wfm.errors import DataError

NODE_ENTRIES = 4096
NODE_FOLDER = ".listing"  # inside the attempt; a stage cannot write there
PARTS_FOLDER = "parts"  # where an artifact's parts appear; none of its own files lies there
_DEEPEST = 8  # levels of nodes above the lowest: room for 4,096 to the ninth entries
_NodePath = Annotated[
    str, StringConstraints(pattern=rf"^{re.escape(NODE_FOLDER)}/(files|parts)-[0-9]-[0-9]{{6,12}}\.json$")
]


@dataclass(frozen=True)
class FileEntry:
    """One file of an artifact: path relative to the artifact, size in bytes, sha256 (hex)."""

    path: RelativePath
    size: Count
    sha256: Key

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

    name: Word
    key: Key
    digest: Key
    counts: dict[str, Integer] = field(default_factory=dict)
    generation: Number = 1


Entry = FileEntry | PartEntry
T = TypeVar("T")


class Child(BaseModel):
    """A node file: where it lies in the attempt, what it must hash to, and which names it covers."""

    model_config = ConfigDict(frozen=True)
    path: _NodePath
    size: Count
    sha256: Key
    first: str
    last: str
    count: Count
    depth: Annotated[int, Field(ge=0, le=_DEEPEST)]
    """0: its entries are files or parts; above: they are children themselves."""


class Listing(BaseModel):
    """The root of a tree: either `entries` (at most 4,096) or `children`."""

    model_config = ConfigDict(frozen=True)
    count: Count = 0
    bytes: Count = 0
    """Sum of the files' sizes; 0 for a list of parts."""
    entries: tuple[dict[str, Any], ...] = ()
    children: tuple[Child, ...] = ()


_FILES, _PARTS, _CHILDREN = tuple[FileEntry, ...], tuple[PartEntry, ...], tuple[Child, ...]
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


def checked(listing: Listing, label: str) -> Listing:
    """The root of a tree that was read, with known fields only. Raises ValueError for entries, or nodes, that `build` would not
    have made: of another form, out of order, twice, or not as many as are said.

    `label`: "files" or "parts".
    """
    if not listing.entries and not listing.children and not listing.count:
        return listing
    if listing.entries and listing.children:
        raise ValueError("it has entries and nodes, one of both is expected")
    entries = _check_rows(listing.entries, label)
    _check_children(listing.children, label)
    count = sum(child.count for child in listing.children) if listing.children else len(entries)
    if count != listing.count:
        raise ValueError(f"it says {listing.count} entries and has {count}")
    return listing if entries is listing.entries else listing.model_copy(update={"entries": entries})


def _rows(child: Child, read: Read) -> list[dict[str, Any]]:
    """What a node holds: entries, or children as dicts."""
    data = read(child)
    if len(data) != child.size or hashlib.sha256(data).hexdigest() != child.sha256:
        raise DataError(
            f"the list {child.path} of this artifact is damaged: its hash is not the one in the manifest; "
            "invalidate the artifact and rerun"
        )
    try:
        return _check_node(child, schema.parse(data, child.path))
    except (ValueError, DataError) as error:
        raise DataError(
            f"the list {child.path} of this artifact is damaged: {error}; invalidate the artifact and rerun"
        ) from None


def _check_node(child: Child, document: Any) -> list[dict[str, Any]]:
    found = document.get("entries") if isinstance(document, dict) else None
    if not isinstance(found, list) or not found:
        raise ValueError("it has no entries")
    label = _label(child)
    if child.depth == 0:
        rows = list(_check_rows(found, label))
        first, last, count = _name(rows[0]), _name(rows[-1]), len(rows)
    else:
        inner = _fit(_CHILDREN, found)
        _check_children(inner, label, child.depth - 1)
        rows = [each.model_dump() for each in inner]
        first, last, count = inner[0].first, inner[-1].last, sum(each.count for each in inner)
    if (first, last, count) != (child.first, child.last, child.count):
        raise ValueError("it does not hold the names that the list above it says")
    return rows


def _check_rows(rows: Sequence[Any], label: str) -> tuple[dict[str, Any], ...]:
    if len(rows) > NODE_ENTRIES:
        raise ValueError(f"it has {len(rows)} entries, at most {NODE_ENTRIES} are in one list")
    entries: tuple[Entry, ...]
    entries = _fit(_FILES, rows) if label == "files" else _fit(_PARTS, rows)
    names = [entry.name for entry in entries]
    if any(before >= after for before, after in itertools.pairwise(names)):
        raise ValueError("its names are not in order, or one is there twice")
    if label == "files":
        _check_own(names)
        check_folders(names)
    fields = (FileEntry if label == "files" else PartEntry).__dataclass_fields__
    if all(row.keys() == fields.keys() for row in rows):
        return rows if isinstance(rows, tuple) else tuple(rows)
    return tuple({name: getattr(entry, name) for name in fields} for entry in entries)  # known fields only


def _check_own(paths: Sequence[str]) -> None:
    for path in paths:
        top, _, rest = path.partition("/")
        if top == NODE_FOLDER or (top == PARTS_FOLDER and rest):
            raise ValueError(f"the path {path!r} lies in the folder {top!r}, which is not for an artifact's own files")


def check_folders(paths: Iterable[str]) -> None:
    """Raises ValueError when one of the paths is a file, and the folder of another too."""
    known = set(paths)
    for folder in {path.rpartition("/")[0] for path in known}:
        for above in itertools.accumulate(folder.split("/"), "{}/{}".format):
            if above in known:
                raise ValueError(f"the path {above!r} is a file, and a folder of others")


def _check_children(children: Sequence[Child], label: str, depth: int | None = None) -> None:
    """Nodes of one level, of one kind, whose names follow each other: nothing is listed twice, so a tree has an end."""
    if len(children) > NODE_ENTRIES:
        raise ValueError(f"it has {len(children)} nodes, at most {NODE_ENTRIES} are in one list")
    for child in children:
        if _label(child) != label or child.depth != (children[0].depth if depth is None else depth):
            raise ValueError(f"the node {child.path!r} is of another kind or level than its list")
        if child.first > child.last:
            raise ValueError(f"the node {child.path!r} ends before it begins")
    if any(before.last >= after.first for before, after in itertools.pairwise(children)):
        raise ValueError("its nodes are not in order, or overlap")


def _label(child: Child) -> str:
    return child.path.split("/")[1].split("-")[0]


def _fit(kind: type[T], rows: Sequence[Any]) -> T:
    try:
        return schema.adapter(kind).validate_python(rows)
    except ValidationError as error:
        raise ValueError(schema.first_fault(error)) from None


def _name(row: dict[str, Any]) -> str:
    name: str = row["path"] if "path" in row else row["name"]
    return name
