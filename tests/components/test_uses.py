"""What a config names enters the code id by itself: a family's code moves its own keys, a plug-in's files theirs."""

import json
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from components import derivation
from components.derivation import closure, code_id, module_hashes
from pipelines.plan import config_class, resolve
from wfm import registry
from wfm.artifacts import Store
from wfm.errors import ConfigError
from wfm.models.family import FAMILIES
from wfm.registry import Use, uses

CARD = """
from typing import Annotated, ClassVar, Literal

from wfm.config import Config
from wfm.models.family import FAMILIES, Family
from wfm.registry import Named
from wfm.training.config import WorldTrainingConfig


class NextConfig(Config):
    FAMILY: ClassVar[str] = "next_frame"


class NextTrainingConfig(WorldTrainingConfig):
    family: Annotated[Literal["next_frame"], Named(FAMILIES, "fit")] = "next_frame"
    ridge: float = 0.1


class NextFamily(Family):
    name = "next_frame"
    makes = "world_model"
    takes = "continuous"
    title = "Next frame"
    config = NextConfig
    network = "next_frames.fit:Next"
    training = NextTrainingConfig
    fit = "next_frames.fit:FITTING"
    draw = "next_frames.fit:DRAWING"


FAMILY = NextFamily()
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An installed package with a family of its own."""
    folder, info = tmp_path / "next_frames", tmp_path / "next_frames-1.0.dist-info"
    folder.mkdir()
    info.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "card.py").write_text(CARD)
    (folder / "fit.py").write_text("from wfm.models.least_squares import LeastSquares\n\nSTEP = 1\n")
    (folder / "table.json").write_text("[1]")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: next-frames\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[wfm.families]\nnext_frame = next_frames.card:FAMILY\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    _forget()
    yield folder
    for name in [name for name in sys.modules if name.split(".")[0] == "next_frames"]:
        del sys.modules[name]
    _forget()


def _forget() -> None:
    """What a new process has not seen."""
    registry._plug_ins.cache_clear()
    derivation._reach.cache_clear()
    derivation._meaning.cache_clear()


def _keys(store: Store) -> dict[str, str]:
    _forget()
    plan = resolve("world_model", profile="smoke", store=store, overrides=["train_next_frame.ridge=0.2"])
    return {node.name: node.key or "" for node in plan.nodes}


def _moved(before: dict[str, str], after: dict[str, str]) -> set[str]:
    return {name for name in before if before[name] != after[name]}


def test_an_edited_file_of_a_plug_in_makes_its_stages_run_again_and_no_others(package: Path, store: Store) -> None:
    own = {"train_next_frame", "generate_next_frame", "evaluate_next_frame", "publish_next_frame", "write_report"}
    first = _keys(store)
    assert own < set(first)
    (package / "fit.py").write_text("from wfm.models.least_squares import LeastSquares\n\nSTEP = 2\n")
    second = _keys(store)
    assert _moved(first, second) == own
    (package / "table.json").write_text("[2]")  # what is not Python decides too
    assert _moved(second, _keys(store)) == own
    (package / "table.json").write_text("[1]")
    assert _keys(store) == second


def test_a_plug_in_brings_what_it_imports_of_ours(package: Path) -> None:
    use = Use(FAMILIES, "next_frame", "fit")
    assert {"next_frames", "wfm.models.least_squares", "wfm.training.config"} <= set(closure("encode_text", (use,)))
    assert {"next_frames/fit.py", "next_frames/table.json"} <= set(module_hashes("encode_text", (use,)))
    assert "wfm.models.least_squares" not in closure("train_tokenizer")


def test_a_plug_in_without_files_is_refused(package: Path) -> None:
    (package.parent / "next_frames-1.0.dist-info" / "entry_points.txt").write_text(
        "[wfm.families]\nnext_frame = wfm.no_such_module:FAMILY\n"
    )
    _forget()
    with pytest.raises(ModuleNotFoundError):
        FAMILIES.load("next_frame")


