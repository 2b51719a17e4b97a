"""A finished data set as its users see it: ``wfm.dataset`` and its samples, one at a time, nothing held that was passed.

    for sample in open_dataset("curated", split="train", shuffle=7):
        sample.clip_id, sample.caption, sample.fps, sample.actions, sample.video  # decoded when it is asked for

A shard is fetched when its turn comes (out of a bucket into the cache, verified), its samples are read one by one. Decoding
needs the extra `curate` or `train`; all else reads with the core packages.
"""

import functools
import io
import json
import os
import random
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from wfm.actions import ActionSpec
from wfm.artifacts.address import below
from wfm.artifacts.environment import open_store
from wfm.artifacts.missing_store import require_store
from wfm.artifacts.pulled import pulled_folder
from wfm.data.exclusions import SPLIT_FILE, Exclusions, read_split
from wfm.data.shards import Sample, iter_samples, read_sample
from wfm.data.signatures import image_member
from wfm.errors import ConfigError, DataError, InputError, MissingPackage

if TYPE_CHECKING:
    import pyarrow as pa

    from wfm.artifacts import Artifact, Store
    from wfm.data.signals import Track

CARD = "card.json"
_BUFFER = 64
"""Samples that a shuffled pass mixes; as many compressed clips are in memory."""


def open_dataset(
    dataset: str | os.PathLike[str],
    *,
    split: str = "train",
    shuffle: int | None = None,
    store: str | os.PathLike[str] = "",
) -> "Dataset":
    """Open one split of a finished data set.

    dataset: its name in the store (``curated``, ``dataset/curated``, ``dataset/curated@latest``), its key or the first 8 or
    more digits of it, or a folder that ``wfm artifacts pull`` made (``--what all``, or the split). store: where names and
    keys are looked up; empty: ``WFM_STORE``, or ``wfm-store`` in the current folder. split: ``train``, ``val``, ``test``, or
    as the data set has them. shuffle: the seed of an order (`Dataset`); None: the order of the shards.

    Raises InputError (or a kind of it) for a data set that is not there, a word that means a folder and a name, another
    split (it names the choices).
    """
    return open_from(functools.cache(lambda: require_store(open_store(store))), dataset, split=split, shuffle=shuffle)


def open_from(
    store: "Callable[[], Store]",
    dataset: str | os.PathLike[str],
    *,
    split: str = "train",
    shuffle: int | None = None,
) -> "Dataset":
    """`open_dataset` out of a store that is opened already, if one is needed at all."""
    folder = pulled_folder(dataset, kind="dataset", mark=SPLIT_FILE, store=store)
    place: _Place = _Folder(folder) if folder is not None else _InStore(_artifact(store(), os.fspath(dataset)))
    return Dataset(place, split, shuffle)


@dataclass(frozen=True, repr=False)
class ClipSample:
    """One clip of a data set: what stands in its shard under its name."""

    clip_id: str
    "sha256 of the video's id and the clip's span in it: the same in every data set."
    facts: Mapping[str, Any]
    "All that its row says, as plain JSON values: where it comes from, its times, sizes, scores."
    members: Mapping[str, bytes]
    """The bytes that the shard holds, by suffix: `mp4` (of a still image `jpg`, `png` or `webp`), `json`, `txt`, and where
    known `emb.npy`, `actions.parquet`."""

    def __repr__(self) -> str:
        if self.is_image:
            return f"ClipSample({self.clip_id[:12]}: a still image, {self.caption!r})"
        return f"ClipSample({self.clip_id[:12]}: {self.num_frames} frames at {self.fps:g}/s, {self.caption!r})"

    @property
    def is_image(self) -> bool:
        """Whether it is a still image: one frame, of no rate."""
        return bool(image_member(self.members))

    @property
    def caption(self) -> str:
        """What is said of it; empty where nothing is."""
        return str(self.facts.get("caption", ""))

    @property
    def fps(self) -> float:
        """Frames a second [1/s]; 0 for a still image."""
        return float(self._fact("fps"))

    @property
    def num_frames(self) -> int:
        """Its frames."""
        return int(self._fact("num_frames"))

    @property
    def size(self) -> tuple[int, int]:
        """Height and width, upright [pixels]."""
        return int(self._fact("height")), int(self._fact("width"))

    @property
    def scores(self) -> Mapping[str, Any]:
        """What was measured of it, by name (`clips.parquet` says the same)."""
        scores = self.facts.get("scores", {})
        return scores if isinstance(scores, dict) else {}

    @cached_property
    def video(self) -> np.ndarray:
        """Its frames, uint8 ``[num_frames, height, width, 3]``, RGB; decoded when they are first asked for."""
        return self.frames()

    def frames(self, size: tuple[int, int] | None = None) -> np.ndarray:
        """The same, resized by area to ``size`` (height, width); of a still image one frame. Raises DataError for a clip that
        cannot be decoded, MissingPackage without the package `av`."""
        try:
            from wfm.data.decode import read_frames
            from wfm.data.images import read_image
        except ImportError as error:
            raise MissingPackage(str(error.name), extra="curate", purpose="decoding a clip") from error
        if self.is_image:
            return read_image(self._member(image_member(self.members)), size=size)[None]
        with tempfile.NamedTemporaryFile(suffix=".mp4") as file:
            file.write(self._member("mp4"))
            file.flush()
            return read_frames(file.name, size=size)[0]

    @cached_property
    def actions(self) -> np.ndarray | None:
        """What moves camera and actors, float32 ``[num_frames, A]`` in the units of `action_spec`; the row of frame t acts
        between t and t + 1. None where nothing is known."""
        track = self._tracks.get("actions")
        return None if track is None else track.values

    @property
    def action_spec(self) -> ActionSpec | None:
        """Names, units, frame and rate of the actions."""
        track = self._tracks.get("actions")
        return None if track is None else ActionSpec.from_json(dict(track.meaning))

    @property
    def embedding(self) -> np.ndarray | None:
        """How it looks and moves, as deduplication saw it, float16 ``[D]``; None where it was not embedded. Raises DataError
        for what is no array."""
        if "emb.npy" not in self.members:
            return None
        try:
            return np.asarray(np.load(io.BytesIO(self.members["emb.npy"]), allow_pickle=False))
        except ValueError as error:
            raise DataError(f"sample {self.clip_id}: emb.npy: {error}") from None

    def save(self, path: str | os.PathLike[str], *, force: bool = False) -> Path:
        """Write its mp4, or its image, byte for byte; returns the path. Raises InputError (without ``force``) for a file that
        is there."""
        from wfm.artifacts.atomic import write_new

        write_new(Path(path), self._member(image_member(self.members) or "mp4"), force=force)
        return Path(path)

    @cached_property
    def _tracks(self) -> "Mapping[str, Track]":
        from wfm.data.windows import clip_signals

        return clip_signals(Sample(self.clip_id, dict(self.members))).tracks

    def _fact(self, name: str) -> Any:
        value = self.facts.get(name)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise DataError(f"sample {self.clip_id}: its {name} is {value!r}; a number was expected")
        return value

    def _member(self, suffix: str) -> bytes:
        if suffix not in self.members:
            raise DataError(
                f"sample {self.clip_id}: no member {suffix!r}; it has {', '.join(sorted(self.members)) or 'none'}"
            )
        return self.members[suffix]


