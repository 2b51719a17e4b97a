"""What lies outside is seen without being opened, and every strange thing gets its reason."""

import json
import os
import re
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from wfm.curation.source.listing import list_source
from wfm.curation.source.source_files import Listing, SourceFile
from wfm.errors import InputError, WfmError

Touch = Callable[..., Path]


@pytest.fixture
def touch(tmp_path: Path) -> Touch:
    def make(*parts: str, content: bytes = b"x") -> Path:
        path = tmp_path.joinpath("in", *parts)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return path

    return make


def by_name(listing: Listing) -> dict[str, SourceFile]:
    return {file.name: file for file in listing.files}


def test_a_folder_is_read_to_its_depth(touch: Touch, tmp_path: Path) -> None:
    touch("a.mp4")
    touch("deep", "er", "b.MKV")
    touch("notes.txt")
    touch(".hidden.mp4")
    touch(".git", "c.mp4")
    found = list_source(str(tmp_path / "in"))
    assert [Path(file.source).name for file in found.files] == ["a.mp4", "b.MKV"]
    assert found.aside == {"hidden": 2, "other_ending": 1}
    assert list_source(f"file://{tmp_path}/in") == found
    assert Listing.from_json(json.loads(json.dumps(found.to_json()))).files == found.files
    touch("another note.txt")
    assert list_source(str(tmp_path / "in")).to_json() == found.to_json(), "a note beside the videos changes no key"


@pytest.mark.parametrize(
    "name",
    [
        "with space.mp4",
        "qu'ot\"es.mp4",
        "new\nline.mp4",
        "ünïcode漢字🎞.mp4",
        "%41 #?&.mp4",
        "-rf.mp4",
        "[1].mp4",
        "c:d.mp4",
    ],
)
def test_any_name_that_is_text_works(touch: Touch, tmp_path: Path, name: str) -> None:
    path = touch(name)
    (file,) = list_source(str(tmp_path / "in")).files
    assert (file.source, file.name, file.problem, file.size) == (str(path), name, "", 1)
    assert list_source(str(path)).files == (file,)


def test_what_may_not_be_opened_is_listed_with_its_reason(touch: Touch, tmp_path: Path) -> None:
    folder = touch("fine.mp4").parent
    os.mkfifo(folder / "fifo.mp4")
    (folder / "device.mp4").symlink_to("/dev/zero")
    (folder / "dangling.mp4").symlink_to("nowhere")
    (folder / "loop.mp4").symlink_to("loop.mp4")
    (folder / "link.mp4").symlink_to("fine.mp4")
    started = time.monotonic()
    found = by_name(list_source(str(folder)))
    assert time.monotonic() - started < 5  # a FIFO that is opened would hang
    assert {name: file.problem.split(":")[0] for name, file in found.items()} == {
        "fine.mp4": "",
        "link.mp4": "",
        "fifo.mp4": "not_a_regular_file",
        "device.mp4": "not_a_regular_file",
        "dangling.mp4": "dangling_link",
        "loop.mp4": "dangling_link",
    }
    assert "FIFO" in found["fifo.mp4"].problem


