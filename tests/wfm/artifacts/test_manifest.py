import json

import pytest

from wfm.artifacts.listing import FileEntry, PartEntry
from wfm.artifacts.manifest import Manifest, content_digest
from wfm.errors import DataError, InputError


def manifest(**fields):
    base = {
        "key": "a" * 64,
        "generation": 1,
        "attempt": "20260101T000000000-00000000",
        "stage": "s",
        "kind": "k",
        "created_at": "now",
        "digest": "d" * 64,
    }
    return Manifest(**{**base, **fields})


def test_it_survives_being_written():
    made = manifest(config={"a": [1, {"b": None}]}, extra={"é": "ü"}, skipped={"too_dark": 2})
    assert Manifest.from_bytes(made.to_bytes(), "here") == made
    assert made.to_bytes() == made.to_bytes()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), b"bytes", object(), "\udcff"])
def test_what_json_cannot_hold_is_refused(value):
    with pytest.raises(InputError, match="JSON"):
        manifest(extra={"x": value}).to_bytes()


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"schema_version": 9}, InputError, "newer wfm"),
        ({"schema_version": "1"}, DataError, "schema_version"),
        ({"generation": 0}, DataError, "'generation'"),
        ({"counts": {"a": "many"}}, DataError, "'counts.a'"),
        ({"attempt": None}, DataError, "'attempt'"),
    ],
)
def test_damage_is_named(change, error, words):
    document = json.loads(manifest().to_bytes())
    with pytest.raises(error, match=words):
        Manifest.from_bytes(json.dumps({**document, **change}).encode(), "here")


@pytest.mark.parametrize("data", [b"", b"[]", b"{", b"\xff", b"null", b"{}"])
def test_other_bytes_are_refused(data):
    with pytest.raises(DataError, match="here"):
        Manifest.from_bytes(data, "here")


def test_fields_of_a_later_minor_change_are_passed_over():
    document = json.loads(manifest().to_bytes())
    assert Manifest.from_bytes(json.dumps({**document, "novelty": 1}).encode(), "here") == manifest()


def test_the_digest_follows_contents_only():
    files = [FileEntry("a", 1, "1"), FileEntry("b", 1, "2")]
    part = PartEntry("p", "key", "3", {"n": 1})
    digest = content_digest(files, [part])
    assert digest == content_digest(files[::-1], [PartEntry("p", "other key", "3", {})])
    assert digest != content_digest(files, [])
    assert digest != content_digest([FileEntry("a", 1, "2"), FileEntry("b", 1, "1")], [part])
    assert content_digest([FileEntry("a", 1, "1")], []) != content_digest([], [PartEntry("a", "k", "1")])
