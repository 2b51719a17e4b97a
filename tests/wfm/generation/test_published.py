"""``wfm.load`` and ``predict``: what goes in, what comes out, and that `wfm generate` is the same."""

import functools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import wfm
from wfm.artifacts import Store
from wfm.data.decode import read_frames
from wfm.data.seeds import derived_seed
from wfm.errors import ConfigError, DataError, InputError
from wfm.generation.command import generate_from_files
from wfm.generation.published import PublishedModel
from wfm.generation.video import Video
from wfm.generation.write_video import from_uint8, to_uint8, write_mp4

KEY = "cd" * 32
TURN = {"camera_orbit_rate [deg/s]": 30, "camera_elevation_rate": 0.0, "actor_velocity_x": 0.0}


@pytest.fixture
def bundle(world_of, bundle_of, family, tmp_path) -> Path:
    (tmp_path / "bundle").mkdir()
    return bundle_of(world_of(family), tmp_path / "bundle")


@pytest.fixture
def model(bundle) -> PublishedModel:
    return wfm.load(bundle)


@pytest.fixture
def frames() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (9, 20, 16, 3), dtype=np.uint8)


@pytest.fixture
def clip(frames, tmp_path) -> Path:
    write_mp4(tmp_path / "past.mp4", frames, 24.0)
    return tmp_path / "past.mp4"


def publish(store: Store, bundle: Path, name: str) -> None:
    with store.attempt(KEY) as attempt:
        for path in bundle.rglob("*"):
            if path.is_file():
                target = attempt.path / path.relative_to(bundle)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(path.read_bytes())
        attempt.commit(stage="publish_model", kind="model")
    store.promote("model", name, KEY)


def test_predict_is_wfm_generate_byte_for_byte(bundle, clip, tmp_path) -> None:
    """The video and all of its sidecar, with actions, a mode, a seed and more than a window."""
    moves = tmp_path / "moves.csv"
    moves.write_text("camera_orbit_rate [deg/s],camera_elevation_rate,actor_velocity_x\n" + "30,0,0\n" * 24)
    store = Store.open(tmp_path / "store")
    asked: dict[str, Any] = {"seed": 7, "mode": "sample"}
    by_command = generate_from_files(
        store, str(bundle), clip, moves, out=tmp_path / "command.mp4", num_frames=29, **asked
    )
    video = wfm.load(str(bundle)).predict(str(clip), str(moves), seconds=1, **asked)
    by_python = video.save(tmp_path / "python.mp4")
    assert by_python.video.read_bytes() == by_command.video.read_bytes()
    assert by_python.sidecar.read_bytes() == by_command.sidecar.read_bytes()
    other = wfm.load(bundle).predict(clip, moves, seconds=1, **{**asked, "seed": 8}).save(tmp_path / "other.mp4")
    assert other.video.read_bytes() != by_command.video.read_bytes()


def test_what_comes_back(model, clip) -> None:
    video = model.predict(clip)
    assert (video.frames.dtype, video.frames.shape) == (np.uint8, (13, 16, 16, 3))
    assert (video.past, video.fps, video.windows, video.rolled_out) == (5, 24.0, 1, False)
    assert video.future.shape == (8, 16, 16, 3)
    assert video.seconds == pytest.approx(8 / 24)
    assert np.array_equal(video.frames[:5], read_frames(str(clip))[0][-5:, 2:18]), "the given frames, cropped"
    assert "13 frames of 16x16 at 24/s: 5 given, 8 predicted" in repr(video)
    assert (model.card.num_frames, model.action_spec.width, model.key, model.reads_text) == (13, 3, "", False)
    assert model.modes == model.world.family.modes
    assert "5 frames of 16x16 at 24/s -> 8 more; actions: camera_orbit_rate" in repr(model)


