"""Every config class that a stage's config reaches gets one more field, and the keys of the shipped recipes are asked again.

    python -m tests.pipelines.grown added|plain|FAMILY          # prints one JSON object; FAMILY: only that one's, as plain

A process of its own, since classes are changed in place: ``hashes`` as of `freeze_keys`, ``classes``, those of them ``met`` in
the shipped recipes, and ``still``: places where the new field was set to another value, and no key moved.
"""

import json
import sys
import typing
from collections.abc import Iterator
from typing import Any

import pydantic

from pipelines.nodes import config_class
from pipelines.stages import TABLE
from tests.pipelines.freeze_keys import hashes, plans
from wfm.config import Config, added
from wfm.models.family import FAMILIES, FamilyConfig

FIELD = "grown_by_a_test"


def classes() -> list[type[Config]]:
    """Every config class that the table reaches, through families, sections, unions, tuples and mappings; inner ones first."""
    found: list[type[Config]] = []

    def walk(kind: Any) -> None:
        if isinstance(kind, type) and issubclass(kind, Config):
            if kind in found:
                return
            for field in kind.model_fields.values():
                walk(field.annotation)
            found.append(kind)
        for inner in typing.get_args(kind):
            walk(inner)

    for row in TABLE:
        config: Any = config_class(row.component)
        families = config.choices() if issubclass(config, FamilyConfig) else ()
        for kind in [config.of_family(FAMILIES.load(name)) for name in families] or [config]:
            walk(kind)
    return found


def grow(kinds: list[type[Config]], neutral: bool) -> None:
    """Give each class the field, as `added` or as one that enters the key."""
    for kind in kinds:
        field: Any = added(0) if neutral else pydantic.Field(0)
        field.annotation = int
        kind.__pydantic_fields__[FIELD] = field
    for kind in kinds:  # inner ones first: an outer schema holds theirs
        for field in kind.__pydantic_fields__.values():
            if isinstance(field.default, Config):  # made before its class grew
                field.default = regrown(field.default)
                if isinstance(field.json_schema_extra, dict) and "added" in field.json_schema_extra:
                    field.json_schema_extra["added"] = regrown(field.json_schema_extra["added"])
        kind.model_rebuild(force=True)


def regrown(value: Any) -> Any:
    """A section as its class would make it now."""
    if isinstance(value, Config):
        return type(value)(**{name: regrown(each) for name, each in vars(value).items()})
    return tuple(map(regrown, value)) if isinstance(value, tuple) else value


def grow_family(name: str) -> None:
    """Give the classes of one family the field, as one that enters the key, and none to the others."""
    every, homes = classes(), (f"wfm.families.{name}.", f"wfm.models.{name}.")
    grow([kind for kind in every if f"{kind.__module__}.".startswith(homes)], neutral=False)
    for kind in every:  # those that hold them
        kind.model_rebuild(force=True)


def changed(value: Any, path: str = "") -> Iterator[tuple[str, type[Config], Any]]:
    """(dotted place, class that stands there, the same value with the new field of that one place set)."""
    if isinstance(value, Config):
        yield path, type(value), value.model_copy(update={FIELD: 1})
        for name in type(value).model_fields:
            for place, kind, inner in changed(getattr(value, name), f"{path}.{name}"):
                yield place, kind, value.model_copy(update={name: inner})
    elif isinstance(value, tuple):
        for index, each in enumerate(value):
            for place, kind, inner in changed(each, f"{path}.{index}"):
                yield place, kind, (*value[:index], inner, *value[index + 1 :])


def main() -> None:
    how = sys.argv[1]
    if how in FAMILIES:
        grow_family(how)
        print(json.dumps({"hashes": hashes()}))
        return
    kinds = classes()
    grow(kinds, how == "added")
    met: set[str] = set()
    still: list[str] = []
    for name, plan in plans().items():
        for node in plan.nodes:
            config = config_class(node.component).parse(node.config)
            for place, kind, other in changed(config):
                met.add(kind.__name__)
                if other.what() == config.what():
                    still.append(f"{name}/{node.name}{place}")
    for kind in kinds:
        if kind.__name__ not in met:  # no recipe has one, and some have no defaults: with nothing else in it
            bare = kind.model_construct(**{**dict.fromkeys(kind.model_fields), FIELD: 0})
            still += [kind.__name__] if bare.model_copy(update={FIELD: 1}).what() == bare.what() else []
    print(
        json.dumps(
            {"hashes": hashes(), "classes": [kind.__name__ for kind in kinds], "met": sorted(met), "still": still}
        )
    )


if __name__ == "__main__":
    main()
