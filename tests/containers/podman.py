"""Containers as pods are: no root, a root that is read-only, nothing kept, little shared memory, few files and processes.

Run by podman with runc (crun wants a newer kernel interface than some machines have). A stage in a container is a process to
whoever started it: it is waited for, killed, and its exit code is -9 after a SIGKILL.
"""

import itertools
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

USER = 1000
PODMAN = ("podman", "--runtime", "runc")
LIMITS = (
    "--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1000:1000", "--shm-size", "64m", "--cap-drop", "all", "--security-opt",
    "no-new-privileges", "--user", str(USER), "--read-only", "--read-only-tmpfs=false", "--tmpfs", "/tmp:size=256m,mode=1777",
    "--no-healthcheck", "--pull", "never",
)  # fmt: skip
_numbers = itertools.count(1)


def podman(*words: str, check: bool = True, **environment: str) -> str:
    """What a command of podman prints. Raises AssertionError with its errors."""
    done = subprocess.run([*PODMAN, *words], capture_output=True, text=True, env={**os.environ, **environment})
    assert done.returncode == 0 or not check, f"podman {' '.join(words)}: {done.stderr}"
    return done.stdout.strip()


def image(role: str) -> str:
    """The reference of a role's image, with its digest."""
    name = f"localhost/wfm-{role}"
    return f"{name}@{podman('image', 'inspect', '--format', '{{.Digest}}', name)}"


def give(*folders: Path) -> None:
    """Make folders, and all in them, the containers' user's."""
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run(["chown", "-R", f"{USER}:{USER}", str(folder)], check=True)


class Container:
    """A container that runs one command of an image. Its caches are a new, empty folder, gone with it."""

    def __init__(
        self,
        role: str,
        command: Sequence[str],
        *,
        log: Path,
        mounts: Sequence[Path] = (),
        environment: Mapping[str, str] | None = None,
        network: str = "none",
        name: str = "",
        memory_gib: float = 0.0,
        options: Sequence[str] = (),
    ) -> None:
        """`mounts`: folders that are at the same place inside. `network`: of podman. `log`: file for what it prints."""
        self.name = name or f"wfm-{os.getpid()}-{next(_numbers)}"
        self._log, self._code = log, None
        self._cache = Path(tempfile.mkdtemp(prefix="wfm-cache-"))
        give(self._cache)
        given = {"WFM_CACHE": "/cache", "OMP_NUM_THREADS": "1", "WFM_IMAGE": image(role), **(environment or {})}
        self.command = [
            *PODMAN, "run", "--rm", *LIMITS, "--network", network, "--name", self.name, "--volume", f"{self._cache}:/cache",
            *(word for folder in mounts for word in ("--volume", f"{folder}:{folder}")),
            *(word for of, value in given.items() for word in ("--env", f"{of}={value}")),
            *(("--memory", f"{int(memory_gib * 1024)}m") if memory_gib else ()), *options, f"localhost/wfm-{role}", *command,
        ]  # fmt: skip
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> "Container":
        """Start it."""
        with self._log.open("ab") as output:
            self._process = subprocess.Popen(self.command, stdout=output, stderr=output, stdin=subprocess.DEVNULL)
        return self

    def join(self, seconds: float | None = None) -> None:
        """Wait for its end, so long at most."""
        assert self._process is not None
        try:
            code = self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return
        self._code = -signal.SIGKILL if code == 128 + signal.SIGKILL else code
        shutil.rmtree(self._cache, ignore_errors=True)

    @property
    def exitcode(self) -> int | None:
        """As of a process: -9 for SIGKILL; None while it runs."""
        return self._code

    def run(self, seconds: float = 600.0) -> int:
        """Start it and wait for its end; fails when that does not come."""
        self.start().join(seconds)
        if self._code is None:
            self.kill()
        assert self._code is not None, f"{self.name} did not end within {seconds:g} s\n{self.printed()}"
        return self._code

    def send(self, name: str) -> None:
        """Send the container a signal, as a kubelet does: to its process 1."""
        podman("kill", "--signal", name, self.name)

    def kill(self) -> None:
        """End it, if it runs."""
        if self._code is None:
            podman("rm", "--force", "--time", "0", self.name, check=False)
            self.join(30.0)

    def address(self) -> str:
        """On its bridge."""
        return podman("inspect", "--format", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", self.name)

    def printed(self) -> str:
        """The end of what it printed."""
        return self._log.read_text(errors="replace")[-4000:] if self._log.exists() else ""


class Bridge:
    """A bridge network of its own, with names; `host` is this machine's address on it. A context manager."""

    def __init__(self) -> None:
        self.name = f"wfm-{os.getpid()}-bridge-{next(_numbers)}"
        self.host = ""
        self._anchor = f"{self.name}-anchor"

    def __enter__(self) -> "Bridge":
        podman("network", "create", "--internal", self.name)
        # the bridge is there while a container is on it
        podman(
            "run", "--detach", "--rm", *LIMITS, "--network", self.name, "--name", self._anchor, "--entrypoint", "sleep",
            "localhost/wfm-control", "infinity",
        )  # fmt: skip
        self.host = podman("network", "inspect", "--format", "{{range .Subnets}}{{.Gateway}}{{end}}", self.name)
        deadline = time.monotonic() + 20
        while self.host not in subprocess.run(["ip", "-4", "addr"], capture_output=True, text=True).stdout:
            assert time.monotonic() < deadline, f"the bridge of {self.name} did not come up at {self.host}"
            time.sleep(0.2)
        return self

    def __exit__(self, *_: object) -> None:
        podman("rm", "--force", "--time", "0", self._anchor, check=False)
        podman("network", "rm", "--force", self.name, check=False)