def test_actions_as_a_file_a_table_or_an_array_are_the_same(model, clip, tmp_path) -> None:
    (tmp_path / "a.json").write_text(
        json.dumps([dict.fromkeys(model.action_spec.names, 0.0) | {"camera_orbit_rate": 30}] * 8)
    )
    array = np.zeros((8, 3))
    array[:, 0] = 30
    given = [
        tmp_path / "a.json",
        TURN,
        {**TURN, "actor_velocity_x": [0.0] * 8},
        array,
        array.tolist(),
        np.repeat(array[:1], 13, 0),
    ]
    videos = [model.predict(clip, actions) for actions in given]
    assert all(np.array_equal(video.frames, videos[0].frames) for video in videos)
    by_camera = model.predict(clip, camera={"camera_orbit_rate": 30, "camera_elevation_rate": 0})
    assert np.array_equal(by_camera.frames, videos[0].frames)
    assert not np.array_equal(model.predict(clip).frames, videos[0].frames)
    note = videos[1].sidecar["actions"]
    assert (note["kind"], note["file"], note["rows"]) == ("action", "", [[30.0, 0.0, 0.0]] * 13)


def test_frames_in_memory_are_a_past(model, clip, frames) -> None:
    """The last ones, cropped and scaled as those of a file are."""
    decoded = read_frames(str(clip))[0]
    assert np.array_equal(model.predict(decoded).frames, model.predict(clip).frames)
    assert np.array_equal(model.predict(decoded[:, 2:18]).frames, model.predict(clip).frames)
    assert model.predict(decoded).sidecar["past"]["crop_top_left_height_width"] == [2, 0, 16, 16]


def test_seconds_and_frames(model, clip) -> None:
    assert len(model.predict(clip, seconds=0.25).frames) == 5 + 6
    assert len(model.predict(clip, seconds=1e-9).frames) == 5 + 1, "one frame at least"
    assert len(model.predict(clip, frames=11).frames) == 11


@pytest.mark.parametrize("total", [13, 14, 21, 22, 30])
def test_a_rollout_says_how_many_windows_were_drawn(model, clip, total, monkeypatch) -> None:
    drawn: list[int] = []
    draw = model.world.drawing.draw
    monkeypatch.setattr(model.world.drawing, "draw", lambda *given: drawn.append(1) or draw(*given))
    video = model.predict(clip, frames=total)
    assert video.windows == len(drawn) == video.sidecar["rollout"]["windows"]
    assert video.rolled_out == (len(drawn) > 1)
    assert (f"rolled out in {len(drawn)} windows" in video.note) == video.rolled_out


def test_a_rollout_is_one_window_after_the_other(world_of, bundle_of, clip, tmp_path) -> None:
    """Done by hand on tensors, each window from the last frames of the one before, it is the same video. (What a model of
    tokens hands on is tokens: tests/wfm/generation/test_world_model.py.)"""
    model = wfm.load(bundle_of(world_of("diffusion"), tmp_path / "diffusion"))
    rows = np.random.default_rng(1).normal(0, 5, (21, 3)).astype(np.float32)
    video = model.predict(clip, rows, frames=21, seed=9)
    past = torch.from_numpy(from_uint8(video.frames[:5]).copy())[None]
    ask = functools.partial(model.world.generate, mode=model.world.family.mode_of(""))
    first = ask(past, rows[None, :13], seeds=[9])
    second = ask(first[:, :, 8:13], rows[None, 8:21], seeds=[derived_seed(9, 1)])
    by_hand = to_uint8(torch.cat([first, second[:, :, 5:]], dim=2)[0].numpy())
    assert np.array_equal(video.frames, by_hand)
    other = ask(first[:, :, 8:13], rows[None, 8:21], seeds=[9])
    assert not np.array_equal(video.frames[13:], to_uint8(other[0].numpy())[5:]), "another seed is seen"


def test_nothing_stays_of_a_prediction(world_of, bundle_of, clip, tmp_path) -> None:
    """Guidance of one call is not that of the next."""
    model = wfm.load(bundle_of(world_of("diffusion"), tmp_path / "guided"))
    before = model.predict(clip, TURN).frames
    assert not np.array_equal(model.predict(clip, TURN, guidance=3.0).frames, before)
    assert np.array_equal(model.predict(clip, TURN).frames, before)


def test_by_name_key_or_folder(bundle, clip, tmp_path, monkeypatch) -> None:
    store = Store.open(tmp_path / "store")
    publish(store, bundle, "tiny")
    monkeypatch.setenv("WFM_STORE", str(tmp_path / "store"))
    wanted = wfm.load(bundle).predict(clip).frames
    for name in ("tiny", "model/tiny", "model/tiny@latest", KEY, KEY[:12]):
        model = wfm.load(name)
        assert model.key == KEY
        assert np.array_equal(model.predict(clip).frames, wanted)
    assert wfm.store().load("tiny").predict(clip).sidecar["model"]["key"] == KEY
    monkeypatch.delenv("WFM_STORE")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "store").rename(tmp_path / "wfm-store")
    assert wfm.load("tiny").key == KEY, "the default is wfm-store of the current folder"
    assert wfm.load("bundle").key == "", "a folder of the current one"