class Dataset:
    """One split of a data set. Iterating gives every clip that is kept and not excluded, once; it may be iterated again.

    In the order of the shards; with a seed in an order that follows from it alone: the shards in one of their own, and what
    they hold mixed over 64 clips, as webdataset does. (For training at scale there are loaders: Megatron-Energon opens the
    folder.) At any moment one shard is open, and of a shuffled pass 64 compressed clips are in memory.
    """

    def __init__(self, place: "_Place", split: str, shuffle: int | None) -> None:
        by_split, exclude = place.splits()
        if split not in by_split:
            raise ConfigError(f"split: {split!r} is none of this data set; it has {', '.join(by_split) or 'none'}")
        if shuffle is not None and (isinstance(shuffle, bool) or not isinstance(shuffle, int)):
            raise ConfigError(f"shuffle is {shuffle!r}; give a whole number, the seed of the order, or None")
        self.split = split
        "The one that is iterated."
        self.shuffle = shuffle
        "The seed of its order; None: that of the shards."
        self.splits = tuple(by_split)
        "The splits that it has."
        self._place, self._excluded = place, Exclusions(frozenset(exclude))
        self._excluded_clips = self._excluded.keys
        self._shards = [path for path in by_split[split] if not self._excluded.leaves_out(path)]

    def __repr__(self) -> str:
        return f"Dataset({self._place}, split {self.split}: {len(self._shards)} shards)"

    def __iter__(self) -> Iterator[ClipSample]:
        order = None if self.shuffle is None else random.Random(f"{self.shuffle} {self.split}")
        shards = list(self._shards)
        if order is not None:
            order.shuffle(shards)
        samples = (
            sample
            for path in shards
            for sample in iter_samples(self._place.shard(path))
            if sample.key not in self._excluded_clips
        )
        for sample in samples if order is None else _mixed(samples, order):
            yield _clip(sample)

    def __len__(self) -> int:
        """Clips of the split. Reads the table of clips, part by part, the first time."""
        return self._count

    @cached_property
    def _count(self) -> int:
        wanted = set(self._shards)
        count = 0
        for table in self._place.tables("clips", ["clip_id", "split", "shard"]):
            for row in table.to_pylist():
                count += row["shard"] in wanted and row["clip_id"] not in self._excluded_clips
        return count

    def clip(self, clip_id: str) -> ClipSample:
        """One clip of any split by its id, such as a search gives. Raises InputError for one that is not there, not kept, or
        excluded."""
        import pyarrow.compute as pc

        if clip_id in self._excluded_clips:
            raise InputError(f"clip {clip_id} is excluded from this data set")
        for table in self._place.tables("clips", ["clip_id", "shard", "reason"]):
            for row in table.filter(pc.field("clip_id") == clip_id).to_pylist():
                if not row["shard"]:
                    raise InputError(f"clip {clip_id} was not kept: {row['reason']}")
                if self._excluded.leaves_out(row["shard"]):
                    raise InputError(f"clip {clip_id} is excluded from this data set, with its shard")
                return _clip(read_sample(self._place.shard(row["shard"]), clip_id))
        raise InputError(f"this data set has no clip {clip_id!r}; ids stand in its table `clips`")

    def table(self, name: str = "clips", columns: Sequence[str] | None = None) -> "pa.Table":
        """A public table of the whole data set: ``clips`` (every clip that was cut, kept or not, with scores and reasons),
        ``videos`` (every input file), ``skips`` (every span that was not cut), ``members``."""
        import pyarrow as pa

        found = list(self._place.tables(name, None if columns is None else list(columns)))
        if not found:
            raise InputError(f"this data set has no table {name!r}; it has clips, videos, skips and members")
        return pa.concat_tables(found, promote_options="permissive")

    @cached_property
    def card(self) -> dict[str, Any]:
        """What it sums up to, as ``card.json`` has it: counts, reasons, licences, figures of every score."""
        try:
            found = json.loads(self._place.file(CARD).read_bytes())
        except ValueError as error:
            raise DataError(f"{self._place}: {CARD} is not JSON: {error}") from None
        if not isinstance(found, dict):
            raise DataError(f"{self._place}: {CARD} holds no JSON object")
        return found


