"""The model as a process of its own, in real time: API server, and the controllers beside it.

    python -m tests.cluster.serve --port 8080 --state journal.jsonl [--options '{"job_backoff": 1}']

It may be killed at any moment: what was stored is in the journal, and the next process goes on from there.
"""

import argparse
import json
import os
import random
import socket
import subprocess
import sys
import time
from pathlib import Path

from components.derivation import ROOT
from tests.cluster.controllers import ALL, Controllers, Options
from tests.cluster.controllers.kueue import webhook
from tests.cluster.server.api import Api
from tests.cluster.server.faults import Faults
from tests.cluster.server.http import HttpServer
from tests.cluster.server.storage import Key, Storage

OPTIONS = {"job_backoff": 0.5, "node_grace": 4.0, "toleration": 3.0, "orphan_quarantine": 3.0}
EVERY = 0.1
"""How often the controllers look where nothing changes [s]."""


def main() -> None:
    """Serve until it is killed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--state", type=Path, required=True)
    parser.add_argument("--options", default="{}")
    arguments = parser.parse_args()
    options = Options(**json.loads(arguments.options))
    storage = Storage(arguments.state)
    api = Api(storage, time.time, random.Random())
    api.admission.append(webhook(api, lambda: options.integrations))
    for name in ("default", "kube-node-lease"):
        if storage.get(Key("namespaces", "", name)) is None:
            storage.put(
                Key("namespaces", "", name),
                {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "uid": name}},
            )
    controllers = Controllers(api, ALL, options)
    server = HttpServer(api, Faults(random.Random()), port=arguments.port).start()
    print(server.url, flush=True)
    while True:
        controllers.settle()
        time.sleep(EVERY)


class Cluster:
    """That process, for a test; with controllers that are as quick as real time asks for."""

    def __init__(self, folder: Path, pace: float = 0.01) -> None:
        """`pace`: the WFM_TEST_PACE of the scenarios. At a slower one their kubelets beat less often than the quick one's
        controllers wait for, who then take every machine for lost."""
        self._options = {name: seconds * max(pace / 0.01, 1.0) for name, seconds in OPTIONS.items()}
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._folder = folder
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        words = [
            "--port",
            str(self.port),
            "--state",
            str(self._folder / "journal.jsonl"),
            "--options",
            json.dumps(self._options),
        ]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.cluster.serve", *words], env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self._process.stdout is not None
        assert self._process.stdout.readline().startswith("http"), "the model server did not start"

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


if __name__ == "__main__":
    main()
