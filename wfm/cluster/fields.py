"""Fields of an object of the API server, whatever stands there: what is of another form counts as empty."""

import calendar
import re
from collections.abc import Mapping
from typing import Any

from wfm.credentials import shown

_TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(\.\d+)?Z")
_MESSAGE, _CUT = 400, 6000


def time_of(text: Any) -> float:
    """Seconds since 1970 of a time of the API server; 0 for anything else."""
    found = _TIME.fullmatch(text) if isinstance(text, str) else None
    if found is None:
        return 0.0
    year, month, day, hour, minute, second = (int(word) for word in re.split(r"[-T:]", found[1]))
    return calendar.timegm((year, month, day, hour, minute, second)) + float(found[2] or 0)


def conditions_of(status: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Type -> condition."""
    found = (one for one in list_of(status, "conditions") if isinstance(one, Mapping))
    return {text_of(one, "type"): one for one in found}


def mapping_of(found: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """The mapping of this name, else an empty one."""
    value = found.get(name)
    return value if isinstance(value, Mapping) else {}


def list_of(found: Mapping[str, Any], name: str) -> list[Any]:
    """The list of this name, else an empty one."""
    value = found.get(name)
    return value if isinstance(value, list) else []


def text_of(found: Mapping[str, Any], name: str) -> str:
    """The text of this name, else an empty one."""
    value = found.get(name)
    return value if isinstance(value, str) else ""


def short(value: Any) -> str:
    """A message on one line, bounded, without what an address in it carries: it is written down, and shown."""
    return shown(" ".join(value.split())[:_CUT])[:_MESSAGE] if isinstance(value, str) else ""