def _mixed(samples: Iterator[Sample], order: random.Random) -> Iterator[Sample]:
    """The same samples, each given out from among the `_BUFFER` that were read last."""
    held: list[Sample] = []
    for sample in samples:
        if len(held) < _BUFFER:
            held.append(sample)
            continue
        place = order.randrange(_BUFFER)
        yield held[place]
        held[place] = sample
    order.shuffle(held)
    yield from held


def _clip(sample: Sample) -> ClipSample:
    try:
        facts = json.loads(sample.members["json"])
    except (KeyError, ValueError) as error:
        raise DataError(f"sample {sample.key}: its member 'json' cannot be read: {error}") from None
    if not isinstance(facts, dict):
        raise DataError(f"sample {sample.key}: its member 'json' holds no JSON object")
    return ClipSample(sample.key, facts, sample.members)


class _Place(Protocol):
    """Where a data set lies."""

    def splits(self) -> tuple[dict[str, list[str]], list[str]]:
        """Shards by split, and the exclude list."""

    def shard(self, path: str) -> Path:
        """A local shard, with its index beside it."""

    def file(self, path: str) -> Path:
        """A local file of the root."""

    def tables(self, name: str, columns: list[str] | None) -> "Iterator[pa.Table]":
        """A table in pieces; none where there is no such table."""


@dataclass(frozen=True)
class _Folder:
    """One that was pulled."""

    root: Path

    def __str__(self) -> str:
        return str(self.root)

    def splits(self) -> tuple[dict[str, list[str]], list[str]]:
        return read_split(self.root / SPLIT_FILE)

    def shard(self, path: str) -> Path:
        return self.file(path)

    def file(self, path: str) -> Path:
        found = below(self.root, path)
        if not found.is_file():
            raise InputError(
                f"{found} is not there: this part of the data set was not pulled (`wfm artifacts pull DATASET OUT`, --what all)"
            )
        return found

    def tables(self, name: str, columns: list[str] | None) -> "Iterator[pa.Table]":
        from wfm.artifacts import tables

        found = below(self.root, f"{name}.parquet")
        for piece in sorted(found.glob("*.parquet")) if found.is_dir() else [found] if found.is_file() else []:
            yield tables.read(piece, columns, str(piece))


@dataclass(frozen=True)
class _InStore:
    """One in a store; what is read of it is verified."""

    artifact: "Artifact"

    def __str__(self) -> str:
        return f"dataset {self.artifact.key[:12]}"

    def splits(self) -> tuple[dict[str, list[str]], list[str]]:
        return read_split(self.file(SPLIT_FILE))

    def shard(self, path: str) -> Path:
        part = path.rpartition("/")[2].rpartition("-")[0]  # shards are called <part>-<number>.tar
        inside = f"parts/{part}/{path}"
        self.artifact.fetch(f"{inside}.idx")  # beside it, in the cache as in the store
        return self.artifact.fetch(inside)

    def file(self, path: str) -> Path:
        return self.artifact.fetch(path)

    def tables(self, name: str, columns: list[str] | None) -> "Iterator[pa.Table]":
        for _, table in self.artifact.iterate_table(name, columns):
            yield table


def _artifact(store: "Store", reference: str) -> "Artifact":
    """The artifact of a data set by NAME, dataset/NAME@ALIAS or key."""
    key = store.resolve(reference if "/" in reference or _is_key(reference) else f"dataset/{reference}")
    artifact = store.artifact(key)
    if artifact.kind != "dataset":
        raise InputError(f"{reference!r} is an artifact of kind {artifact.kind!r}, wanted a dataset")
    return artifact


def _is_key(reference: str) -> bool:
    return len(reference) >= 8 and not set(reference) - set("0123456789abcdef")
