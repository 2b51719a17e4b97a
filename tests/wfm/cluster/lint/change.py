"""Changes of objects, for tests: ``put("spec suspend", True)`` and the like, each a function of a set of objects.

Paths have spaces between their names, since names of labels have dots and slashes; numbers are places in lists.
"""

import copy
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Objects = list[dict[str, Any]]
Change = Callable[[Objects], None]


@dataclass(frozen=True)
class Mutation:
    """Something schema-valid that one rule, and no other, must refuse."""

    rule: str
    on: str
    "Set of `good.SETS`."
    changes: tuple[Change, ...]
    what: str
    schema_valid: bool = True

    def made(self, objects: Objects) -> Objects:
        objects = json.loads(json.dumps(objects))  # builders use one dict in two places
        for change in self.changes:
            change(objects)
        return objects


def found(objects: Objects, path: str, of: int = 0) -> Any:
    value: Any = objects[of]
    for name in path.split():
        value = value[int(name)] if isinstance(value, list) else value[name]
    return value


def _parent(objects: Objects, path: str, of: int) -> tuple[Any, Any]:
    value: Any = objects[of]
    *names, last = path.split()
    for name in names:
        value = value[int(name)] if isinstance(value, list) else value.setdefault(name, {})
    return value, int(last) if isinstance(value, list) else last


def put(path: str, value: Any, of: int = 0) -> Change:
    def change(objects: Objects) -> None:
        parent, last = _parent(objects, path, of)
        parent[last] = copy.deepcopy(value)

    return change


def drop(path: str, of: int = 0) -> Change:
    def change(objects: Objects) -> None:
        parent, last = _parent(objects, path, of)
        del parent[last]

    return change


def add(path: str, value: Any, of: int = 0) -> Change:
    """Append to a list, which is made where there is none."""

    def change(objects: Objects) -> None:
        parent, last = _parent(objects, path, of)
        if isinstance(parent, dict):
            parent.setdefault(last, [])
        parent[last].append(copy.deepcopy(value))

    return change


def move(path: str, to: str, of: int = 0) -> Change:
    def change(objects: Objects) -> None:
        parent, last = _parent(objects, path, of)
        value = parent.pop(last)
        put(to, value, of)(objects)

    return change


def env(container: str, name: str, value: str | None, of: int = 0) -> Change:
    """Set a variable of a container; None takes it out."""

    def change(objects: Objects) -> None:
        holder = found(objects, container, of)
        kept = [each for each in holder.get("env", []) if each["name"] != name]
        holder["env"] = kept if value is None else [*kept, {"name": name, "value": value}]

    return change


def replaced(path: str, old: str, new: str | None, of: int = 0) -> Change:
    """A word of a command line; None takes it and what follows it out."""

    def change(objects: Objects) -> None:
        words = found(objects, path, of)
        place = words.index(old)
        words[place : place + (2 if new is None else 1)] = [] if new is None else [new]

    return change


def again(of: int = 0, **metadata: Any) -> Change:
    """A second object like one that is there."""

    def change(objects: Objects) -> None:
        twin = copy.deepcopy(objects[of])
        twin["metadata"].update(metadata)
        objects.append(twin)

    return change


def more(value: dict[str, Any]) -> Change:
    return lambda objects: objects.append(copy.deepcopy(value))
