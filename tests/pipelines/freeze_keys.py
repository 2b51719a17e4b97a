"""What enters the keys of the shipped recipes, as one hash a node: ``frozen_keys.json``, which a test compares with the code.

    python -m tests.pipelines.freeze_keys          # writes the file anew

Only a change that is meant to make new data moves a hash: a field that comes later is `wfm.config.added`. Code ids are left
out, so that a new version of a stage renews nothing here, and so are the keys of the inputs, so that one change moves one line.
"""

import hashlib
import json
import tempfile
from pathlib import Path

from components.derivation import canonical
from pipelines.nodes import Plan, config_class
from pipelines.plan import PIPELINES, resolve
from wfm.artifacts import Store

FILE = Path(__file__).with_name("frozen_keys.json")
SHIPPED = {"smoke": PIPELINES, "demo": PIPELINES, "progressive": ("world_model",)}
"""Profiles, with the pipelines that they are for."""


def plans() -> dict[str, Plan]:
    """``"profile/pipeline" -> plan`` of what is shipped, against an empty store."""
    with tempfile.TemporaryDirectory() as folder:
        store = Store.open(Path(folder) / "store")
        return {
            f"{profile}/{pipeline}": resolve(pipeline, profile=profile, store=store)
            for profile, pipelines in SHIPPED.items()
            for pipeline in pipelines
        }


def hashes() -> dict[str, str]:
    """``"profile/pipeline/node" -> hash`` of its stage, the ``what`` half of its config, and the names of its inputs."""
    return {
        f"{name}/{node.name}": hashlib.sha256(
            canonical([node.stage, config_class(node.component).parse(node.config).what(), node.inputs])
        ).hexdigest()
        for name, plan in plans().items()
        for node in plan.nodes
    }


if __name__ == "__main__":
    FILE.write_text(json.dumps(hashes(), indent=1, sort_keys=True) + "\n")
