"""Steps over the clips of one part: rows and skips both end in tables, and nothing is lost between them."""

from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow.parquet as pq
import pytest

from wfm.curation.per_clip import or_skip, part_plan, run_per_clip
from wfm.curation.step import Skip, SkippedRow
from wfm.errors import DataError
from wfm.records import Caption, Clip

Row = Callable[..., Clip]


class Worded:
    """A step that has a word for every clip but "b"."""

    name = "worded"

    def __call__(self, item: Clip) -> Iterable[Caption]:
        if item.clip_id == "b":
            raise Skip("speechless", "nothing comes to mind")
        return [Caption(clip_id=item.clip_id, clip_sha256=item.clip_sha256, caption="!", caption_source="measured")]


class Source:
    """What a store gives for a part's key."""

    def __init__(self, clips: list[Clip]) -> None:
        self.clips = clips
        self.manifest = SimpleNamespace(files=SimpleNamespace(bytes=300))

    def table(self, name: str) -> Any:
        assert name == "clips"
        return Clip.to_table(self.clips)

    def fetch(self, path: str) -> Path:
        return Path(path)


def test_rows_and_skips_are_written_and_counted(make_row: Row, tmp_path: Path) -> None:
    source = Source([make_row(name) for name in "cba"])
    part: Any = SimpleNamespace(
        arguments={"clips": "key"}, out=tmp_path, after_death=False, work=Counter(),
        open_store=lambda: SimpleNamespace(part=lambda key: source, objects=SimpleNamespace(names=lambda folder: [])),
    )  # fmt: skip
    counts, skipped = run_per_clip(part, lambda fetch: Worded(), Caption, "captions")
    assert counts == {"inputs": 3, "outputs": 2}
    assert (part.work["clips"], part.work["bytes"]) == (3, 300)
    assert skipped == {"speechless": 1}
    rows = Caption.from_table(pq.read_table(tmp_path / "captions.parquet"))
    assert [row.clip_id for row in rows] == ["a", "c"], "in order of clip id, whatever order the table has"
    (skip,) = SkippedRow.from_table(pq.read_table(tmp_path / "skips.parquet"))
    assert (skip.step, skip.video_id, skip.reason) == ("worded", "video of b", "speechless: nothing comes to mind")


def test_parts_without_clips_are_not_planned() -> None:
    def entry(name: str, outputs: int) -> Any:
        return SimpleNamespace(name=name, digest=f"digest {name}", key=f"key {name}", counts={"outputs": outputs})

    clips: Any = SimpleNamespace(parts=(entry("0a", 3), entry("0b", 0)))
    assert part_plan(clips) == ({"0a": {"clips": "digest 0a"}}, {"0a": {"clips": "key 0a"}})


def test_only_an_undecodable_video_is_a_skip_damage_in_the_store_is_not() -> None:
    class Undecodable(DataError):
        code, words = "decode_error", "it broke"

    def fail(error: Exception) -> None:
        raise error

    with pytest.raises(Skip, match="decode_error: it broke"):
        or_skip(fail, Undecodable("x"))
    with pytest.raises(DataError, match="sha256"):
        or_skip(fail, DataError("sha256 differs"))
    assert or_skip(max, 1, 2) == 2
