"""Signals of a data set's clips: named tracks with one row a frame, from which any window is cut.

A track is of a whole clip, so one artifact serves windows of any length and stride and every tokenizer. Nothing here knows a
signal by name. Layout of a part (of an artifact of kind `signals`), for each split that it has clips of:

    <split>/clips.parquet           one row a clip, as `CLIPS` has it
    <split>/signals.safetensors     for each signal `<name>` [frames, ...], the tracks of the clips that have it one after the
                                    other, and `has_<name>` bool [clips]
    signals.json                    name -> {"shape": that of a row, "meaning": what its numbers are}, alike for every clip that
                                    has it
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from wfm.data.dataset_parts import split_files
from wfm.errors import ConfigError, DataError, InputError

if TYPE_CHECKING:
    from wfm.artifacts import Artifact

CLIPS = pa.schema(
    [
        ("clip_id", pa.string()),
        ("clip_sha256", pa.string()),
        ("session_id", pa.string()),
        ("video_id", pa.string()),
        ("source", pa.string()),
        ("start_seconds", pa.float64()),
        ("fps", pa.float64()),
        ("num_frames", pa.int64()),
        ("caption", pa.string()),
    ],
    metadata={"schema_version": "1"},
)
MEANINGS = "signals.json"
_MAY_DIFFER = ("mean", "scale")
"""Fields of a meaning that only say how numbers are normalised: the first clip's hold for all."""


@dataclass(frozen=True)
class Track:
    """One signal of one clip."""

    values: np.ndarray
    "float32 [T, ...], a row for every frame, in raw units."
    meaning: Mapping[str, Any]
    "What the numbers are, as JSON values: names, units, frame of reference, normaliser."


@dataclass(frozen=True)
class ClipSignals:
    """A clip and its tracks; a signal that it does not have is left out."""

    row: Mapping[str, Any]
    "What `CLIPS` has of it."
    tracks: Mapping[str, Track]


def write_signals(clips: Mapping[str, Sequence[ClipSignals]], out: Path) -> None:
    """Write the clips of each split into the part `out`. Raises DataError for a track with other than a row a frame,
    InputError for two clips whose signals mean different things."""
    from safetensors.numpy import save_file

    meanings: dict[str, Any] = {}
    for split, found in sorted(clips.items()):
        if not found:
            continue
        arrays: dict[str, np.ndarray] = {}
        for name in sorted({name for clip in found for name in clip.tracks}):
            having = [clip for clip in found if name in clip.tracks]
            for clip in having:
                _check(name, clip)
                track = clip.tracks[name]
                one = {"shape": list(track.values.shape[1:]), "meaning": dict(track.meaning)}
                meanings[name] = _same(name, meanings.get(name), one, f"clip {clip.row['clip_id']}")
            arrays[name] = np.concatenate([clip.tracks[name].values for clip in having])
            arrays[f"has_{name}"] = np.array([name in clip.tracks for clip in found])
        folder = out / split
        folder.mkdir(parents=True, exist_ok=True)
        save_file(arrays, folder / "signals.safetensors")
        rows = [{field: clip.row.get(field) for field in CLIPS.names} for clip in found]
        pq.write_table(pa.Table.from_pylist(rows, schema=CLIPS), folder / "clips.parquet")
    (out / MEANINGS).write_text(json.dumps(meanings, indent=1, sort_keys=True) + "\n")


