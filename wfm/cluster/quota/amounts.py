"""Amounts as Kueue counts them: whole thousandths of a core, whole bytes, whole devices, each rounded up.

Kueue: pkg/resources/requests.go, ``ResourceValue`` (cpu by MilliValue, everything else by Value).
"""

import math
from typing import Any

from wfm.cluster.lint.quantity import amount
from wfm.errors import DataError

CPU = "cpu"
PODS = "pods"
"Counted by Kueue itself where a queue covers it; no pod asks for it."
_BYTES = ("memory", "ephemeral-storage", "storage", "hugepages-")


def units(resource: str, value: float) -> int:
    """Cores, bytes or devices in whole units, up."""
    return math.ceil(round(value * 1000, 6)) if resource == CPU else math.ceil(round(value, 6))


def read(resource: str, value: Any, where: str) -> int:
    """An amount of a manifest in whole units. Raises DataError that names where it stands."""
    found = amount(value)
    if found is None:
        raise DataError(f"{where} = {str(value)[:80]!r} is no amount of {resource}: give one such as 8, 500m or 64Gi")
    return units(resource, found)


def shown(resource: str, count: int) -> str:
    """As Kubernetes would write it."""
    if resource == CPU:
        return f"{count // 1000}" if count % 1000 == 0 else f"{count}m"
    if not resource.removeprefix("requests.").removeprefix("limits.").startswith(_BYTES):
        return str(count)
    for unit, size in (("Gi", 2**30), ("Mi", 2**20), ("Ki", 2**10)):
        if count and count % size == 0:
            return f"{count // size}{unit}"
    return f"{count / 2**30:.6g}Gi" if count >= 2**30 else str(count)
