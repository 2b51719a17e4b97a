"""Rows that a JSON file from outside states, checked against the record that they are to be.

JSON has values that no table holds (numbers of a thousand digits, NaN, halves of characters) and its writers any type they
like. What passes here can be written; what an id is made of can be part of a name.
"""

import dataclasses
import math
import re
import types
import typing
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from wfm.artifacts.address import KEY_PATTERN
from wfm.config import MOST_COUNT

LONGEST_TEXT = 100_000
LONGEST_NAME = 1000
"""Characters of a text that stands in every row of a video."""
MOST_SECONDS = 1e9
MOST_VALUES = 1000
"""Of a list."""

_NAMES = ("session_id", "view", "split", "group", "shard", "transcode", "reason", "duplicate_tier", "model")
_IDS = ("clip_id", "video_id")
_RATE = re.compile(r"[0-9]{1,18}(\.[0-9]{0,18})?([eE][+-]?[0-9]{1,2})?(/[0-9]{1,18})?")


def checked_row(record: type[Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """The values that are given of a record's fields. Raises ValueError naming what is wrong, or is no field."""
    if not isinstance(values, Mapping):
        raise ValueError(f"{type(values).__name__}: a JSON object was expected")
    kinds = {field.name: field.type for field in dataclasses.fields(record)}
    if unknown := [str(name)[:50] for name in values if name not in kinds]:
        raise ValueError(f"unknown {', '.join(unknown[:5])}")
    return {name: _checked(name, value, kinds[name]) for name, value in values.items()}


def rate_of(value: Any) -> float:
    """A frame rate as cosmos-curate writes it: a number, or a text such as ``30000/1001``. Raises ValueError."""
    text = str(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else ""
    if len(text) > 60 or not _RATE.fullmatch(text):  # a fraction of 1e30000000 would be written out
        raise ValueError(f"{text[:60]!r} is no frame rate")
    try:
        rate = float(Fraction(text))
    except (ArithmeticError, ValueError):
        raise ValueError(f"{text!r} is no frame rate") from None
    if not 0 < rate <= 1e6:
        raise ValueError(f"a frame rate of {rate:g}")
    return rate


def count_of(value: Any) -> int:
    """A whole number that is not negative. Raises ValueError."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not 0 <= value <= MOST_COUNT or value != int(value):
        raise ValueError(f"{str(value)[:40]} is no count")
    return int(value)


def seconds_of(value: Any) -> float:
    """A time. Raises ValueError."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not -MOST_SECONDS <= value <= MOST_SECONDS:
        raise ValueError(f"{str(value)[:40]} is no time in seconds")
    return float(value)


def text_of(value: Any, most: int = LONGEST_TEXT) -> str:
    """A text that a table can hold. Raises ValueError."""
    if not isinstance(value, str) or len(value) > most:
        size = f"{len(value):,} characters, at most {most:,} are taken" if isinstance(value, str) else "no text"
        raise ValueError(size)
    value.encode()  # a UnicodeEncodeError is a ValueError
    return value


def _checked(name: str, value: Any, kind: Any) -> Any:
    options = typing.get_args(kind) if isinstance(kind, types.UnionType) else (kind,)
    if value is None and type(None) in options:
        return None
    try:
        if bool in options and isinstance(value, bool):
            return value
        if str in options:
            if name in _IDS and not (isinstance(value, str) and KEY_PATTERN.fullmatch(value)):
                raise ValueError("an id is 64 hex digits")
            if name == "clip_sha256" and not (value == "" or (isinstance(value, str) and KEY_PATTERN.fullmatch(value))):
                raise ValueError("a hash is 64 hex digits, or empty")
            return text_of(value, LONGEST_NAME if name in _NAMES else LONGEST_TEXT)
        if int in options and type(value) is int and abs(value) <= MOST_COUNT:
            return value
        (of_list,) = [typing.get_args(option) for option in options if typing.get_origin(option) is list] or [()]
        if of_list and isinstance(value, list) and len(value) <= MOST_VALUES:
            return [_checked(name, one, of_list[0]) for one in value]
        if float in options and type(value) in (int, float) and abs(value) <= 1e300 and math.isfinite(value):
            return value
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
    raise ValueError(f"{name}: {str(value)[:40]!r} is not what it must be")
