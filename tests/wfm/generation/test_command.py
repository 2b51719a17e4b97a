import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from wfm.artifacts import Store, atomic
from wfm.data.decode import read_frames
from wfm.errors import ConfigError, DataError, InputError
from wfm.generation.command import generate_from_files
from wfm.generation.write_video import write_mp4

KEY = "ab" * 32


@pytest.fixture
def store(tmp_path) -> Store:
    return Store.open(str(tmp_path / "store"))


@pytest.fixture
def bundle(world_of, bundle_of, family, tmp_path) -> Path:
    (tmp_path / "bundle").mkdir()
    return bundle_of(world_of(family), tmp_path / "bundle")


@pytest.fixture
def past(tmp_path) -> Path:
    rng = np.random.default_rng(0)
    write_mp4(tmp_path / "past.mp4", rng.integers(0, 256, (9, 20, 16, 3), dtype=np.uint8), 24.0)
    return tmp_path / "past.mp4"


@pytest.fixture
def made(tmp_path) -> Callable[[], list[str]]:
    (tmp_path / "out").mkdir()
    return lambda: sorted(path.name for path in (tmp_path / "out").iterdir())


def actions_csv(path: Path, rows: int, rate: float = 30.0) -> Path:
    lines = ["camera_orbit_rate [deg/s],camera_elevation_rate,actor_velocity_x"] + [f"{rate},0,0"] * rows
    path.write_text("\n".join(lines))
    return path


def test_a_video_and_its_sidecar(store, bundle, past, made, tmp_path) -> None:
    written = generate_from_files(store, str(bundle), past, out=tmp_path / "out" / "f.mp4", seed=7)
    frames, seconds = read_frames(written.video)
    assert frames.shape == (13, 16, 16, 3)
    assert seconds[1] == pytest.approx(1 / 24, abs=1e-3)
    note = json.loads(written.sidecar.read_text())
    assert note["seed"] == 7
    assert note["actions"]["kind"] == "none"
    assert note["model"]["key"] == ""
    assert note["past"]["crop_top_left_height_width"] == [2, 0, 16, 16]
    assert note["past"]["resampled"] is False
    assert made() == ["f.json", "f.mp4"]
    again = generate_from_files(store, str(bundle), past, out=tmp_path / "out" / "g.mp4", seed=7)
    assert again.video.read_bytes() == written.video.read_bytes()


@pytest.mark.parametrize(
    ("rows", "words"), [(13, "cover the given"), (12, "cover the given"), (8, "predicted frames alone")]
)
def test_actions_for_all_frames_or_for_the_future(store, bundle, past, made, tmp_path, rows, words) -> None:
    path = actions_csv(tmp_path / "a.csv", rows)
    written = generate_from_files(store, str(bundle), past, action_file=path, out=tmp_path / "out" / "f.mp4")
    note = json.loads(written.sidecar.read_text())["actions"]
    assert words in note["words"]
    assert note["rows"] == [[30.0, 0.0, 0.0]] * 13
    other = actions_csv(tmp_path / "b.csv", rows, rate=-30.0)
    turned = generate_from_files(store, str(bundle), past, action_file=other, out=tmp_path / "out" / "g.mp4")
    assert turned.video.read_bytes() != written.video.read_bytes()


def test_actions_may_be_guided_by(store, world_of, bundle_of, past, made, tmp_path) -> None:
    """The command called them by another name than guidance does, and refused: nothing to move away from."""
    folder = bundle_of(world_of("diffusion"), tmp_path / "guided")
    path = actions_csv(tmp_path / "a.csv", 13)
    plain, guided = (
        generate_from_files(
            store, str(folder), past, action_file=path, out=tmp_path / "out" / f"{scale}.mp4", guidance=scale
        )
        for scale in (1.0, 3.0)
    )
    assert plain.video.read_bytes() != guided.video.read_bytes()


def test_a_camera_file(store, bundle, past, made, tmp_path) -> None:
    path = tmp_path / "camera.csv"
    path.write_text("camera_orbit_rate,camera_elevation_rate\n" + "30,0\n" * 13)
    by_camera = generate_from_files(store, str(bundle), past, camera_file=path, out=tmp_path / "out" / "f.mp4")
    by_action = generate_from_files(
        store, str(bundle), past, action_file=actions_csv(tmp_path / "a.csv", 13), out=tmp_path / "out" / "g.mp4"
    )
    assert by_camera.video.read_bytes() == by_action.video.read_bytes()


def test_longer_futures_and_modes(store, bundle, past, made, tmp_path, family) -> None:
    written = generate_from_files(store, str(bundle), past, out=tmp_path / "out" / "f.mp4", num_frames=20)
    assert len(read_frames(written.video)[0]) == 20
    sampled = generate_from_files(store, str(bundle), past, out=tmp_path / "out" / "s.mp4", mode="sample", seed=1)
    default = generate_from_files(store, str(bundle), past, out=tmp_path / "out" / "d.mp4", seed=1)
    assert (sampled.video.read_bytes() == default.video.read_bytes()) == (family == "diffusion")


