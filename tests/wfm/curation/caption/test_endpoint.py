"""Captions from an endpoint, against a real HTTP server that stalls, answers garbage, swaps answers, refuses or dies.

Each clip has its own brightness, the server says how bright what it sees is: a caption that ends up beside another clip shows.
"""

import base64
import io
import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.wfm.curation.caption.caption_server import Endpoint
from tests.wfm.curation.caption.caption_store import TABLES, Answer, caption, light, make_clips, run_stage
from wfm.artifacts import Artifact, Store
from wfm.curation.caption.caption_config import CaptionConfig
from wfm.curation.caption.expected_questions import Expected, expected
from wfm.curation.caption.prompts import LENGTHS
from wfm.errors import ConfigError, TryAgain

FRAMES = (40, 8, 6, 12, 3)
"Frames of the clips: windows of 16, 16, 8; one window each; and a clip too short for one."
RIGHT = {0: " ".join(["brightness 30"] * 3), **{clip: f"brightness {light(clip)}" for clip in (1, 2, 3)}}
WINDOWS = 6
Ask = Callable[[CaptionConfig], Answer]


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, Artifact]:
    folder = tmp_path_factory.mktemp("clips")
    store = Store.open(folder / "store")
    return store, make_clips(store, folder, FRAMES)


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    server = Endpoint()
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    yield server
    server.released.set()
    server.shutdown()
    server.server_close()


def settings(endpoint: Endpoint, *, more: dict[str, Any] | None = None, **of_endpoint: Any) -> CaptionConfig:
    reached = {"url": endpoint.url, "model": "m", "timeout_seconds": 10.0, "retries": 2, **of_endpoint}
    return CaptionConfig.parse(
        {"source": "endpoint", "endpoint": reached, "shown": {"window_frames": 16}, "length": "caption", **(more or {})}
    )


@pytest.fixture
def ask(clips: tuple[Store, Artifact], tmp_path: Path) -> Ask:
    """Caption the clips; what earlier tests were answered is forgotten."""
    store, artifact = clips
    store.objects.delete_tree("captions")
    return lambda config: caption(store, artifact, tmp_path / "out", config)


def test_windows_are_asked_about_and_become_one_caption(
    ask: Ask, clips: tuple[Store, Artifact], endpoint: Endpoint
) -> None:
    found = ask(settings(endpoint, more={"shown": {"window_frames": 16, "largest_side": 24}}))
    assert found.words == RIGHT
    assert found.skipped == {"caption_too_short": 1}
    assert [(row.start_frame, row.end_frame) for row in found.windows[:3]] == [(0, 16), (16, 32), (32, 40)]
    assert len(found.windows) == len(endpoint.asked) == WINDOWS
    assert {row.caption_source for row in found.captions.values()} == {"endpoint:m"}
    for row in found.windows:
        assert row.clip_sha256 == found.captions[int(row.clip_id, 16)].clip_sha256
    shown = sorted(len(request["messages"][0]["content"]) - 1 for request in endpoint.asked)
    assert shown == [2, 2, 2, 3, 4, 4]  # two pictures a second of 8 frames
    foreseen = expected(clips[1], settings(endpoint))
    assert foreseen == Expected(5, 1, WINDOWS, len(endpoint.asked), sum(shown), WINDOWS * 1024)
    assert expected(clips[1], CaptionConfig()) is None
    url = endpoint.asked[0]["messages"][0]["content"][0]["image_url"]["url"]
    import cv2

    data = np.frombuffer(base64.b64decode(url.removeprefix("data:image/jpeg;base64,")), np.uint8)
    assert cv2.imdecode(data, cv2.IMREAD_COLOR).shape == (16, 24, 3)
    assert endpoint.asked[0]["response_format"]["json_schema"]["strict"]


