"""Versions of what is written down: read what is known, refuse what is newer with advice."""

import json
from typing import Any

from wfm.errors import DataError, InputError


def encode(document: dict[str, Any]) -> bytes:
    """JSON bytes, the same for the same document. Raises InputError for what JSON cannot hold (NaN, bytes, odd
    text)."""
    try:
        return json.dumps(document, sort_keys=True, indent=1, allow_nan=False, ensure_ascii=False).encode() + b"\n"
    except (TypeError, ValueError) as error:
        raise InputError(
            f"a record cannot be written as JSON: {error}; use plain numbers, strings, lists and dicts"
        ) from None


def decode(data: bytes, where: str, newest: int) -> dict[str, Any]:
    """Read a JSON record that carries `schema_version`.

    Raises DataError when it is not such a record, InputError when it was written by a newer wfm.
    """
    try:
        document = json.loads(data)
    except ValueError:
        raise DataError(f"{where} is not valid JSON ({len(data)} bytes): the file is damaged") from None
    version = document.get("schema_version") if isinstance(document, dict) else None
    if not isinstance(version, int) or version < 1:
        raise DataError(f"{where} has no schema_version: it was not written by wfm, or is damaged")
    if version > newest:
        raise InputError(
            f"{where} has schema version {version}, this wfm reads up to {newest}: it was written by a newer wfm; "
            "upgrade wfm (pip install --upgrade wfm) to read it, or use another store for this version"
        )
    return document
