"""How a Python process of ours is started: the current folder is never among the places it imports from.

`python -m` and `python -c` put the current folder first on the path, so a file `av.py` beside somebody's videos would run
inside a stage. What `PYTHONPATH` names is the user's own wish, except for entries that mean "here": an empty one (as in
`PYTHONPATH=$PYTHONPATH:/x`) or a relative one. The same goes for programs (`PATH`) and for shared libraries
(`LD_LIBRARY_PATH`), to which OpenCV adds an empty entry unless it finds another there.
"""

import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

_OURS = Path(__file__).resolve().parents[1]
"""The folder that holds the packages wfm, components and pipelines."""
_NO_LIBRARIES = str(Path(__file__).resolve().parent)
"""An entry for `LD_LIBRARY_PATH` in which nothing is found."""


def python(*arguments: str) -> list[str]:
    """A command line of this interpreter that does not import from the current folder."""
    return [sys.executable, "-P", *arguments]


def signal_name(number: int) -> str:
    """``SIGTERM``; of one of the real-time signals, which have none, its number."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def safe_environment(given: Mapping[str, str]) -> dict[str, str]:
    """``given`` for a child: neither it nor what it starts imports, runs or links what lies in the current folder."""
    safe = {**given, "PYTHONSAFEPATH": "1"}
    for name in ("PYTHONPATH", "PATH", "LD_LIBRARY_PATH"):
        named = [entry for entry in safe.pop(name, "").split(os.pathsep) if os.path.isabs(entry)]
        if name == "LD_LIBRARY_PATH":
            named = named or [_NO_LIBRARIES]
        if named:
            safe[name] = os.pathsep.join(named)
    return safe


def forget_current_folder() -> None:
    """The same for this process and what it starts by other means (Dask's workers get its path, and its environment).

    A current folder that is the source tree itself stays: from there, everything comes from there.
    """
    safe = safe_environment(os.environ)
    for name in os.environ.keys() - safe.keys():
        del os.environ[name]
    os.environ.update(safe)
    try:
        here = Path.cwd().resolve()
    except FileNotFoundError:  # a folder that is gone holds nothing
        return
    if here != _OURS:
        named = [entry for entry in safe.get("PYTHONPATH", "").split(os.pathsep) if entry]
        sys.path[:] = [entry for entry in sys.path if entry in named or (entry and Path(entry).resolve() != here)]
