"""Which store is meant, and how it is reached, where nobody says so: by the environment.

WFM_STORE           its address; without it the folder `wfm-store` of the current folder
WFM_STORE_OPTIONS   JSON for s3fs or gcsfs, such as ``{"endpoint_url": "http://..."}``
"""

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wfm.errors import InputError

if TYPE_CHECKING:
    from wfm.artifacts.store import Store


def default_store() -> str:
    """``WFM_STORE``, or ``wfm-store`` in the current folder."""
    return os.environ.get("WFM_STORE") or str(Path("wfm-store").absolute())


def store_options() -> dict[str, Any] | None:
    """How to reach the store: ``WFM_STORE_OPTIONS``, JSON. Never in a spec or a manifest, because it may hold credentials."""
    given = os.environ.get("WFM_STORE_OPTIONS", "")
    try:
        return dict(json.loads(given)) if given else None
    except (ValueError, TypeError):
        raise InputError('WFM_STORE_OPTIONS is not a JSON object, such as {"endpoint_url": "http://..."}') from None


def open_store(url: str | os.PathLike[str] = "") -> "Store":
    """The store at an address (empty: `default_store`), reached by `store_options`. One that is not there yet is made at the
    first write."""
    from wfm.artifacts.store import Store

    return Store.open(url or default_store(), store_options())
