"""What follows from several latents together: rates, statistics, which signals and text go with which."""

from typing import Any

import numpy as np
import pytest

from tests.wfm.data.loader.samples import Watched
from wfm.errors import ConfigError
from wfm.training.config import TrainingConfig
from wfm.training.encoded import blended, mean_rate, sources_of
from wfm.training.order import order_of, source_shares


def test_the_rate_is_the_mean_over_samples_and_images_have_none() -> None:
    many_slow = {"latents": np.array([10.0] * 9 + [20.0])}
    assert mean_rate(many_slow, {"latents": 1.0}) == 11.0, "the mean of the distinct rates is 15"
    sources = {"slow": np.array([10.0, 10.0]), "fast": np.array([30.0, 0.0]), "stills": np.zeros(3)}
    shares = {"slow": 0.5, "fast": 0.25, "stills": 0.25}
    assert mean_rate(sources, shares) == pytest.approx((0.5 * 10 + 0.125 * 30) / 0.625)
    assert mean_rate({"stills": np.zeros(3)}, {"stills": 1.0}) == 24.0


def test_statistics_are_those_of_samples_drawn_at_the_rates() -> None:
    generator = np.random.default_rng(0)
    values = {
        name: generator.normal(middle, width, (40_000, 2))
        for name, middle, width in (("a", 1.0, 2.0), ("b", -3.0, 0.5))
    }
    stated = {
        name: {"mean": of.mean(0)[:, None].repeat(2, 1).tolist(), "std": of.std(0)[:, None].repeat(2, 1).tolist()}
        for name, of in values.items()
    }
    drawn = np.concatenate([np.tile(values["a"], (3, 1)), values["b"]])
    found = blended(stated, {"a": 0.75, "b": 0.25})
    assert np.allclose(found["mean"], drawn.mean(0)[:, None], atol=1e-9)
    assert np.allclose(found["std"], drawn.std(0)[:, None], atol=1e-9)
    assert not np.allclose(blended(stated, {"a": 0.5, "b": 0.5})["mean"], found["mean"])
    stills = {**stated, "b": {name: [row[:1] for row in rows] for name, rows in stated["b"].items()}}
    images = blended(stills, {"a": 0.75, "b": 0.25})
    assert np.allclose([row[0] for row in images["std"]], drawn.std(0), atol=1e-9)
    assert [row[1] for row in images["mean"]] == [row[1] for row in stated["a"]["mean"]], "no image has a second frame"
    assert blended({"a": stated["a"]}, {"a": 1.0}) == stated["a"]
    undrawn = blended(stills, {"a": 0.0, "b": 1.0})
    assert [row[0] for row in undrawn["mean"]] == [row[0] for row in stated["b"]["mean"]]
    assert [row[1] for row in undrawn["std"]] == [row[1] for row in stated["a"]["std"]], "no NaN where nothing is drawn"


def test_shares_follow_the_recipe() -> None:
    lanes = {
        "stills": {"sources": {"latents_a": 1}},
        "videos": {"rate": 3, "sources": {"latents_a": 1, "latents_b": 2}},
    }
    config = TrainingConfig.parse({"steps": 100, "data": {"lanes": lanes}})
    shares = source_shares(config, ["latents_a", "latents_b"])
    assert shares == pytest.approx({"latents_a": 0.25 + 0.75 / 3, "latents_b": 0.5})
    phases = [{"steps": 20, "lanes": {"all": {"sources": {"latents_a": 1, "latents_b": 0}}}}, {}]
    config = TrainingConfig.parse({"steps": 100, "data": {"lanes": lanes, "phases": phases}})
    assert source_shares(config, ["latents_a", "latents_b"]) == pytest.approx(
        {"latents_a": 0.2 + 0.8 / 2, "latents_b": 0.4}
    )
    phases[1:] = [{"steps": 1000}]  # the run ends before
    config = TrainingConfig.parse({"steps": 100, "data": {"lanes": lanes, "phases": phases}})
    assert source_shares(config, ["latents_a", "latents_b"])["latents_b"] == pytest.approx(0.4)
    with pytest.raises(ConfigError, match="draws from 'latents_b', which is no input"):
        source_shares(config, ["latents_a"])
    drawn = {"latents_a": 0, "latents_b": 0}
    sources = {name: Watched(name, [(2, 2, 2)] * 50) for name in drawn}
    order = order_of(TrainingConfig.parse({"steps": 400, "batch_size": 3, "data": {"lanes": lanes}}), sources)
    state: Any = order.start()
    for _ in range(400):
        step, state = order.next(state)
        for pack in step.packs:
            for source in pack.sources:
                drawn[order.sources[step.lane][source]] += 1
    assert drawn["latents_b"] / sum(drawn.values()) == pytest.approx(shares["latents_b"], abs=0.01)


def test_sources_by_the_names_of_inputs() -> None:
    inputs = {
        name: name for name in ("latents_low", "latents_high", "signals", "text_low", "text", "tokenizer", "mixture")
    }
    found = sources_of(inputs)  # type: ignore[arg-type]
    assert {name: (one.latents, one.signals, one.text) for name, one in found.items()} == {
        "latents_low": ("latents_low", "signals", "text_low"),
        "latents_high": ("latents_high", "signals", "text"),
    }
    assert list(sources_of({"latents": "x"})) == ["latents"]  # type: ignore[dict-item]
    with pytest.raises(ConfigError, match="signals_mid: of no latents; given are latents_low"):
        sources_of({"latents_low": "x", "signals_mid": "y"})  # type: ignore[dict-item]
    with pytest.raises(ConfigError, match="no latents are given"):
        sources_of({"tokenizer": "x"})  # type: ignore[dict-item]
