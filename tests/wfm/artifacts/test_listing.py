import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wfm.artifacts.listing import FileEntry, PartEntry, build, find, iterate
from wfm.errors import DataError


def tree(entries, width):
    nodes, opened = {}, []

    def read(child):
        opened.append(child.path)
        return nodes[child.path]

    return build(entries, "files", nodes.__setitem__, width), nodes, read, opened


def files(names):
    return [FileEntry(name, len(name), hashlib.sha256(name.encode()).hexdigest()) for name in names]


NAMES = [f"clips/{number:03d}.mp4" for number in range(100)]


def test_a_short_list_needs_no_nodes():
    listing, nodes, read, _ = tree(files(NAMES[:4][::-1]), 4)
    assert nodes == {}
    assert [row["path"] for row in iterate(listing, read)] == NAMES[:4]
    assert (listing.count, listing.bytes) == (4, 4 * len(NAMES[0]))


@pytest.mark.parametrize("width", [2, 3, 10, 99])
def test_a_long_list_becomes_a_tree_in_which_no_node_is_wider(width):
    import json

    listing, nodes, read, _ = tree(files(NAMES[::-1]), width)
    assert len(listing.children) <= width
    assert all(len(json.loads(data)["entries"]) <= width for data in nodes.values())
    assert [row["path"] for row in iterate(listing, read)] == NAMES
    assert listing.count == 100 == sum(child.count for child in listing.children)
    for name in NAMES:
        assert find(listing, read, name)["path"] == name
    for name in ("", "a", "clips/0005.mp4", "clips/100.mp4", "z"):
        assert find(listing, read, name) is None


def test_one_name_opens_one_node_a_level():
    listing, _, read, opened = tree(files(NAMES), 10)
    find(listing, read, NAMES[55])
    assert len(opened) == 1
    opened.clear()
    assert [row["path"] for row in iterate(listing, read, "clips/05")] == NAMES[50:60]
    assert len(opened) == 1


@settings(max_examples=60, deadline=None)
@given(st.sets(st.text("abc", min_size=1, max_size=6), max_size=30), st.text("abc", max_size=4), st.integers(2, 5))
def test_prefixes_give_what_a_plain_filter_gives(names, prefix, width):
    listing, _, read, _ = tree(files(names), width)
    assert [row["path"] for row in iterate(listing, read, prefix)] == sorted(n for n in names if n.startswith(prefix))
    for name in names:
        assert find(listing, read, name) is not None


def test_parts_are_sorted_by_name():
    parts = [PartEntry(name, "k", "d", {"n": 1}) for name in ("b", "a")]
    listing, _, read, _ = tree(parts, 4)
    assert [PartEntry(**row) for row in iterate(listing, read)] == parts[::-1]
    assert listing.bytes == 0


def test_a_damaged_node_is_refused():
    listing, nodes, read, _ = tree(files(NAMES), 10)
    path = listing.children[3].path
    nodes[path] = nodes[path].replace(b"030", b"0x0")
    assert find(listing, read, NAMES[0])
    with pytest.raises(DataError, match="damaged"):
        list(iterate(listing, read))
