"""The order of a run by its recipe: lanes, rates, phases, mixtures; what cannot be is said before the first step."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from wfm.data.loader import ArrayDataset
from wfm.data.mixture import Mixture
from wfm.data.order import BatchOrder, Order, Phases
from wfm.errors import ConfigError, DataError
from wfm.families.diffusion.card import DiffusionTrainingConfig
from wfm.parallel.ranks import Ranks
from wfm.training.config import TrainingConfig
from wfm.training.fit import fit
from wfm.training.held_out import most_of
from wfm.training.order import order_note, order_of, require_alike_batches

SHAPES = np.array([(1, 8, 8), (1, 16, 8), (5, 8, 8), (9, 8, 16)])


@dataclass
class Shapes:
    """What an order looks at of samples; nothing is read."""

    ids: list[str]
    shapes: np.ndarray


def samples(name: str, count: int, kinds=(0, 1, 2, 3)) -> Shapes:
    return Shapes([f"{name}{i}:0" for i in range(count)], SHAPES[np.array(kinds)[np.arange(count) * 7 % len(kinds)]])


STILLS, CLIPS, MORE = samples("s", 40, (0, 1)), samples("c", 60), samples("m", 20)
ALL = {"stills": STILLS, "clips": CLIPS, "more": MORE}
LANES = {"images": {"sources": {"stills": 1}}, "videos": {"sources": {"clips": 2, "more": 1}, "rate": 3}}


def made(data: dict, sources=ALL, mixture=None, **training):
    return order_of(TrainingConfig.parse({"batch_size": 4, "steps": 40, "data": data, **training}), sources, mixture)


def walk(order, count):
    found, state = [], order.start()
    for _ in range(count):
        step, state = order.next(state)
        found.append(step)
    return found


def test_by_default_all_inputs_stand_in_one_lane_in_batches_of_the_trainings_size():
    order = made({})
    assert isinstance(order, BatchOrder)
    assert order.sources == {"all": ("stills", "clips", "more")}
    steps = walk(order, 300)
    assert {len(step.batch.rows) for step in steps} == {4}
    drawn = np.bincount(np.concatenate([step.batch.sources for step in steps])) / 1200
    assert drawn == pytest.approx([1 / 3] * 3, abs=0.015)
    assert TrainingConfig().what() == TrainingConfig.parse({"data": {}}).what()
    assert "data" not in TrainingConfig().what(), "no key moves for who uses none of it"


@pytest.mark.parametrize(
    "mode", [{}, {"tokens": 1200, "mode": "packs", "packing": {"packs": 4, "streams": 4, "window": 2}}]
)
def test_lanes_and_sources_have_their_rates(mode):
    order = made({"lanes": LANES, **mode})
    assert isinstance(order, Order if mode else BatchOrder)
    steps = walk(order, 200)
    assert sum(step.lane == "images" for step in steps) == 50
    sources = np.concatenate([pack.sources for step in steps if step.lane == "videos" for pack in step.packs])
    assert (sources == 0).mean() == pytest.approx(2 / 3, abs=0.03)


def test_phases_hold_their_limits_lanes_and_sizes_and_rows_stay_the_samples_own():
    phases = [
        {"steps": 10, "max_frames": 1, "max_height": 8, "batch_size": 8},
        {"steps": 10, "min_frames": 5, "max_width": 8, "lanes": {"v": {"sources": {"clips": 1}}}, "tokens": 700},
        {},
    ]
    order = made({"lanes": LANES, "phases": phases})
    assert isinstance(order, Phases)
    steps = walk(order, 40)
    names = order.sources
    for step in steps:
        for source, row in zip(step.batch.sources, step.batch.rows, strict=True):
            assert tuple(ALL[names[step.lane][source]].shapes[row]) == step.shape
    first, second, third = steps[:10], steps[10:20], steps[20:]
    assert {step.shape for step in first} == {(1, 8, 8)}
    assert {(step.lane, step.shape, len(step.batch.rows)) for step in second} == {("1/v", (5, 8, 8), 2)}
    assert {step.lane for step in third} == {"2/images", "2/videos"}
    assert len({step.shape for step in third}) == 4
    seeds = np.concatenate([step.batch.seeds for step in steps])
    assert len(np.unique(seeds)) >= len(seeds) - 2 * len(STILLS.ids), "a phase has noise of its own"
    note = order_note(order, 40)["order"]
    assert note["lanes"]["1/v"] == {"clips": {"samples": 15, "oversized": 0, "tokens_left": 0}}
    assert note["lanes"]["2/videos"]["clips"]["samples"] == 60


def test_a_mixture_weighs_the_samples_of_every_source():
    mixture = Mixture(
        {each.split(":")[0]: 3.0 if each.startswith("c1") else 1.0 for held in ALL.values() for each in held.ids},
        {each.split(":")[0]: "x" for held in ALL.values() for each in held.ids},
    )
    steps = walk(made({}, mixture=mixture), 1200)
    counts = np.zeros(60)
    for step in steps:
        np.add.at(counts, step.batch.rows[step.batch.sources == 1], 1)
    heavy = np.array([each.startswith("c1") for each in CLIPS.ids])
    assert counts[heavy].mean() / counts[~heavy].mean() == pytest.approx(3, rel=0.05)


def test_what_is_too_rare_or_above_the_budget_is_counted(caplog):
    shapes = np.array([(1, 8, 8)] * 99 + [(5, 8, 8)])
    order = made({"tokens": 256, "oversize": "cut"}, {"a": Shapes([f"a{i}" for i in range(100)], shapes)})
    note = order_note(order, 5)["order"]
    assert note["lanes"] == {"all": {"a": {"samples": 100, "oversized": 1, "tokens_left": 64}}}
    assert [(each["shape"], each["samples"]) for each in note["rare"]] == [((4, 8, 8), 1)]
    assert "1 samples are of 1 shapes too rare for one batch in 5 steps" in caplog.text
    assert "above the budget" in caplog.text


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        ({"lanes": {"v": {"sources": {"clip": 1}}}}, ConfigError, "draws from .clip., which is no .* clips, more, stills"),
        ({"lanes": {"v": {"sources": {"clips": 1}}}}, ConfigError, "no lane draws from more, stills"),
        ({"lanes": {"v": {"sources": {"clips": 0}}}}, ConfigError, r"data.lanes.v.*one at least has a rate above 0"),
        ({"lanes": {"v": {"sources": {"clips": 1}, "rate": 0}}}, ConfigError, "lanes have the rate 0, all of them"),
        ({"tokens": 100}, DataError, "source 'stills': 20 samples do not fit a pack, a budget of 100 tokens"),
        ({"tokens": 1152, "phases": [{"steps": 5}, {"tokens": 600}]}, DataError, r"phases\[1\]: source 'clips': 15 samples do"),
        ({"mode": "packs"}, ConfigError, "packs need a budget"),
        ({"mode": "packs", "tokens": 9999}, DataError, "'stills': 40 samples cannot fill 64 streams"),
        ({"phases": [{"steps": 5}]}, ConfigError, "phases are 5 steps, and training.steps is 40"),
        ({"phases": [{"steps": 40}, {}]}, ConfigError, r"phases\[1\] begins at step 40"),
        ({"phases": [{}, {}]}, ConfigError, r"phases\[0\].steps is 0"),
        ({"phases": [{"min_frames": 5}]}, DataError, r"phases\[0\]: source 'stills': none of 40 .*'min_frames': 5."),
        ({"phases": [{"min_frames": 5, "max_frames": 2}]}, ConfigError, "no sample is both"),
        ({"lane": {}}, ConfigError, "Did you mean 'lanes'"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_said_before_the_first_step(data, error, message):
    with pytest.raises(error, match=message):
        made(data)


def test_an_empty_source_and_a_mixture_of_zero_weight_are_refused_by_name():
    with pytest.raises(DataError, match="source 'none' has no samples"):
        made({}, {"none": Shapes([], np.empty((0, 3), int))})
    weights = {each.split(":")[0]: float(not each.startswith("m")) for held in ALL.values() for each in held.ids}
    mixture = Mixture(weights, dict.fromkeys(weights, "x"))
    with pytest.raises(DataError, match=r"source 'more': .*all 20 samples"):
        made({}, mixture=mixture)


def test_a_batch_of_samples_that_do_not_hold_the_same_is_refused_before_the_first_step():
    latents = torch.zeros(6, 3, 2, 4, 4)
    more = {"latents": latents, "extrapolated": latents}
    sources = {
        "plain": ArrayDataset(tuple(f"p{row}" for row in range(6)), {"latents": latents}),
        "guessed": ArrayDataset(tuple(f"g{row}" for row in range(6)), more),
    }
    words = r"lane 'all': samples of \[2, 4, 4\] of plain hold \['latents'\], those of guessed"
    with pytest.raises(ConfigError, match=words):
        require_alike_batches(order_of(TrainingConfig.parse({"steps": 4}), sources), sources)
    lanes = {name: {"sources": {name: 1}} for name in sources}
    apart = order_of(TrainingConfig.parse({"steps": 4, "data": {"lanes": lanes}}), sources)
    require_alike_batches(apart, sources)


def test_ranks_that_do_not_divide_the_packs_are_refused_before_anything_is_opened(tmp_path):
    config = DiffusionTrainingConfig.parse({"training": {"data": {"mode": "packs", "tokens": 64}}})
    with pytest.raises(
        ConfigError, match=r"data\.packing\.packs is 8, and 3 ranks .* Train on 1, 2, 4, 8 ranks, or .* of 3: another"
    ):
        fit(None, config, out=tmp_path, scratch=tmp_path, ranks=Ranks(0, 3))


@pytest.mark.parametrize(
    ("data", "wanted"),
    [
        ({}, 16), ({"tokens": 48}, 4), ({"tokens": 8}, 1), ({"phases": [{"steps": 9, "batch_size": 4}, {"batch_size": 3}]}, 4),
        ({"phases": [{"steps": 9, "tokens": 24}, {"tokens": 36}]}, 3), ({"tokens": 12, "phases": [{"tokens": 24}]}, 2),
        ({"phases": [{"steps": 9, "batch_size": 256, "max_frames": 1}, {"batch_size": 2, "min_frames": 3}]}, 2),
        ({"phases": [{"steps": 9, "batch_size": 256, "max_height": 1}, {"batch_size": 2}]}, 2),
    ],
)  # fmt: skip
def test_what_is_watched_comes_in_batches_as_large_as_the_largest_phase_has(data, wanted):
    """Of samples of 12 tokens and 3 frames; the budgets of phases used to say nothing, and batches were of 16. A phase that
    takes no sample of that shape says nothing of it."""
    assert most_of(TrainingConfig.parse({"data": data}), np.array([3, 2, 2])) == wanted
