"""Places where a stage may die, by name, so that tests can make it die there.

    attempt.commit(...)
    crash_point("after_commit")

``WFM_CRASH_AT=after_commit`` ends the process at the first pass, as SIGKILL would: nothing is flushed, no handler runs.
``after_commit:3`` waits for the third pass; ``after_commit/1`` for the process of rank 1 (``RANK``); ``after_commit=SIGTERM``
sends that signal instead and goes on. Unset, a point costs one look-up. A test gathers the names from the sources and knows
what must come out after each (`tests/faults/test_crash_points.py`): a new point without a line there is red.
"""

import os
import re
import signal
from collections import Counter

VARIABLE = "WFM_CRASH_AT"
_WISH = re.compile(r"(?P<name>[a-z_]+)(?::(?P<pass_>[1-9][0-9]*))?(?:/(?P<rank>[0-9]+))?(?:=(?P<signal>SIG[A-Z0-9]+))?")
_passes: Counter[str] = Counter()


def crash_point(name: str) -> None:
    """Die here when a test asks for it. Raises ValueError for a wish that is none: it would never come true."""
    wished = os.environ.get(VARIABLE)
    if not wished:
        return
    wish = _WISH.fullmatch(wished)
    if wish is None:
        raise ValueError(f"{VARIABLE}={wished!r}: of the form NAME[:PASS][/RANK][=SIGNAL], such as after_commit:2")
    if wish["name"] != name or (wish["rank"] or os.environ.get("RANK", "0")) != os.environ.get("RANK", "0"):
        return
    _passes[name] += 1
    if _passes[name] == int(wish["pass_"] or 1):
        os.kill(os.getpid(), signal.Signals[wish["signal"] or "SIGKILL"])
