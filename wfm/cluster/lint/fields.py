"""Fields that their kind has: a server drops all others without a word, and what they should have said with them."""

import difflib
import functools
import json
from collections.abc import Iterator
from importlib import resources
from typing import Any

from wfm.cluster.lint.fault import Found, rule
from wfm.cluster.lint.seen import Seen, word

_MOST = 20
"""Unknown fields of one object that are told."""


@rule("unknown-field", "each field is one of its kind")
def unknown_field(seen: Seen) -> Iterator[Found]:
    """A misspelt ``pendingTimeouts`` is taken, dropped, and never missed. Names are those of the schemas in
    `tests/cluster/crds` and of Kubernetes itself; of kinds without a schema there nothing is said."""
    found = _known()
    for thing in seen.things:
        root = found["roots"].get(f"{word(thing.content, 'apiVersion')}/{thing.kind}")
        for told, (path, value, choices) in enumerate(_unknown(found["nodes"], root or 0, thing.content)):
            if told == _MOST:
                break
            near = difflib.get_close_matches(path.rpartition(".")[2], choices, n=3) or sorted(choices)[:8]
            says = f"there is no such field, and the server drops it without a word: {', '.join(near)} are some there"
            yield Found(thing.where(path), value, says)


def _unknown(nodes: list[Any], root: int, content: Any) -> Iterator[tuple[str, Any, list[str]]]:
    """(path, value, fields that there are) of each field that is none. Not by recursion: what comes from a file may be deep."""
    waiting: list[tuple[str, Any, int]] = [("", content, root)]
    while waiting:
        path, value, place = waiting.pop()
        node = nodes[place - 1] if place else None
        if isinstance(node, dict) and isinstance(value, dict):
            for name, inner in value.items():
                if name in node:
                    waiting.append((f"{path}.{name}".lstrip("."), inner, node[name]))
                else:
                    yield f"{path}.{name}".lstrip("."), inner, list(node)
        elif isinstance(node, list) and isinstance(value, dict | list):
            several = value.items() if isinstance(value, dict) else enumerate(value)
            waiting += [(f"{path}.{name}".lstrip("."), inner, node[1]) for name, inner in several]


@functools.cache
def _known() -> Any:
    """The names of all fields (`tests/cluster/field_names.py` says how they are written down)."""
    return json.loads(resources.files("wfm.cluster.lint").joinpath("field_names.json").read_text())