def merge_meanings(parts: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """What the signals of all parts mean. Raises InputError where two parts differ."""
    merged: dict[str, Any] = {}
    for part in parts:
        for name, meaning in part.items():
            merged[name] = _same(name, merged.get(name), meaning, "another part of the data set")
    return merged


def _check(name: str, clip: ClipSignals) -> None:
    length, frames = len(clip.tracks[name].values), clip.row["num_frames"]
    if length != frames:
        raise DataError(
            f"clip {clip.row['clip_id']}: {frames} frames but {length} rows of {name}; cut the clip and its signals alike"
        )


def _same(name: str, known: dict[str, Any] | None, one: dict[str, Any], whose: str) -> dict[str, Any]:
    """What was known first. Raises InputError where `one` means something else."""
    if known is None:
        return one
    mine, theirs = ({"shape": each["shape"], **each["meaning"]} for each in (known, one))
    for field in sorted({*mine, *theirs} - set(_MAY_DIFFER)):
        if mine.get(field) != theirs.get(field):
            raise InputError(
                f"signal {name!r} mismatch in {field!r}: one clip of the data set has {mine.get(field)!r}, {whose} has "
                f"{theirs.get(field)!r}. Convert them to one meaning, or leave one source out."
            )
    return known


@dataclass(frozen=True)
class SignalTable:
    """The signals of a split's clips, in memory: columns and arrays, no Python object a clip."""

    clips: pa.Table
    "One row a clip, as `CLIPS` has it, and its `part`; in order of part and shard."
    values: Mapping[str, np.ndarray]
    "Name -> float32 `[frames, ...]`: the tracks of the clips that have the signal, one after the other."
    firsts: Mapping[str, np.ndarray]
    "Name -> int64 [clips]: where a clip's track begins in `values`; -1 for a clip without."
    meanings: Mapping[str, Any]
    "Name -> shape of a row and meaning; a signal that no clip of the data set has is not in it."

    def windows(
        self,
        clip_ids: Sequence[str],
        starts: Sequence[int],
        num_frames: Sequence[int],
        *,
        mirrored: Sequence[bool] = (),
        mirror_signs: Mapping[str, Sequence[float]] | None = None,
    ) -> dict[str, np.ndarray]:
        """`<name>` float32 `[N, T, ...]` (zeros where a clip has none) and `has_<name>` bool `[N]` of N windows, by clip and
        first frame; those of a mirror image times `mirror_signs[name]`.

        Every window must be covered (`places`). Raises ConfigError for a mirror image of a signal without signs.
        """
        turned = np.asarray(mirrored or [False] * len(clip_ids), bool)
        places = self.places(clip_ids, np.asarray(starts, np.int64), np.asarray(num_frames, np.int64))
        if turned.any():
            self.require_signs(mirror_signs or {})
        each = [
            self.window(*which, mirror_signs=mirror_signs)
            for which in zip(places, starts, num_frames, turned, strict=True)
        ]
        found: dict[str, np.ndarray] = {}
        for name, described in self.meanings.items():
            shape = len(clip_ids), max(num_frames, default=0), *described["shape"]
            values = found[name] = np.zeros(shape, np.float32)
            for row, one in zip(values, each, strict=True):
                row[: len(one[name])] = one[name]
            found[f"has_{name}"] = np.array([one[f"has_{name}"] for one in each], bool)
        return found

    def window(
        self,
        place: int,
        start: int,
        num_frames: int,
        mirrored: bool = False,
        *,
        mirror_signs: Mapping[str, Sequence[float]] | None = None,
    ) -> dict[str, np.ndarray]:
        """`<name>` float32 `[T, ...]` and `has_<name>` bool `[]` of one window, of the clip at `place` (`places`)."""
        found: dict[str, np.ndarray] = {}
        for name, described in self.meanings.items():
            tail, first = tuple(described["shape"]), int(self.firsts[name][place]) if name in self.firsts else -1
            if first < 0:
                values = np.zeros((num_frames, *tail), np.float32)
            else:
                values = self.values[name][first + start : first + start + num_frames]
                if mirrored:
                    values = values * _signs(name, tail, (mirror_signs or {}).get(name, ()), described["meaning"])
            found |= {name: values, f"has_{name}": np.array(first >= 0)}
        return found

    def range_of(
        self,
        name: str,
        places: np.ndarray,
        starts: np.ndarray,
        lengths: np.ndarray,
        mirrored: np.ndarray,
        *,
        mirror_signs: Mapping[str, Sequence[float]],
    ) -> tuple[np.ndarray, np.ndarray] | None:
        """Least and greatest value `[...]` of a signal in N windows (arrays `[N]`, as `window` takes them); None where none of
        them has it. A million windows are not looked at one by one: of all tracks, the frames that any window shows."""
        if name not in self.firsts:
            return None
        begins, values = self.firsts[name][places], self.values[name]
        has = begins >= 0
        if not has.any():
            return None
        firsts = begins + starts
        seen = []
        for turned in (False, True):
            mine = has & (mirrored == turned)
            if mine.any():
                edges = np.bincount(firsts[mine], minlength=len(values) + 1)
                edges -= np.bincount(firsts[mine] + lengths[mine], minlength=len(values) + 1)
                shown = values[np.cumsum(edges[:-1]) > 0]
                described = self.meanings[name]
                signs = (
                    _signs(name, tuple(described["shape"]), mirror_signs[name], described["meaning"]) if turned else 1
                )
                seen += [shown.min(axis=0) * signs, shown.max(axis=0) * signs]
        return np.min(seen, axis=0), np.max(seen, axis=0)

    def places(self, clips: Sequence[str] | pa.ChunkedArray, starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """int64 [N]: where in `clips` those of N windows stand. Raises DataError, with how many are not and one of them, unless
        every window is covered: its clip is known, and as long."""
        wanted = clips if isinstance(clips, pa.ChunkedArray) else pa.chunked_array([pa.array(clips, pa.string())])
        found = pc.index_in(wanted, value_set=self.clips.column("clip_id"))
        if found.null_count:
            unknown = pc.unique(wanted.filter(pc.is_null(found)))
            raise DataError(
                f"{len(unknown)} of {len(pc.unique(wanted))} clips have no signals, such as {min(unknown.to_pylist())}: encode "
                "the signals of the same data set, with the split among encode_signals.splits"
            )
        places = found.to_numpy().astype(np.int64)
        frames = self.clips.column("num_frames").to_numpy()[places]
        if (short := np.flatnonzero(starts + lengths > frames)).size:
            first = short[0]
            raise DataError(
                f"{len(short)} windows end behind their clip's signals, such as one of {wanted[first]} at frame "
                f"{(starts + lengths)[first]} of {frames[first]}: windows and signals are of different cuts; encode both again"
            )
        return places

    def require_signs(self, mirror_signs: Mapping[str, Sequence[float]]) -> None:
        """Raise ConfigError for a signal without signs for its mirror image."""
        for name, described in self.meanings.items():
            _signs(name, tuple(described["shape"]), mirror_signs.get(name, ()), described["meaning"])


def _signs(name: str, shape: tuple[int, ...], signs: Sequence[float], meaning: Mapping[str, Any]) -> np.ndarray:
    if len(signs) != (shape[-1] if shape else 1):
        raise ConfigError(
            f"mirror_signs.{name} has {len(signs)} entries for rows of shape {shape} ({', '.join(meaning.get('names', ()))}): "
            "give one each, -1 where left and right change places, or switch mirror off"
        )
    return np.asarray(signs if shape else signs[0], np.float32)


def read_signals(artifact: "Artifact", split: str) -> SignalTable:
    """The signals of a split, every part of it fetched and verified. Raises DataError for a part whose files do not match;
    a split without clips gives an empty table."""
    from safetensors.numpy import load_file

    tables: list[pa.Table] = []
    arrays: list[dict[str, np.ndarray]] = []
    paths = split_files(artifact, split)
    for path in (path for path in paths if path.endswith("/signals.safetensors")):
        table = pq.read_table(artifact.fetch(path.replace("signals.safetensors", "clips.parquet")))
        part = path.split("/")[1] if path.startswith("parts/") else ""
        tables.append(table.append_column("part", pa.repeat(pa.scalar(part), len(table))))
        arrays.append(_checked(load_file(artifact.fetch(path)), table.column("num_frames").to_numpy(), path))
    clips = pa.concat_tables(tables) if tables else CLIPS.append(pa.field("part", pa.string())).empty_table()
    values, firsts = _joined(arrays, tables)
    return SignalTable(clips, values, firsts, json.loads(artifact.fetch(MEANINGS).read_text()))


def _checked(arrays: dict[str, np.ndarray], frames: np.ndarray, path: str) -> dict[str, np.ndarray]:
    """A part's arrays, once they are seen to fit its table."""
    for name in (name for name in arrays if f"has_{name}" in arrays):
        known = arrays[f"has_{name}"]
        if len(known) != len(frames) or len(arrays[name]) != frames[known].sum():
            raise DataError(
                f"{path}: {name} has {len(arrays[name])} rows, its table {len(frames)} clips of other lengths"
            )
    return arrays


def _joined(
    arrays: Sequence[Mapping[str, np.ndarray]], tables: Sequence[pa.Table]
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Of each signal the tracks of all parts in one array, and where each clip's begins."""
    names = sorted({name for part in arrays for name in part if f"has_{name}" in part})
    values, firsts = {}, {}
    for name in names:
        lengths = np.concatenate([_lengths(part, name, table) for part, table in zip(arrays, tables, strict=True)])
        values[name] = np.concatenate([part[name] for part in arrays if f"has_{name}" in part])
        firsts[name] = np.where(lengths > 0, np.cumsum(lengths) - lengths, -1)
    return values, firsts


def _lengths(arrays: Mapping[str, np.ndarray], name: str, table: pa.Table) -> np.ndarray:
    """int64 [clips of a part]: rows of each clip's track, 0 for one without."""
    frames = table.column("num_frames").to_numpy()
    return np.where(arrays[f"has_{name}"], frames, 0) if f"has_{name}" in arrays else np.zeros_like(frames)
