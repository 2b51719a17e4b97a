"""The guide to a cluster is true: its settings are read, its Role is what a launcher asks for, its words are said."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster import strict
from tests.contracts.documents import wrong
from tests.wfm.cluster.requests import request
from wfm.cluster.entry import object_of
from wfm.cluster.lint import lint
from wfm.cluster.settings import ClusterSettings, Images, Patience, Quota

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "cluster.md").read_text()


def blocks() -> list[str]:
    """What is indented in the guide."""
    found = re.findall(r"(?:^    .*\n|^\n(?=    ))+", TEXT, re.MULTILINE)
    return [re.sub("^    ", "", one, flags=re.MULTILINE).strip() for one in found]


def example() -> ClusterSettings:
    (text,) = [one for one in blocks() if one.startswith("{")]
    return ClusterSettings.parse(json.loads(text))


def objects() -> list[dict[str, Any]]:
    (text,) = [one for one in blocks() if one.startswith("apiVersion: v1\nkind: Namespace")]
    return list(yaml.safe_load_all(text))


@pytest.mark.parametrize("kind", ["container", "torchjob", "daskjob"])
def test_the_example_is_read_and_makes_objects_without_a_fault(kind: str) -> None:
    settings = example()
    made = object_of(request(kind=kind, resources={"gpu": 1, "ephemeral_gib": 20.0}), settings)
    assert made["metadata"]["namespace"] == "wfm"
    queues = [one for one in objects() if one["kind"] == "LocalQueue"]
    assert lint([made, *queues], settings) == []


def test_the_objects_of_the_guide_are_taken() -> None:
    assert [(one["kind"], faults) for one in objects() if (faults := strict.faults(one))] == []


def test_the_launcher_of_the_guide_is_taken() -> None:
    (text,) = [one for one in blocks() if one.startswith("apiVersion: batch/v1")]
    job = yaml.safe_load(text)
    assert strict.faults(job) == []
    assert lint([job, *objects()], None) == lint([job, *objects()], example()) == []
    pod = job["spec"]["template"]["spec"]
    assert pod["containers"][0]["image"] == example().images.control
    (words,) = [word for word in pod["containers"][0]["command"] if word.startswith("wfm ")]
    assert wrong(words.partition(" >")[0].split()) == ""
    (account,) = [one for one in objects() if one["kind"] == "ServiceAccount"]
    assert pod["serviceAccountName"] == account["metadata"]["name"]
    job["spec"]["backofLimit"] = 1
    assert strict.faults(job)


def test_every_field_is_explained_with_its_default() -> None:
    rows = re.findall(r"^\| (`.*?) \| (.*) \|$", TEXT.partition("## 4.")[2].partition("## 5.")[0], re.MULTILINE)
    told = {name for names, _ in rows for name in re.findall(r"`(\w+)`", names)}
    assert told == set(ClusterSettings.model_fields)
    words = dict(rows)
    assert all(name in words["`images`"] for name in Images.model_fields)
    assert all(name in words["`quota`"] for name in Quota.model_fields)
    for name, value in Patience().resolved().items():
        assert f"{name} {value:g}" in words["`patience`"]


def test_what_the_guide_says_of_words_is_said() -> None:
    rows = re.findall(r"^\| (`.*?) \| ", TEXT.partition("## 6.")[2].partition("## 7.")[0], re.MULTILINE)
    beside = (ROOT / "components" / name for name in ("image.py", "context.py"))
    said = "".join(path.read_text() for path in (*ROOT.glob("wfm/cluster/**/*.py"), *beside))
    said = re.sub(r'"\s*f?"|\{[^{}\n"]*\}', "", said)
    phrases = [part.strip(" :") for row in rows for words in re.findall("`([^`]+)`", row) for part in words.split("…")]
    missing = [one for one in phrases if re.sub("KIND|VERB", "", one).strip() and not _is_said(one, said)]
    assert len(phrases) > 20
    assert missing == []


def _is_said(phrase: str, said: str) -> bool:
    return re.search(re.sub("KIND|VERB", r"\\s*", re.escape(phrase)).replace(r"\ ", r"\s*"), said) is not None
