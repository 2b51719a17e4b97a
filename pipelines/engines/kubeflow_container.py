"""A container of Kubeflow Pipelines: what KFP cannot give it, then the command that it is for.

    python -m pipelines.engines.kubeflow_container [--secrets FOLDER] [--take FILE PATH ...] [--either OPTION VALUE OTHER] \
        -- COMMAND ...

KFP has no ``envFrom``: entries of secrets are mounted as files, ``FOLDER/<secret>/<entry>``, and become variables here (what is
set already stays, as with ``envFrom``). And it wants each output at a place of its own: a FILE that the command wrote goes to
the PATH that KFP reads. A parameter that a run was not given is empty; then the command's OPTION gets OTHER, not VALUE. The end
is the command's; SIGTERM reaches it.
"""

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def main() -> None:
    """Run a command; never returns."""
    parser = argparse.ArgumentParser(prog="python -m pipelines.engines.kubeflow_container")
    parser.add_argument("--secrets", default="", metavar="FOLDER", help="where secrets are mounted, a folder each")
    parser.add_argument(
        "--take", action="append", nargs=2, default=[], metavar=("FILE", "PATH"), help="copy an output afterwards"
    )
    parser.add_argument("--either", action="append", nargs=3, default=[], metavar=("OPTION", "VALUE", "OTHER"))
    parser.add_argument("command", nargs="+", help="what to run, after --")
    arguments = parser.parse_args()
    environment = {**entries(Path(arguments.secrets)), **os.environ} if arguments.secrets else dict(os.environ)
    command = [*arguments.command, *(f"--{option}={value or other}" for option, value, other in arguments.either)]
    if not arguments.take:
        os.execvpe(command[0], command, environment)
    code = follow(command, environment)
    if code == 0:
        take(arguments.take)
    sys.exit(code)


def entries(folder: Path) -> dict[str, str]:
    """The entries of all secrets below a folder. One whose name is no variable's is left out, as Kubernetes does."""
    files = (file for secret in sorted(folder.glob("*")) for file in sorted(secret.glob("*")) if file.is_file())
    return {file.name: file.read_text() for file in files if _NAME.fullmatch(file.name)}


def follow(command: Sequence[str], environment: dict[str, str]) -> int:
    """Run a command to its end; returns its exit code, 128 and the signal where one ended it."""
    child = subprocess.Popen(command, env=environment)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda given, _: child.send_signal(given))
    code = child.wait()
    return code if code >= 0 else 128 - code


def take(outputs: Sequence[Sequence[str]]) -> None:
    """Copy each FILE to its PATH."""
    for file, path in outputs:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, path)


if __name__ == "__main__":
    main()
