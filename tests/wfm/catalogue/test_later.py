"""A card shows the newest evaluation of its model, says which that is, and takes none that is of something else."""

import json
from pathlib import Path
from typing import Any

import pytest

from pipelines.stages import stage
from tests.wfm.catalogue.conftest import commit, key_of, make_metrics, write_bundle
from wfm.artifacts import Artifact, Store
from wfm.catalogue.beside import write_cards
from wfm.catalogue.entries import entries
from wfm.catalogue.model_card import model_card
from wfm.catalogue.of_model import model_sheet, sheet_of_folder
from wfm.catalogue.site import write_catalogue
from wfm.evaluation.schema import Metrics

SAMPLING = {"steps": 3}


def evaluation(
    store: Store, name: str, windows: int, sampling: dict[str, Any] | None = None, **inputs: str
) -> Artifact:
    """Of futures of the model, or of other `inputs`."""

    def card(out: Path) -> None:
        (out / "card.json").write_text(json.dumps({"sampling": SAMPLING if sampling is None else sampling}))

    def metrics(out: Path) -> None:
        made: Metrics = make_metrics(windows=windows)
        (out / "metrics.json").write_text(made.model_dump_json())

    of = {"model": key_of("model"), "tokenizer": key_of("tokenizer"), **inputs}
    generated = commit(store, f"generated {name}", "generated", card, of)
    return commit(store, name, stage("evaluate_model").output, metrics, {"generated": generated.key})


@pytest.fixture
def bundle(tmp_path: Path) -> tuple[Store, Artifact]:
    """A model, published with the evaluation `first` of 20 windows."""
    store = Store.open(str(tmp_path / "store"), {"fsync": False})
    for name in ("model", "tokenizer"):
        commit(store, name, name, lambda out: (out / "x").write_text("x"))
    first = evaluation(store, "first", 20)
    inputs = {"model": key_of("model"), "tokenizer": key_of("tokenizer"), "evaluation": first.key}
    made = commit(store, "bundle", "model", lambda out: write_bundle(out, sampling=SAMPLING, inputs=inputs), inputs)
    store.promote("model", "tiny", made.key)
    return store, made


def test_it_was_published_with_one_and_says_so(bundle):
    sheet = model_sheet(*bundle)
    assert (sheet.result.evaluation, sheet.result.published_with) == (key_of("first"), "")
    assert f"Figures of evaluation `{key_of('first')[:12]}` of 20" in model_card(sheet)
    assert "with which it was published" in model_card(sheet)


def test_one_session_is_not_sessions(bundle):
    sheet = model_sheet(*bundle)
    alone = sheet.model_copy(update={"result": sheet.result.model_copy(update={"sessions": 1})})
    assert "20 windows from 1 recording session." in model_card(alone)


def test_the_newest_later_one_is_shown_everywhere(bundle, tmp_path):
    store, made = bundle
    evaluation(store, "second", 40)
    third = evaluation(store, "third", 60)
    sheet = model_sheet(store, made)
    assert (sheet.result.windows, sheet.result.evaluation) == (60, third.key)
    assert (sheet.result.published_with, sheet.result.evaluated_at) == (key_of("first"), third.manifest.created_at)
    assert sheet.metrics.windows == 60, "drawings are of the same figures"
    card = model_card(sheet)
    assert "60 windows from 4 recording sessions" in card
    assert f"`{third.key[:12]}`" in card
    assert f"made after it was published (with `{key_of('first')[:12]}`)" in card
    # a pulled model, without its store
    pulled = tmp_path / "pulled"
    store.pull(made.key, pulled, "all")
    write_cards(store, made, pulled)
    assert sheet_of_folder(pulled).result == sheet.result
    # the catalogue
    (entry,), problems = entries(store)
    assert (entry.model.result, problems) == (sheet.result, [])
    write_catalogue(store, tmp_path / "site")
    page = (tmp_path / "site/model/tiny/index.html").read_text()
    assert "60 windows" in page
    assert third.key[:12] in page
    assert "made after it was published" in page


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("another model", {"model": key_of("other")}),
        ("another tokenizer", {"tokenizer": key_of("other")}),
        ("drawn otherwise", {"sampling": {"steps": 4}}),
    ],
)
def test_one_of_something_else_is_not_its(bundle, name, changes):
    store, made = bundle
    commit(store, "other", "model", lambda out: (out / "x").write_text("x"))
    evaluation(store, name, 40, **changes)
    assert model_sheet(store, made).result.windows == 20


def test_one_that_does_not_count_or_cannot_be_read_is_passed_over(bundle, caplog):
    store, made = bundle
    second = evaluation(store, "second", 40)
    broken = evaluation(store, "third", 60)
    path = next((Path(store.url.removeprefix("file://")) / "artifacts" / broken.key).rglob("metrics.json"))
    path.chmod(0o644)
    path.write_text("{")
    assert model_sheet(store, made).result.evaluation == second.key
    assert "cannot be read" in caplog.text
    store.invalidate(second.key, "wrong windows")
    assert model_sheet(store, made).result.evaluation == key_of("first")
