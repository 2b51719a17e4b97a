"""Parts of about as many bytes: the same for the same videos, and untouched by what comes elsewhere."""

import hashlib
from collections import defaultdict

from hypothesis import given, settings
from hypothesis import strategies as st

from wfm.parts.prefixes import part_names

MIB = 2**20


def ids(count: int) -> list[str]:
    return [hashlib.sha256(str(number).encode()).hexdigest() for number in range(count)]


def bytes_of(names: dict[str, str], sizes: dict[str, int]) -> dict[str, int]:
    held: dict[str, int] = defaultdict(int)
    for key, name in names.items():
        held[name] += sizes[key]
    return dict(held)


def test_small_sets_keep_their_prefixes() -> None:
    sizes = dict.fromkeys(ids(300), MIB)
    assert part_names(sizes, 2**31, 2) == {key: key[:2] for key in sizes}


def test_a_large_prefix_is_halved_until_it_fits() -> None:
    sizes = dict.fromkeys(ids(4000), MIB)
    held = bytes_of(part_names(sizes, 40 * MIB, 0), sizes)
    assert sum(held.values()) == 4000 * MIB
    assert max(held.values()) <= 40 * MIB
    assert sum(held.values()) / len(held) > 20 * MIB, "about as many bytes: more than half of the target on average"


def test_the_name_says_which_ids_a_part_holds() -> None:
    sizes = {"ab3": 1, "ab4": 1, "ab7": 1, "abf": 1}
    assert part_names(sizes, 1, 2) == {"ab3": "ab-00", "ab4": "ab-010", "ab7": "ab-011", "abf": "ab-1"}
    assert part_names(sizes, 2, 2) == {"ab3": "ab-00", "ab4": "ab-01", "ab7": "ab-01", "abf": "ab-1"}


def test_a_giant_is_alone_and_the_rest_stays_together_where_it_can() -> None:
    sizes = dict.fromkeys(ids(100), MIB)
    giant = ids(101)[-1]
    names = part_names({**sizes, giant: 100_000 * MIB}, 1000 * MIB, 0)
    assert [key for key, name in names.items() if name == names[giant]] == [giant]
    assert len(set(names.values())) <= 1 + 8, "one for each bit that tells it from the others (log2 of 100, and chance)"


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 50), min_size=2, max_size=120), st.integers(1, 100))
def test_one_more_video_changes_only_the_part_it_falls_into(megabytes: list[int], target: int) -> None:
    keys = ids(len(megabytes))
    sizes = dict(zip(keys, megabytes, strict=True))
    new = keys[-1]
    before = {key: size for key, size in sizes.items() if key != new}
    first, second = part_names(before, target, 1), part_names(sizes, target, 1)
    assert second == part_names(dict(reversed(sizes.items())), target, 1)
    moved = {first[key] for key in before if first[key] != second[key]}
    assert len(moved) <= 1, "at most the part that was halved"
    touched = moved | ({second[new]} & set(first.values()))
    assert len(touched) <= 1
