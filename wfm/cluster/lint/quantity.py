"""Amounts and times as Kubernetes and Argo write them: ``500m``, ``4Gi``, ``90s``, ``1h30m``."""

import re
from typing import Any

_AMOUNT = re.compile(r"(\d{1,19}(?:\.\d{0,9})?|\.\d{1,9})(n|u|m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei|[eE][+-]?\d{1,2})?")
_FACTORS = {
    "n": 1e-9,
    "u": 1e-6,
    "m": 1e-3,
    "k": 1e3,
    "M": 1e6,
    "G": 1e9,
    "T": 1e12,
    "P": 1e15,
    "E": 1e18,
    **{f"{letter}i": 1024.0**power for power, letter in enumerate("KMGTPE", 1)},
}
_SPAN = re.compile(r"(\d{1,12}(?:\.\d{1,6})?)(ms|s|m|h|d)")
_SECONDS = {"ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def amount(value: Any) -> float | None:
    """Cores, bytes or devices: ``"500m"`` -> 0.5, ``"1Gi"`` -> 2**30; None for what is no amount."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        return float(value) if 0 <= value < 1e30 else None
    found = _AMOUNT.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        return None
    unit = found[2] or ""
    return float(found[1]) * (_FACTORS[unit] if unit in _FACTORS else float(f"1{unit}") if unit else 1.0)


def seconds(value: Any) -> float | None:
    """A span of time: ``90``, ``"90"``, ``"1h30m"`` -> seconds; None for what is none."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        return float(value) if 0 <= value < 1e15 else None
    if not isinstance(value, str):
        return None
    if re.fullmatch(r"\d{1,12}", value):
        return float(value)
    if not re.fullmatch(rf"(?:{_SPAN.pattern})+", value):
        return None
    return sum(float(number) * _SECONDS[unit] for number, unit in _SPAN.findall(value))


def whole(value: Any) -> int | None:
    """A whole number, also where it is written as text; None for what is none (``true`` is none)."""
    if isinstance(value, str) and re.fullmatch(r"-?\d{1,15}", value):
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None
