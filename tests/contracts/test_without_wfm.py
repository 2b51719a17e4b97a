"""A downstream team: what `docs/api.md` and the examples tell them to do is done, without wfm and with it.

Without: an interpreter that sees the standard library, numpy, pyarrow, safetensors and webdataset, and nothing else of ours.
"""

import json
import re
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path

import pytest

import wfm

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "api.md").read_text()
THEIRS = ("numpy", "numpy.libs", "pyarrow", "safetensors", "webdataset", "braceexpand", "yaml", "_yaml")
START = """
import importlib.util, os, runpy, sys
sys.path.insert(0, {site!r})
assert all(importlib.util.find_spec(name) is None for name in ("wfm", "components", "pipelines", "torch", "av"))
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
sys.stdout.flush()
os._exit(0)  # the threads of pyarrow may abort a process that ends by itself on a busy machine
"""

pytestmark = pytest.mark.smoke


def blocks(heading: str) -> list[str]:
    """The Python that stands under a heading of the page."""
    section = PAGE.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    return re.findall(r"```python\n(.*?)```", section, re.DOTALL)


def named(store: wfm.Store, kind: str, word: str) -> str:
    """What the smoke profile calls its own."""
    return next(name for name in store.names(kind) if word in name)


@pytest.fixture(scope="module")
def pulled(smoke_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, store = tmp_path_factory.mktemp("team"), wfm.store(smoke_store)
    store.artifact(named(store, "dataset", "curated")).pull(folder / "pulled")
    store.artifact(named(store, "model", "diffusion")).pull(folder / "bundle")
    return folder


@pytest.fixture(scope="module")
def without_wfm(pulled: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """Run a script in the folder with what was pulled, where there is no wfm."""
    site = tmp_path_factory.mktemp("site")
    for name in THEIRS:
        there = Path(sysconfig.get_path("platlib")) / name
        if there.exists():
            (site / name).symlink_to(there)

    def run(script: Path, *arguments: str) -> str:
        command = [sys.executable, "-I", "-S", "-c", START.format(site=str(site)), str(script), *arguments]
        done = subprocess.run(command, cwd=pulled, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


def test_the_page_is_followed_without_wfm(without_wfm, pulled, tmp_path) -> None:
    told = ""
    for number, block in enumerate(blocks("Without wfm")):
        script = tmp_path / f"{number}.py"
        script.write_text(block)
        told += without_wfm(script)
    dataset, model = wfm.dataset(pulled / "pulled", split="test"), wfm.load(pulled / "bundle")
    assert f"{sum(dataset.table('clips').column('kept').to_pylist())} " in told
    assert told.count(str(list(model.action_spec.names))) == 2
    assert "tokenizer tokenizer " in told


def test_scripts_read_the_data_set_as_wfm_does(without_wfm, pulled) -> None:
    told = without_wfm(ROOT / "examples" / "read_dataset_without_wfm.py", "pulled", "train")
    dataset = wfm.dataset(pulled / "pulled", split="train")
    assert f"{len(dataset)} samples in split train" in told
    for sample in dataset:
        assert (
            f"{sample.clip_id[:12]} {len(sample.members['mp4'])} bytes of mp4, {sample.fps:g} frames/s: {sample.caption}"
            in told
        )
        assert f"{len(sample.actions)} rows of {', '.join(sample.action_spec.names)}" in told


def test_scripts_read_the_model_as_wfm_does(without_wfm, pulled) -> None:
    told = without_wfm(ROOT / "examples" / "read_model_without_wfm.py", "bundle")
    world = wfm.load(pulled / "bundle").world
    for part, network in (("tokenizer", world.tokenizer), ("model", world.model)):
        tensors = network.state_dict()
        assert f"{part}: family " in told
        assert f"{len(tensors)} tensors, {sum(tensor.numel() for tensor in tensors.values()):,} numbers" in told
    assert "action camera_orbit_rate [deg/s]" in told


def test_webdataset_opens_the_shards(without_wfm, pulled, tmp_path) -> None:
    script = tmp_path / "team.py"
    script.write_text(
        "import glob, json, webdataset\n"
        "found = webdataset.WebDataset(sorted(glob.glob('pulled/shards/train/**/*.tar', recursive=True)), shardshuffle=False)\n"
        "print(json.dumps([[one['__key__'], one['txt'].decode()] for one in found]))\n"
    )
    said = {(one.clip_id, one.caption) for one in wfm.dataset(pulled / "pulled", split="train")}
    assert {tuple(one) for one in json.loads(without_wfm(script))} == said


def test_the_page_is_followed_with_wfm(smoke_store, tmp_path, monkeypatch, capsys) -> None:
    """Block after block as somebody types them, with the names of the smoke profile; what starts runs is only compiled here
    (`tests/examples` runs it)."""
    store = wfm.store(smoke_store)
    model, dataset = named(store, "model", "diffusion"), named(store, "dataset", "curated")
    next(iter(store.dataset(dataset, split="test"))).save(tmp_path / "clip.mp4")
    *typed, starts = blocks("In five minutes")
    compile(starts, "docs/api.md", "exec")
    told = "\n".join(typed).replace("model/diffusion@latest", model)
    told = told.replace('"curated"', repr(dataset)).replace('"dataset/curated"', repr(dataset))
    monkeypatch.setenv("WFM_STORE", str(smoke_store))
    monkeypatch.chdir(tmp_path)
    exec(compile(told, "docs/api.md", "exec"), {"__name__": "typed"})
    assert "rolled out in " in capsys.readouterr().out
    assert (tmp_path / "next.mp4").is_file()
