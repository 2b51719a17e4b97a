"""Label and field selectors, as lists and watches take them."""

import re
from collections.abc import Callable
from typing import Any

Test = Callable[[dict[str, Any]], bool]
_TERM = re.compile(r"[^,(]+(?:\([^)]*\))?")
_SET = re.compile(r"(\S+)\s+(in|notin)\s+\(([^)]*)\)")


class BadSelector(ValueError):
    """It cannot be read."""


def parse(labels: str, fields: str) -> Test:
    """A test of an object. Raises BadSelector."""
    tests = [_label(term.strip()) for term in _TERM.findall(labels)] + [
        _field(term.strip()) for term in fields.split(",") if term.strip()
    ]
    return lambda found: all(test(found) for test in tests)


def _label(term: str) -> Test:
    def of(found: dict[str, Any]) -> dict[str, str]:
        return found["metadata"].get("labels") or {}

    if match := _SET.fullmatch(term):
        name, verb, values = match[1], match[2], {value.strip() for value in match[3].split(",")}
        return lambda found: (of(found).get(name) in values) == (verb == "in")
    if "!=" in term:
        name, value = (part.strip() for part in term.split("!=", 1))
        return lambda found: of(found).get(name) != value
    if "=" in term:
        name, value = (part.strip() for part in term.replace("==", "=").split("=", 1))
        return lambda found: of(found).get(name) == value
    if term.startswith("!"):
        return lambda found: term[1:].strip() not in of(found)
    if not re.fullmatch(r"[\w./-]+", term):
        raise BadSelector(f"unable to parse requirement: {term!r}")
    return lambda found: term in of(found)


def _field(term: str) -> Test:
    if "=" not in term:
        raise BadSelector(f"invalid field selector: {term!r}")
    unequal = "!=" in term
    path, value = re.split(r"!=|==?", term, maxsplit=1)

    def at(found: Any) -> str:
        for step in path.strip().split("."):
            found = (found or {}).get(step)
        return "" if found is None else str(found)

    return lambda found: (at(found) != value.strip()) if unequal else (at(found) == value.strip())
