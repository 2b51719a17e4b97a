"""Categories by the nearest description, and weights that reach the wanted shares or say that they do not."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wfm.curation.select.taxonomy import OTHER, TaxonomyConfig, classify, mixture, mixture_rows
from wfm.errors import ConfigError


def config(**given: Any) -> TaxonomyConfig:
    categories = {name: [f"a video of {name}"] for name in ("snow", "cars", "food")}
    return TaxonomyConfig.parse({"categories": categories, **given})


def spread(noise: float = 0.0) -> tuple[np.ndarray, dict[str, np.ndarray], list[str]]:
    """60 clips and descriptions that share one strong direction and differ in weak ones."""
    rng = np.random.default_rng(0)
    common, own = np.eye(16)[0] * 3, np.eye(16)[1:4]
    truth = rng.integers(0, 3, 60)
    clips = common + own[truth] + noise * rng.standard_normal((60, 16))
    names = ("snow", "cars", "food")
    return clips, {name: (common + own[k])[None] for k, name in enumerate(names)}, [names[k] for k in truth]


def test_what_differs_decides_though_all_share_a_direction() -> None:
    clips, described, truth = spread(0.1)
    chosen, cosines, margins = classify(clips, described, config())
    assert chosen == truth
    assert (cosines > 0.5).all()
    assert (margins > 0.5).all()


def test_what_is_far_or_between_is_other() -> None:
    clips, described, _ = spread()
    between = clips[:1] * 0 + np.eye(16)[0] * 3 + np.eye(16)[1] + np.eye(16)[2]
    far = np.eye(16)[9:10]
    chosen, _, _ = classify(np.concatenate([between, far]), described, config(least_margin=0.1, least_cosine=0.2))
    assert chosen == [OTHER, OTHER]


def test_given_shares_and_the_rest_by_evenness() -> None:
    chosen = ["snow"] * 80 + ["cars"] * 16 + ["food"] * 4
    mixed = mixture(chosen, config(shares={"cars": 0.5}, evenness=1))
    assert mixed.reached["cars"] == pytest.approx(0.5)
    assert mixed.reached["snow"] / mixed.reached["food"] == pytest.approx(20)
    even = mixture(chosen, config(evenness=0, most_repeats=100))
    assert all(share == pytest.approx(1 / 3) for share in even.reached.values())
    capped = mixture(chosen, config(evenness=0))
    assert capped.weights["food"] == pytest.approx(4), "not more often than most_repeats, and that is said"
    assert capped.reached["food"] == pytest.approx(0.16)
    assert capped.wanted["food"] == pytest.approx(1 / 3)


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.integers(0, 60), min_size=4, max_size=4).filter(lambda counts: sum(counts) > 0),
    st.floats(0, 1),
    st.floats(1, 9),
)
def test_weights_have_the_mean_one_and_keep_the_cap(counts: list[int], evenness: float, most: float) -> None:
    chosen = [name for name, count in zip(("snow", "cars", "food", OTHER), counts, strict=True) for _ in range(count)]
    mixed = mixture(chosen, config(evenness=evenness, most_repeats=most))
    rows = mixture_rows([str(k) for k in range(len(chosen))], chosen, mixed)
    assert np.mean([row.weight for row in rows]) == pytest.approx(1)
    assert max(row.weight for row in rows) <= most * (1 + 1e-9)
    assert min(row.weight for row in rows) >= 0


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"categories": {"snow": ["x"]}}, "2 or more"),
        ({"categories": {"snow": ["x"], "cars": []}}, "'cars'"),
        ({"categories": {"snow": ["x"], "other": ["y"]}}, "'other'"),
        ({"categories": {"a": ["x"], "b": ["y"]}, "shares": {"c": 0.1}}, "'c'"),
        ({"categories": {"a": ["x"], "b": ["y"]}, "shares": {"a": 0.6, "b": 0.6}}, "1.2"),
        ({"categories": {"a": ["x"], "b": ["y"]}, "shares": {"a": -1}}, "shares.a"),
        ({"categories": {"a": ["x"], "b": ["y"]}, "evenness": 2}, "evenness"),
        ({"kinds": {}}, "kinds"),
    ],
)
def test_wrong_configs_are_refused(values: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        TaxonomyConfig.parse(values)


def test_impossible_wishes_are_refused() -> None:
    with pytest.raises(ConfigError, match="cars"):
        mixture(["snow"] * 4, config(shares={"cars": 0.5}))
    with pytest.raises(ConfigError, match=r"0\.5"):
        mixture(["snow"] * 4, config(shares={"snow": 0.5}))
    with pytest.raises(ConfigError, match="no clip to train on"):
        mixture([], config())
    clips, described, _ = spread()
    with pytest.raises(ConfigError, match="not one encoder"):
        classify(clips[:, :8], described, config())


def test_what_has_no_direction_is_other_and_what_is_not_to_train_on_weighs_nothing() -> None:
    clips, described, _ = spread()
    clips[3] = 0
    assert classify(clips, described, config())[0][3] == OTHER
    mixed = mixture(["snow", "snow", "cars"], config())
    weights = {row.clip_id: row.weight for row in mixture_rows("abcd", ["snow", "cars", "food", "food"], mixed)}
    assert weights["c"] == weights["d"] == 0
    assert weights["a"] > 0
