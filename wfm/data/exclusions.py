"""What is left out of a data set whose shards stay as they are: the ``exclude`` list of ``.nv-meta/split.yaml``.

An entry is a shard (``shards/train/0a-00000.tar``) or a sample of one (``shards/train/0a-00000.tar/<clip id>``), as
Megatron-Energon reads them. Our own readers (`wfm.data.windows`) leave out the same. The list is one file, because Energon's
format has it so: it is for thousands of clips (a takedown, a bad source); who drops a tenth of the corpus selects anew.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from wfm.errors import DataError

if TYPE_CHECKING:
    from wfm.artifacts import Artifact

FOLDER = ".nv-meta"
"""What Energon reads beside the shards (`wfm.data.energon`)."""

SPLIT_FILE = f"{FOLDER}/split.yaml"


@dataclass(frozen=True)
class Exclusions:
    """The entries of a data set's exclude list."""

    entries: frozenset[str] = frozenset()

    @property
    def shards(self) -> frozenset[str]:
        """Paths of the shards that are left out whole, from the data set's root."""
        return frozenset(entry for entry in self.entries if entry.endswith(".tar"))

    @property
    def keys(self) -> frozenset[str]:
        """Keys of the single samples that are left out; a key is unique over the data set."""
        return frozenset(entry.rpartition("/")[2] for entry in self.entries if not entry.endswith(".tar"))

    def of_part(self, name: str) -> "Exclusions":
        """The entries that fall into the shards of one part, whose file names begin with the part's."""
        return Exclusions(frozenset(entry for entry in self.entries if _part_of(entry) == name))

    def leaves_out(self, shard: str) -> bool:
        """Whether a shard is left out whole; its path may be an artifact's, below ``parts/<part>/``."""
        return f"shards/{shard.partition('shards/')[2]}" in self.entries


def _part_of(entry: str) -> str:
    shard = entry if entry.endswith(".tar") else entry.rpartition("/")[0]
    return shard.rpartition("/")[2].rpartition("-")[0]


def read_exclusions(dataset: "Artifact") -> Exclusions:
    """What an artifact leaves out; nothing for one without Energon's files."""
    if not dataset.has_file(SPLIT_FILE):
        return Exclusions()
    return Exclusions(frozenset(read_split(dataset.fetch(SPLIT_FILE))[1]))


def exclusions_of(folder: Path) -> Exclusions:
    """What a pulled folder leaves out, for readers that do not look themselves, such as webdataset. Raises DataError for a
    folder that is no data set."""
    return Exclusions(frozenset(read_split(folder / SPLIT_FILE)[1]))


def read_split(path: Path) -> tuple[dict[str, list[str]], list[str]]:
    """(shards by split, exclude list) of a ``split.yaml`` that wfm wrote. Raises DataError for anything else."""
    try:
        values = json.loads(path.read_text())
        return dict(values["split_parts"]), [str(entry) for entry in values["exclude"]]
    except FileNotFoundError:
        raise DataError(
            f"{path} is missing: {path.parent.parent} is no data set that `wfm artifacts pull` made"
        ) from None
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path}: not a split file as wfm writes it (JSON with split_parts and exclude): {error}"
        ) from None


def split_text(by_split: dict[str, list[str]], exclude: Iterable[str]) -> str:
    """A ``split.yaml``. (JSON is YAML.)"""
    return json.dumps({"split_parts": by_split, "exclude": list(exclude)}, indent=1) + "\n"
