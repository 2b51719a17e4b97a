"""The part of expr-lang that a ``retryStrategy.expression`` is written in: read, and evaluated for one way a pod may end.

Strings, whole numbers, lists, names; ``and or not``, comparisons, ``in``, ``matches contains startsWith endsWith``, ``? :`` and
the conversions ``asInt asFloat int float string``. What is not understood raises ValueError: it cannot be vouched for.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

_TOKEN = re.compile(
    r"\s*(?:(?P<text>\"[^\"\\]*\"|'[^'\\]*'|`[^`]*`)|(?P<number>\d{1,9}(?:\.\d{1,9})?)"
    r"|(?P<name>[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)*)|(?P<sign>\|\||&&|==|!=|<=|>=|[<>!()\[\],?:-]))"
)
LONGEST, _DEEPEST, _MOST_QUANTIFIERS = 4000, 40, 4
_FUNCTIONS: dict[str, Callable[[Any], Any]] = {
    "asInt": int,
    "int": int,
    "asFloat": float,
    "float": float,
    "string": lambda value: str(value),
}
_ORDERED: dict[str, Callable[[Any, Any], bool]] = {
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
}
_ON_TEXT: dict[str, Callable[[str, str], bool]] = {
    "matches": lambda a, b: _regex(b).search(a) is not None,
    "contains": lambda a, b: b in a,
    "startsWith": lambda a, b: a.startswith(b),
    "endsWith": lambda a, b: a.endswith(b),
}


def evaluate(text: str, names: Mapping[str, Any]) -> Any:
    """The value of an expression. Raises ValueError for what is not understood, or would fail on the cluster."""
    try:
        reader = _Reader(_tokens(text), names)
        value = reader.choice(0)
    except (TypeError, OverflowError) as error:
        raise ValueError(f"it fails: {error}") from None
    if reader.peek():
        raise ValueError(f"{reader.peek()!r} is not expected where it stands")
    return value


def _tokens(text: str) -> list[tuple[str, str]]:
    if len(text) > LONGEST:
        raise ValueError(f"it has {len(text)} characters")
    found, place = [], 0
    text = text.rstrip()
    while place < len(text):
        token = _TOKEN.match(text, place)
        if token is None or token.lastgroup is None:
            raise ValueError(f"{text[place : place + 20]!r} is not understood")
        found.append((token.lastgroup, token[token.lastgroup]))
        place = token.end()
    return found


def _regex(pattern: str) -> re.Pattern[str]:
    """A pattern that is quick on any text: few repetitions, none of a group."""
    if re.search(r"\)[*+{?]", pattern) or len(re.findall(r"[*+{]", pattern)) > _MOST_QUANTIFIERS:
        raise ValueError(f"the pattern {pattern[:40]!r} repeats too much to be tried here: use contains")
    try:
        return re.compile(pattern)
    except re.error as error:
        raise ValueError(f"the pattern {pattern[:40]!r} is none: {error}") from None


class _Reader:
    """Recursive descent; every part is evaluated, so that all of an expression is looked at."""

    def __init__(self, tokens: list[tuple[str, str]], names: Mapping[str, Any]) -> None:
        self.tokens, self.names, self.place = tokens, names, 0

    def peek(self) -> str:
        return self.tokens[self.place][1] if self.place < len(self.tokens) else ""

    def _kind(self) -> str:
        return self.tokens[self.place][0] if self.place < len(self.tokens) else ""

    def _take(self, *wanted: str) -> str:
        if self._kind() in ("sign", "name") and self.peek() in wanted:
            self.place += 1
            return self.tokens[self.place - 1][1]
        return ""

    def _need(self, sign: str) -> None:
        if not self._take(sign):
            raise ValueError(f"{sign!r} is missing before {self.peek() or 'the end'!r}")

    def choice(self, depth: int) -> Any:
        if depth > _DEEPEST:
            raise ValueError("it is nested too deep")
        value = self._either(depth)
        if self._take("?"):
            yes = self.choice(depth + 1)
            self._need(":")
            no = self.choice(depth + 1)
            return yes if _truth(value) else no
        return value

    def _either(self, depth: int) -> Any:
        value = self._both(depth)
        while self._take("||", "or"):
            other = self._both(depth)
            value = _truth(value) or _truth(other)
        return value

    def _both(self, depth: int) -> Any:
        value = self._compared(depth)
        while self._take("&&", "and"):
            other = self._compared(depth)
            value = _truth(value) and _truth(other)
        return value

    def _compared(self, depth: int) -> Any:
        value = self._one(depth)
        while True:
            sign = self._take("==", "!=", *_ORDERED, *_ON_TEXT, "in", "not")
            if not sign:
                return value
            if sign == "not":
                self._need("in")
            other = self._one(depth)
            value = _compare(sign, value, other)

    def _one(self, depth: int) -> Any:
        if depth > _DEEPEST:
            raise ValueError("it is nested too deep")
        if self._take("!", "not"):
            return not _truth(self._one(depth + 1))
        if self._take("-"):
            return -self._one(depth + 1)
        if self._take("("):
            value = self.choice(depth + 1)
            self._need(")")
            return value
        if self._take("["):
            return self._list(depth)
        return self._leaf(depth)

    def _list(self, depth: int) -> list[Any]:
        found: list[Any] = []
        while not self._take("]"):
            if found:
                self._need(",")
            found.append(self.choice(depth + 1))
        return found

    def _leaf(self, depth: int) -> Any:
        kind, text = self._kind(), self.peek()
        self.place += 1
        if kind == "text":
            return text[1:-1]
        if kind == "number":
            return float(text) if "." in text else int(text)
        if kind == "name" and text in ("true", "false"):
            return text == "true"
        if kind == "name" and text in _FUNCTIONS:
            self._need("(")
            value = self.choice(depth + 1)
            self._need(")")
            return _FUNCTIONS[text](value)
        if kind == "name" and text in self.names:
            return self.names[text]
        raise ValueError(f"{text or 'its end'!r} is not known; names: {', '.join(sorted(self.names))}")


def _truth(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"{value!r} stands where true or false must")
    return value


def _compare(sign: str, a: Any, b: Any) -> bool:
    if sign in ("==", "!="):
        same = type(a) is type(b) or (not isinstance(a, bool | str) and not isinstance(b, bool | str))
        return (same and a == b) == (sign == "==")
    if sign in ("in", "not"):
        if not isinstance(b, list):
            raise ValueError(f"{b!r} is no list")
        return any(_compare("==", a, each) for each in b) == (sign == "in")
    if sign in _ON_TEXT:
        if not (isinstance(a, str) and isinstance(b, str)):
            raise ValueError(f"{sign} compares text, and {a!r} or {b!r} is none")
        return _ON_TEXT[sign](a, b)
    if isinstance(a, bool | str) or isinstance(b, bool | str):
        raise ValueError(
            f"{a!r} {sign} {b!r}: only numbers have an order (exit codes are text: asInt(lastRetry.exitCode))"
        )
    return _ORDERED[sign](a, b)
