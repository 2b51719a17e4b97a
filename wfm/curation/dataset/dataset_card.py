"""The card of a data set, added up part by part: counts, reasons, splits, rights, and the spread of every score.

Memory does not grow with the corpus. Quantiles are of the 65,536 clips with the smallest ids, which are hashes and so a fair
sample; distinct sessions and groups are counted by their smallest hashes. Both are exact up to that many, and ``estimated``
says when they are not. Minimum and maximum are always exact.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from wfm.curation.dataset.clip_table import MEASURED
from wfm.curation.rows import SPLITS
from wfm.curation.source.rights import UNKNOWN, is_simulated
from wfm.curation.step import reason_code

if TYPE_CHECKING:
    import pyarrow as pa

SCHEMA_VERSION = 1
"""Of a sample's JSON and of the card."""

SHOWN_CLUSTERS = 100
"""So many clusters, the largest, stand in the card; the rest in ``clips.parquet``."""

_KEPT = 65_536


def _is_image(row: Mapping[str, Any]) -> bool:
    """Whether a row of the public tables is that of a still image."""
    return row.get("num_frames") == 1 and row.get("fps") == 0


class Distinct:
    """How many different texts there were."""

    def __init__(self, limit: int = _KEPT) -> None:
        self._limit, self._hashes = limit, set[int]()
        self.estimated = False

    def add(self, text: str) -> None:
        """Count a text, once however often it comes."""
        self._hashes.add(int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big"))
        if len(self._hashes) > 2 * self._limit:
            self._hashes = set(sorted(self._hashes)[: self._limit])
            self.estimated = True

    @property
    def count(self) -> int:
        """Exact unless `estimated`; then from how densely the smallest hashes lie (error about 1 / sqrt(limit))."""
        if not self.estimated:
            return len(self._hashes)
        smallest = sorted(self._hashes)[: self._limit]
        return round((self._limit - 1) * 2**64 / smallest[-1])


class Spread:
    """Minimum, 5, 50, 95 % and maximum of a score."""

    def __init__(self, limit: int = _KEPT) -> None:
        self._limit, self._values = limit, dict[str, float]()
        self._ends = (float("inf"), float("-inf"))
        self.estimated = False

    def add(self, clip_id: str, value: float) -> None:
        """One clip's score."""
        self._values[clip_id] = value
        self._ends = (min(self._ends[0], value), max(self._ends[1], value))
        if len(self._values) > 2 * self._limit:
            self._values = dict(sorted(self._values.items())[: self._limit])
            self.estimated = True

    def values(self) -> dict[str, float]:
        """The five numbers."""
        marks = np.quantile(np.array(list(self._values.values())), [0.05, 0.5, 0.95])
        numbers = (self._ends[0], *marks, self._ends[1])
        return dict(zip(("min", "p05", "p50", "p95", "max"), (round(float(m), 6) for m in numbers), strict=True))


class _Split:
    def __init__(self) -> None:
        self.clips = self.images = self.frames = self.shards = self.bytes = 0
        self.seconds = 0.0
        self.sessions, self.groups = Distinct(), Distinct()

    def values(self) -> dict[str, Any]:
        return {
            "clips": self.clips,
            **({"images": self.images} if self.images else {}),
            "sessions": self.sessions.count,
            "groups": self.groups.count,
            "frames": self.frames,
            "seconds": round(self.seconds, 6),
            "shards": self.shards,
            "bytes": self.bytes,
        }


class Card:
    """Sums over the parts of a data set; `values` is what ``card.json`` holds."""

    def __init__(self) -> None:
        self.videos, self.refused, self.captions = Counter[str](), Counter[str](), Counter[str]()
        self.motions, self.sizes, self.bins = Counter[str](), Counter[str](), Counter[str]()
        self.categories, self.clusters, self.types = Counter[str](), Counter[str](), Counter[str]()
        self.rights: dict[tuple[str, str], Counter[str]] = {}
        self.splits = {split: _Split() for split in SPLITS}
        self.spreads: dict[bool, dict[str, Spread]] = {True: {}, False: {}}
        self.spans, self.without_clips = Counter[str](), Counter[str]()
        self.span_seconds: dict[str, float] = defaultdict(float)
        self.filled: dict[str, set[str]] = {}
        self.total = self.with_actions = self.simulated = 0
        self.images = Counter[str]()
        "Still images among the files and the clips, and among those kept; nothing where there is none."

    def add_clips(self, rows: Iterable[dict[str, Any]], rights: dict[str, tuple[str, str]]) -> None:
        """Rows of `ClipRow`; `rights`: video id -> (licence, consent)."""
        for row in rows:
            self.total += 1
            self.images["total"] += _is_image(row)
            self._fill("clips.parquet", row)
            for name in MEASURED:
                if isinstance(row[name], float):
                    self.spreads[row["kept"]].setdefault(name, Spread()).add(row["clip_id"], row[name])
            if not row["kept"]:
                self.refused[row["reason"]] += 1
                continue
            self._add_kept(row)
            of_right = self.rights.setdefault(rights.get(row["video_id"], (UNKNOWN, UNKNOWN)), Counter())
            of_right["clips"] += 1

    def add_outcome(
        self, videos: Iterable[str], clips: Iterable[dict[str, Any]], skips: Iterable[dict[str, Any]]
    ) -> None:
        """What became of the usable videos (ids) of a part: its rows of `ClipRow` and of `SkippedRow`. A video that gave no
        clip counts under the reason that most of its spans and clips have."""
        reasons: dict[str, Counter[str]] = {video: Counter() for video in videos}
        gave = set()
        for row in clips:
            if row["kept"]:
                gave.add(row["video_id"])
            elif row["video_id"] in reasons:
                reasons[row["video_id"]][row["reason"]] += 1
        for row in skips:
            code = reason_code(row["reason"])
            self._fill("skips.parquet", row)
            self.spans[code] += 1
            self.span_seconds[code] += max(row["end_seconds"] - row["start_seconds"], 0.0)
            if row["video_id"] in reasons:
                reasons[row["video_id"]][code] += 1
        for video, counted in reasons.items():
            if video not in gave:
                self.without_clips[max(sorted(counted), key=counted.__getitem__, default="no_span")] += 1

    def add_long(self, table: str, columns: "pa.Table") -> None:
        """Columns of text that no row above has: whether they hold anything."""
        import pyarrow.compute as pc

        filled = self.filled.setdefault(table, set())
        for name in columns.column_names:
            if name not in filled and pc.any(pc.not_equal(columns[name], "")).as_py():
                filled.add(name)

    def _fill(self, table: str, row: dict[str, Any]) -> None:
        filled = self.filled.setdefault(table, set())
        filled |= {name for name, value in row.items() if name not in filled and value not in (None, "")}

    def _add_kept(self, row: dict[str, Any]) -> None:
        split = self.splits[row["split"]]
        split.clips += 1
        split.images += _is_image(row)
        self.images["kept"] += _is_image(row)
        split.frames += row["num_frames"]
        split.seconds += row["end_seconds"] - row["start_seconds"]
        split.sessions.add(row["session_id"])
        split.groups.add(row["group"])
        self.with_actions += row["has_actions"]
        self.captions[row["caption_source"] or "none"] += 1
        self.motions[row["motion_source"] or "none"] += 1
        self.sizes[f"{row['width']}x{row['height']}"] += 1
        for counter, column in (
            (self.categories, "category"), (self.clusters, "cluster_name"), (self.types, "video_type"),
        ):  # fmt: skip
            if row[column] is not None:
                counter[row[column]] += 1
        folders = row["shard"].split("/")
        self.bins[folders[2] if len(folders) == 4 else "all in one"] += 1

    def add_video(self, status: str, row: dict[str, Any]) -> None:
        """One input file, a row of the public table; `status` is ok or the code of what was wrong."""
        self.videos[status] += 1
        self._fill("videos.parquet", row)
        licence, consent = row["licence"], row["consent"]
        self.simulated += is_simulated(row["source"])
        self.images["files"] += _is_image(row)
        if status == "ok":
            self.rights.setdefault((licence, consent), Counter())["videos"] += 1

    def add_shard(self, split: str, size: int) -> None:
        """One shard [bytes]."""
        self.splits[split].shards += 1
        self.splits[split].bytes += size

    @property
    def kept(self) -> int:
        """Clips in the shards."""
        return sum(split.clips for split in self.splits.values())

    def values(self) -> dict[str, Any]:
        """The card."""
        ranges = [spread for side in self.spreads.values() for spread in side.values()]
        counted = [distinct for split in self.splits.values() for distinct in (split.sessions, split.groups)]
        return {
            "schema_version": SCHEMA_VERSION,
            "videos": {"total": sum(self.videos.values()), "ok": self.videos["ok"], "simulated": self.simulated},
            "videos_without_clips": dict(sorted(self.without_clips.items())),
            "videos_not_used": {reason: count for reason, count in sorted(self.videos.items()) if reason != "ok"},
            "clips": {"total": self.total, "kept": self.kept, "with_actions": self.with_actions},
            **({"images": dict(sorted(self.images.items()))} if self.images["files"] else {}),
            "clips_refused": dict(sorted(self.refused.items())),
            "spans_not_cut": {
                code: {"spans": count, "seconds": round(self.span_seconds[code], 3)}
                for code, count in sorted(self.spans.items())
            },
            "filled_columns": {table: sorted(names) for table, names in sorted(self.filled.items())},
            "caption_sources": dict(sorted(self.captions.items())),
            "motion_sources": dict(sorted(self.motions.items())),
            "picture_sizes": dict(sorted(self.sizes.items())),
            "bins": dict(sorted(self.bins.items())),
            "categories": dict(sorted(self.categories.items())),
            "clusters": dict(self.clusters.most_common(SHOWN_CLUSTERS)),
            "video_types": dict(sorted(self.types.items())),
            "rights": [
                {"licence": licence, "consent": consent, "videos": found["videos"], "clips": found["clips"]}
                for (licence, consent), found in sorted(self.rights.items())
            ],
            "splits": {name: split.values() for name, split in self.splits.items()},
            "scores_kept": {name: spread.values() for name, spread in sorted(self.spreads[True].items())},
            "scores_refused": {name: spread.values() for name, spread in sorted(self.spreads[False].items())},
            "estimated": any(r.estimated for r in ranges) or any(c.estimated for c in counted),
        }
