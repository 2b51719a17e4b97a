"""A container of Kubeflow Pipelines: what KFP cannot give it, then the command that it is for.

    python -m pipelines.engines.kubeflow.container [--secrets FOLDER] [--take FILE PATH ...] [--either OPTION VALUE OTHER] \
        [--tries N] -- COMMAND ...

KFP has no ``envFrom``: entries of secrets are mounted as files, ``FOLDER/<secret>/<entry>``, and become variables here (what is
set already stays, as with ``envFrom``). It wants each output at a place of its own: a FILE that the command wrote goes to the
PATH that KFP reads. A parameter that a run was not given is empty; then the command's OPTION gets OTHER, not VALUE. And KFP
cannot tell one failure from another: a command that asks for another try (75), or that a signal ended, gets it here, N in all,
with pauses that grow; what is wrong for good, or was cancelled, ends at once. One that SIGKILL ended beside us, whom nobody
killed, had too little memory: that is tried once more, as Argo tries what was OOMKilled, and not N times. The end is the
command's; SIGTERM reaches it, and no try follows.
"""

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from wfm.errors import ConfigError, TryAgain
from wfm.log import get_logger, set_up

LONGEST_PAUSE = 600.0
"""Between two tries [s]."""
KILLED_TRIES = 1
"""After so many by SIGKILL the next is the last: it has the same memory."""
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def main() -> None:
    """Run a command; never returns."""
    parser = argparse.ArgumentParser(prog="python -m pipelines.engines.kubeflow.container")
    parser.add_argument("--secrets", default="", metavar="FOLDER", help="where secrets are mounted, a folder each")
    parser.add_argument(
        "--take", action="append", nargs=2, default=[], metavar=("FILE", "PATH"), help="copy an output afterwards"
    )
    parser.add_argument("--either", action="append", nargs=3, default=[], metavar=("OPTION", "VALUE", "OTHER"))
    parser.add_argument("--tries", type=int, default=1, metavar="N", help="the most there may be")
    parser.add_argument("--pause", type=float, default=30.0, metavar="SECONDS", help="before the second try")
    parser.add_argument("command", nargs="+", help="what to run, after --")
    arguments = parser.parse_args()
    set_up("INFO")
    try:
        environment = {**(entries(Path(arguments.secrets)) if arguments.secrets else {}), **os.environ}
    except ConfigError as error:
        get_logger("wfm.kubeflow").error("%s", error)
        sys.exit(error.exit_code)
    command = [*arguments.command, *(f"--{option}={value or other}" for option, value, other in arguments.either)]
    code = Command(command, environment).run(arguments.tries, arguments.pause)
    if code == 0:
        take(arguments.take)
    sys.exit(code)


class Command:
    """A command that is followed to its end."""

    def __init__(self, words: Sequence[str], environment: dict[str, str]) -> None:
        self._words, self._environment = words, environment
        self._child: subprocess.Popen[bytes] | None = None
        self._stopped = threading.Event()

    def run(self, tries: int, pause: float) -> int:
        """Its exit code, 128 and the signal where one ended it: that of the last try."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        code = self._once()
        killed = 0
        for more in range(1, tries):
            killed += code == -signal.SIGKILL
            if self._stopped.is_set() or killed > KILLED_TRIES or not (code == TryAgain.exit_code or code < 0):
                break
            wait = min(pause * 2.0 ** (more - 1), LONGEST_PAUSE)
            get_logger("wfm.kubeflow").warning("ended with %d: try %d of %d in %.0f s", code, more + 1, tries, wait)
            if not self._stopped.wait(wait):
                code = self._once()
        return code if code >= 0 else 128 - code

    def _once(self) -> int:
        self._child = child = subprocess.Popen(self._words, env=self._environment)
        if self._stopped.is_set():  # while it was started
            child.terminate()
        return child.wait()

    def _stop(self, number: int, _: object) -> None:
        self._stopped.set()
        if self._child is not None:
            self._child.send_signal(number)


def entries(folder: Path) -> dict[str, str]:
    """The entries of all secrets below a folder. One whose name is no variable's is left out, as Kubernetes does."""
    files = (file for secret in sorted(folder.glob("*")) for file in sorted(secret.glob("*")) if file.is_file())
    return {file.name: _text(file) for file in files if _NAME.fullmatch(file.name)}


def _text(file: Path) -> str:
    """What a variable can hold. Raises ConfigError that names the entry, and shows nothing of it."""
    try:
        text = file.read_bytes().decode()
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise ConfigError(
            f"the entry {file.name} of the secret {file.parent.name} is no text, so it can be no variable: take it out of that "
            "secret, or keep it there under a name that is none, such as one with a dash"
        )
    return text


def take(outputs: Sequence[Sequence[str]]) -> None:
    """Copy each FILE to its PATH."""
    for file, path in outputs:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, path)


if __name__ == "__main__":
    main()
