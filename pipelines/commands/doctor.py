"""``wfm doctor``: what is installed, what is missing for what, and how to get it. Looks, never imports what is heavy."""

import contextlib
import importlib.metadata
import importlib.util
import os
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pydantic

from pipelines.commands.console import size, table
from pipelines.engines.budget import devices, machine
from wfm.artifacts.environment import default_store, store_options
from wfm.caches import can_be_written
from wfm.credentials import fixed_keys
from wfm.terminal_table import Table

_LEAST_MEMORY_GIB = 6.0
_LEAST_DISK_BYTES = 2 * 2**30
_LEAST_SHARED_BYTES = 2**30
_NEEDED = ("", "curate", "train")
"""Extras without which the main job does not run on a laptop; the first is wfm itself."""
PURPOSES = {
    "": "tables, stores, the command line",
    "curate": "videos to a dataset, simulated worlds",
    "curate-models": "cuts, text and unsafe pictures found by networks",
    "dask": "workers of a Dask cluster",
    "caption": "captions by a model behind an address",
    "search": "search in large datasets",
    "train": "models, and the page of a run",
    "tensorboard": "trainings as event files (training.tensorboard)",
    "prefect": "wfm ui, wfm schedule, runs with a history (--engine prefect)",
    "plan": "a planner's image",
    "argo": "Argo Workflows",
    "kfp": "Kubeflow Pipelines",
    "k8s": "jobs on a cluster, wfm metrics serve",
    "text": "captions as a condition",
    "s3": "stores on s3://",
    "gcs": "stores on gs://",
    "gpu": "attention and curation on CUDA",
    "dev": "the tests",
}
_MODULES = {"opencv-python-headless": "cv2"}
"""Packages whose module may come from another of theirs."""
_REQUIREMENT = re.compile(r"(?P<name>[A-Za-z0-9._-]+)[^;]*(?:;(?P<marker>.*))?")
_EXTRA = re.compile(r"""extra\s*==\s*["']([^"']+)["']""")
BROKEN_PAIRS: tuple[tuple[str, tuple[int, ...], str], ...] = (
    ("fastapi", (0, 155), "every run of Prefect 3.8 dies with it: pip install 'fastapi<0.155'"),
    ("sqlalchemy", (2, 1), "schedules of Prefect 3.8 never fire with it: pip install 'sqlalchemy<2.1'"),
)


class Found(pydantic.BaseModel):
    """A thing that was looked at."""

    state: str
    "ok | missing (the main job needs it) | absent (something else does) | look (it may do harm)"
    what: str
    found: str
    purpose: str
    cure: str = ""


class Examined(pydantic.BaseModel):
    """``wfm doctor --json``."""

    fit: bool
    "Whether the main job can run here."
    things: list[Found]


_MARKS = {"ok": ("✔", ""), "missing": ("✘", "red"), "absent": ("–", "dim"), "look": ("!", "yellow")}


def examine() -> Examined:
    """Everything that was found, and whether the main job can run here."""
    things = [*_extras(), *_clashes(), *_machine(), *_pod()]
    return Examined(fit=all(each.state != "missing" for each in things), things=things)


def shown(examined: Examined) -> Table:
    """It as a table."""
    listed = table("", "what", "found", prose="for, and how to get it")
    for each in examined.things:
        mark, style = _MARKS[each.state]
        listed.row(
            mark, each.what, each.found, f"{each.purpose}; {each.cure}" if each.cure else each.purpose, style=style
        )
    return listed


class Requirement(NamedTuple):
    """A package that an extra names ("": wfm itself)."""

    extra: str
    name: str


def requirements() -> Iterator[Requirement]:
    """What wfm's own metadata ask for, as `pyproject.toml` said when it was installed."""
    for line in importlib.metadata.requires("wfm") or ():
        parsed = _REQUIREMENT.match(line)
        if parsed is not None:
            extra = _EXTRA.search(parsed["marker"] or "")
            yield Requirement(extra[1] if extra else "", parsed["name"])