def test_a_folder_here_does_not_pass_for_a_published_name(bundle, tmp_path, monkeypatch) -> None:
    """Whoever can put a folder into the current one must not decide which model is used."""
    store = Store.open(tmp_path / "store")
    publish(store, bundle, "bundle")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        InputError, match=r"'bundle' is a folder here and a name in .*write \./bundle.*model/bundle@latest"
    ):
        wfm.load("bundle", store=tmp_path / "store")
    assert wfm.load("./bundle", store=tmp_path / "store").key == ""
    assert wfm.load(Path("bundle"), store=tmp_path / "store").key == ""
    assert wfm.load("model/bundle@latest", store=tmp_path / "store").key == KEY


def test_other_dtypes_of_the_network(bundle, clip) -> None:
    plain, half = (wfm.load(bundle, dtype=dtype) for dtype in ("float32", "bfloat16"))
    one, two = (model.predict(clip, TURN, mode=model.modes[-1]) for model in (plain, half))
    assert half.world.model.__class__ is plain.world.model.__class__
    assert next(half.world.model.parameters()).dtype is torch.bfloat16
    assert two.sidecar["computed"] == {"device": "cpu", "dtype": "bfloat16"}
    assert two.frames.shape == one.frames.shape


LOADING = [
    ({"model": "nobody"}, InputError, "no published model 'nobody'"),
    ({"model": "./nobody"}, InputError, r"nobody: not a model that `wfm artifacts pull` made: it has no card\.json"),
    ({"device": "gpu"}, ConfigError, "device 'gpu'"),
    ({"device": "cuda:99"}, ConfigError, r"device 'cuda:99' is not on this machine: choose cpu"),
    ({"dtype": "int8"}, ConfigError, "dtype 'int8': choose float32, bfloat16, float16"),
    ({"decoder": "none"}, InputError, "no decoder of tokens 'none'"),
    ({"store": "nowhere", "model": "tiny"}, InputError, r"the store .*nowhere does not exist"),
]


@pytest.mark.parametrize(("change", "error", "words"), LOADING)
def test_what_cannot_be_loaded(world_of, bundle_of, change, error, words, tmp_path, monkeypatch) -> None:
    bundle = bundle_of(world_of("autoregressive"), tmp_path / "bundle")
    publish(Store.open(tmp_path / "wfm-store"), bundle, "tiny")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=words):
        wfm.load(**{"model": bundle, **change})


ASKING: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"past": 3}, InputError, "past is a int: give a video file, or frames"),
    (
        {"past": np.zeros((9, 16, 16, 3))},
        InputError,
        r"past: frames are float64 .*wanted uint8 \[frames, height, width, 3\]",
    ),
    ({"past": np.zeros((9, 16, 16), np.uint8)}, InputError, r"past: frames are uint8 \(9, 16, 16\)"),
    ({"past": np.zeros((4, 16, 16, 3), np.uint8)}, InputError, "past: 4 frames, 5 are needed, 24 a second"),
    ({"past": "none.mp4"}, InputError, "no such file"),
    ({"seconds": 0}, ConfigError, "seconds is 0; give a positive number"),
    ({"seconds": float("inf")}, ConfigError, "seconds is inf"),
    ({"seconds": "1"}, ConfigError, "seconds is '1'"),
    ({"frames": 5}, ConfigError, "frames is 5: nothing to predict; it counts the 5 given frames"),
    ({"frames": 13.0}, ConfigError, r"frames is 13\.0"),
    ({"seconds": 1, "frames": 13}, ConfigError, "seconds is 1 and frames is 13: give one"),
    ({"seed": -1}, ConfigError, "seed is -1"),
    ({"mode": "dream"}, ConfigError, "mode 'dream': .* can do"),
    ({"actions": TURN, "camera": {"camera_orbit_rate": 1}}, InputError, "both actions and a camera path"),
    (
        {"actions": np.zeros((8, 2))},
        InputError,
        r"actions have shape \(8, 2\), wanted \[rows, 3\]: camera_orbit_rate \[deg/s\]",
    ),
    ({"actions": np.zeros((5, 3))}, InputError, "actions: 5 rows; give 8"),
    (
        {"actions": np.full((8, 3), np.nan)},
        DataError,
        "actions: column 'camera_orbit_rate' has a value .* not finite in row 0",
    ),
    ({"actions": {"steering": 1}}, InputError, r"actions lacks camera_orbit_rate \[deg/s\].*does not know: steering"),
    ({"actions": {**TURN, "camera_elevation_rate [rad/s]": 1, "camera_elevation_rate": 1}}, InputError, "given twice"),
    (
        {"actions": {"camera_orbit_rate [rad/s]": 1, "camera_elevation_rate": 0, "actor_velocity_x": 0}},
        InputError,
        "'rad/s'",
    ),
    ({"actions": {**TURN, "actor_velocity_x": "fast"}}, DataError, "actions: actor_velocity_x: not numbers"),
    ({"actions": {**TURN, "actor_velocity_x": [0, 1]}}, InputError, "actions: 2 rows; give 8"),
    ({"actions": {}}, DataError, "no columns"),
    ({"camera": np.zeros((8, 2))}, InputError, "camera is a ndarray: give a file, or columns by name"),
    ({"camera": {"camera_orbit_rate": 1}}, InputError, r"lacks camera_elevation_rate \[deg/s\]"),
    ({"text": "a ball"}, ConfigError, "this model reads none"),
]


