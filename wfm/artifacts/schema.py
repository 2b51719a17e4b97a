"""What is written down, and how it is read: everything in a store is data from outside, whoever says to have written it.

A record is JSON with a `schema_version`. Reading is bounded in size and depth, refuses what is newer with advice, and compares
the fields with their types (`Key`, `Id`, `Word`, `RelativePath` ... are the strict forms of what becomes a path) and with the
place the record was found at.
"""

import json
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, Field, StringConstraints, TypeAdapter, ValidationError

from wfm.artifacts.address import ID_PATTERN, KEY_PATTERN, NAME_PATTERN, path_fault
from wfm.errors import DataError, InputError

MAX_BYTES = 32 * 2**20
"""Of one record. 4,096 entries with the longest names and many counts are 8 MiB."""
MAX_DEPTH = 100
"""Of lists and objects in each other."""
T = TypeVar("T")
_adapters: dict[Any, TypeAdapter[Any]] = {}


def _relative(path: str) -> str:
    fault = path_fault(path)
    if fault:
        raise ValueError(f"the path {path[:200]!r} is not allowed: {fault}")
    return path


Key = Annotated[str, StringConstraints(pattern=f"^{KEY_PATTERN.pattern}$")]
"""64 hex digits: a key, a digest, a sha256."""
Id = Annotated[str, StringConstraints(pattern=f"^{ID_PATTERN.pattern}$")]
"""An id of `address.new_id`."""
Word = Annotated[str, StringConstraints(pattern=f"^{NAME_PATTERN.pattern}$")]
"""A kind, stage, name, alias, part name."""
RelativePath = Annotated[str, AfterValidator(_relative)]
"""A path of `address.safe_path`."""
Short = Annotated[str, StringConstraints(max_length=10_000)]
Integer = Annotated[int, Field(strict=True)]
Count = Annotated[int, Field(strict=True, ge=0, lt=2**63)]
Number = Annotated[int, Field(strict=True, ge=1, lt=10**15)]
"""Of a generation, a promotion, a lease: they are counted up from 1, and are part of a name."""


def encode(document: dict[str, Any]) -> bytes:
    """JSON bytes, the same for the same document. Raises InputError for what JSON cannot hold (NaN, bytes, odd
    text), and for what `decode` would not read back."""
    try:
        data = json.dumps(document, sort_keys=True, indent=1, allow_nan=False, ensure_ascii=False).encode() + b"\n"
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(
            f"a record cannot be written as JSON: {error}; use plain numbers, strings, lists and dicts"
        ) from None
    if len(data) > MAX_BYTES or _too_deep(document):
        raise InputError(
            f"a record of {len(data)} bytes cannot be written: at most {MAX_BYTES} bytes and {MAX_DEPTH} levels are read "
            "back; put the bulk of it into files of the artifact"
        )
    return data


def parse(data: bytes, where: str) -> Any:
    """Any JSON that a store holds. Raises DataError when it is none, or too large or too deep to be ours."""
    if len(data) > MAX_BYTES:
        raise DataError(f"{where} is damaged: it has {len(data)} bytes, at most {MAX_BYTES} are read")
    try:
        document = json.loads(data, parse_constant=_no_number)
        if b"\\u" in data:
            json.dumps(document, ensure_ascii=False).encode()  # half a surrogate pair cannot be shown, nor be a name
    except ValueError:
        raise DataError(f"{where} is not valid JSON ({len(data)} bytes): the file is damaged") from None
    except RecursionError:
        raise DataError(f"{where} is damaged: its JSON is nested too deep") from None
    if data.count(b"[") + data.count(b"{") > MAX_DEPTH and _too_deep(document):
        raise DataError(f"{where} is damaged: its JSON is nested more than {MAX_DEPTH} levels deep")
    return document


def decode(data: bytes, where: str, newest: int) -> dict[str, Any]:
    """Read a JSON record that carries `schema_version`.

    Raises DataError when it is not such a record, InputError when it was written by a newer wfm.
    """
    document = parse(data, where)
    version = document.get("schema_version") if isinstance(document, dict) else None
    if not isinstance(version, int) or version < 1:
        raise DataError(f"{where} has no schema_version: it was not written by wfm, or is damaged")
    if version > newest:
        raise InputError(
            f"{where} has schema version {version}, this wfm reads up to {newest}: it was written by a newer wfm; "
            "upgrade wfm (pip install --upgrade wfm) to read it, or use another store for this version"
        )
    checked: dict[str, Any] = document
    return checked


def read(kind: type[T], data: bytes, where: str, newest: int, /, **place: Any) -> T:
    """Read a record into the dataclass or model `kind`, whose types are its rules. `place`: fields that the place where it was
    found tells already, such as the key in its path.

    Raises DataError naming the field that is missing, of another form, or of another place; InputError for a newer schema.
    """
    record = fit(kind, decode(data, where, newest), where)
    for name, expected in place.items():
        found = getattr(record, name)
        if found != expected:
            raise DataError(
                f"{where} is damaged: field {name!r} is {str(found)[:80]!r}, and by its place it must be {expected!r}: it is "
                "the record of something else"
            )
    return record


def fit(kind: type[T], document: Any, where: str) -> T:
    """Check plain values against the types of `kind`. Raises DataError naming the field."""
    try:
        return adapter(kind).validate_python(document)
    except ValidationError as error:
        raise DataError(f"{where} is damaged: {first_fault(error)}") from None


def first_fault(error: ValidationError) -> str:
    """The first thing that is wrong, on one line."""
    first = error.errors(include_url=False)[0]
    field = ".".join(str(step) for step in first["loc"])[:200]
    words = first["msg"].removeprefix("Value error, ")[:400]
    return f"field {field!r}: {words}" if field else words


def adapter(kind: type[T]) -> TypeAdapter[T]:
    """Reads plain values into `kind`; made once."""
    if kind not in _adapters:
        _adapters[kind] = TypeAdapter(kind)
    return _adapters[kind]


def _no_number(word: str) -> float:
    raise ValueError(f"{word} is no JSON")


def _too_deep(document: Any) -> bool:
    level: list[Any] = [[document]]
    for _ in range(MAX_DEPTH + 2):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, dict | list | tuple)
        ]
        if not level:
            return False
    return True
