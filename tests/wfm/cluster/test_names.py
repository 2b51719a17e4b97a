"""Names: DNS-1035, short enough for what controllers append, stable, and never the same for two things."""

import string

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from wfm.cluster import names
from wfm.cluster.names import is_dns_1035, job_name, label_value, node_name

KINDS = ("pytorchjob", "trainjob", "daskjob", "indexed_job", "parts")
near = st.text(alphabet="aAbB01_-. é", max_size=6)
"Texts that are alike once case, signs and accents are folded."
anything = st.text(max_size=200)
keys = st.text(alphabet="0123456789abcdef", min_size=64, max_size=64)


def folded(text: str) -> str:
    """A map that is none: what a name would be without its hash."""
    return "".join(letter if letter in string.ascii_lowercase + string.digits else "-" for letter in text.lower())[:40]


@given(st.sampled_from(KINDS), st.one_of(keys, anything), st.integers(1, 10**14))
def test_a_job_has_a_name_that_every_controller_takes(kind: str, key: str, generation: int) -> None:
    name = job_name(kind, key, generation)
    assert is_dns_1035(name, names.LONGEST_DASK)
    assert name == job_name(kind, key, generation)
    for appended in (
        "-worker-1023",
        "-node-0-1023",
        "-default-worker-0123456789",
        "-scheduler",
        "-runner",
        "-1023-abcde",
    ):
        assert len(name + appended) <= names.LONGEST


@given(anything, st.integers(16, 63))
@example("train_diffusion", 63)
@example("", 16)
@example("9lives", 16)
@example("\ud800", 16)
def test_a_node_has_a_name_of_the_length_asked_for(node: str, longest: int) -> None:
    assert is_dns_1035(node_name(node, longest), longest)


@given(st.lists(st.tuples(st.sampled_from(KINDS), near, st.integers(1, 12)), min_size=2, max_size=30, unique=True))
def test_no_two_jobs_have_one_name(jobs: list[tuple[str, str, int]]) -> None:
    # trainjob and pytorchjob make the same thing by two operators: both words are `train`, and their hashes differ
    assert len({job_name(*job) for job in jobs}) == len(jobs)


@given(st.lists(near, min_size=2, max_size=30, unique=True))
def test_no_two_nodes_have_one_name_or_label(nodes: list[str]) -> None:
    assert len({node_name(node) for node in nodes}) == len({node_name(node, 16) for node in nodes}) == len(nodes)
    assert len({label_value(node) for node in nodes}) == len(nodes)


def test_a_map_that_only_folds_gives_two_things_one_name() -> None:
    twins = ["train_a", "train-a", "Train.A"]
    assert len({folded(one) for one in twins}) == 1
    assert len({node_name(one) for one in twins}) == 3


@given(anything)
def test_a_value_of_a_label_is_one_and_is_its_text_where_that_is_one(text: str) -> None:
    value = label_value(text)
    assert names._LABEL.fullmatch(value)
    assert value == text or label_value(value) != value, "what looks like a hashed one is hashed again"


def test_names_stay_as_they_are() -> None:
    key = "0123456789abcdef" * 4
    assert job_name("daskjob", key, 1) == "dask-01234567-613244723f71dd61bb69"
    assert job_name("daskjob", key, 2) != job_name("daskjob", key, 1)
    assert node_name("train_diffusion") == "train-diffusion-bcb4e33dd464"
    assert label_value("train_diffusion") == "train_diffusion"
    assert label_value("20260101T000000000-0a1b2c3d") == "20260101T000000000-0a1b2c3d"


def test_a_name_too_short_to_be_told_apart_is_refused() -> None:
    with pytest.raises(ValueError, match="give 16 or more"):
        node_name("train", 15)
