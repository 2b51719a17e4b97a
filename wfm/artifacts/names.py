"""Names: `kind/name@alias`, a history of promotions. The highest number wins.

`refs/<kind>/<name>/<alias>/<n>.json` is created if absent, so two promotions at one moment both stand, one after the
other, and no compare-and-swap is needed. Who promotes through a gate judges against what the name meant when it took its
number; where another took that number first, it judges again.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Literal

from wfm.artifacts import schema
from wfm.artifacts.address import KEY_PATTERN, NAME_PATTERN, check_key, check_name, new_id, utc_now
from wfm.artifacts.objects import Objects
from wfm.artifacts.schema import Key, Number, Short, Word
from wfm.crash_points import crash_point
from wfm.errors import DataError, InputError, TryAgain, did_you_mean
from wfm.log import get_logger

SCHEMA_VERSION = 1
_TRIES = 64
_log = get_logger(__name__)
_REFERENCE = re.compile(r"([^/@]+)/([^/@]+)(?:@([^/@]+))?")
LATEST, CANDIDATE = "latest", "candidate"
"""What a name means unless it says otherwise, and what a model is called that did not pass its gate."""
_RECORD = re.compile(r"([0-9]{8}|[1-9][0-9]{8,13})\.json")


@dataclass(frozen=True)
class Seen:
    """What a gate saw of a model that was to take a name (`wfm.evaluation.gate`)."""

    passed: bool
    against: Key | Literal[""] = ""
    "What the name meant then; empty: nothing."
    words: tuple[Short, ...] = ()
    "Each figure with its bound, in plain words."

    def __str__(self) -> str:
        return "; ".join(self.words) or "the gate asks nothing"


@dataclass(frozen=True)
class Promotion:
    """One line of a name's history."""

    kind: Word
    name: Word
    alias: Word
    number: Number
    key: Key
    created_at: Short
    token: Short
    by: Short = ""
    "Who promoted it: ``run ID``, or ``USER@HOST`` by hand."
    gate: Seen | None = None
    "What the gate saw; None: by hand, or none is declared."

    @property
    def reference(self) -> str:
        return f"{self.kind}/{self.name}@{self.alias}"


