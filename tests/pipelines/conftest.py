"""Fixtures for pipelines: a workshop of fake stages (`fakes/wfm_fakes`), and one Prefect home for all tests."""

import os
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent / "fakes"))
from wfm_fakes.workshop import Workshop

from wfm.artifacts import Store


@pytest.fixture(scope="session", autouse=True)
def _prefect_of_the_tests(tmp_path_factory: pytest.TempPathFactory) -> None:
    """One Prefect home for all tests: its database is made once."""
    os.environ["WFM_HOME"] = str(tmp_path_factory.mktemp("wfm-home"))


@pytest.fixture
def workshop(tmp_path: Path) -> Workshop:
    (tmp_path / "notes").mkdir()
    return Workshop(tmp_path / "notes", Store.open(tmp_path / "store", {"fsync": False}))