def test_a_window_can_be_shown_as_a_film(ask: Ask, endpoint: Endpoint) -> None:
    import av

    ask(settings(endpoint, more={"shown": {"window_frames": 16, "frames_as": "video"}}))
    shapes = []
    for request in endpoint.asked:
        (film, _) = request["messages"][0]["content"]
        data = base64.b64decode(film["video_url"]["url"].removeprefix("data:video/mp4;base64,"))
        with av.open(io.BytesIO(data)) as container:
            frames = [frame.to_ndarray(format="gray") for frame in container.decode(video=0)]
            assert container.streams.video[0].average_rate == 2
        shapes.append((len(frames), *frames[0].shape))
    assert sorted(shapes) == [(count, 32, 48) for count in (2, 2, 2, 3, 4, 4)]


ONCE = [
    "stall", "drip", "die", "die in the middle", "429", "503", "500", "garbage", "schema", "other code", "empty", "endless",
    "10 MB", "not json at all",
]  # fmt: skip


@pytest.mark.parametrize("fault", ONCE)
def test_one_wrong_answer_is_asked_again(ask: Ask, endpoint: Endpoint, fault: str) -> None:
    endpoint.faults = [fault]
    found = ask(settings(endpoint, timeout_seconds=1.0 if fault in ("stall", "drip") else 10.0))
    assert found.words == RIGHT
    assert found.skipped == {"caption_too_short": 1}
    assert len(endpoint.asked) > WINDOWS


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("garbage", "caption_garbled"), ("other code", "caption_swapped"), ("10 MB", "caption_garbled"),
        ("400", "caption_refused"), ("500", "caption_unanswered"), ("die", "caption_unanswered"),
        ("die in the middle", "caption_unanswered"), ("stall", "caption_unanswered"),
    ],
)  # fmt: skip
def test_a_clip_that_is_never_answered_rightly_is_counted_and_the_others_go_on(
    ask: Ask, endpoint: Endpoint, fault: str, reason: str
) -> None:
    endpoint.always = {light(2): fault}
    found = ask(settings(endpoint, retries=0, timeout_seconds=2.0 if fault == "stall" else 10.0))
    assert found.skipped == {reason: 1, "caption_too_short": 1}
    assert found.words == {clip: words for clip, words in RIGHT.items() if clip != 2}
    assert len(found.windows) == WINDOWS - 1
    if fault == "10 MB":
        assert f"{reason}: an answer of more than 1048576 bytes" in found.reasons, "the rest was never read"


def test_answers_swapped_between_requests_end_right_or_are_counted(ask: Ask, endpoint: Endpoint) -> None:
    endpoint.faults = ["swap"] * 4
    found = ask(settings(endpoint, concurrency=4))
    assert not endpoint.swap, "the four were swapped in pairs"
    assert found.words == RIGHT
    endpoint.always = dict.fromkeys((light(1), light(3)), "swap")
    again = ask(settings(endpoint, concurrency=2, retries=1, revision="2"))
    assert set(again.words) | {1, 3} == set(RIGHT)
    assert all(again.words[clip] == RIGHT[clip] for clip in again.words)
    assert again.skipped.get("caption_swapped", 0) == len(RIGHT) - len(again.words)


@pytest.mark.parametrize("fault", ["503", "die", "stall", "429"])
def test_an_endpoint_that_stays_away_stops_the_stage_and_is_asked_only_for_the_rest(
    ask: Ask, clips: tuple[Store, Artifact], endpoint: Endpoint, fault: str
) -> None:
    endpoint.faults = ["", "", *[fault] * 100]  # two windows are answered, then it is gone
    if fault != "429":
        threading.Thread(target=_go_down, args=(endpoint, fault), daemon=True).start()
    with pytest.raises(TryAgain, match="did not answer after 1 tries"):
        ask(settings(endpoint, concurrency=1, retries=0, timeout_seconds=1.0))
    known = len(list(Path(clips[0].address.root, "captions").rglob("*.json")))
    endpoint.faults, endpoint.asked, endpoint.down = [], [], ""
    assert ask(settings(endpoint)).words == RIGHT
    assert known >= 1
    assert len(endpoint.asked) == WINDOWS - known


