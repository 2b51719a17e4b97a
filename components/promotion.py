"""A node's name and what it made: who is through gives the name, through the gate that its spec declares.

A stage does this when its artifact is there; a planner for what was there before; whoever finds that another made it, likewise.
Asked again it changes nothing, so a process that dies before or after leaves nothing undone and nothing done twice.
"""

import getpass
import os
import socket
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from wfm.artifacts.names import CANDIDATE
from wfm.log import get_logger

if TYPE_CHECKING:
    from wfm.artifacts import Store
    from wfm.artifacts.names import Promotion


def promote(store: "Store", name: str, key: str, gate: Mapping[str, Any] | None = None, run_id: str = "") -> None:
    """Let a node's name (``dataset/curated``; empty: it has none) mean what it made; one that does so already is left alone.
    What does not pass its `gate` becomes the name's candidate, and the log says why."""
    kind, slash, rest = name.partition("/")
    if not slash:
        return
    by = f"run {run_id}" if run_id else ""
    if not gate:
        store.promote(kind, rest, key, by=by)
        return
    from wfm.evaluation import gate as gates  # reads figures; what has no gate needs none of it

    made = store.promote_through(kind, rest, key, partial(gates.judge, gates.Gate.parse(gate), store, key), by=by)
    if made.alias == CANDIDATE:
        get_logger("wfm.stage").warning("%s", not_latest(made))


def by_hand() -> str:
    """``USER@HOST``: who promotes or deletes by hand, for the record."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # in a pod, a number without a name
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"


def not_latest(candidate: "Promotion") -> str:
    """Why a model has not got its name, and what to do about it."""
    name = f"{candidate.kind}/{candidate.name}"
    return (
        f"{candidate.key[:12]} did not become {name}@latest, it is {candidate.reference}: {candidate.gate or 'by hand'}. "
        f"To call it latest all the same: wfm artifacts promote {candidate.key[:12]} {name}"
    )


def promoted(store: "Store", name: str, key: str) -> str:
    """What became of a node's name, in a line: ``model/diffusion@latest  0123456789ab``."""
    kind, _, rest = name.partition("/")
    latest = store.names.latest(kind, rest)
    if latest is not None and latest.key == key:
        return f"{latest.reference}  {key[:12]}"
    candidate = store.names.latest(kind, rest, CANDIDATE)
    if candidate is not None and candidate.key == key:
        return not_latest(candidate)
    return f"{name}@latest is {latest.key[:12]} by now, not {key[:12]}" if latest else f"{name} has no latest"
