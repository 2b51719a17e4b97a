"""Amounts as an API server writes them, in Kueue's whole units."""

import pytest

from wfm.cluster.quota.amounts import read
from wfm.errors import DataError


@pytest.mark.parametrize(
    ("resource", "text", "units"),
    [
        ("cpu", "100m", 100),
        ("cpu", "0.1", 100),
        ("cpu", "500u", 1),
        ("cpu", "50n", 1),
        ("cpu", 2, 2000),
        ("memory", "1Ti", 2**40),
        ("memory", "1e3", 1000),
        ("memory", "1.5Gi", 3 * 2**29),
        ("memory", "100m", 1),
        ("nvidia.com/gpu", "9223372036854775807", 2**63),  # the most there is, to the precision of a float
    ],
)
def test_whole_units_rounded_up(resource: str, text: object, units: int) -> None:
    assert read(resource, text, "here") == units


@pytest.mark.parametrize("text", ["", "-1", "5e", "1GiB", "1 Gi", "1e100", True, None, float("inf"), float("nan")])
def test_what_is_no_amount_is_named(text: object) -> None:
    with pytest.raises(DataError, match=r"here = .* is no amount of memory"):
        read("memory", text, "here")
