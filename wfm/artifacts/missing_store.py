"""A store that is read has to be there: a misspelt address would else look like a store in which nothing happened yet."""

from pathlib import Path
from typing import TYPE_CHECKING

from wfm.errors import InputError, did_you_mean

if TYPE_CHECKING:
    from wfm.artifacts.store import Store

_ROOMS = ("artifacts", "runs", "refs", "parts", "leases")
"""Folders of which every store that was written to has one."""
_MOST_LOOKED_AT = 1000


def require_store(store: "Store") -> "Store":
    """The same store. Raises InputError where nothing lies that could be one; an empty folder is a new one."""
    if any(store.objects.names(room) for room in _ROOMS):
        return store
    here = Path(store.address.root) if store.address.scheme == "file" else None
    if here is not None and here.is_dir() and not any(here.iterdir()):
        return store
    what = (
        "is no store: it holds none of the folders of one" if here is not None and here.exists() else "does not exist"
    )
    near = "" if here is None else did_you_mean(here.name, _stores_in(here.parent), where=here.parent)
    raise InputError(
        f"the store {store.url} {what}.{near} Give another (--store, store= or WFM_STORE); `wfm run` makes a new one"
    )


def _stores_in(folder: Path) -> list[str]:
    """Names of the stores in a folder, as far as can be seen."""
    try:
        found = [each for _, each in zip(range(_MOST_LOOKED_AT), folder.iterdir(), strict=False)]
        return [each.name for each in found if (each / "artifacts").is_dir() or (each / "runs").is_dir()]
    except OSError:
        return []
