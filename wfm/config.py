"""Typed configurations with two halves.

``what`` decides the result and enters an artifact's key; ``how`` (workers, device, addresses, log level) does not:

    class SplitConfig(Config):
        minimum_seconds: float = 1.5
        "Shortest clip kept [s]."
        workers: int = how(2)
        "Processes that cut."

A field that comes later is ``added(neutral)``: with the value that means what the code did before, no key moves.

Fields are frozen, unknown keys are errors that list the choices, and ``override(["a.b=1"])`` is what ``--set`` does.
"""

import difflib
import json
import re
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Self

import pydantic
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined, to_jsonable_python

from wfm.errors import ConfigError

_HALF = "half"
_ADDED = "added"


def how(default: Any, **constraints: Any) -> Any:
    """A field of the ``how`` half: it may change speed or place, never the result, so it stays out of the key."""
    return pydantic.Field(default, json_schema_extra={_HALF: "how"}, **constraints)


def added(neutral: Any, *, default: Any = PydanticUndefined, **constraints: Any) -> Any:
    """A field that is younger than artifacts in use, be it a value or a whole section. `neutral` is what the code did before;
    with that value it stays out of the key, so that no data changes its name for an option nobody used. The default is the
    same unless given: it may move, the neutral never."""
    start = neutral if default is PydanticUndefined else default
    return pydantic.Field(start, json_schema_extra={_ADDED: neutral}, **constraints)


def _one_of_devices(name: str) -> str:
    if not re.fullmatch(r"cpu|cuda(:\d{1,3})?", name):
        raise ValueError("choices are cpu, cuda, cuda:0, cuda:1, ...")
    return name


MOST_COUNT, MOST_NUMBER = 2**31 - 1, 1e30
"""More items, frames or channels, or a larger number, are a slip of the keyboard, and end in an overflow inside a stage."""
Natural = Annotated[int, pydantic.Field(ge=0, le=MOST_COUNT)]
Count = Annotated[int, pydantic.Field(ge=1, le=MOST_COUNT)]
Bytes = Annotated[int, pydantic.Field(ge=1, lt=2**63)]
Seed = Annotated[int, pydantic.Field(strict=True, ge=0, lt=2**64)]
"""A seed: a whole number of 64 bits, every one of which counts."""
AtLeastZero = Annotated[float, pydantic.Field(ge=0, lt=MOST_NUMBER)]
AboveZero = Annotated[float, pydantic.Field(gt=0, lt=MOST_NUMBER)]
Share = Annotated[float, pydantic.Field(ge=0, le=1)]
Decay = Annotated[float, pydantic.Field(ge=0, lt=1)]
Cosine = Annotated[float, pydantic.Field(ge=-1, le=1)]
Device = Annotated[str, pydantic.AfterValidator(_one_of_devices)]


class Config(pydantic.BaseModel):
    """Base of every configuration: frozen, strict about names, documented by attribute docstrings."""

    # Not `use_attribute_docstrings`: reading every class's source again is a fifth of what planning costs, for nobody.
    model_config = pydantic.ConfigDict(extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False)

    @classmethod
    def class_of(cls, values: Mapping[str, Any]) -> "type[Config]":
        """The class that reads `values`: this one, where a kind does not depend on them."""
        return cls

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> Self:
        """Build from plain values; raises `ConfigError` naming each wrong field, its value and the choices."""
        try:
            return cls.model_validate(values)
        except pydantic.ValidationError as error:
            raise ConfigError(_explain(cls, error)) from None
        except (ArithmeticError, RecursionError, TypeError) as error:  # a rule over values that it did not reckon with
            raise ConfigError(f"{cls.__name__}: these values cannot be ({type(error).__name__}: {error})") from None

    def what(self) -> dict[str, Any]:
        """The half that enters the key, as plain JSON values."""
        return _half(self, "what")

    def how(self) -> dict[str, Any]:
        """The half that does not enter the key, as plain JSON values."""
        return _half(self, "how")

    def resolved(self) -> dict[str, Any]:
        """Both halves, as plain JSON values: what is saved beside an output."""
        return self.model_dump(mode="json")

    def override(self, assignments: Iterable[str]) -> Self:
        """A copy with dotted assignments such as ``model.width=192`` applied; values are JSON, or else text."""
        values = self.resolved()
        for assignment in assignments:
            path, value = parse_assignment(assignment)
            assign(values, path, value, type(self))
        return type(self).parse(values)


def parse_assignment(text: str) -> tuple[list[str], Any]:
    """``"a.b=1"`` -> ``(["a", "b"], 1)``. A value that is not JSON is taken as text; one that begins as an object or a list of
    JSON and is none raises ConfigError, with what is wrong and where."""
    name, equals, raw = text.partition("=")
    if not equals or not name.strip():
        raise ConfigError(f"override {text!r} is not of the form name=value, such as model.width=192")
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError) as error:  # no JSON, or a number of thousands of digits
        if _BROKEN.match(raw) and isinstance(error, json.JSONDecodeError):
            raise ConfigError(
                f"{name.strip()}: the value begins as JSON and is none: {error.msg} at character {error.pos + 1}, "
                f"{_around(raw, error.pos)}; names and texts stand in double quotes, the whole in single quotes of the shell"
            ) from None
        value = raw
    return name.strip().split("."), value


_BROKEN = re.compile(r"""\s*(\{\s*["']|\[\s*[\[{"'])""")
"""How an object or a list begins; text may begin with a bracket too, but hardly so."""


def _around(text: str, place: int) -> str:
    before, after = text[max(place - 20, 0) : place], text[place : place + 20]
    return f"after {before!r}, before {after!r}" if after else f"where it ends, after {before!r}"