@pytest.fixture(scope="module")
def one_model(tmp_path_factory: pytest.TempPathFactory) -> PublishedModel:
    from tests.wfm.generation.conftest import make_world, save_bundle

    return wfm.load(save_bundle(make_world("diffusion"), tmp_path_factory.mktemp("bundle")))


@pytest.mark.parametrize(("change", "error", "words"), ASKING)
def test_what_cannot_be_asked(one_model, change, error, words, clip, monkeypatch) -> None:
    """Each is refused before anything is drawn."""

    def drawn(*_: object) -> None:
        raise AssertionError("it was drawn")

    monkeypatch.setattr(one_model.world.drawing, "draw", drawn)
    with pytest.raises(error, match=words):
        one_model.predict(**{"past": clip, **change})


def test_guidance_that_moves_away_from_nothing(one_model, clip) -> None:
    with pytest.raises(ConfigError, match="nothing that it moves away from is given"):
        one_model.predict(clip, guidance=2.0)


@pytest.mark.parametrize("before", [b"", b"that of another"])
def test_a_video_that_cannot_take_its_name_leaves_no_sidecar(tmp_path: Path, before: bytes) -> None:
    """A folder of its name keeps the rename from working: a sidecar alone told of a video that is not there."""
    video = Video(np.zeros((2, 16, 16, 3), np.uint8), 8.0, 1, 1, "", {"seed": 1})
    (tmp_path / "v.mp4" / "in the way").mkdir(parents=True)
    if before:
        (tmp_path / "v.json").write_bytes(before)
    with pytest.raises((OSError, InputError)):
        video.save(tmp_path / "v.mp4", force=True)
    assert [path.name for path in sorted(tmp_path.iterdir())] == (["v.json", "v.mp4"] if before else ["v.mp4"])
    assert not before or (tmp_path / "v.json").read_bytes() == before
    (tmp_path / "v.mp4" / "in the way").rmdir()
    (tmp_path / "v.mp4").rmdir()
    written = video.save(tmp_path / "v.mp4", force=bool(before))
    assert json.loads(written.sidecar.read_bytes()) == {"seed": 1}
    assert written.video.is_file()
    assert len(list(tmp_path.iterdir())) == 2


def test_saving_replaces_nothing_unasked(one_model, clip, tmp_path) -> None:
    video = one_model.predict(clip)
    video.save(tmp_path / "v.mp4")
    before = (tmp_path / "v.mp4").read_bytes()
    with pytest.raises(InputError, match=r"v\.mp4"):
        video.save(tmp_path / "v.mp4")
    with pytest.raises(InputError, match=r"ends in \.mp4"):
        video.save(tmp_path / "v.avi")
    video.save(tmp_path / "v.mp4", force=True)
    assert (tmp_path / "v.mp4").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith((".", "v"))) == ["v.json", "v.mp4"]
