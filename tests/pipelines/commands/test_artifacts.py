"""`wfm artifacts` list, show, verify: reasons that were given, sizes with parts, and what a purge left."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipelines.commands.artifacts import app
from wfm.artifacts import Artifact, PartEntry, Store
from wfm.artifacts.invalidation import bury
from wfm.errors import InputError

CLIPS, MODEL, PART, LONE = "1" * 64, "2" * 64, "3" * 64, "4" * 64


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Clips of 2,000 bytes, 1,000 of them in a part, and a model that was made of them."""
    store = Store.open(tmp_path / "store", {"fsync": False})
    with store.part_attempt(PART) as attempt:
        (attempt.path / "b.bin").write_bytes(b"b" * 1000)
        part = attempt.commit(stage="split_clips", kind="part")
    _commit(store, CLIPS, "clips", parts=[part.entry("00")])
    _commit(store, MODEL, "model", inputs={"clips": CLIPS})
    store.promote("clips", "cut", CLIPS)
    store.promote("model", "mine", MODEL)
    return store


def _commit(
    store: Store, key: str, kind: str, inputs: dict[str, str] | None = None, parts: list[PartEntry] | None = None
) -> Artifact:
    with store.attempt(key) as attempt:
        (attempt.path / "a.bin").write_bytes(b"a" * 1000)
        return attempt.commit(stage="split_clips", kind=kind, inputs=inputs or {}, parts=parts or [])


def said(store: Store, *words: str, code: int = 0) -> str:
    done = CliRunner().invoke(app, [*words, "--store", store.url])
    assert (done.exit_code == 0) == (code == 0), done.output
    return done.output


def test_sizes_have_the_parts_in_them(store: Store) -> None:
    """The old code showed 1000 B for both, and no bytes of parts."""
    lines = {line.split()[0]: line for line in said(store, "list").splitlines()[1:]}
    assert "2.0 KiB" in lines["clips/cut@latest"]
    assert "1000 B" in lines["model/mine@latest"]
    shown = json.loads(said(store, "show", "clips/cut"))
    assert shown["files"] == {"count": 1, "bytes": 1000}
    assert shown["parts"] == {"count": 1, "bytes": 1000}


def test_the_reason_of_an_invalidation_is_shown(store: Store) -> None:
    """The old code: "no longer there", and "has no committed artifact 111...: run its stage"."""
    _commit(store, LONE, "report")
    for key in (CLIPS, LONE):
        store.invalidate(key, "the lamp was wrong")
    assert "the lamp was wrong" in said(store, "list")
    assert LONE[:12] not in said(store, "list")
    assert LONE[:12] in said(store, "list", "--all")
    shown = json.loads(said(store, "show", "clips/cut"))
    assert shown["invalidated"]["reason"] == "the lamp was wrong"
    assert shown["counts"] == {}
    assert json.loads(said(store, "show", CLIPS[:10]))["invalidated"]["by"] == "invalidate"
    with pytest.raises(InputError, match=r"was invalidated at .*: the lamp was wrong; run its stage again"):
        store.artifact(CLIPS)


def test_what_was_purged_is_no_damage(store: Store) -> None:
    """The old code called a kept model DAMAGED for ever: "input clips (111...) is not in the store any more"."""
    bury(store.objects, "artifacts", CLIPS, 1, "purged: asked by its author", "purge")
    store.objects.delete(f"artifacts/{CLIPS}/manifest.json")
    told = said(store, "verify", "model/mine")
    assert "whole" in told
    assert "input clips (1111" in told
    assert "was purged at" in told
    assert "asked by its author" in told


def test_a_purged_part_is_no_damage_and_a_lost_one_is(store: Store) -> None:
    bury(store.objects, "parts", PART, 1, "purged: asked", "purge")
    store.objects.delete(f"parts/{PART}/manifest.json")
    report = store.verify(CLIPS)
    assert report.ok, report.problems
    (note,) = report.purged
    assert note.startswith("parts/00 was purged at")
    store.objects.delete(f"parts/{PART}/tombstone-1.json")
    assert not Store.open(store.url).verify(CLIPS).ok


def test_what_was_invalidated_is_still_a_problem(store: Store) -> None:
    store.invalidate(CLIPS, "upside down")
    (problem,) = store.verify(MODEL).problems
    assert problem.endswith(": upside down")


@pytest.mark.parametrize("stray", ["notes", "11111111 copy", "a\\b"])
def test_a_stray_folder_among_the_artifacts_hides_none(store: Store, stray: str) -> None:
    """`list --all` ended at each: "key 'notes' is not a key", "path 'artifacts/a\\\\b' is not allowed"."""
    folder = Path(store.url.removeprefix("file://")) / "artifacts" / stray
    folder.mkdir()
    (folder / "manifest.json").write_text("{}")
    assert CLIPS[:12] in said(store, "list", "--all")
    assert list(store.known_keys()) == [CLIPS, MODEL]
    store.invalidate(CLIPS, "the lamp was wrong")
    assert store.resolve("11111111") == CLIPS


def test_a_long_reason_leaves_the_names_whole(store: Store) -> None:
    """It stood on one line, and of every other column a … was left."""
    store.invalidate(CLIPS, "the lamp was wrong, " * 20)
    shown = said(store, "list", "--all")
    assert all(words in shown for words in ("clips/cut@latest", "model/mine@latest", MODEL[:12], "1000 B"))
    assert shown.count("the lamp was wrong") > 15  # a line may end within one


def test_what_a_tombstone_without_words_tells(store: Store) -> None:
    """It said "was collected at : its tombstone cannot be read"."""
    store.objects.replace(f"artifacts/{MODEL}/tombstone-1.json", b"{")
    store.objects.replace(f"artifacts/{CLIPS}/tombstone-1.json", b"")
    told = [store.tombstone(key).described() for key in (MODEL, CLIPS)]  # type: ignore[union-attr]
    assert told[0].startswith("does not count: its tombstone cannot be read: ")
    assert told[1] == "was collected: nothing needed it"
