"""The catalogue as files: the same store gives the same bytes, text from outside stays text, nothing else is touched."""

import html.parser
import json
from pathlib import Path

import pytest

from tests.wfm.catalogue.conftest import commit, fill, key_of, write_bundle
from wfm.artifacts import Store
from wfm.artifacts.names import Seen
from wfm.catalogue.site import LIST, write_catalogue
from wfm.errors import InputError


class Elements(html.parser.HTMLParser):
    """What a browser would see."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.text = ""
        self.feed(path.read_text())

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_a_page_each_an_index_and_the_same_for_programs(store, tmp_path):
    out = tmp_path / "site"
    written = write_catalogue(store, out)
    assert (written.entries, written.problems) == (2, [])
    listed = json.loads((out / LIST).read_text())
    assert listed["files"] == sorted(contents(out))
    assert [(one["kind"], one["name"]) for one in listed["entries"]] == [("dataset", "curated"), ("model", "tiny")]
    assert all((out / one["page"]).is_file() and (out / one["card"]).is_file() for one in listed["entries"])
    page = Elements(out / "model" / "tiny" / "index.html").text
    for words in ("4.0 dB nearer to the truth", "0.8 dB worse than optical flow", "model/tiny@latest", "make_dataset"):
        assert words in page
    assert "CC-BY-4.0" in page
    assert json.loads((out / "model/tiny/card.json").read_text())["key"] == key_of("bundle")


def test_every_link_is_relative_and_leads_to_a_file(store, tmp_path):
    out = tmp_path / "site"
    write_catalogue(store, out)
    links = []
    for path in out.rglob("*.html"):
        for tag, attributes in Elements(path).tags:
            assert tag != "script"
            for name in ("href", "src"):
                if (value := attributes.get(name)) and not value.startswith("data:"):
                    assert (path.parent / value).resolve().is_file(), value
                    links.append((path.parent.name, value))
    assert ("tiny", "../../dataset/curated/index.html") in links, "lineage leads to the data's page"


def test_the_same_store_gives_the_same_bytes_and_nothing_is_written_twice(store, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    write_catalogue(store, first), write_catalogue(store, second)
    assert contents(first) == contents(second)
    before = {path: path.stat().st_ino for path in first.rglob("*") if path.is_file()}
    again = write_catalogue(store, first)
    assert (again.changed, again.unchanged) == ([], len(before))
    assert {path: path.stat().st_ino for path in before} == before

    store.promote("model", "tiny", key_of("bundle"), alias="production")
    changed = write_catalogue(store, first).changed
    assert changed == ["index.html", "model/tiny/card.json", "model/tiny/index.html", LIST]


def test_history_and_names_that_are_gone(store, tmp_path):
    other = commit(store, "other", "model", lambda out: write_bundle(out, evaluation={}))
    store.promote("model", "tiny", other.key)
    store.promote("model", "passing", key_of("bundle"))
    seen = Seen(passed=False, against=other.key, words=("gain 1.0, at least <2.0>",))
    store.names.promote("model", "tiny", "candidate", key_of("bundle"), by="run 7", seen=seen)
    out = tmp_path / "site"
    write_catalogue(store, out)
    page = Elements(out / "model" / "tiny" / "index.html").text
    assert "No result: it was never evaluated." in page
    assert "run 7" in page
    assert "not passed: gain 1.0, at least <2.0>" in page
    assert "4.0 dB nearer to the truth" in page, "what it was promoted with before stands in its history"
    store.objects.delete_tree("refs/model/passing")
    (out / "mine.txt").write_text("left alone\n")
    written = write_catalogue(store, out)
    assert "model/passing/index.html" in written.removed
    assert not (out / "model" / "passing").exists()
    assert (out / "mine.txt").exists()


def test_text_from_outside_stays_text(hostile_store, tmp_path):
    out = tmp_path / "site"
    write_catalogue(hostile_store, out)
    for path in out.rglob("*.html"):
        seen = Elements(path)
        assert not [tag for tag, _ in seen.tags if tag == "script"]
        assert not [name for _, attributes in seen.tags for name in attributes if name.startswith("on")]
        assert not [a["href"] for _, a in seen.tags if a.get("href", "").startswith("http")]
    assert "<script>alert" in Elements(out / "model" / "tiny" / "index.html").text


def test_what_cannot_be_read_is_shown_and_hides_nothing_else(store, tmp_path):
    forged = commit(store, "forged", "model", lambda out: (out / "card.json").write_text("{}"))
    store.promote("model", "forged", forged.key)
    store.names.promote("dataset", "elsewhere", "latest", key_of("bundle"))
    store.names.promote("model", "gone", "latest", "f" * 64)
    (tmp_path / "store" / "refs" / "model" / "damaged" / "latest").mkdir(parents=True)
    (tmp_path / "store" / "refs" / "model" / "damaged" / "latest" / "00000001.json").write_text("{")
    out = tmp_path / "site"
    written = write_catalogue(store, out)
    told = "\n".join(written.problems)
    for words in ("model/forged", "dataset/elsewhere", "model/gone", "model/damaged"):
        assert words in told
    index = Elements(out / "index.html").text
    assert "it names an artifact of kind 'model'" in index
    assert "4.0 dB nearer to the truth" in index


@pytest.mark.parametrize(
    ("listed", "words"),
    [
        ("{}", "is not the list of a catalogue"),
        ('{"schema_version": 1, "files": ["../outside.txt"]}', "no path below it"),
        ('{"schema_version": 9, "files": []}', "use a newer wfm"),
    ],
)
def test_a_list_that_is_not_ours_deletes_nothing(store, tmp_path, listed, words):
    out = tmp_path / "site"
    out.mkdir()
    (tmp_path / "outside.txt").write_text("mine\n")
    (out / LIST).write_text(listed)
    with pytest.raises(InputError, match=words):
        write_catalogue(store, out)
    assert (tmp_path / "outside.txt").exists()
    assert sorted(contents(out)) == [LIST]


def test_a_folder_of_something_else_is_refused(store, tmp_path):
    out = tmp_path / "site"
    out.mkdir()
    (out / "index.html").write_text("mine\n")
    with pytest.raises(InputError, match="holds something else"):
        write_catalogue(store, out)
    assert (out / "index.html").read_text() == "mine\n"


def test_a_link_out_of_the_folder_is_not_followed(store, tmp_path):
    out, outside = tmp_path / "site", tmp_path / "outside"
    write_catalogue(store, out)
    outside.mkdir()
    for path in (out / "model" / "tiny").iterdir():
        path.unlink()
    (out / "model" / "tiny").rmdir()
    (out / "model" / "tiny").symlink_to(outside)
    with pytest.raises(InputError, match="a folder on the way is a link"):
        write_catalogue(store, out)
    assert list(outside.iterdir()) == []


def test_an_empty_store_has_a_catalogue(tmp_path):
    written = write_catalogue(Store.open(str(tmp_path / "empty"), {"fsync": False}), tmp_path / "site")
    assert written.entries == 0
    assert "None has a name yet" in Elements(tmp_path / "site" / "index.html").text


def test_a_model_whose_data_is_gone_is_shown_still(tmp_path):
    store = Store.open(str(tmp_path / "s"), {"fsync": False})
    fill(store)
    store.objects.delete_tree(f"artifacts/{key_of('dataset')}")
    written = write_catalogue(store, tmp_path / "site")
    assert [problem.split(":")[0] for problem in written.problems] == ["dataset/curated"]
    assert "4.0 dB nearer" in Elements(tmp_path / "site" / "model" / "tiny" / "index.html").text
