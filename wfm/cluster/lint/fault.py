"""What a rule is, what it finds, and where rules are written down."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from wfm.cluster.lint.seen import Seen

_LONGEST = 120
ABSENT = "absent"
"""How a field that is not there is shown."""


class Found(NamedTuple):
    """What a rule has seen: the path of the field, its value, and what is wrong, with the choices and what to do."""

    where: str
    value: Any
    says: str


@dataclass(frozen=True)
class Fault:
    """One fault of one object."""

    rule: str
    "Name of the rule, in `RULES`."
    where: str
    "``PyTorchJob/name: spec.runPolicy.suspend``."
    value: str
    "What stands there, as JSON and short; ``absent`` for nothing."
    says: str
    "What is wrong with it, what may stand there, what to do."

    def __str__(self) -> str:
        return f"[{self.rule}] {self.where} = {self.value}: {self.says}"


@dataclass(frozen=True)
class Rule:
    """A rule: its name, what must hold, and the function that looks."""

    name: str
    holds: str
    look: "Callable[[Seen], Iterator[Found]]"


RULES: dict[str, Rule] = {}
"""Every rule by its name. A file of rules enters its own when it is imported (`wfm.cluster.lint` imports all)."""


def rule(name: str, holds: str) -> "Callable[[Callable[[Seen], Iterator[Found]]], Callable[[Seen], Iterator[Found]]]":
    """Enter a function as the rule `name`; `holds` says what is true of a good object."""

    def enter(look: "Callable[[Seen], Iterator[Found]]") -> "Callable[[Seen], Iterator[Found]]":
        if name in RULES:
            raise ValueError(f"two rules are called {name!r}")
        RULES[name] = Rule(name, holds, look)
        return look

    return enter


def shown(value: Any) -> str:
    """A value as it is shown: short, on one line."""
    import json

    if value is None:
        return ABSENT
    try:
        text = json.dumps(value, ensure_ascii=False, default=str)
    except (TypeError, ValueError, RecursionError):
        text = repr(type(value).__name__)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
