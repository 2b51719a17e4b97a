"""Keys and code ids: what moves them, and what must not."""

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from components import derivation
from components.derivation import closure, derive_key, derive_part_key
from pipelines import lock
from pipelines.nodes import config_class
from pipelines.stages import TABLE
from wfm.config import Config
from wfm.models.family import FamilyConfig


def test_key_moves_with_each_part() -> None:
    base = {"stage": "s", "code_id": "v1", "what": {"a": 1}, "inputs": {"x": "k"}}
    keys = {
        derive_key(**base),
        derive_key(**{**base, "stage": "t"}),
        derive_key(**{**base, "code_id": "v2"}),
        derive_key(**{**base, "what": {"a": 2}}),
        derive_key(**{**base, "inputs": {"x": "l"}}),
        derive_key(**base, redo="1"),
        derive_key(**base, external_inputs=["f"]),
    }
    assert len(keys) == 7
    assert derive_key(**base) == derive_key(**{**base, "what": {"a": 1}})
    assert derive_part_key("s", "v1", {"a": 1}, {"x": "k"}) not in keys


def _configs() -> list[Config]:
    """The config of every component, by family where it has one."""
    found: list[Config] = []
    for kind in (config_class(row.component) for row in TABLE):
        families = kind.choices() if issubclass(kind, FamilyConfig) else ()
        found += [kind.parse({"family": family}) for family in families] if families else [kind()]
    return found


@pytest.mark.parametrize("config", _configs(), ids=lambda config: type(config).__name__)
def test_every_field_is_in_exactly_one_half(config: Config) -> None:
    """Flip every field: a `what` field moves the key, a `how` field does not."""
    component = type(config).__name__
    for path, value, half in _leaves(config):
        flipped = _flip(value)
        changed = _copy_with(config, path, flipped)
        moved = derive_key("s", "v1", changed.what(), {}) != derive_key("s", "v1", config.what(), {})
        assert moved == (half == "what"), f"{component}.{'.'.join(path)} of the {half} half: key moved = {moved}"


def _leaves(config, prefix=(), half="what"):  # type: ignore[no-untyped-def]
    from wfm.config import Config, _is_how

    for name, field in type(config).model_fields.items():
        value = getattr(config, name)
        here = "how" if _is_how(field) else half
        if isinstance(value, Config):
            yield from _leaves(value, (*prefix, name), here)
        else:
            yield (*prefix, name), value, here


def _flip(value):  # type: ignore[no-untyped-def]
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1
    if isinstance(value, str):
        return value + "x"
    if value is None:
        return 1
    if isinstance(value, tuple | list):
        return (*value, value[-1]) if value else ("x",)
    return {"x": 1}


def _copy_with(config, path, value):  # type: ignore[no-untyped-def]
    if len(path) == 1:
        return config.model_copy(update={path[0]: value})
    return config.model_copy(update={path[0]: _copy_with(getattr(config, path[0]), path[1:], value)})


def _toy(root: Path, monkeypatch: pytest.MonkeyPatch, body: str, guide: str = "") -> str:
    (root / "components").mkdir(exist_ok=True)
    (root / "components" / "__init__.py").write_text("")
    (root / "components" / "toy.py").write_text("from wfm.toys import play\nfrom wfm.errors import WfmError\n")
    (root / "wfm" / "toys").mkdir(parents=True, exist_ok=True)
    (root / "wfm" / "toys" / "__init__.py").write_text(guide)
    (root / "wfm" / "toys" / "play.py").write_text(textwrap.dedent(body))
    monkeypatch.setattr(derivation, "ROOT", root)
    derivation._reach.cache_clear()
    derivation._meaning.cache_clear()
    return derivation.closure_hash("toy")


def test_comments_and_docstrings_change_nothing_and_code_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = _toy(tmp_path, monkeypatch, "def play():\n    return 1\n")
    spoken = _toy(tmp_path, monkeypatch, '"""Doc."""\n\n# why\ndef play():\n    "more"\n    return 1  # one\n')
    edited = _toy(tmp_path, monkeypatch, "def play():\n    return 2\n")
    listed = _toy(tmp_path, monkeypatch, "def play():\n    return 1\n", guide='"""Guide."""\n\n__all__ = ["play"]\n')
    assert plain == spoken == listed
    assert plain != edited
    assert closure("toy") == ("components.toy", "wfm.toys", "wfm.toys.play")
    derivation._reach.cache_clear()
    derivation._meaning.cache_clear()


def test_code_id_is_the_version_when_locked_and_the_hash_when_not(monkeypatch: pytest.MonkeyPatch) -> None:
    name = TABLE[0].component
    found = derivation.closure_hash(name)
    monkeypatch.setattr(derivation, "read_lock", lambda: {name: {"version": "7", "hash": found}})
    assert derivation.code_id(name) == "v7"
    monkeypatch.setattr(derivation, "read_lock", lambda: {name: {"version": "7", "hash": "other"}})
    assert derivation.code_id(name) == found


def test_the_lock_is_fresh() -> None:
    assert lock.stale() == [], "run `wfm lock` and commit components/lock.json, or raise the stage's version first"


def test_importing_components_and_pipelines_loads_nothing_heavy() -> None:
    names = ", ".join(f"components.{row.component}" for row in TABLE)
    loaded = "[m for m in ('torch', 'dask', 'av', 'mujoco', 'cv2') if m in sys.modules]"
    code = f"import sys, {names}, pipelines.plan, pipelines.commands.cli\nprint({loaded})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
