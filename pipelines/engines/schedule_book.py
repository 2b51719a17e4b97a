"""Which schedules this machine serves, or served: ``~/.wfm/schedules/<name>.json``, so that a time at which nobody was there to
begin a run is noticed later (`pipelines.schedules`). `schedule.serve` writes it; it is forgotten on request only."""

import os
import time
from typing import Annotated, Any

import pydantic

from pipelines.runs.state import lives, process_started
from pipelines.wfm_home import home, read_private, write_private
from wfm.artifacts import schema
from wfm.errors import InputError

SCHEMA_VERSION = 1
_Seconds = Annotated[float, pydantic.Field(ge=0.0, lt=1e11, allow_inf_nan=False)]


class Kept(pydantic.BaseModel):
    """One schedule."""

    schema_version: int = SCHEMA_VERSION
    name: schema.Word
    cron: schema.Short
    "In UTC."
    store: schema.Short
    request: dict[str, Any]
    since: _Seconds
    "When it was served first [unix s]: no time before that was missed."
    pid: Annotated[int, pydantic.Field(ge=0, lt=2**31)] = 0
    process_started: _Seconds = 0.0

    @property
    def served(self) -> bool:
        """Whether a process of this machine serves it now."""
        return bool(self.pid) and lives(self.pid, self.process_started)


def keep(name: str, cron: str, store: str, request: dict[str, Any]) -> None:
    """Write down that this process serves it."""
    before = next((one for one in kept() if one.name == name), None)
    since = before.since if before is not None and before.cron == cron else time.time()
    mine = {"pid": os.getpid(), "process_started": process_started(os.getpid())}
    told = Kept(name=name, cron=cron, store=store, request=request, since=since, **mine)
    write_private(_folder() / f"{name}.json", schema.encode(told.model_dump()).decode())


def kept() -> list[Kept]:
    """All of them, by name. Raises InputError for one that cannot be read."""
    found = []
    for path in sorted(_folder().glob("*.json")):
        found.append(schema.read(Kept, read_private(path).encode(), str(path), SCHEMA_VERSION, name=path.stem))
    return found


def forget(name: str) -> None:
    """Keep it no longer. Raises InputError while it is served, or where there is none."""
    for one in kept():
        if one.name == name and one.served:
            raise InputError(f"{name} is served by process {one.pid}: stop that first (Ctrl-C, or kill {one.pid})")
        if one.name == name:
            (_folder() / f"{name}.json").unlink(missing_ok=True)
            return
    names = ", ".join(one.name for one in kept()) or "none"
    raise InputError(f"this machine keeps no schedule {name!r}. There are: {names}")


def _folder() -> Any:
    folder = home().parent / "schedules"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder
