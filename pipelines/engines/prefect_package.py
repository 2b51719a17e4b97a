"""The Prefect package as we take it: with settings of our environment alone."""

import contextlib
import sys
from typing import Any

from pipelines.wfm_home import home
from wfm.errors import MissingPackage


def import_prefect() -> None:
    """Import the package so that it takes its settings from our environment alone. Raises `MissingPackage`.

    By itself it reads `.env`, `prefect.toml` and `pyproject.toml` of the current folder, too, and a setting among these may
    name a file that says what is to be called to set up logging.
    """
    if "prefect" in sys.modules:
        return
    with contextlib.chdir(home()):  # where nobody else writes: settings are read while it is imported
        try:
            from prefect.settings import base
            from pydantic_settings import InitSettingsSource
        except ImportError as error:
            raise MissingPackage("prefect", extra="prefect", purpose="running a pipeline") from error

    class Nothing(InitSettingsSource):
        def __init__(self, settings_cls: Any, **_: Any) -> None:
            super().__init__(settings_cls, {})

    for file in ("FilteredDotEnv", "PrefectTomlConfig", "PyprojectTomlConfig"):
        setattr(base, f"{file}SettingsSource", Nothing)
