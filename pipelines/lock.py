"""The lock file: which code each stage's version stands for. ``wfm lock`` renews it; CI refuses a stale one.

Raise a stage's version in `stages.py` when a change is meant to make new results; renew the lock with the version as it is
when a change is known to make the same results (a rename, a faster path tested bitwise). Until then the changed stage has a
key of its own, so nothing stale passes for new.
"""

import hashlib
import json

from components.derivation import LOCK_FILE, canonical, closure_hash, read_lock, use_hash
from pipelines.stages import TABLE
from wfm.artifacts.atomic import replace_on_disk
from wfm.conditions.condition import CONDITIONS
from wfm.models.family import FAMILIES
from wfm.registry import Registry, Use

REGISTRIES: tuple[Registry, ...] = (FAMILIES, CONDITIONS)
"""What configs name whose code has lines of its own: what is built in; other packages' code is known by its files alone."""


def current() -> dict[str, dict[str, str]]:
    """``{component or line of a use: {version, hash}}`` of the code as it stands."""
    lines = {row.component: {"version": str(row.version), "hash": closure_hash(row.component)} for row in TABLE}
    for registry in REGISTRIES:
        for use in (Use(registry, name, part) for name in registry.built_in for part in registry.parts_of(name)):
            lines[use.line] = {"version": str(registry.version(use.name, use.part)), "hash": use_hash(use)}
    return lines


def digest() -> str:
    """Of `current`: one word for the code of all stages, by which an image names its own (`components/image.py`)."""
    return hashlib.sha256(canonical(current())).hexdigest()


def stale() -> list[str]:
    """Components whose code or version differs from the lock, sorted."""
    locked, now = read_lock(), current()
    return sorted(name for name in {*locked, *now} if locked.get(name) != now.get(name))


def renew() -> list[str]:
    """Write the lock for the code as it stands; returns what changed."""
    changed = stale()
    replace_on_disk(LOCK_FILE, (json.dumps(current(), indent=2, sort_keys=True) + "\n").encode())
    return changed