def assign(values: dict[str, Any], path: list[str], value: Any, model: type[pydantic.BaseModel]) -> None:
    """Set ``values[path]``, refusing a name that ``model`` does not have."""
    here: Any = values
    kind: type[pydantic.BaseModel] | None = model
    for depth, name in enumerate(path):
        if kind is not None and name not in kind.model_fields:
            raise ConfigError(unknown(".".join(path[: depth + 1]), kind.model_fields))
        if depth == len(path) - 1:
            if kind is not None and _holds_truth(value) and _is_number(kind.model_fields[name].annotation):
                raise ConfigError(f"field {'.'.join(path)!r} = {json.dumps(value)}: give a number, not true or false")
            here[name] = value
            return
        field = kind.model_fields[name] if kind is not None else None
        kind = _nested(field) if field is not None else None
        if not isinstance(here.get(name), dict):
            raise ConfigError(f"override {'.'.join(path)!r}: {'.'.join(path[: depth + 1])!r} has no fields of its own")
        here = here[name]


def knows(path: list[str], model: type[pydantic.BaseModel]) -> bool:
    """Whether ``model`` has the field at ``path``, as far as its classes say: within plain values everything may stand."""
    kind: type[pydantic.BaseModel] | None = model
    for name in path:
        if kind is None:
            return True
        if name not in kind.model_fields:
            return False
        kind = _nested(kind.model_fields[name])
    return True


def unknown(name: str, choices: Iterable[str]) -> str:
    """The message for a name that is not among ``choices``, with the nearest one offered."""
    names = sorted(choices)
    near = difflib.get_close_matches(name.rsplit(".", 1)[-1], names, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return f"unknown field {name!r}.{hint} Choices: {', '.join(names) or 'none'}"


def _nested(field: FieldInfo) -> type[pydantic.BaseModel] | None:
    """The configuration class a field holds, if it holds one (``X`` or ``X | None``)."""
    annotation = field.annotation
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        options = [a for a in typing.get_args(annotation) if a is not type(None)]
        annotation = options[0] if len(options) == 1 else None
    if isinstance(annotation, type) and issubclass(annotation, pydantic.BaseModel):
        return annotation
    return None


def _holds_truth(value: Any) -> bool:
    return isinstance(value, bool) or (isinstance(value, list) and any(map(_holds_truth, value)))


def _is_number(annotation: Any) -> bool:
    """Whether a type is of numbers: Python takes true for 1, and nobody who writes true means that."""
    if typing.get_origin(annotation) is typing.Literal:
        return not any(isinstance(choice, bool) for choice in typing.get_args(annotation))
    options = typing.get_args(annotation) or (annotation,)
    return bool not in options and any(
        option in (int, float) or (option is not annotation and _is_number(option)) for option in options
    )


def _is_how(field: FieldInfo) -> bool:
    extra = field.json_schema_extra
    return isinstance(extra, dict) and extra.get(_HALF) == "how"


def _is_neutral(field: FieldInfo, value: Any) -> bool:
    """Whether a field came later and says what was done before, whatever else its section has got since."""
    extra = field.json_schema_extra
    if not isinstance(extra, dict) or _ADDED not in extra:
        return False
    neutral: Any = extra[_ADDED]
    if isinstance(value, Config) and type(value) is type(neutral):
        return value.what() == neutral.what()
    return bool(to_jsonable_python(value) == to_jsonable_python(neutral))


def _half(config: pydantic.BaseModel, half: str) -> dict[str, Any]:
    plain = config.model_dump(mode="json")
    kept: dict[str, Any] = {}
    for name, field in type(config).model_fields.items():
        value = getattr(config, name)
        if _is_how(field):
            if half == "how":
                kept[name] = plain[name]
        elif half == "what":
            if not _is_neutral(field, value):
                kept[name] = _what(value, plain[name])
        elif isinstance(value, Config) and (nested := _half(value, half)):
            kept[name] = nested
    return kept


def _what(value: Any, plain: Any) -> Any:
    """The half that enters the key of a value whose plain form is given: of configs alone, in a tuple, or by name."""
    if isinstance(value, Config):
        return _half(value, "what")
    if isinstance(value, tuple | list):
        return [_what(each, one) for each, one in zip(value, plain, strict=True)]
    if isinstance(value, Mapping):
        return {name: _what(each, one) for (name, one), each in zip(plain.items(), value.values(), strict=True)}
    return plain


def _explain(model: type[pydantic.BaseModel], error: pydantic.ValidationError) -> str:
    lines = []
    for problem in error.errors():
        path = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "extra_forbidden":
            lines.append(_unknown_at(model, problem["loc"]))
        else:
            words = problem["msg"].removeprefix("Value error, ")
            # A rule over several fields is given all of them: its message names those that matter.
            value = "" if isinstance(problem["input"], Mapping) else f" = {problem['input']!r}"
            lines.append(f"field {path!r}{value}: {words}" if path else words)
    return f"{model.__name__}: " + "; ".join(lines)


def _unknown_at(model: type[pydantic.BaseModel], loc: tuple[int | str, ...]) -> str:
    """The words for an unknown field at `loc`, with the fields of its section, be that one of a list, or of several by name."""
    kind: Any = model
    for part in loc[:-1]:
        if isinstance(kind, type) and issubclass(kind, pydantic.BaseModel):
            field = kind.model_fields.get(str(part))
            kind = field and (_nested(field) or field.annotation)
        else:  # dict[str, X], tuple[X, ...], list[X]
            kind = next((each for each in reversed(typing.get_args(kind)) if each is not ...), None)
    fields = kind.model_fields if isinstance(kind, type) and issubclass(kind, pydantic.BaseModel) else ()
    return unknown(".".join(map(str, loc)), fields)