def test_a_published_model_by_name(store, bundle, past, made, tmp_path) -> None:
    attempt = store.attempt(KEY)
    for path in bundle.rglob("*"):
        if path.is_file():
            target = attempt.path / path.relative_to(bundle)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    attempt.commit(stage="publish_model", kind="model")
    store.promote("model", "tiny", KEY)
    wanted = generate_from_files(store, str(bundle), past, out=tmp_path / "out" / "f.mp4").video.read_bytes()
    for name in ("tiny", "model/tiny", "model/tiny@latest", KEY[:12]):
        written = generate_from_files(store, name, past, out=tmp_path / "out" / "g.mp4")
        assert written.video.read_bytes() == wanted
        assert json.loads(written.sidecar.read_text())["model"]["key"] == KEY


def test_wrong_input_is_refused_and_leaves_nothing(store, bundle, past, made, tmp_path) -> None:
    out = tmp_path / "out" / "f.mp4"
    short = actions_csv(tmp_path / "short.csv", 5)
    wrong = tmp_path / "wrong.csv"
    wrong.write_text("steering [rad]\n" + "1\n" * 13)
    (tmp_path / "no.mp4").write_text("no video")
    cases = [
        (InputError, "no published model 'nobody'", {"model_name_or_path": "nobody"}),
        (InputError, "5 rows; give 8", {"action_file": short}),
        (InputError, r"camera_orbit_rate \[deg/s\]", {"action_file": wrong}),
        (InputError, "give one", {"action_file": short, "camera_file": short}),
        (InputError, "ends in .mp4", {"out": tmp_path / "out" / "f.avi"}),
        (InputError, "no such folder", {"out": tmp_path / "none" / "f.mp4"}),
        (InputError, "no such file", {"past": tmp_path / "none.mp4"}),
        (DataError, "no.mp4", {"past": tmp_path / "no.mp4"}),
        (ConfigError, "can do", {"mode": "dream"}),
        (ConfigError, "nothing to predict", {"num_frames": 3}),
    ]
    for error, words, change in cases:
        with pytest.raises(error, match=words):
            generate_from_files(
                **{"store": store, "model_name_or_path": str(bundle), "past": past, "out": out, **change}
            )
        assert made() == [], change


def test_a_result_that_is_no_number_is_refused_and_leaves_nothing(
    store, world_of, bundle_of, family, past, made, tmp_path
) -> None:
    # Before: a video of black, white or arbitrary pixels. The weights are finite, and beyond what float32 adds up.
    (tmp_path / "bundle").mkdir()
    world = world_of(family)
    for name, weight in world.model.named_parameters():
        if "action" not in name:  # absent, so not read
            weight.data.fill_(3e38)
    with pytest.raises(DataError, match="not finite"):
        generate_from_files(store, str(bundle_of(world, tmp_path / "bundle")), past, out=tmp_path / "out" / "f.mp4")
    assert made() == []


def test_seeds_count_whole_and_others_are_refused(store, bundle, past, made, tmp_path) -> None:
    def video(seed: int) -> bytes:
        out = tmp_path / "out" / "f.mp4"
        return generate_from_files(store, str(bundle), past, out=out, seed=seed, mode="sample").video.read_bytes()

    assert video(7) != video(7 + 2**32)  # before: the same
    for wrong in (-1, 2**64):
        with pytest.raises(ConfigError, match="give a whole number from 0"):
            video(wrong)


def test_an_action_far_from_training_is_said_once(store, bundle, past, made, tmp_path, caplog) -> None:
    # Before: nothing was said.
    path = actions_csv(tmp_path / "a.csv", 25, rate=3000.0)
    with caplog.at_level("WARNING", logger="wfm"):
        generate_from_files(store, str(bundle), past, action_file=path, out=tmp_path / "out" / "f.mp4", num_frames=25)
    said = [record.getMessage() for record in caplog.records if "trained on" in record.getMessage()]
    assert len(said) == 1
    assert "'camera_orbit_rate' is 3000 deg/s in row 0; the model was trained on about -90 to 90 deg/s" in said[0]


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "1e39"])
def test_an_action_that_is_no_number_is_refused(store, bundle, past, made, tmp_path, value) -> None:
    # Before: 1e39 became infinity.
    path = actions_csv(tmp_path / "a.csv", 12)
    path.write_text(path.read_text() + f"\n{value},0,0")
    with pytest.raises(InputError, match="camera_orbit_rate"):
        generate_from_files(store, str(bundle), past, action_file=path, out=tmp_path / "out" / "f.mp4")
    assert made() == []


def test_a_failure_while_writing_leaves_nothing(store, bundle, past, made, tmp_path, monkeypatch) -> None:
    def full(path: Path, data: bytes, *, force: bool) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(atomic, "write_new", full)
    with pytest.raises(OSError, match="No space"):
        generate_from_files(store, str(bundle), past, out=tmp_path / "out" / "f.mp4")
    assert made() == []
