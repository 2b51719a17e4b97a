"""What steps that work in parts share. Kept apart from the steps, so that a change of one step is no change of the others."""

from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from wfm.artifacts import PartEntry, Store


_READERS = 16


class PartLike(Protocol):
    """What a part function is given (`components.context.PartContext`)."""

    name: str
    config: Any
    inputs: Any
    arguments: Any
    out: Path
    after_death: bool
    work: Counter[str]

    def open_store(self) -> "Store":
        """The store the stage works on."""


def add_up(store: "Store", parts: Iterable["PartEntry"]) -> tuple[dict[str, int], dict[str, int]]:
    """(counts, skipped by reason) summed over the manifests of committed parts."""
    counts: Counter[str] = Counter()
    skipped: Counter[str] = Counter()
    with ThreadPoolExecutor(_READERS) as readers:  # in a bucket each is a request
        for part in readers.map(lambda entry: store.open_generation("parts", entry.key, entry.generation), parts):
            counts.update(part.manifest.counts)
            skipped.update(part.manifest.skipped)
    return dict(sorted(counts.items())), dict(sorted(skipped.items()))
