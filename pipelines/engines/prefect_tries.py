"""The tries at a run's nodes as Prefect's UI shows them: a table of each node's and one of the whole run's, with their cost.

They are read from the store, as `wfm status` reads them (`pipelines/runs/seen.py`). Prefect keeps a copy with its task run or
flow run, under a key that is the same in each run of a pipeline, so that its page of artifacts has the history of a node.
"""

import re
from collections.abc import Callable, Iterable
from typing import Any

from pipelines.runs.seen import Try, cost_in_words
from wfm.log import get_logger

_MOST_WORDS = 2000
_NOT_IN_A_KEY = re.compile(r"[^a-z0-9]+")


def show_tries(read: Callable[[], Iterable[Try]], *name: str) -> None:
    """Keep a table of tries with the task or flow that runs now, under a key of the words of `name`. Only a picture of what the
    store has: without it, be it for want of the store or of Prefect, the run goes on, and the log says so."""
    try:
        from prefect.artifacts import create_table_artifact

        tries = list(read())
        key = _NOT_IN_A_KEY.sub("-", "-".join(name).lower()).strip("-")
        create_table_artifact([_row(one) for one in tries], key=key, description=cost_in_words(tries) or "no try yet")
    except Exception as error:  # what Prefect's client raises has no common name
        get_logger(__name__).warning(
            "Prefect does not show the tries at %s: %s: %s", " ".join(name), type(error).__name__, error
        )


def _row(one: Try) -> dict[str, Any]:
    """A try in the words of `wfm status`; a table's cells are plain text or numbers."""
    return {
        "node": one.node,
        "try": one.number,
        "parts": one.parts,
        "outcome": one.state,
        "reason": one.reason[:_MOST_WORDS],
        "seconds": round(one.seconds, 1),
        "cpu seconds": round(one.cpu_seconds, 1),
        "gpu seconds": round(one.gpu_seconds, 1),
        "peak MiB": round(one.peak_bytes / 2**20),
        "host": one.host,
    }
