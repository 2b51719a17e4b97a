"""Names: `kind/name@alias`, a history of promotions. The highest number wins.

`refs/<kind>/<name>/<alias>/<n>.json` is created if absent, so two promotions at one moment both stand, one after the
other, and no
compare-and-swap is needed.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass

from wfm.artifacts import schema
from wfm.artifacts.address import KEY_PATTERN, check_key, check_name, new_id, utc_now
from wfm.artifacts.objects import Objects
from wfm.errors import InputError, TryAgain

SCHEMA_VERSION = 1
_REFERENCE = re.compile(r"([^/@]+)/([^/@]+)(?:@([^/@]+))?")
_RECORD = re.compile(r"([0-9]{8,})\.json")


@dataclass(frozen=True)
class Promotion:
    """One line of a name's history."""

    kind: str
    name: str
    alias: str
    number: int
    key: str
    created_at: str
    token: str

    @property
    def reference(self) -> str:
        return f"{self.kind}/{self.name}@{self.alias}"


class Names:
    """The names of a store."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects

    def promote(self, kind: str, name: str, alias: str, key: str) -> int:
        """Let the name mean `key`; returns the number of the promotion. Nothing is written when it means `key`
        already."""
        check_name(kind, "kind"), check_name(name, "name"), check_name(alias, "alias"), check_key(key)
        for _ in range(64):
            last = self.latest(kind, name, alias)
            if last is not None and last.key == key:
                return last.number
            number = last.number + 1 if last else 1
            promotion = Promotion(kind, name, alias, number, key, utc_now(), new_id())
            data = schema.encode({"schema_version": SCHEMA_VERSION, **asdict(promotion)})
            if self._objects.create(f"{self._folder(kind, name, alias)}/{number:08d}.json", data):
                return number
        raise TryAgain(f"{kind}/{name}@{alias} is promoted by many others at this moment")

    def latest(self, kind: str, name: str, alias: str = "latest") -> Promotion | None:
        """The promotion that counts, or None."""
        return next(self.history(kind, name, alias), None)

    def history(self, kind: str, name: str, alias: str = "latest") -> Iterator[Promotion]:
        """Every promotion of a name, newest first."""
        folder = self._folder(kind, name, alias)
        numbers = [int(match[1]) for match in map(_RECORD.fullmatch, self._objects.names(folder)) if match]
        for number in sorted(numbers, reverse=True):
            path = f"{folder}/{number:08d}.json"
            try:
                document = schema.decode(self._objects.read(path), path, SCHEMA_VERSION)
            except FileNotFoundError:  # an old one, deleted meanwhile
                continue
            yield Promotion(**{field: document[field] for field in Promotion.__dataclass_fields__})

    def list(self, kind: str = "") -> Iterator[Promotion]:
        """What every name means now, in order of kind, name and alias; of one kind when given."""
        kinds = [check_name(kind, "kind")] if kind else self._folders("refs")
        for each in kinds:
            for name in self._folders(f"refs/{each}"):
                for alias in self._folders(f"refs/{each}/{name}"):
                    promotion = self.latest(each, name, alias)
                    if promotion is not None:
                        yield promotion

    def resolve(self, reference: str, keys: Callable[[str], Iterable[str]]) -> str:
        """The key meant by a name, a key, or the beginning of one.

        `keys` lists the committed keys that begin with some digits. Raises InputError with the choices when there is
        none, or several.
        """
        if KEY_PATTERN.fullmatch(reference):
            return reference
        match = _REFERENCE.fullmatch(reference)
        if match:
            kind, name, alias = (
                check_name(match[1], "kind"),
                check_name(match[2], "name"),
                check_name(match[3] or "latest", "alias"),
            )
            promotion = self.latest(kind, name, alias)
            if promotion is None:
                raise InputError(f"there is no {kind}/{name}@{alias}: {self._choices(kind)}")
            return promotion.key
        if re.fullmatch(r"[0-9a-f]{8,63}", reference):
            found = list(keys(reference))
            if len(found) == 1:
                return found[0]
            if found:
                raise InputError(
                    f"{reference!r} is the beginning of {len(found)} keys: {', '.join(key[:16] for key in found[:8])}"
                )
            raise InputError(
                f"no committed artifact has a key that begins with {reference!r}: `wfm artifacts list` shows them"
            )
        raise InputError(
            f"{reference!r} is not a reference: write kind/name@alias, a key, or at least its first 8 hex digits"
        )

    def _choices(self, kind: str) -> str:
        names = [promotion.reference for promotion in self.list(kind)] or [
            promotion.reference for promotion in self.list()
        ]
        return f"the names are {', '.join(names[:12])}" if names else "no name was promoted yet in this store"

    def _folder(self, kind: str, name: str, alias: str) -> str:
        return f"refs/{kind}/{name}/{alias}"

    def _folders(self, folder: str) -> Iterator[str]:
        return (name.rstrip("/") for name in self._objects.names(folder) if name.endswith("/"))
