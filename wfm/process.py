"""How a Python process of ours is started: the current folder is never among the places it imports from.

`python -m` and `python -c` put the current folder first on the path, so a file `av.py` beside somebody's videos would run
inside a stage. What `PYTHONPATH` names is the user's own wish, except for entries that mean "here": an empty one (as in
`PYTHONPATH=$PYTHONPATH:/x`) or a relative one.
"""

import os
import sys
from collections.abc import Mapping
from pathlib import Path

_OURS = Path(__file__).resolve().parents[1]
"""The folder that holds the packages wfm, components and pipelines."""


def python(*arguments: str) -> list[str]:
    """A command line of this interpreter that does not import from the current folder."""
    return [sys.executable, "-P", *arguments]


def safe_environment(given: Mapping[str, str]) -> dict[str, str]:
    """``given`` for a child: neither it nor any Python that it starts imports from the current folder."""
    kept = {**given, "PYTHONSAFEPATH": "1"}
    named = [entry for entry in kept.pop("PYTHONPATH", "").split(os.pathsep) if os.path.isabs(entry)]
    return {**kept, "PYTHONPATH": os.pathsep.join(named)} if named else kept


def forget_current_folder() -> None:
    """The same for this process and what it starts by other means (Dask's workers get its path, and its environment).

    A current folder that is the source tree itself stays: from there, everything comes from there.
    """
    safe = safe_environment(os.environ)
    os.environ.pop("PYTHONPATH", None)
    os.environ.update(safe)
    try:
        here = Path.cwd().resolve()
    except FileNotFoundError:  # a folder that is gone holds nothing
        return
    if here != _OURS:
        named = [entry for entry in safe.get("PYTHONPATH", "").split(os.pathsep) if entry]
        sys.path[:] = [entry for entry in sys.path if entry in named or (entry and Path(entry).resolve() != here)]
