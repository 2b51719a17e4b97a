"""Faults of other curation systems that no other test here would catch. The whole list, with the test of each, is
`rival_faults.toml`; `python -m tests.benchmarks.rival_faults` puts each in and sees its test fail."""

import ast
import base64
import http.server
import json
import re
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tests.benchmarks.rival_faults import ROOT, table
from tests.wfm.curation.caption.caption_server import Endpoint
from wfm.artifacts import Store
from wfm.artifacts.verified import hash_file
from wfm.curation.caption.answer_cache import AnswerCache
from wfm.curation.caption.by_model import CaptionByModel
from wfm.curation.caption.caption_config import CaptionConfig
from wfm.curation.cut import shots_transnet
from wfm.curation.cut.cutter import CutConfig, Cutter
from wfm.curation.cut.shot_detection import ShotConfig
from wfm.curation.cut.shots import Span, spans
from wfm.curation.cut.timeline import Timeline
from wfm.curation.dataset.clip_table import ClipFacts, clip_row
from wfm.curation.dataset.dataset import ShardsConfig, write_samples
from wfm.curation.dataset.dataset_card import Card
from wfm.curation.dedup.cells import Cells
from wfm.curation.measure.measurements import Measures
from wfm.curation.measure.motion import Motion, VectorMotion
from wfm.curation.measure.score import ScoreClip, ScoreConfig
from wfm.curation.prefetch import ahead
from wfm.curation.rows import Score, Selection
from wfm.data import local, source
from wfm.data.decode import OpenVideo, open_video
from wfm.data.shards import ShardWriter, iter_samples
from wfm.generation.write_video import write_mp4
from wfm.records import Clip

Make = Callable[..., Path]
Row = Callable[..., Clip]


def test_every_test_of_the_table_is_there() -> None:
    faults = table()
    assert len({fault.fault for fault in faults}) == len(faults) > 40
    functions: dict[str, set[str]] = {}
    for fault in faults:
        file, _, name = fault.test.partition("::")
        if file not in functions:
            found = ast.walk(ast.parse((ROOT / file).read_text()))
            functions[file] = {node.name for node in found if isinstance(node, ast.FunctionDef | ast.ClassDef)}
        wanted = set(re.sub(r"\[.*", "", name).split("::"))
        assert wanted <= functions[file], f"{fault.fault}: {fault.test} is not there"
        assert (ROOT / fault.file).is_file(), f"{fault.fault}: {fault.file} is not there"
        assert fault.old != fault.new


def test_a_minimum_is_of_seconds_where_frames_are_uneven() -> None:
    """40 frames in 1.7 s, then 40 in 6.7 s: by the average rate both shots would last 4.2 s."""
    pts = np.concatenate([np.arange(40), 40 + 4 * np.arange(40)])
    config = ShotConfig(minimum_seconds=2, maximum_seconds=6)
    kept, short = spans(Timeline(pts, 200, Fraction(1, 24)), [40], config)
    assert short == [Span(0, 40)]
    assert kept == [Span(40, 60), Span(60, 80)]


@pytest.mark.parametrize("count", [2, 5])
def test_neighbouring_clips_cost_one_decode(
    tmp_path: Path,
    write_video: Make,
    make_scenes: Callable[..., np.ndarray],
    monkeypatch: pytest.MonkeyPatch,
    count: int,
) -> None:
    path = write_video(tmp_path / "a.mp4", make_scenes([60]), **{"x264-params": "keyint=60:scenecut=0"})
    with open_video(path) as video:
        pts = [int(frame.pts) for frame in video.frames()]
    begun: list[Path] = []
    shown = OpenVideo.shown

    def counted(self: OpenVideo, start_pts: int | None = None, *, strict: bool = False) -> Any:
        begun.append(self.path)
        return shown(self, start_pts, strict=strict)

    with open_video(path) as video:
        cutter = Cutter(video, CutConfig(copy_codecs=()))
        monkeypatch.setattr(OpenVideo, "shown", counted)
        for k in range(count):
            cutter.cut(pts[10 * k], pts[10 * k + 10], 10, tmp_path / f"{k}.mp4")
    assert begun == [path]


