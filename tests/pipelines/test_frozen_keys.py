"""The keys of what is shipped move only when somebody means it."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.pipelines.freeze_keys import FILE, hashes

ROOT = Path(__file__).parents[2]


def grown(how: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "tests.pipelines.grown", how]
    # by PYTHONPATH: a Dask cluster of another test leaves PYTHONSAFEPATH behind
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def test_what_enters_the_keys_of_the_shipped_recipes_is_as_it_was() -> None:
    frozen, now = json.loads(FILE.read_text()), hashes()
    different = sorted(name for name in {*frozen, *now} if frozen.get(name) != now.get(name))
    assert different == [], (
        "these nodes get a new key. A field that comes later is `added(neutral)` (wfm/config.py), and then none moves; where "
        "new data is meant: python -m tests.pipelines.freeze_keys, and CHANGELOG says so"
    )


def test_a_neutral_field_in_any_config_changes_no_key_and_another_value_does() -> None:
    answer = grown("added")
    assert answer["hashes"] == hashes()
    assert len(answer["met"]) > 40, "hardly a config was looked at"
    assert answer["still"] == []


def test_a_field_that_is_not_declared_as_added_moves_every_key() -> None:
    now = hashes()
    assert not [name for name, key in grown("plain")["hashes"].items() if key == now[name]]


def test_a_field_of_one_family_moves_its_own_keys_alone() -> None:
    now = hashes()
    moved = {name for name, key in grown("autoregressive")["hashes"].items() if key != now[name]}
    stages = ("train_autoregressive", "generate_autoregressive")
    assert moved == {f"{profile}/world_model/{stage}" for profile in ("smoke", "demo") for stage in stages}
