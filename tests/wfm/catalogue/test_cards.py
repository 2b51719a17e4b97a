"""Cards against small stores: what is lost comes first, what is not known is said, and text from outside stays text."""

import itertools
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.wfm.catalogue.conftest import HOSTILE, dataset_values, fill, key_of, make_metrics, write_bundle
from wfm.artifacts import Store
from wfm.catalogue.beside import require_ours, write_cards
from wfm.catalogue.dataset_card import dataset_card
from wfm.catalogue.markdown import code, text
from wfm.catalogue.model_card import model_card
from wfm.catalogue.of_dataset import dataset_sheet
from wfm.catalogue.of_model import model_sheet, sheet_of_folder
from wfm.catalogue.sheet import DatasetSheet, ModelSheet
from wfm.errors import DataError, InputError

HERE = Path(__file__).parent
ROOT = HERE.parents[2]


def sheet_of(store: Store) -> ModelSheet:
    return model_sheet(store, store.artifact(store.resolve("model/tiny")))


def data_of(store: Store) -> DatasetSheet:
    return dataset_sheet(store, store.artifact(store.resolve("dataset/curated")))


def body(card: str) -> tuple[dict, list[str]]:
    """(front matter as YAML, the lines below it)."""
    _, front, rest = card.split("---\n", 2)
    return yaml.safe_load(front), rest.strip().splitlines()


@pytest.mark.parametrize("name", ["model", "dataset"])
def test_the_text_of_a_card(store, name):
    """As it stands beside this test. Times of this run aside."""
    card = model_card(sheet_of(store)) if name == "model" else dataset_card(data_of(store))
    told = re.sub(r"\d{4}-\d\d-\d\dT[\d:.]+Z", "2026-01-01T00:00:00.000Z", card)
    assert told == (HERE / f"{name}_card.md").read_text()


def test_what_it_loses_to_stands_in_the_first_lines(store):
    front, lines = body(model_card(sheet_of(store)))
    first = " ".join(lines[:5])
    assert "4.0 dB nearer to the truth than the last frame held" in first
    assert r"0.8 dB worse than optical flow \[−1.2, −0.2\]" in first
    assert "where the camera rests, 4.0 dB worse than the last frame held" in first
    assert "over all windows, 1.5 dB worse than optical flow" in first
    figures = front["model-index"][0]["results"]
    assert [one["metrics"][1]["value"] for one in figures] == [4.0, -4.0, 2.0]


def test_a_model_that_loses_to_nothing_says_that(tmp_path):
    subsets = {"all": make_metrics().model_dump(mode="json")["subsets"]["all"]}
    subsets["all"]["gains"]["sampled"]["flow"]["psnr_gain_db"]["mean"] = 1.0
    write_bundle(tmp_path, evaluation=make_metrics(subsets=subsets).model_dump(mode="json"))
    sheet = sheet_of_folder(tmp_path)
    assert sheet.result.loses == ""
    assert "Neither holding the last frame" in model_card(sheet)
    assert "**Loses:**" not in model_card(sheet)


@pytest.mark.parametrize(
    ("evaluation", "words"),
    [
        ({}, "it was never evaluated"),
        ({"schema_version": 99}, "schema_version 99"),
        ({"schema_version": 3, "family": "diffusion"}, "not one that this wfm reads"),
    ],
)
def test_without_a_result_it_says_so(tmp_path, evaluation, words):
    write_bundle(tmp_path, evaluation=evaluation)
    sheet = sheet_of_folder(tmp_path)
    assert sheet.result is None
    front, lines = body(model_card(sheet))
    assert words in lines[2].replace("\\", "")
    assert lines[2].startswith("**No result")
    assert "model-index" not in front
    assert "Nothing was measured" in model_card(sheet)


def test_text_from_outside_stays_text(hostile_store):
    for card in (model_card(sheet_of(hostile_store)), dataset_card(data_of(hostile_store))):
        front, lines = body(card)
        assert front["license"] == "unknown"
        text = "\n".join(lines)
        assert "\x1b" not in card
        assert not re.search(r"(?<!\\)<|(?<!\\)\]\(", text), "no tag, no link"
        assert "http://" not in text
        assert "\\<script\\>" in text
        assert not [line for line in lines if line.startswith("second: line")]
        bars = [len(re.findall(r"(?<!\\)\|", line)) for line in lines]
        pairs = [(a, b) for a, b in itertools.pairwise(bars) if a and b]
        assert pairs
        assert all(a == b for a, b in pairs), "a bar from outside makes no cell"
    assert body(model_card(sheet_of(hostile_store)))[0]["model-index"][0]["name"] == HOSTILE