def test_windows_of_shot_detection_go_through_the_network_together(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    sizes: list[int] = []

    def network(batch: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Only its batches matter here, not what it says."""
        sizes.append(len(batch))
        return torch.zeros(len(batch), 100, 1), {"many_hot": torch.zeros(len(batch), 100, 1)}

    monkeypatch.setattr(shots_transnet, "load", lambda *_: network)
    finder = shots_transnet.TransNetShots(ShotConfig(detector="transnetv2", transnet_batch=3))
    for frame in np.zeros((300, 27, 48, 3), np.uint8):
        finder.push(frame)
    assert finder.finish() == []
    assert sizes == [3, 3]


def vectors(width: int, height: int, blocks: tuple[int, int]) -> np.ndarray:
    """A P frame's table as the decoder exports it, all of it moved by 3 pixels to the right, divided into blocks."""
    fields = [("source", "i4"), ("w", "u1"), ("h", "u1"), ("dst_x", "i2"), ("dst_y", "i2"), ("motion_x", "i4"),
              ("motion_y", "i4"), ("motion_scale", "u2")]  # fmt: skip
    w, h = blocks
    rows = [(-1, w, h, x + w // 2, y + h // 2, -12, 0, 4) for y in range(0, height, h) for x in range(0, width, w)]
    return np.array(rows, dtype=fields)


def test_blocks_of_any_size_count_by_their_area() -> None:
    found: list[Motion] = []
    for blocks in ((16, 16), (4, 4), (8, 4), (4, 8), (32, 32), (64, 64)):
        motion = VectorMotion(128, 128)
        for number, kind in enumerate((1, 2, 2)):
            frame = SimpleNamespace(pict_type=kind, time=number / 24, side_data={})
            if kind == 2:
                divided = vectors(128, 128, blocks)
                frame.side_data = {"MOTION_VECTORS": SimpleNamespace(to_ndarray=lambda made=divided: made)}
            motion.add(frame)
        result = motion.result()
        assert result is not None, f"blocks of {blocks} were not counted"
        found.append(result)
    assert [motion.speed for motion in found] == pytest.approx([3 * 24 / 128] * 6)
    assert [motion.pan_x for motion in found] == pytest.approx([3 * 24 / 128] * 6)


def test_the_measure_of_motion_is_the_same_for_every_encoder(make_clip: Make, make_row: Row) -> None:
    ways: list[dict[str, str]] = [{"crf": "18"}, {"crf": "36"}, {"g": "1"}, {"codec": "mpeg4"}]
    flows = []
    for way in ways:
        path, measured = make_clip(1, **way), list[Measures]()
        ScoreClip(ScoreConfig(measures=True), lambda _, path=path: path, measured)(make_row("a"))
        flows.append(measured[0].flow)
    assert flows == pytest.approx([2 * 24 / 128] * len(ways), rel=0.05)


class Ranges(http.server.BaseHTTPRequestHandler):
    """Serves ``size`` zeros, by the range that is asked for."""

    size: int
    zeros = bytes(1 << 16)

    def do_GET(self) -> None:
        asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        first, last = (int(asked[1]), min(int(asked[2]), self.size - 1)) if asked else (0, self.size - 1)
        self.send_response(206 if asked else 200)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Range", f"bytes {first}-{last}/{self.size}")
        self.send_header("Content-Length", str(last + 1 - first))
        self.end_headers()
        if self.command == "GET":
            for _ in range((last + 1 - first) >> 16):
                self.wfile.write(self.zeros)
            self.wfile.write(self.zeros[: (last + 1 - first) % (1 << 16)])

    do_HEAD = do_GET

    def log_message(self, *_: Any) -> None:
        pass


@pytest.mark.alone
def test_a_file_is_never_held_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """80 MiB are hashed, and fetched into the cache, within 48."""
    monkeypatch.setenv("WFM_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "long.mp4"
    with path.open("wb") as file:
        file.truncate(80 << 20)
    store = Store.open(tmp_path / "store")
    monkeypatch.setenv("WFM_SOURCE_ADDRESSES", "127.0.0.1")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), type("Long", (Ranges,), {"size": 80 << 20}))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    tracemalloc.start()
    try:
        _, own = hash_file(path)
        local, digest = source.fetch_source(store, f"http://127.0.0.1:{server.server_port}/long.mp4")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        server.shutdown()
        server.server_close()
    assert local != path
    assert digest == own
    assert peak < 48 << 20


def test_decoding_goes_on_while_a_model_works() -> None:
    made = [threading.Event() for _ in range(4)]

    def decoded() -> Iterator[int]:
        for number, event in enumerate(made):
            event.set()
            yield number

    with ahead(decoded(), 1000, lambda _: 1) as items:
        assert next(items) == 0
        assert all(event.wait(20) for event in made), "while the first is looked at, the others are made"
        assert list(items) == [1, 2, 3]


def test_no_sample_is_no_shard(tmp_path: Path) -> None:
    with ShardWriter(tmp_path, "ab") as writer:
        pass
    assert writer.shards == list(tmp_path.iterdir()) == []


def test_a_window_is_shown_its_own_frames(tmp_path: Path, make_row: Row) -> None:
    """Frame n is as bright as n says, and the prompt says which window it is about."""
    import cv2

    server = Endpoint()
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        frames = np.repeat(np.arange(40, dtype=np.uint8)[:, None, None, None] * 6, 64, axis=1)
        write_mp4(tmp_path / "clip.mp4", np.ascontiguousarray(np.broadcast_to(frames, (40, 64, 96, 3))), 8.0)
        asked = {"source": "endpoint", "prompt": "This is window {window}.", "shown": {"window_frames": 16}}
        config = CaptionConfig.parse({**asked, "endpoint": {"url": server.url, "model": "m"}})
        cache = AnswerCache(Store.open(tmp_path / "store"))
        step = CaptionByModel(config, lambda _: tmp_path / "clip.mp4", cache, [])
        list(step(make_row("a", clip_sha256="a" * 64, num_frames=40, fps=8.0, end_seconds=5.0)))
        step.close()
    finally:
        server.shutdown()
        server.server_close()
    shown = {}
    for request in server.asked:
        *pictures, text = request["messages"][0]["content"]
        found = re.search(r"This is window (\d)", text["text"])
        data = [base64.b64decode(picture["image_url"]["url"].partition(",")[2]) for picture in pictures]
        lights = [cv2.imdecode(np.frombuffer(each, np.uint8), cv2.IMREAD_COLOR).mean() for each in data]
        shown[int(found[1]) if found else 0] = [round(float(light) / 6) for light in lights]
    assert shown == {1: [0, 4, 8, 12], 2: [16, 20, 24, 28], 3: [32, 36]}


def test_comparisons_grow_little_faster_than_the_clips() -> None:
    work = []
    for count in (2000, 8000):
        rng = np.random.default_rng(0)
        points = rng.normal(size=(count // 20, 16))[rng.integers(0, count // 20, count)] + 0.1 * rng.normal(
            size=(count, 16)
        )
        points = (points / np.linalg.norm(points, axis=1, keepdims=True)).astype(np.float32)
        work.append(sum(cell.comparisons(None) for cell in Cells(points, 0.1, leaf=64)))
    assert work[1] < 4**1.4 * work[0]
    assert work[1] < 8000**2 / 2 / 10


def selected(clip: Clip) -> Selection:
    return Selection(
        clip_id=clip.clip_id, kept=True, reason="", duplicate_of="", duplicate_tier="", duplicate_cosine=0.0,
        split="train", group=clip.clip_id,
    )  # fmt: skip


def test_clips_without_captions_are_written(tmp_path: Path, make_clip: Make, make_row: Row) -> None:
    path = make_clip(0)
    clip = make_row("a", clip_sha256=local.known_hash(path))
    part: Any = SimpleNamespace(out=tmp_path / "out", name="0a", config=ShardsConfig())
    shards, _ = write_samples([ClipFacts(clip, selected(clip), None, None)], lambda _: path, part)
    (sample,) = iter_samples(tmp_path / "out" / shards["a"])
    assert sample.members["mp4"] == path.read_bytes()
    assert sample.members["txt"] == b""


def test_the_summary_does_not_grow_with_the_videos(make_row: Row, make_score: Callable[..., Score]) -> None:
    sizes = []
    for count in (100, 2000):
        card = Card()
        rows = []
        for number in range(count):
            clip = make_row(f"clip {number}")
            card.add_video("ok", {"source": f"/in/{number}.mp4", "licence": "CC0", "consent": "given"})
            rows.append(
                clip_row(ClipFacts(clip, selected(clip), make_score(clip), None), "shards/train/overflow/a-0.tar")
            )
        card.add_clips([row.__dict__ for row in rows], {})
        sizes.append(len(json.dumps(card.values())))
    assert sizes[1] < 1.1 * sizes[0]