def test_a_name_that_is_not_utf8_is_a_row_with_a_reason(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    Path(os.fsdecode(os.fsencode(folder) + b"/bad\xff.mp4")).write_bytes(b"x")
    (file,) = list_source(str(folder)).files
    assert file.problem.startswith("unsafe_name")
    assert file.name == "bad\\udcff.mp4"


def test_a_link_that_leads_back_up_is_walked_once(touch: Touch) -> None:
    folder = touch("a.mp4").parent
    (folder / "again").symlink_to(folder)
    assert len(list_source(str(folder)).files) == 1


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("", "no videos were named"),
        ("missing", "no such file or folder"),
        ("no/*.mp4", "no file matches"),
        ("a\0b", "NUL"),
    ],
)
def test_a_place_that_is_not_there_is_wrong_input(tmp_path: Path, place: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        list_source(place if not place or "\0" in place else str(tmp_path / place))


def test_an_empty_folder_is_wrong_input_and_named(tmp_path: Path) -> None:
    folder = tmp_path / "nothing here"
    folder.mkdir()
    with pytest.raises(InputError, match=r"no video files in .*nothing here"):
        list_source(str(folder))
    (folder / "readme.txt").touch()
    with pytest.raises(InputError, match="1 other_ending"):
        list_source(str(folder))


def test_a_glob_takes_what_matches(touch: Touch, tmp_path: Path) -> None:
    touch("a1.mp4")
    touch("a2.data")
    touch("b.mp4")
    touch("deep", "a3.mp4")
    assert [file.name for file in list_source(str(tmp_path / "in" / "a*")).files] == ["a1.mp4", "a2.data"]
    assert len(list_source(str(tmp_path / "in" / "**" / "*.mp4")).files) == 3


def test_a_list_of_names(touch: Touch, tmp_path: Path) -> None:
    first, odd = touch("x", "a.mp4"), touch("x", "no ending")
    text = tmp_path / "in" / "list.txt"
    text.write_bytes(
        b"# comment\n\nx/a.mp4\nx/a.mp4\r\n" + os.fsencode(odd) + b"\n../secret.mp4\nx/b\0.mp4\nx/gone.mp4\n"
    )
    found = list_source(str(text))
    problems = {file.name: file.problem.split(":")[0] for file in found.files}
    assert problems == {
        "a.mp4": "",
        "no ending": "",
        "secret.mp4": "unsafe_name",
        "b\0.mp4": "unsafe_name",
        "gone.mp4": "not_found",
    }
    assert sum(file.source == str(first) for file in found.files) == 1


def test_a_list_with_what_is_known_of_each_file(touch: Touch, tmp_path: Path) -> None:
    path, actions = touch("a.mp4"), touch("poses.parquet")
    rows = tmp_path / "in" / "list.jsonl"
    rows.write_text(
        json.dumps({"source": "a.mp4", "session_id": "s1", "view": "left", "actions": "poses.parquet"}) + "\n"
    )
    (file,) = list_source(str(rows)).files
    assert (file.source, file.session_id, file.view, file.actions) == (str(path), "s1", "left", str(actions))
    before = file.sidecar_stamp
    actions.write_bytes(b"longer")
    assert list_source(str(rows)).files[0].sidecar_stamp != before


def test_a_parquet_list_is_the_same_as_a_jsonl_list(touch: Touch, tmp_path: Path) -> None:
    touch("a.mp4"), touch("b.mp4"), touch("poses.parquet")
    rows = [
        {"source": "a.mp4", "session_id": "s1", "view": "left", "actions": "poses.parquet"},
        {"source": "b.mp4"},
        {"source": "../secret.mp4"},
    ]
    lines, table = tmp_path / "in" / "list.jsonl", tmp_path / "in" / "names.parquet"
    lines.write_text("".join(json.dumps(row) + "\n" for row in rows))
    pq.write_table(pa.Table.from_pylist([{**row, "stars": 3} for row in rows]), table)
    found = list_source(str(table))
    assert len(found.files) == 3
    assert found == list_source(str(lines))


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"path": ["a"]}, "column 'source' is not there"),
        ({"source": [1]}, "column 'source' is int64"),
        ({"source": ["a"], "view": [2]}, "column 'view' is int64"),
        (None, "no Parquet that can be read"),
    ],
)
def test_a_wrong_parquet_list_names_its_column(
    tmp_path: Path, columns: dict[str, list[object]] | None, message: str
) -> None:
    path = tmp_path / "list.parquet"
    if columns is None:
        path.write_bytes(b"PAR1 but no more")
    else:
        pq.write_table(pa.table(columns), path)
    with pytest.raises(InputError, match=message):
        list_source(str(path))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "it is not JSON"),
        ('{"source": "b.mp4", "source": "c.mp4"}', "a name stands twice"),
        ('{"source": "b.mp4", "view": NaN}', "'view': fields are texts"),
        ('{"source": "b.mp4", "view": ' + "1" * 5000 + "}", "it is not JSON"),
        ('{"source": "b.mp4", "session_id": "' + "x" * 10**6 + '"}', "its session_id has 1,000,000 characters"),
        ('{"source": "b.mp4", "view": {"a": [' + "[" * 500 + "]" * 500 + "]}}", "'view': fields are texts"),
        ('{"path": "a"}', "must be an object with 'source'"),
        ('{"source": " "}', "must be an object with 'source'"),
        ("[" * 100_000, "it is not JSON"),
        ('{"source": "a", "session_id": "\\ud800"}', "session_id holds half of a character"),
        ('{"source": "a", "fps": "2"}', "fps.*licence, consent, rights_holder, url"),
        ('{"source": "a", "url": "https://h/x?X-Amz-Signature=0"}', "its url carries credentials"),
    ],
)
def test_a_wrong_row_names_its_line_and_fails_alone(touch: Touch, line: str, message: str) -> None:
    """The old code ended the run: InputError."""
    names = touch("a.mp4").with_name("list.jsonl")
    names.write_text(f'{line}\n{{"source": "a.mp4"}}\n')
    good, bad = list_source(str(names)).files
    assert (good.name, good.problem) == ("a.mp4", "")
    assert bad.name == "list.jsonl line 1"
    assert re.search(f"^bad_row: line 1 of list.jsonl: .*{message}", bad.problem)


def test_a_file_named_twice_is_one_unless_it_is_said_to_be_two_things(touch: Touch) -> None:
    names = touch("a.mp4").with_name("list.jsonl")
    names.write_text('{"source": "a.mp4", "licence": "CC0"}\n' * 2)
    assert len(list_source(str(names)).files) == 1
    names.write_text('{"source": "a.mp4", "licence": "CC0"}\n{"source": "a.mp4"}\n')
    (file,) = list_source(str(names)).files  # the old code: InputError, and no run
    assert file.problem == "contradiction: it is named twice, and different things are said of it"


def test_the_listing_moves_with_what_lies_outside(touch: Touch, tmp_path: Path) -> None:
    path = touch("videos", "a.mp4")
    place = str(tmp_path / "in" / "videos")
    before = list_source(place)
    assert list_source(place).to_json() == before.to_json()
    os.utime(path, ns=(1, 1))
    touched = list_source(place)
    assert touched != before
    touch("actions", "a.parquet")
    with_sidecar = list_source(place)
    assert with_sidecar != touched
    assert with_sidecar.files[0].actions == str(tmp_path / "in" / "actions" / "a.parquet")
    touch("videos", "b.mp4")
    assert len(list_source(place).files) == 2


def test_sidecars_lie_beside_the_video_or_in_sibling_folders(touch: Touch, tmp_path: Path) -> None:
    touch("videos", "a.mp4")
    beside = touch("videos", "a.actions.parquet")
    sibling = touch("attributes", "a.json")
    touch("actions", "a.parquet")
    found = list_source(str(tmp_path / "in"))
    assert (found.files[0].actions, found.files[0].attributes) == (str(beside), str(sibling))
    assert found.aside == {}


def test_errors_are_ours(tmp_path: Path) -> None:
    with pytest.raises(WfmError) as raised:
        list_source("nosuch://bucket/x")
    assert raised.value.outcome == "wrong_input"
