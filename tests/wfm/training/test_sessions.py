"""Sessions that one source trains on and another watches."""

import pyarrow as pa
import pytest

from wfm.errors import ConfigError
from wfm.training.sessions import require_apart


def table(*sessions: str) -> pa.Table:
    return pa.table({"session_id": pa.chunked_array([list(sessions[:2]), list(sessions[2:])], pa.string())})


def test_a_session_on_both_sides_is_refused_with_counts_and_names() -> None:
    train = {"latents_a": table("s1", "s1", "s2", "s3"), "latents_b": table("t1", "t2", "t1")}
    val = {"latents_a": table("s9", "t3"), "latents_b": table("s1", "t9", "s2", "s1")}
    words = (
        r"^2 sessions stand in train of latents_a \(3 samples\) and in val of latents_b \(3 samples\): s1, s2: .*allow"
    )
    with pytest.raises(ConfigError, match=words):
        require_apart(train, val)
    val["latents_a"] = table("s9", "t1")
    with pytest.raises(
        ConfigError, match=r"1 session stands in train of latents_b \(2 samples\) and in val of latents_a"
    ):
        require_apart(train, val)


def test_sources_apart_within_one_and_without_a_session_are_taken() -> None:
    train = {"latents_a": table("s1", "", "s2"), "latents_b": table("t1", "")}
    require_apart(train, {"latents_a": table("s9", ""), "latents_b": table("t9", "")})
    require_apart(train, {})
    require_apart({"latents_a": table("s1")}, {"latents_a": table("s1")})  # the data set's own matter


def test_the_first_few_are_shown() -> None:
    many = [f"s{number}" for number in range(9)]
    with pytest.raises(ConfigError, match=r"9 sessions .*: s0, s1, s2, \.\.\.:"):
        require_apart({"a": table(*many)}, {"b": table(*many)})