def test_two_packages_that_claim_a_name_are_refused(package: Path) -> None:
    info = package.parent / "others-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: others\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[wfm.families]\nnext_frame = others.card:FAMILY\n")
    _forget()
    with pytest.raises(ConfigError, match=r"'next_frame' is registered 2 times \(next_frames.card:FAMILY, others.card"):
        FAMILIES.load("next_frame")


def test_an_unknown_family_is_told_the_choices(store: Store) -> None:
    with pytest.raises(ConfigError, match=r"unknown family 'difusion'\. Choices: tokenizer, diffusion, "):
        config_class("train_world_model").parse({"family": "difusion"})
    with pytest.raises(ConfigError, match=r"'family' = 'tokenizer': choices are diffusion, autoregressive"):
        config_class("train_world_model").parse({"family": "tokenizer"})


def test_a_stage_spans_the_modules_of_the_families_that_its_config_names() -> None:
    packages = {name: (f"wfm.families.{name}", f"wfm.models.{name}") for name in FAMILIES.built_in}
    for stage in ("train_tokenizer", "train_world_model", "train_decoder", "encode_latents"):
        config_of = config_class(stage)
        families = config_of.choices() if hasattr(config_of, "choices") else ("",)
        for family in families:
            config = config_of.parse({"family": family} if family else {})
            named = {use.name for use in uses(config)}
            spanned = closure(stage, uses(config))
            for name in set(packages) - named:
                foreign = [module for module in spanned if _within(module, packages[name])]
                shared = name == "diffusion" and "diffusion_decoder" in named  # it is a denoiser
                assert shared or not foreign, (stage, family, foreign)
            assert not [m for m in closure(stage) for each in packages.values() if _within(m, each)], stage


def _within(module: str, packages: tuple[str, ...]) -> bool:
    return any(module == package or module.startswith(f"{package}.") for package in packages)


def test_a_code_id_is_the_stages_and_that_of_each_part_of_what_it_names(monkeypatch: pytest.MonkeyPatch) -> None:
    config = config_class("train_world_model").parse({"family": "diffusion"})
    used = uses(config)
    assert [(use.name, use.part) for use in used] == [("diffusion", "fit"), ("tokenizer", "network")]
    lines = {"train_world_model": derivation.closure_hash("train_world_model")}
    lines |= {use.line: derivation.use_hash(use) for use in used}
    lock = {line: {"version": "3", "hash": found} for line, found in lines.items()}
    monkeypatch.setattr(derivation, "read_lock", lambda: lock)
    assert code_id("train_world_model", used) == "v3+diffusion.fit.v3+tokenizer.network.v3"
    monkeypatch.setattr(derivation, "read_lock", lambda: {**lock, used[0].line: {"version": "3", "hash": "old"}})
    assert code_id("train_world_model", used) == f"v3+diffusion.fit.{lines[used[0].line]}+tokenizer.network.v3"


def test_an_edited_module_of_one_family_moves_no_code_id_of_another(tmp_path: Path) -> None:
    """A module is edited in a copy of the sources, and a process that runs the copy is asked."""
    import shutil
    import subprocess

    root = tmp_path / "source"
    for package in derivation.PACKAGES:
        shutil.copytree(derivation.ROOT / package, root / package, ignore=shutil.ignore_patterns("__pycache__"))
    script = textwrap.dedent(
        """
        import json
        from components.derivation import code_id
        from wfm.models.family import FAMILIES
        from wfm.registry import Use

        print(json.dumps({
            f"{name}.{part}": code_id("train_world_model", (Use(FAMILIES, name, part),))
            for name in FAMILIES.built_in for part in FAMILIES.parts_of(name)
        }))
        """
    )

    def asked() -> dict[str, str]:
        done = subprocess.run(
            [sys.executable, "-c", script], cwd=root, env={"PYTHONPATH": str(root), "HOME": str(tmp_path)},
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        found: dict[str, str] = json.loads(done.stdout)
        return found

    before = asked()
    edited = root / "wfm/models/autoregressive/blocks.py"
    edited.write_text(edited.read_text() + "\nEDITED = True\n")
    assert _moved(before, asked()) == {"autoregressive.network", "autoregressive.fit", "autoregressive.draw"}