class Names:
    """The names of a store."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects

    def promote(
        self, kind: str, name: str, alias: str, key: str, *, by: str = "", seen: Seen | None = None
    ) -> Promotion:
        """Let the name mean `key`; returns the promotion. Nothing is written when it means `key` already."""
        check_name(kind, "kind"), check_name(name, "name"), check_name(alias, "alias"), check_key(key)
        for _ in range(_TRIES):
            last = next(iter(self.numbers(kind, name, alias)), 0)
            stands = self._standing(kind, name, alias, last)
            if stands is not None and stands.key == key:
                return stands
            made = self._take(Promotion(kind, name, alias, last + 1, key, utc_now(), new_id(), by, seen))
            if made is not None:
                return made
        raise TryAgain(f"{kind}/{name}@{alias} is promoted by many others at this moment")

    def promote_through(
        self, kind: str, name: str, key: str, judge: "Callable[[Promotion | None], Seen]", *, by: str = ""
    ) -> Promotion:
        """Let the name mean `key` where `judge`, given what it means, lets it pass; else `key` becomes its `candidate`. What
        bears the name already is not judged again. A name whose last promotion cannot be read lets nobody pass."""
        check_name(kind, "kind"), check_name(name, "name"), check_key(key)
        for _ in range(_TRIES):
            last = next(iter(self.numbers(kind, name)), 0)
            try:
                stands = self.read(kind, name, LATEST, last) if last else None
                if stands is not None and stands.key == key:
                    return stands
                seen = judge(stands)
            except DataError as error:
                seen = Seen(False, "", (f"what {kind}/{name}@{LATEST} means cannot be read: {error}",))
            if not seen.passed:
                return self.promote(kind, name, CANDIDATE, key, by=by, seen=seen)
            made = self._take(Promotion(kind, name, LATEST, last + 1, key, utc_now(), new_id(), by, seen))
            if made is not None:
                return made
        raise TryAgain(f"{kind}/{name}@{LATEST} is promoted by many others at this moment")

    def _take(self, promotion: Promotion) -> Promotion | None:
        """Write a promotion under its number; None where another has that number."""
        data = schema.encode({"schema_version": SCHEMA_VERSION, **asdict(promotion)})
        folder = self._folder(promotion.kind, promotion.name, promotion.alias)
        if not self._objects.create(f"{folder}/{promotion.number:08d}.json", data):
            return None
        crash_point("name_promoted")
        return promotion

    def _standing(self, kind: str, name: str, alias: str, number: int) -> Promotion | None:
        try:
            return self.read(kind, name, alias, number) if number else None
        except InputError as error:  # the next number stands above it
            _log.warning("passed over: %s", error)
            return None

    def latest(self, kind: str, name: str, alias: str = LATEST) -> Promotion | None:
        """The promotion that counts, or None. Raises DataError when it cannot be read: what it meant must not be guessed."""
        return next(self.history(kind, name, alias), None)

    def history(self, kind: str, name: str, alias: str = LATEST) -> Iterator[Promotion]:
        """Every promotion of a name, newest first. Raises DataError at one that cannot be read."""
        for number in self.numbers(kind, name, alias):
            promotion = self.read(kind, name, alias, number)
            if promotion is not None:
                yield promotion

    def numbers(self, kind: str, name: str, alias: str = LATEST) -> "list[int]":
        """Numbers of a name's promotions, newest first."""
        names = self._objects.names(self._folder(kind, name, alias))
        return sorted((int(match[1]) for match in map(_RECORD.fullmatch, names) if match), reverse=True)

    def read(self, kind: str, name: str, alias: str, number: int) -> Promotion | None:
        """One promotion, or None when it was deleted meanwhile. Raises InputError with advice when it cannot be read."""
        path = f"{self._folder(kind, name, alias)}/{number:08d}.json"
        try:
            data = self._objects.read(path)
        except FileNotFoundError:
            return None
        where = f"{self._objects.address.url}/{path}"
        try:
            return schema.read(Promotion, data, where, SCHEMA_VERSION, kind=kind, name=name, alias=alias, number=number)
        except DataError as error:
            raise DataError(
                f"{error}; `wfm artifacts promote ARTIFACT {kind}/{name}@{alias}` says anew what the name means"
            ) from None

    def list(self, kind: str = "", problems: "list[str] | None" = None) -> Iterator[Promotion]:
        """What every name means now, in order of kind, name and alias; of one kind when given. A name whose last promotion
        cannot be read is passed over: why goes into `problems`, or is logged."""
        for each, name, alias in self.all(kind):
            try:
                promotion = self.latest(each, name, alias)
            except InputError as error:
                if problems is None:
                    _log.warning("passed over: %s", error)
                else:
                    problems.append(str(error))
                continue
            if promotion is not None:
                yield promotion

    def all(self, kind: str = "") -> Iterator[tuple[str, str, str]]:
        """(kind, name, alias) of every name, in order; of one kind when given."""
        for each in [check_name(kind, "kind")] if kind else self._folders("refs"):
            for name in self._folders(f"refs/{each}"):
                for alias in self._folders(f"refs/{each}/{name}"):
                    yield each, name, alias

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
                check_name(match[3] or LATEST, "alias"),
            )
            promotion = self.latest(kind, name, alias)
            if promotion is None:
                raise InputError(f"there is no {kind}/{name}@{alias}: {self._choices(kind, f'{kind}/{name}@{alias}')}")
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

    def _choices(self, kind: str, wanted: str) -> str:
        names = [promotion.reference for promotion in self.list(kind)] or [
            promotion.reference for promotion in self.list()
        ]
        if not names:
            return "no name was promoted yet in this store"
        return f"the names are {', '.join(names[:12])}.{did_you_mean(wanted, names)}".removesuffix(".")

    def _folder(self, kind: str, name: str, alias: str) -> str:
        return f"refs/{kind}/{name}/{alias}"

    def _folders(self, folder: str) -> Iterator[str]:
        for name in self._objects.names(folder):
            if name.endswith("/") and NAME_PATTERN.fullmatch(name[:-1]):
                yield name[:-1]
            else:
                _log.debug("passed over: %r in %s is not the folder of a name, it was not made by wfm", name, folder)
