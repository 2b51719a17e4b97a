"""The model as a process of its own, in real time: API server, and the controllers beside it.

    python -m tests.cluster.serve --port 8080 --state journal.jsonl [--options '{"job_backoff": 1}']

It may be killed at any moment: what was stored is in the journal, and the next process goes on from there.
"""

import argparse
import json
import random
import time
from pathlib import Path

from tests.cluster.controllers import ALL, Controllers, Options
from tests.cluster.controllers.kueue import webhook
from tests.cluster.server.api import Api
from tests.cluster.server.faults import Faults
from tests.cluster.server.http import HttpServer
from tests.cluster.server.storage import Key, Storage

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


if __name__ == "__main__":
    main()