def test_a_service_that_is_still_loading_is_waited_for_as_long_as_it_may_take(
    ask: Ask, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wfm.curation.caption.endpoint._ASK_AGAIN_SECONDS", 0.1)
    endpoint.down = "503"
    with pytest.raises(TryAgain, match="did not answer"):
        ask(settings(endpoint, retries=0))
    threading.Timer(1.0, lambda: setattr(endpoint, "down", "")).start()
    assert ask(settings(endpoint, retries=0, start_seconds=60.0)).words == RIGHT
    endpoint.down = "503"
    with pytest.raises(TryAgain, match="did not answer"):
        ask(settings(endpoint, retries=0, start_seconds=0.3, revision="other"))


def test_other_weights_are_asked_anew_however_they_are_told(ask: Ask, endpoint: Endpoint) -> None:
    for more in ({}, {"revision": "r"}, {"quantization": "fp8"}, {"revision": "r", "quantization": "fp8"}):
        before = len(endpoint.asked)
        assert ask(settings(endpoint, **more)).words == RIGHT
        assert len(endpoint.asked) == before + WINDOWS, more


def _go_down(endpoint: Endpoint, fault: str) -> None:
    while len(endpoint.asked) < 2:
        time.sleep(0.005)
    endpoint.down = fault


def test_a_damaged_answer_in_the_store_is_asked_again(
    ask: Ask, clips: tuple[Store, Artifact], endpoint: Endpoint
) -> None:
    ask(settings(endpoint))
    files = sorted(Path(clips[0].address.root, "captions").rglob("*.json"))
    assert len(files) == WINDOWS
    files[0].write_text(files[1].read_text())  # another window's
    files[2].write_text("{")
    files[4].write_text(json.dumps({"identity": files[4].stem, "text": 5}))
    endpoint.asked = []
    assert ask(settings(endpoint)).words == RIGHT
    assert len(endpoint.asked) == 3
    endpoint.asked, endpoint.plain = [], 0
    assert ask(settings(endpoint)).words == RIGHT
    assert not endpoint.asked
    assert not endpoint.plain, "nobody is asked when everything is known"


def test_questions_of_many_clips_are_on_their_way_at_once_and_no_more_than_allowed(
    ask: Ask, endpoint: Endpoint
) -> None:
    endpoint.seconds = 0.1
    assert ask(settings(endpoint, concurrency=4)).words == RIGHT  # more than the windows of any clip
    assert endpoint.busiest == 4


def test_retry_after_is_waited_for(ask: Ask, endpoint: Endpoint) -> None:
    endpoint.faults = ["429"]
    ask(settings(endpoint, concurrency=1))
    assert 0.2 <= endpoint.times[1] - endpoint.times[0] < 0.45, "as told, not the client's own back-off"


def test_rewriting_asks_without_pictures_and_keeps_what_was_seen(ask: Ask, endpoint: Endpoint) -> None:
    again = "Say it anew.\n\nAs {length}: {caption}"
    wanted = {"rewrite": {"lengths": ["short", "long"], "prompt": again, "model": "n"}, "length": "short"}
    first = ask(settings(endpoint, more=wanted))
    assert (endpoint.pictures(), len(endpoint.asked)) == (WINDOWS, 3 * WINDOWS)
    assert {request["model"] for request in endpoint.asked} == {"m", "n"}
    row = first.windows[-1]
    assert (row.caption, row.medium) == (RIGHT[3], "")
    assert row.short == f"other words: As {LENGTHS['short']}: {RIGHT[3]}" == first.words[3]
    assert row.long == f"other words: As {LENGTHS['long']}: {RIGHT[3]}"
    assert row.rewrite_model == "n"
    endpoint.asked = []
    wanted["rewrite"] = {"lengths": ["short"], "prompt": "Say it in {length}:\n\nBriefly: {caption}", "model": "n"}
    second = ask(settings(endpoint, more=wanted))
    assert (endpoint.pictures(), len(endpoint.asked)) == (0, WINDOWS)
    assert second.windows[-1].rewrite_prompt_sha256 != row.rewrite_prompt_sha256
    assert second.windows[-1].prompt_sha256 == row.prompt_sha256
    assert second.words[3] == f"other words: Briefly: {RIGHT[3]}"


def test_the_key_comes_from_the_environment_and_is_written_nowhere(
    ask: Ask, clips: tuple[Store, Artifact], endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("WFM_CAPTION_API_KEY", "very secret")
    config = settings(endpoint, retries=0)
    ask(config)
    assert endpoint.keys == {"Bearer very secret"}
    endpoint.always = {light(1): "400"}
    clips[0].objects.delete_tree("captions")
    assert ask(config).skipped["caption_refused"] == 1
    written = [json.dumps(config.resolved()).encode()]
    for place in (tmp_path, Path(clips[0].address.root)):
        written += [path.read_bytes() for path in place.rglob("*") if path.is_file()]
    assert not any(b"very secret" in data for data in written)


@pytest.mark.parametrize(
    ("down", "error", "words"),
    [
        ("401", ConfigError, "refuses the key .401.: set the environment variable WFM_CAPTION_API_KEY"),
        ("404", ConfigError, "has no model 'm' .404.. Choices: m"),
        ("400", ConfigError, "does not answer a plain question as asked .caption_refused: status 400"),
        ("garbage", ConfigError, "captions need a chat model with JSON-schema answers"),
        ("die", TryAgain, r"endpoint.url = .* did not answer after 1 tries .APIConnectionError.: see that it runs"),
    ],
)
def test_an_endpoint_that_cannot_be_used_is_refused_before_a_clip_is_opened(
    ask: Ask, endpoint: Endpoint, down: str, error: type[Exception], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def opened(path: Path) -> None:
        raise AssertionError(f"{path} was opened")

    monkeypatch.setattr("wfm.data.decode.open_video", opened)
    endpoint.down = down
    with pytest.raises(error, match=words):
        ask(settings(endpoint, retries=0))
    assert not endpoint.asked


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"source": "endpoint"}, r"endpoint\.url='' and endpoint\.model='': give both"),
        ({"endpoint": {"url": "localhost:8000/v1"}}, "not an http.s. address: give one such as"),
        ({"endpoint": {"url": "http://me:secret@there/v1"}}, "put the key into the environment variable"),
        ({"length": "huge"}, "'caption', 'short', 'medium' or 'long'"),
        ({"length": "short"}, r"length='short' is not among rewrite.lengths=\[\]: add it there"),
        ({"source": "local"}, r"local.folder='' and local.folder_sha256='': give both"),
    ],
)
def test_configs_that_cannot_work_are_refused_before_anything_runs(values: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words) as raised:
        CaptionConfig.parse(values)
    assert "secret" not in str(raised.value)


def test_a_stage_that_is_killed_goes_on_and_ends_as_if_nothing_had_happened(endpoint: Endpoint, tmp_path: Path) -> None:
    undisturbed, store = (Store.open(tmp_path / name) for name in ("undisturbed", "store"))
    clips = [make_clips(each, tmp_path, FRAMES) for each in (undisturbed, store)]
    config = settings(endpoint, concurrency=1)
    run_stage(store, clips[1], tmp_path / "first", config, dies_after=4)
    endpoint.asked = []
    made = store.artifact(run_stage(store, clips[1], tmp_path / "second", config))
    assert len(endpoint.asked) == WINDOWS - 4, "only what was not answered before"
    assert made.manifest.skipped == {"caption_too_short": 1}
    (part,) = (store.part(entry.key) for entry in made.parts)
    whole = caption(undisturbed, clips[0], tmp_path / "whole", config)
    assert [part.fetch(name).read_bytes() for name in TABLES] == whole.bytes