def version_of(name: str) -> str:
    """Its version, or "" when it is not installed."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        module = _MODULES.get(name, "")
        return "yes" if module and importlib.util.find_spec(module) is not None else ""


def _extras() -> Iterator[Found]:
    """Each extra with the packages of it that are missing."""
    asked: dict[str, list[str]] = {}
    for extra, name in requirements():
        asked.setdefault(extra, []).append(name)
    for extra, names in asked.items():
        missing = [name for name in names if not version_of(name)]
        state = "ok" if not missing else "missing" if extra in _NEEDED else "absent"
        wanted = f"wfm[{extra}]" if extra else "wfm"
        cure = f"missing {', '.join(missing)}: pip install -c constraints.txt '{wanted}'" if missing else ""
        have = f"{len(names) - len(missing)} of {len(names)}"
        yield Found(state=state, what=wanted, found=have, purpose=PURPOSES.get(extra, ""), cure=cure)


def _clashes() -> Iterator[Found]:
    for name, first_bad, cure in BROKEN_PAIRS:
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        numbers = tuple(int(word) for word in version.split(".")[: len(first_bad)] if word.isdigit())
        if numbers >= first_bad:
            yield Found(state="missing", what=name, found=version, purpose="wfm run", cure=cure)


def _machine() -> Iterator[Found]:
    cpu, memory = machine()
    store = default_store()
    local = store if "://" not in store else os.getcwd()
    while not os.path.exists(local):
        local = os.path.dirname(local)
    free = shutil.disk_usage(local).free
    python = ".".join(map(str, sys.version_info[:3]))
    yield Found(state="ok", what="python", found=python, purpose="3.11 or newer")
    torch, gpus = version_of("torch"), devices()
    if torch:
        lost = bool(gpus) and "cpu" in torch
        cure = "this build sees no device: pip install torch for CUDA" if lost else ""
        yield Found(state="look" if lost else "ok", what="torch", found=torch, purpose="models", cure=cure)
    ffmpeg = shutil.which("ffmpeg") or ""
    purpose = "to look at videos yourself; wfm brings its own decoders"
    yield Found(state="ok" if ffmpeg else "absent", what="ffmpeg", found=ffmpeg or "none", purpose=purpose)
    yield Found(state="ok", what="processors", found=f"{cpu:g}", purpose=f"stages side by side{_limit('cpu.max')}")
    little = "look" if memory < _LEAST_MEMORY_GIB else "ok"
    purpose = f"{_LEAST_MEMORY_GIB:g} GiB for the demo{_limit('memory.max')}"
    yield Found(state=little, what="memory free", found=f"{memory:.1f} GiB", purpose=purpose)
    full = "look" if free < _LEAST_DISK_BYTES else "ok"
    yield Found(state=full, what="disk free", found=size(free), purpose=f"the store ({store})")
    purpose = "bigger recipes; the demo needs none"
    yield Found(state="ok" if gpus else "absent", what="CUDA devices", found=str(gpus), purpose=purpose)


def _limit(name: str, folder: str = "/sys/fs/cgroup") -> str:
    """What this container is held to, in words; "" where nothing is said."""
    try:
        first, *period = Path(folder, name).read_text().split()
        if first == "max":
            return ""
        return (
            f"; this cgroup has {int(first) / int(period[0]):g}" if period else f"; this cgroup has {size(int(first))}"
        )
    except (OSError, ValueError, ZeroDivisionError):
        return ""


def _pod(shared: str = "/dev/shm") -> Iterator[Found]:
    """What is other in a pod than on a laptop: little shared memory, a home of nobody's, keys that end."""
    with contextlib.suppress(OSError):
        total = shutil.disk_usage(shared).total
        little = total < _LEAST_SHARED_BYTES
        cure = "in a pod: an emptyDir of medium Memory at /dev/shm" if little else ""
        purpose = "NCCL between GPUs of a machine; data loaders use none"
        state = "look" if little else "ok"
        yield Found(state=state, what="shared memory", found=size(total), purpose=purpose, cure=cure)
    given = os.environ.get("WFM_CACHE", "")
    home = os.environ.get("HOME", "")
    for name, place in (("WFM_CACHE", given), ("HOME", home)):
        if place and not can_be_written(Path(place)):
            cure = "set WFM_CACHE to a folder that can be" if name == "HOME" and not given else ""
            purpose = f"caches of libraries ({place})"
            yield Found(state="look", what=name, found="read-only", purpose=purpose, cure=cure)
    if fixed := fixed_keys(store_options() or {}):
        cure = "leave them to a profile, a credential_process or the pod's role"
        purpose = "long stages: fixed keys cannot be renewed"
        told = f"{', '.join(fixed)}: {cure}"
        yield Found(state="look", what="keys of the store", found="fixed", purpose=purpose, cure=told)
