"""The front door: `import wfm` is light, what it offers is there, and its reference is what the sources say."""

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

import wfm
from tests.contracts import api_reference
from tests.pipelines.commands.test_light import HEAVY
from wfm.errors import MissingPackage

ROOT = Path(__file__).parents[2]
LOADED = """
import json, sys
before = set(sys.modules)
import wfm
{more}
print(json.dumps(sorted(set(sys.modules) - before)))
"""


def loaded(more: str = "") -> set[str]:
    """The modules that `import wfm` (and what is done then) loads in a process of its own."""
    code = LOADED.format(more=more)
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout))


def test_import_wfm_loads_nothing() -> None:
    assert {name for name in loaded() if name.split(".")[0] in ("pipelines", "components", *HEAVY)} == set()
    assert {name for name in loaded() if name.startswith("wfm")} == {"wfm"}


def test_a_store_is_asked_without_torch() -> None:
    """Planners and small services open stores and runs; the twin shows that a model's loading would be seen."""
    assert not {"torch", "av", "scipy", "prefect"} & loaded("wfm.store; wfm.run; wfm.dataset; wfm.InputError")
    assert "torch" in loaded("wfm.load")


def test_every_name_is_there_and_said_to_type_checkers() -> None:
    assert set(wfm.__all__) == {"__version__", *wfm._HOMES}
    told = (ROOT / "wfm" / "__init__.py").read_text()
    for name, (home, there) in wfm._HOMES.items():
        assert getattr(wfm, name) is getattr(importlib.import_module(home), there)
        assert f"from {home} import {there} as {name}\n" in told, "type checkers read this line"
    assert set(wfm.__all__) <= set(dir(wfm))
    with pytest.raises(AttributeError, match="no attribute 'lode'"):
        wfm.lode  # noqa: B018


def test_a_missing_package_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("wfm.generation")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingPackage, match=r"wfm\.load needs the package 'torch'.*pip install 'wfm\[train\]'"):
        wfm.load  # noqa: B018


def test_the_reference_is_what_the_sources_say() -> None:
    page = api_reference.PAGE.read_text()
    assert page == api_reference.with_reference(page), "run: python -m tests.contracts.api_reference"


def test_a_stale_reference_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """The twin: a name more, and a signature that lost an argument."""
    page = api_reference.PAGE.read_text()
    stale = page.replace('    dtype: str = "float32",\n', "", 1)
    assert stale != page
    assert api_reference.with_reference(stale) != stale
    monkeypatch.setitem(wfm._HOMES, "check_seed", ("wfm.models.seeding", "check_seed"))
    assert api_reference.with_reference(page) != page


def test_every_public_thing_says_what_it_is() -> None:
    """No bare row in the reference, and shapes or units where arrays and numbers are."""
    bare = [line for line in api_reference.reference().splitlines() if line.startswith("| `") and line.endswith("|  |")]
    assert bare == []
