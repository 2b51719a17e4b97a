"""A run file asks for what a chain of ``--set`` asks, keeps its types, and is no way in."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines.request import Request
from pipelines.run_file import read_run_file, run_file_of
from pipelines.start_run import create_run
from wfm.artifacts import Store
from wfm.config import parse_assignment
from wfm.errors import InputError

Cli = Callable[..., tuple[int, str, str]]
WHOLE = """
pipeline = "world_model"
profile = "smoke"
videos = "clips"
[set.train_diffusion]
training.steps = 7
model = {width = 96}
[set."caption_clips"]
prompt = "007"
head = "./weights/head.safetensors"
sizes = [1, 2.5]
"""


def written(folder: Path, text: str) -> Path:
    file = folder / "run.toml"
    file.write_text(text)
    return file


def test_it_is_a_chain_of_options_with_their_types(tmp_path: Path) -> None:
    asked = read_run_file(written(tmp_path, WHOLE))
    assert asked.videos == str(tmp_path / "clips"), "from the folder of the file, wherever the command is typed"
    assert asked.assignments() == (
        "train_diffusion.training.steps=7",
        "train_diffusion.model.width=96",
        'caption_clips.prompt="007"',
        f'caption_clips.head="{tmp_path}/./weights/head.safetensors"'.replace("/./", "/"),
        "caption_clips.sizes=[1, 2.5]",
    )
    assert read_run_file(written(tmp_path, 'pipeline="curate"\nvideos="s3://b/x"')).videos == "s3://b/x"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("pipeline = 1", "field 'pipeline' = 1"),
        ("profile = 'demo'", "field 'pipeline': Field required"),
        ("pipeline = 'curate'\nvideos = '~nobody-of-that-name/x'", "there is no such home here"),
        ("pipeline = 'curate'\nvidoes = 'x'", "unknown field 'vidoes'. Did you mean 'videos'?"),
        ("pipeline = 'curate'\nstore = '/etc'", "unknown field 'store'"),
        ("pipeline = 'curate'\npromote = 'yes'", "field 'promote' = 'yes'"),
        ("pipeline = 'curate'\n[set]\nsteps = 1", "field 'set.steps' = 1"),
        ("pipeline = 'curate'\n[set.a]\nday = 2026-01-01", "key 'set.a.day' = 2026-01-01: no option is a date"),
        ("pipeline = 'curate'\n[set.a]\nrate = nan", "key 'set.a.rate' = nan: give a finite number"),
        ("pipeline = 'curate'\nvideos = 'https://me:word@host/x'", "key 'videos': the address has a password in it"),
        ("pipeline = 'curate'\n[set.a]\nurl = 'https://h/x?token=1'", "key 'set.a.url': the address has a password"),
        ("pipeline = 'curate'\noverrides = ['x']", "override 'x' is not of the form"),
        ("pipeline = ", "is no TOML"),
        ("pipeline = " + "[" * 5000, "is no TOML"),
        ("pipeline = 'curate'\n[set.a]\n" + "b." * 3000 + "b = 1", "more than 64 parts"),
        ("pipeline = 'curate'\n[set.a]\nc = {" + "'b' . " * 3000 + "b = 1}", "more than 64 parts"),
        ("pipeline = 'curate'\n[" + "b." * 3000 + "b]", "more than 64 parts"),
        ("pipeline = 'curate'\n[set.a]\nb = " + "{b=" * 900 + "1" + "}" * 900, "is no TOML"),
        ("#" * 2**20 + "\n", "more than 1048576 bytes"),
        ("pipeline = '\udcff'", "is no TOML"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "run.toml"
    file.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(InputError) as error:
        read_run_file(file)
    assert says in str(error.value)
    assert str(file) in str(error.value)
    assert "word@" not in str(error.value)


@pytest.mark.timeout(60)
def test_a_home_is_that_of_who_runs_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``~/films`` was a folder called ~ beside the file."""
    monkeypatch.setenv("HOME", "/home/me")
    assert read_run_file(written(tmp_path, 'pipeline="curate"\nvideos="~/films"')).videos == "/home/me/films"
    assert read_run_file(written(tmp_path, 'pipeline="curate"\nvideos="./~/films"')).videos == str(tmp_path / "~/films")


def test_a_device_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.toml")
    for path, says in (
        (tmp_path / "pipe.toml", "is no plain file"),
        (Path("/dev/zero"), "is no plain file"),
        (tmp_path / "none.toml", "cannot be read: No such file"),
    ):
        with pytest.raises(InputError, match=says):
            read_run_file(path)


@pytest.mark.parametrize(
    "overrides",
    [
        (),
        (
            "train_diffusion.training.steps=7",
            "train_diffusion.model.width=96",
            'caption_clips.prompt="a \\"b\\" 🎬\\u007f"',
        ),
        ("train_model.seed=1", "train_diffusion.seed=2", "train_model.seed=3"),
        ("caption_clips.prompt=null", 'caption_clips.odd name="x"', "embed_clips.model=plain words"),
    ],
)
def test_what_was_asked_comes_back_as_a_file(tmp_path: Path, overrides: tuple[str, ...]) -> None:
    request = Request("world_model", profile="smoke", videos=str(tmp_path / "a"), dataset="d", overrides=overrides)
    asked = read_run_file(written(tmp_path, run_file_of(request, engine="local")))
    assert (asked.pipeline, asked.profile, asked.videos) == ("world_model", "smoke", str(tmp_path / "a"))
    assert (asked.dataset, asked.engine) == ("d", "local")
    for mine, theirs in zip(asked.assignments(), overrides, strict=True):
        assert parse_assignment(mine) == parse_assignment(theirs)


def test_the_command_line_wins_and_nothing_is_left_out(cli: Cli, tmp_path: Path) -> None:
    file = written(tmp_path, 'pipeline="world_model"\nprofile="smoke"\n[set.train_diffusion]\ntraining.steps="x"')
    code, _, err = cli("run", str(file), "--dry-run")
    assert (code, "'training.steps' = 'x'" in err) == (78, True)
    code, out, _ = cli("run", str(file), "--dry-run", "--set", "train_diffusion.training.steps=3")
    assert (code, out.startswith("world_model (smoke)")) == (0, True)
    code, out, _ = cli("run", str(file), "--dry-run", "--profile", "nope")
    assert code == 78, "the profile of the command line is asked"
    file = written(tmp_path, 'pipeline="world_model"\nengine="local"\n')
    code, _, err = cli("schedule", str(file), "--cron", "* * * * *")
    assert (code, "`wfm schedule serve` takes no 'engine', leave it out" in err) == (78, True)


def test_a_run_tells_what_was_asked_of_it(cli: Cli, workshop, tmp_path: Path) -> None:
    store: Store = workshop.store
    request = Request("world_model", profile="smoke", overrides=("train_diffusion.training.steps=3",))
    create_run(request, request.plan(store), store, run_id="tick-1")
    code, out, _ = cli("status", "tick-1", "--request")
    assert code == 0
    assert out == 'pipeline = "world_model"\nprofile = "smoke"\n\n[set.train_diffusion]\ntraining.steps = 3\n'
    code, out, _ = cli("run", str(written(tmp_path, out)), "--dry-run")
    assert (code, "stages would run" in out) == (0, True)