def test_no_address_without_a_scheme_and_no_bar_in_code_gets_through():
    """GitHub and Hugging Face make a link of ``www.``, and a cell of a bar in a code span."""
    assert text("see www.evil.example") == "see www\\.evil.example"
    assert code("a|b") == "a\\|b"
    assert code("push_x") == "`push_x`"


def test_what_is_not_known_of_data_is_said(store):
    limits = dataset_card(data_of(store))
    assert "For 8 of 8 videos licence or consent is unknown" in limits
    assert "3 of 9 files are simulated" in limits
    assert "One session alone in test" in limits
    assert "5 clips have no actions" in limits
    assert "licence CC-BY-4.0, consent unknown" in model_card(sheet_of(store))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"schema_version": 9}, "use a newer wfm"),
        ({"size": [64, -1]}, "is not the card of a world model"),
        ({"fps": "fast"}, "is not the card of a world model"),
        ({"family": None}, "is not the card of a world model"),
    ],
)
def test_a_forged_card_is_refused(tmp_path, change, words):
    write_bundle(tmp_path, **change)
    with pytest.raises(DataError, match=words):
        sheet_of_folder(tmp_path)


def test_a_forged_dataset_card_is_refused(tmp_path):
    store = Store.open(str(tmp_path / "s"), {"fsync": False})
    fill(store, dataset={"splits": {"train": {"clips": "many"}}})
    with pytest.raises(DataError, match="is not the card of a data set"):
        data_of(store)
    sheet = sheet_of(store)  # the model is shown still, and says what is wrong with its data
    assert "is not the card of a data set" in sheet.data[0].problem
    assert "nothing more is known" in model_card(sheet)


def test_a_pulled_model_says_what_the_store_knew(store, tmp_path):
    artifact = store.artifact(store.resolve("model/tiny"))
    out = tmp_path / "out"
    store.pull(artifact.key, out, "all")
    alone = sheet_of_folder(out)
    assert (alone.key, alone.data) == ("", [])
    assert "Not known here" in model_card(alone)
    write_cards(store, artifact, out)
    pulled = sheet_of_folder(out)
    assert pulled == sheet_of(store)
    assert (out / "MODEL_CARD.md").read_text() == model_card(pulled)
    assert pulled.data[0].key == key_of("dataset")
    require_ours(artifact, out)
    store.pull(artifact.key, out, "all")  # again, over what is there
    write_cards(store, artifact, out)

    card = json.loads((out / "card.json").read_text())
    (out / "card.json").write_text(json.dumps({**card, "name": "another"}))
    assert sheet_of_folder(out).data == [], "the saved sheet is of another card: not believed"
    (out / "model_card.json").write_text('{"name": 1}')
    with pytest.raises(DataError, match="no model card of this wfm"):
        sheet_of_folder(out)


def test_a_card_of_the_users_own_is_not_replaced(store, tmp_path):
    artifact = store.artifact(store.resolve("model/tiny"))
    (tmp_path / "MODEL_CARD.md").write_text("mine\n")
    with pytest.raises(InputError, match="is not the card of"):
        require_ours(artifact, tmp_path)


def test_parameters_are_those_of_the_networks(store):
    from tests.wfm.catalogue.conftest import MODEL, TOKENIZER
    from wfm.models.diffusion.denoiser import Denoiser
    from wfm.models.folder import count_parameters
    from wfm.models.tokenizer import Tokenizer

    sizes = sheet_of(store).parameters
    assert sizes["tokenizer"] == count_parameters(Tokenizer(TOKENIZER))
    assert sizes["model"] == count_parameters(Denoiser(MODEL))


def test_the_dataset_values_are_of_the_shape_that_stages_write():
    from wfm.curation.dataset.dataset_card import Card

    assert set(dataset_values()) == set(Card().values())


def test_no_card_loads_torch(store):
    """Whoever lists a bucket of models needs none of what runs them."""
    code = (
        "import sys; from wfm.artifacts import Store; from wfm.catalogue.of_model import model_sheet; from pathlib import Path;"
        f"from wfm.catalogue import write_catalogue; store = Store.open({store.url!r});"
        "write_catalogue(store, Path(sys.argv[1])); print('torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, f"{store.address.root}-site"], capture_output=True, text=True, cwd=ROOT
    )
    assert (done.returncode, done.stdout) == (0, "False\n"), done.stderr
