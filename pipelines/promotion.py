"""Names that follow a node's result: ``dataset/curated@latest`` points at what was committed last on request."""

from typing import TYPE_CHECKING

from wfm.errors import InputError

if TYPE_CHECKING:
    from wfm.artifacts import Store

ALIAS = "latest"


def promote(store: "Store", target: str, key: str) -> bool:
    """Point ``kind/name@latest`` at ``key`` unless it points there already; True when it was moved."""
    if not target:
        return False
    kind, _, name = target.partition("/")
    try:
        if store.resolve(f"{kind}/{name}@{ALIAS}") == key:
            return False
    except InputError:
        pass  # the name is new
    store.promote(kind, name, key, alias=ALIAS)
    return True
