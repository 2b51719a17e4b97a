"""Objects by name: those of this repository by import path, those of other packages by entry points.

A family, a condition and their like are each one object in a module of its own. What needs one knows its registry and is told
the name, by a config:

    FAMILIES = Registry("wfm.families", "family", {"diffusion": "wfm.families.diffusion.card:FAMILY"}, parts=("fit", "draw"))

    class TrainConfig(Config):
        family: Annotated[str, Named(FAMILIES, "fit")] = "diffusion"

A field marked by `Named` says whose code its stage runs: only that code enters its key (`components.derivation`). Nothing is
imported before it is asked for; entry points of the group are looked up only where a name is not built in.
"""

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any, NamedTuple

from wfm.config import Config
from wfm.errors import ConfigError, did_you_mean


@dataclass(frozen=True, eq=False)
class Registry:
    """Names -> objects of one kind."""

    group: str
    "Entry points of this group add objects: `name = package.module:OBJECT`."
    word: str
    "What one of them is called in messages."
    built_in: Mapping[str, str]
    "Name -> `package.module:OBJECT`, for those of this repository."

    def names(self) -> tuple[str, ...]:
        """Every name, the built-in ones first, the others sorted."""
        return (*self.built_in, *sorted(_plug_ins(self.group)))

    def __contains__(self, name: object) -> bool:
        """Whether a name is registered. Other packages are looked through only where it is not built in."""
        return name in self.built_in or name in _plug_ins(self.group)

    def path(self, name: str) -> str:
        """`package.module:OBJECT` of a name. Raises ConfigError with the choices for an unknown one, and for a name that two
        packages claim."""
        if name in self.built_in:
            return self.built_in[name]
        claimed = _plug_ins(self.group).get(name, ())
        if len(claimed) > 1:
            raise ConfigError(
                f"{self.word} {name!r} is registered {len(claimed)} times ({', '.join(claimed)}): uninstall all but one"
            )
        if not claimed:
            near = did_you_mean(name, self.names())
            raise ConfigError(f"unknown {self.word} {name!r}.{near} Choices: {', '.join(self.names()) or 'none'}")
        return claimed[0]

    def load(self, name: str) -> Any:
        """The object of a name."""
        return resolve(self.path(name))

    def modules(self, name: str, part: str = "") -> tuple[str, ...]:
        """The modules that a part of an object begins with; what they import belongs to it as well."""
        found = self.load(name)
        own = self.path(name).partition(":")[0]
        return tuple(dict.fromkeys((own, *found.modules(part)))) if hasattr(found, "modules") else (own,)

    def parts_of(self, name: str) -> tuple[str, ...]:
        """Into what the code of an object is divided, so that a stage's key holds only what it runs: `parts` of the object,
        each with `modules(part)`; without any, one part of no name."""
        return tuple(getattr(self.load(name), "parts", ("",)))

    def version(self, name: str, part: str = "") -> int:
        """The version of a part's results, which its author raises by hand: `versions` of the object, else 1."""
        return int(getattr(self.load(name), "versions", {}).get(part, 1))


@dataclass(frozen=True, eq=False)
class Named:
    """Marks the field of a config that holds a name in `registry`, or several: the stage runs their `part`."""

    registry: Registry
    part: str = ""


class Use(NamedTuple):
    """An object that a config names, and the part of it that is run."""

    registry: Registry
    name: str
    part: str

    @property
    def line(self) -> str:
        """What its line in the lock file is called."""
        return "/".join(word for word in (self.registry.group, self.name, self.part) if word)


def uses(config: Config) -> tuple[Use, ...]:
    """What a config names, sorted, each once. Raises ConfigError for an unknown name, saying its field."""
    found = {(use.registry.group, use.name, use.part): use for use in _uses(config)}
    return tuple(found[name] for name in sorted(found))


def resolve(path: str) -> Any:
    """The object at `package.module:NAME`."""
    module, _, name = path.partition(":")
    return getattr(import_module(module), name)


def _uses(config: Config, inside: str = "") -> Iterator[Use]:
    for field_name, field in type(config).model_fields.items():
        value = getattr(config, field_name)
        if isinstance(value, Config):
            yield from _uses(value, f"{inside}{field_name}.")
        for mark in field.metadata:
            if isinstance(mark, Named):
                names = (value,) if isinstance(value, str) else value
                for name in filter(None, names):
                    try:
                        mark.registry.path(name)
                    except ConfigError as error:
                        raise ConfigError(f"{inside}{field_name}: {error}") from None
                    yield Use(mark.registry, name, mark.part)


@functools.cache
def _plug_ins(group: str) -> dict[str, tuple[str, ...]]:
    """Name -> the objects that installed packages register under it."""
    found: dict[str, tuple[str, ...]] = {}
    for point in entry_points(group=group):
        found[point.name] = tuple(sorted({*found.get(point.name, ()), point.value}))
    return found
