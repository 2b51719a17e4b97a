"""Every script of `examples/` is run as its first lines say, on a store in which the smoke profile ran."""

import ast
import os
import re
import runpy
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import wfm

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"

pytestmark = pytest.mark.smoke


@pytest.fixture(scope="module")
def store(smoke_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same store, for writing into: its files are links, and no file of a store is changed once it is there."""
    copy = tmp_path_factory.mktemp("examples") / "store"
    shutil.copytree(smoke_store, copy, copy_function=os.link)
    return copy


@pytest.fixture(scope="module")
def names(store: Path) -> dict[str, str]:
    """What the smoke profile calls its own."""
    found = wfm.store(store).names()
    kinds = {"dataset": "dataset/", "diffusion": "diffusion", "autoregressive": "autoregressive"}
    return {kind: next(name for name in found if word in name) for kind, word in kinds.items()}


@pytest.fixture(scope="module")
def clip(store: Path, names: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    sample = next(iter(wfm.store(store).dataset(names["dataset"], split="test")))
    return sample.save(tmp_path_factory.mktemp("clip") / "clip.mp4")


@pytest.fixture
def example(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., str]:
    """``example("name", ...)``: what the script prints, run in an empty folder."""
    monkeypatch.setenv("WFM_STORE", str(store))
    monkeypatch.chdir(tmp_path)

    def run(name: str, *arguments: object) -> str:
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *map(str, arguments)])
        runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
        return capsys.readouterr().out

    return run


def test_look_through_a_data_set(example, names) -> None:
    told = example("load_dataset", names["dataset"], "test", 7)
    assert re.search(r"\d+ clips in split test of train, val, test", told)
    assert "camera_orbit_rate: " in told


def test_predict(example, names, clip, tmp_path) -> None:
    (tmp_path / "moves.csv").write_text(
        "camera_orbit_rate,camera_elevation_rate,actor_velocity_x,actor_velocity_y\n" + "30,0,0,0\n" * 24
    )
    told = example("predict_future", names["diffusion"], clip, "next.mp4", "moves.csv")
    assert re.search(r"it takes camera_orbit_rate \[deg/s\], \d+ rows a second", told)
    assert "uint8 (33, 64, 64, 3)" in told
    assert {"next.mp4", "next.json"} <= {path.name for path in tmp_path.iterdir()}


def test_compare_actions(example, names, clip, tmp_path) -> None:
    assert "camera_orbit_rate plus: " in example("compare_actions", names["autoregressive"], clip, "out")
    assert len(list((tmp_path / "out").glob("*.mp4"))) == 3


def test_roll_out(example, names, clip) -> None:
    assert "rolled out in 2 windows" in example("roll_out", names["autoregressive"], clip, "long.mp4", "1.2")


def test_evaluate(example, names) -> None:
    told = example("evaluate_model", names["diffusion"], names["dataset"], 1)
    assert re.search(
        r"dB over the last frame again, better on \d+% of 1\nit was published with figures over \d+ held-out", told
    )


def test_search(example, names, store) -> None:
    told = example("search_clips", names["dataset"], "red ball rolling")
    assert len(told.splitlines()) == 5
    clip_id = next(iter(wfm.store(store).dataset(names["dataset"]))).clip_id
    assert clip_id[:12] not in example("search_clips", names["dataset"], "--like", clip_id)


def test_follow_a_run(example, store) -> None:
    run = wfm.store(store).runs()[-1]
    told = example("follow_run", run.id, "train_diffusion")
    assert f"{run.id} world_model done" in told
    assert re.search(r"train_diffusion +done ", told)


def test_export(example, names, tmp_path) -> None:
    told = example("export_weights", names["diffusion"], "out")
    assert re.search(r"^model: stays as it is: .*repeat_last", told, re.MULTILINE | re.DOTALL), (
        "what diffusers cannot hold"
    )
    assert (tmp_path / "out/bundle/model/model.safetensors").is_file()


@pytest.mark.long
def test_curate_own_videos(example, film, tmp_path) -> None:
    (tmp_path / "videos").mkdir()
    film(tmp_path / "videos" / "film.mp4", 5)
    (tmp_path / "videos" / "broken.mp4").write_bytes(b"no film")
    told = example("curate_videos", "videos", "films", "smoke")
    assert "are in dataset/films" in told
    assert "broken.mp4 could not be used" in told


def test_train_again(example, names, store) -> None:
    """With the options as they are nothing is made again; a wrong one is refused by name, before work."""
    dataset = wfm.store(store).artifact(names["dataset"]).key
    told = example("train_model", dataset, "smoke")
    assert re.search(r"^train_diffusion: cached, ", told, re.MULTILINE)
    with pytest.raises(wfm.InputError, match="learning_rat"):
        example("train_model", dataset, "smoke", "train_diffusion.training.learning_rat=1")


@pytest.mark.long
def test_train_with_other_options(example, names, store) -> None:
    dataset = wfm.store(store).artifact(names["dataset"]).key
    told = example("train_model", dataset, "smoke", "train_diffusion.training.learning_rate=0.0005")
    assert re.search(r"^train_diffusion: done, ", told, re.MULTILINE)
    assert re.search(r"^train_autoregressive: cached, ", told, re.MULTILINE)


def test_every_script_is_in_the_list_and_run_here() -> None:
    scripts = {path.stem for path in EXAMPLES.glob("*.py")}
    assert scripts == set(re.findall(r"`(\w+)\.py`", (EXAMPLES / "README.md").read_text()))
    run = set(re.findall(r'example\("(\w+)"', Path(__file__).read_text()))
    downstream = (ROOT / "tests" / "contracts" / "test_without_wfm.py").read_text()
    assert scripts - run - set(re.findall(r'"(\w+)\.py"', downstream)) == set()
    for name in scripts:
        told = ast.get_docstring(ast.parse((EXAMPLES / f"{name}.py").read_text())) or ""
        assert f"python examples/{name}.py" in told, "how it is run stands in its first lines"
