"""Captions from an endpoint, against a real HTTP server that stalls, answers garbage, swaps answers, refuses or dies."""

import base64
import json
import re
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wfm.curation.caption import CaptionClip, CaptionConfig, CaptionWindow
from wfm.curation.caption_endpoint import EndpointConfig, Window, identity_of, windows
from wfm.curation.step import run_step
from wfm.errors import ConfigError, TryAgain
from wfm.generation.write_video import write_mp4
from wfm.records import Clip

Row = Callable[..., Clip]


class Endpoint(ThreadingHTTPServer):
    """Answers as a model would, unless told otherwise: `faults` are taken one a request, in order."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.faults: list[str] = []
        self.asked: list[dict[str, Any]] = []
        self.keys: list[str] = []
        self.stalled = threading.Event()
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hung up is part of the game."""


class Handler(BaseHTTPRequestHandler):
    server: Endpoint

    def log_message(self, *_: Any) -> None:
        """Quiet."""

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            self.server.asked.append(request)
            self.server.keys.append(self.headers.get("Authorization", ""))
            fault = self.server.faults.pop(0) if self.server.faults else ""
        text = request["messages"][0]["content"][-1]["text"]
        found = re.search(r"exactly '([0-9a-f]+)'", text)
        assert found
        code = found[1]
        answer = {"code": code, "short": f"short {code}", "medium": f"medium {code}", "long": f"long {code}"}
        if fault == "stall":
            self.server.stalled.wait(5)
        if fault == "die":
            self.connection.close()
            return
        if fault.isdigit():
            self.respond(int(fault), {"error": {"message": "no"}})
            return
        if fault == "not json at all":
            self.respond(200, b"<html>gateway</html>")
            return
        said = json.dumps(answer)
        if fault == "garbage":
            said = "Sure! Here is a caption: a cat."
        if fault == "swap":
            said = json.dumps({**answer, "code": "0" * 12, "medium": "another clip's"})
        if fault == "empty":
            said = json.dumps({**answer, "medium": " "})
        message = {"role": "assistant", "content": said}
        choice = {"index": 0, "finish_reason": "stop", "message": message}
        self.respond(200, {"id": "x", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice]})

    def respond(self, status: int, body: Any) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        if status in (429, 503):
            self.send_header("Retry-After-Ms", "1")
        self.end_headers()
        self.wfile.write(data)


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    server = Endpoint()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.stalled.set()
    server.shutdown()
    server.server_close()


@pytest.fixture
def video(tmp_path: Path) -> Path:
    """40 frames at 8 a second; each as bright as its number says."""
    frames = np.repeat(np.arange(40, dtype=np.uint8)[:, None, None, None] * 6, 64, axis=1)
    write_mp4(tmp_path / "clip.mp4", np.ascontiguousarray(np.broadcast_to(frames, (40, 64, 96, 3))), 8.0)
    return tmp_path / "clip.mp4"


def config(endpoint: Endpoint, **more: Any) -> CaptionConfig:
    values = {"url": endpoint.url, "model": "m", "window_frames": 16, "timeout_seconds": 1.0, "retries": 2, **more}
    return CaptionConfig.parse({"source": "endpoint", "endpoint": values})


def caption(make_row: Row, video: Path, settings: CaptionConfig) -> tuple[Any, list[CaptionWindow]]:
    said: list[CaptionWindow] = []
    step = CaptionClip(settings, lambda _: video, said)
    rows, left = run_step(step, [make_row("a", num_frames=40, fps=8.0)])
    return (rows[0] if rows else left[0].reason), said


def test_a_clip_is_asked_about_in_windows(make_row: Row, video: Path, endpoint: Endpoint) -> None:
    row, said = caption(make_row, video, config(endpoint, largest_side=48))
    assert [(one.start_frame, one.end_frame) for one in said] == [(0, 16), (16, 32), (32, 40)]
    assert row.caption == " ".join(one.medium for one in said)
    assert row.caption_source == "endpoint:m"
    assert all(one.clip_sha256 == row.clip_sha256 for one in said)
    shown = sorted(len(request["messages"][0]["content"]) - 1 for request in endpoint.asked)
    assert shown == [2, 4, 4]  # two frames a second of 8: windows of 16, 16 and 8 frames
    picture = endpoint.asked[0]["messages"][0]["content"][0]["image_url"]["url"]
    import cv2

    data = np.frombuffer(base64.b64decode(picture.removeprefix("data:image/jpeg;base64,")), np.uint8)
    assert cv2.imdecode(data, cv2.IMREAD_COLOR).shape == (32, 48, 3)
    assert endpoint.asked[0]["response_format"]["json_schema"]["strict"]


@pytest.mark.parametrize("fault", ["stall", "die", "429", "503", "500", "garbage", "swap", "empty", "not json at all"])
def test_one_wrong_answer_is_asked_again(make_row: Row, video: Path, endpoint: Endpoint, fault: str) -> None:
    wanted, _ = caption(make_row, video, config(endpoint))
    endpoint.faults = [fault]
    found, said = caption(make_row, video, config(endpoint))
    assert found == wanted
    assert len(said) == 3
    assert len(endpoint.asked) >= 7


@pytest.mark.parametrize(("fault", "reason"), [("garbage", "caption_garbled"), ("swap", "caption_swapped"),
                                               ("empty", "caption_garbled"), ("400", "caption_refused")])  # fmt: skip
def test_answers_that_stay_wrong_are_counted_and_never_taken(
    make_row: Row, video: Path, endpoint: Endpoint, fault: str, reason: str
) -> None:
    endpoint.faults = [fault] * 100
    found, said = caption(make_row, video, config(endpoint))
    assert found.startswith(reason)
    assert not said


@pytest.mark.parametrize("fault", ["503", "die", "stall"])
def test_an_endpoint_that_stays_away_stops_the_stage_and_keeps_what_it_said(
    make_row: Row, video: Path, endpoint: Endpoint, tmp_path: Path, fault: str
) -> None:
    settings = config(endpoint, cache=str(tmp_path / "cache"), concurrency=1, timeout_seconds=0.3)
    endpoint.faults = ["", "", *[fault] * 100]  # two windows are answered, then it is gone
    with pytest.raises(TryAgain, match="did not answer after 3 tries"):
        caption(make_row, video, settings)
    endpoint.faults, endpoint.asked = [], []
    row, said = caption(make_row, video, settings)
    assert len(endpoint.asked) == 1  # the two are not asked again
    assert row.caption == " ".join(one.medium for one in said)
    endpoint.asked = []
    assert caption(make_row, video, settings)[0] == row
    assert not endpoint.asked


def test_a_damaged_answer_in_the_cache_is_asked_again(
    make_row: Row, video: Path, endpoint: Endpoint, tmp_path: Path
) -> None:
    settings = config(endpoint, cache=str(tmp_path / "cache"))
    row, _ = caption(make_row, video, settings)
    files = sorted((tmp_path / "cache").rglob("*.json"))
    files[0].write_text(files[1].read_text())  # another window's
    files[2].write_text("{")
    endpoint.asked = []
    assert caption(make_row, video, settings)[0] == row
    assert len(endpoint.asked) == 2


def test_identity_is_of_everything_that_decides_an_answer() -> None:
    first = EndpointConfig(model="m")
    base = identity_of("a", Window(0, 16), first)
    others = [
        identity_of("b", Window(0, 16), first),
        identity_of("a", Window(0, 17), first),
        *(identity_of("a", Window(0, 16), first.model_copy(update=change)) for change in (
            {"model": "n"}, {"prompt": "What?"}, {"frames_per_second": 1.0}, {"largest_side": 100})),
    ]  # fmt: skip
    assert len({base, *others}) == 7
    assert (
        identity_of("a", Window(0, 16), first.model_copy(update={"url": "http://elsewhere", "concurrency": 1})) == base
    )


def test_windows() -> None:
    assert windows(600, 256) == [Window(0, 256), Window(256, 600)]
    assert windows(700, 256) == [Window(0, 256), Window(256, 512), Window(512, 700)]
    assert windows(5, 256) == [Window(0, 5)]
    assert windows(512, 256) == [Window(0, 256), Window(256, 512)]


def test_the_key_comes_from_the_environment_and_is_written_nowhere(
    make_row: Row, video: Path, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WFM_CAPTION_API_KEY", "very secret")
    settings = config(endpoint)
    caption(make_row, video, settings)
    assert set(endpoint.keys) == {"Bearer very secret"}
    assert "secret" not in json.dumps(settings.resolved())
    endpoint.faults = ["401"] * 9
    with pytest.raises(ConfigError, match="refuses the key: set the environment variable WFM_CAPTION_API_KEY"):
        caption(make_row, video, settings)
    endpoint.faults = ["404"] * 9
    with pytest.raises(ConfigError, match="has no model 'm'"):
        caption(make_row, video, settings)


def test_nobody_to_ask_is_refused_before_anything_runs() -> None:
    with pytest.raises(ConfigError, match=r"endpoint\.url='' and endpoint\.model='': give both"):
        CaptionConfig.parse({"source": "endpoint"})
    with pytest.raises(ConfigError, match="length"):
        CaptionConfig.parse({"endpoint": {"length": "huge"}})
