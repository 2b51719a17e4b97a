"""Training on packs: the gradient of a pack is the sum of those of its videos, one by one."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.wfm.models.autoregressive.conftest import FORMS
from wfm.data.loader.batches import PackedBatch
from wfm.data.loader.grouped import GroupedBatch, grouped
from wfm.errors import ConfigError
from wfm.models.autoregressive import AutoregressiveObjective, AutoregressiveObjectiveConfig
from wfm.models.autoregressive.blocks import Block
from wfm.models.autoregressive.pack import Group, PackLimits, scores_of
from wfm.models.layers import Attention, DotProductAttention
from wfm.models.slots import SlotConfig
from wfm.parallel.attention import attention

SIZES = [(3, 4, 4), (1, 4, 4), (2, 2, 6), (3, 4, 4), (1, 2, 2), (4, 2, 2), (2, 4, 4)]
"""Latent frames, rows, columns: clips and images of several sizes and lengths."""
TOKENS = sum(t * h * w for t, h, w in SIZES)
BOUND = 1e-10
"""Of gradients of up to 50. Measured worst case 4.3e-13."""
CONDITIONS: dict[str, dict[str, Any]] = {
    "none": {"action_width": 0},
    "action": {},
    "text": {"action_width": 0, "text_embed_dim": 5},
    "extrapolation": {"action_width": 0, "extrapolate": True},
    "camera": {
        "action_width": 0,
        "conditions": {"camera": SlotConfig(slot="vector", width=22, tensors=("camera",), dropout=0.3)},
    },
    "another context": {
        "action_width": 0,
        "conditions": {"words": SlotConfig(slot="context", width=5, tensors=("words", "words_lengths"), dropout=0.3)},
    },
    "all": {"text_embed_dim": 5, "extrapolate": True},
}  # fmt: skip
MORE: dict[str, dict[str, Any]] = {
    "begins": {"order": "raster", "vocabulary": "flat", "begin_token": True, "text_embed_dim": 5},
    "medusa": {"order": "raster", "vocabulary": "digits", "medusa_heads": 3},
    "absolute": {"order": "frame", "vocabulary": "flat", "absolute_embedding": True},
}


def drawn(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def sample(number: int, config: Any, *, whole: bool) -> dict[str, Tensor]:
    """One of the videos, with what the model takes; but for `whole` every third lacks its conditions."""
    t, h, w = SIZES[number]
    generator = torch.Generator().manual_seed(number)
    tokens, beside = (torch.randint(0, 24, (t, h, w), generator=generator) for _ in range(2))
    slots = config.slots
    found = {"tokens": tokens}
    for name, width in (("action", 3), ("camera", 2)):
        if name in slots:
            tensor = slots[name].tensors[0]
            found[tensor] = drawn(1 + 4 * (t - 1), width, seed=number)
            found[f"has_{tensor}"] = torch.tensor(whole or number % 3 != 1)
    if not whole and number % 3 == 0:  # a sample of another source: nothing of it is there
        return found
    if "extrapolation" in slots:
        found["extrapolated"] = beside
    for name in ("text", "words"):
        if name in slots:
            found |= {name: drawn(1 + number % 3, 5, seed=number), f"{name}_lengths": torch.tensor(1 + number % 3)}
    return found


def pack(config: Any, *, whole: bool = False, chosen: Sequence[int] = tuple(range(7)), packs: int = 1) -> GroupedBatch:
    """Packs of the videos."""
    samples = tuple(sample(number, config, whole=whole) for number in chosen)
    lengths = torch.tensor([one["tokens"].numel() for one in samples])
    bounds = torch.linspace(0, len(samples), packs + 1).long()
    zeros = torch.zeros_like(lengths)
    return grouped(
        PackedBatch(samples, bounds, lengths, zeros, 7 + torch.tensor(list(chosen)), zeros, ("a",) * len(samples))
    )


def gradients(model: Any, sums: dict[str, Tensor], weights: dict[str, float]) -> list[Tensor]:
    """Of the weighted sum of the terms; None of a parameter that none hangs on as zeros."""
    total = sum(weights[name] * value for name, value in sums.items())
    parameters = list(model.parameters())
    found = torch.autograd.grad(total, parameters, allow_unused=True)
    return [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, found, strict=True)]


def worst(one: list[Tensor], two: list[Tensor]) -> float:
    return max(float((a - b).abs().max()) for a, b in zip(one, two, strict=True))


def of(**changes: Any) -> AutoregressiveObjective:
    values = {"input_noise": 0.4, "action_dropout": 0.3, "text_dropout": 0.3, "z_loss": 0.1, "label_smoothing": 0.1}
    return AutoregressiveObjective(AutoregressiveObjectiveConfig(**{**values, **changes}))


CASES = [{**form, **conditions} for form in FORMS for conditions in CONDITIONS.values()] + list(MORE.values())
NAMES = [f"{form['order']}-{form['vocabulary']}-{name}" for form in FORMS for name in CONDITIONS] + list(MORE)


@pytest.mark.parametrize("changes", CASES, ids=NAMES)
def test_the_gradient_of_a_pack_is_the_sum_over_its_videos(build, changes, monkeypatch):
    if "words" in changes.get("conditions", {}):
        monkeypatch.setattr("wfm.conditions.condition.condition_class", lambda name: NoEncoder)
    model, objective = build(**changes), of()
    whole = pack(model.config)
    counts, (sums, values) = objective.counts(model, whole, 0), objective.sums(model, whole, 0)
    weights = {name: 1.0 + place for place, name in enumerate(counts)}  # each term by itself
    alone, summed, counted = None, dict.fromkeys(counts, 0.0), dict.fromkeys(counts, 0.0)
    for number in range(len(SIZES)):
        (one,) = pack(model.config, chosen=[number]).batches  # a dense batch of one
        if not any(objective.counts(model, one, 0).values()):
            continue  # an image in frame order: there is nothing to predict, which a dense batch refuses
        found, _ = objective.sums(model, one, 0)
        more = gradients(model, found, weights)
        alone = more if alone is None else [a + b for a, b in zip(alone, more, strict=True)]
        for name, value in objective.counts(model, one, 0).items():
            summed[name] += float(found[name].detach())
            counted[name] += value
    assert counts == counted
    assert all(float(sums[name].detach()) == pytest.approx(summed[name], abs=1e-9) for name in counts)
    mine = gradients(model, sums, weights)
    assert max(float(one.abs().max()) for one in mine) > 1
    assert worst(mine, alone) < BOUND
    assert values["loss_video"].count + values["loss_image"].count == counts["token"]
    assert bool(values["loss_image"].count) == (model.config.order == "raster")


class NoEncoder:
    """A condition whose tensor enters as it is."""

    @staticmethod
    def encoder_of(slot, geometry):
        return None


def test_a_video_that_sees_another_is_missed(build, form, monkeypatch):
    """The broken twin: all positions as one video."""
    model, objective = build(**form), of()
    whole = pack(model.config)
    right = gradients(model, objective.sums(model, whole, 0)[0], {"token": 1.0})
    from wfm.models.autoregressive import pack as module

    def one_segment(lengths, strides, *rest):
        return segments_of([sum(lengths)], [1], *rest)

    segments_of = module.segments_of
    monkeypatch.setattr(module, "segments_of", one_segment)
    assert worst(right, gradients(model, objective.sums(model, whole, 0)[0], {"token": 1.0})) > 1e3 * BOUND


def test_a_pack_of_equal_videos_is_the_dense_batch(build, form):
    model, objective = build(**form), of()
    same = pack(model.config, whole=True, chosen=[0, 3])
    (dense,) = same.batches
    (one, _), (other, _) = (objective.sums(model, batch, 0) for batch in (same, dense))
    assert worst(gradients(model, one, {"token": 1.0}), gradients(model, other, {"token": 1.0})) < BOUND


@pytest.mark.parametrize(
    "changes", [{**FORMS[0], **CONDITIONS["all"]}, {**FORMS[3], **CONDITIONS["all"]}, MORE["medusa"]]
)
def test_what_fills_a_pack_up_changes_nothing(build, changes):
    model, objective = build(**changes), of()
    whole = pack(model.config)
    weights = dict.fromkeys(objective.counts(model, whole, 0), 1.0)
    plain = gradients(model, objective.sums(model, whole, 0)[0], weights)
    objective.limits = PackLimits(TOKENS + 30, 12, 40)
    assert worst(gradients(model, objective.sums(model, whole, 0)[0], weights), plain) < BOUND


def test_packs_together_are_packs_apart(build):
    model, objective = build(order="frame", text_embed_dim=5), of()
    both = pack(model.config, packs=2)
    whole = gradients(model, objective.sums(model, both, 0)[0], {"token": 1.0})
    parts = [gradients(model, objective.sums(model, one, 0)[0], {"token": 1.0}) for one in both.split()]
    assert len(parts) == 2
    assert worst(whole, [a + b for a, b in zip(*parts, strict=True)]) < BOUND


def test_images_alone_have_nothing_to_predict_in_frame_order(build):
    model, objective = build(order="frame"), of()
    images = pack(model.config, chosen=[1, 4])
    assert objective.counts(model, images, 0) == {"token": 0.0}
    sums, _ = objective.sums(model, images, 0)
    assert float(sums["token"].detach()) == 0.0
    assert worst(gradients(model, sums, {"token": 1.0}), [torch.zeros_like(p) for p in model.parameters()]) == 0


@pytest.mark.parametrize("form", [FORMS[0], FORMS[3]], ids=["raster", "frame"])
def test_one_graph_serves_every_pack(build, form, monkeypatch):
    """Eleven packs of other videos, filled up to the same limits: the blocks compile once."""
    torch._dynamo.reset()
    seen = []

    def backend(graph, inputs):
        seen.append(graph)
        return graph.forward

    model = build(**form, text_embed_dim=5, layers=1)
    limits = PackLimits(TOKENS, 12, 40)
    generator = torch.Generator().manual_seed(0)
    packs = [torch.randperm(len(SIZES), generator=generator)[: 3 + number % 4].tolist() for number in range(11)]
    plain = [scores_of(model, groups_of(model, chosen), limits).logits for chosen in packs]
    monkeypatch.setattr(Block, "forward", torch.compile(Block.forward, backend=backend))
    for chosen, wanted in zip(packs, plain, strict=True):
        found = scores_of(model, groups_of(model, chosen), limits).logits
        assert torch.allclose(found, wanted, atol=1e-10)
        found.square().sum().backward()
    assert len(seen) == 1


class OtherCore(torch.nn.Module):
    """Of another make: it knows plain calls alone."""

    def forward(self, q, k, v, q_segments, kv_segments, *, mask="full"):
        return attention(q, k, v, q_segments, kv_segments, mask=mask)


@pytest.mark.parametrize("core", [lambda: DotProductAttention("naive"), OtherCore], ids=["naive", "other"])
def test_a_filled_pack_in_frame_order_without_the_operator_of_the_cpu(build, core):
    """As on another device, where it is no operator: rows that fill a pack up are in no block."""
    model, objective = build(**FORMS[3], **CONDITIONS["all"]), of()
    whole = pack(model.config)
    weights = dict.fromkeys(objective.counts(model, whole, 0), 1.0)
    plain = gradients(model, objective.sums(model, whole, 0)[0], weights)
    for part in model.modules():
        if isinstance(part, Attention):
            part.core = core()
    objective.limits = PackLimits(TOKENS + 30, 12, 40)
    assert worst(gradients(model, objective.sums(model, whole, 0)[0], weights), plain) < BOUND


def test_it_compiles_once_there_too(build, monkeypatch):
    """In graphs before and behind the attention."""
    torch._dynamo.reset()
    seen = []

    def backend(graph, inputs):
        seen.append(graph)
        return graph.forward

    model = build(**FORMS[3], layers=1)
    for part in model.modules():
        if isinstance(part, Attention):
            part.core = DotProductAttention("naive")
    limits = PackLimits(TOKENS, 12, 40)
    packs = [[0, 2, 3], [2, 5], [0, 5, 6, 2], [6], [3, 5, 6]]
    plain = [scores_of(model, groups_of(model, chosen), limits).logits for chosen in packs]
    monkeypatch.setattr(Block, "forward", torch.compile(Block.forward, backend=backend))
    counts = []
    for chosen, wanted in zip(packs, plain, strict=True):
        found = scores_of(model, groups_of(model, chosen), limits).logits
        assert torch.allclose(found, wanted, atol=1e-10)
        found.square().sum().backward()
        counts.append(len(seen))
    assert len(set(counts)) == 1, counts
    assert counts[0]  # a break inside what is checkpointed leaves none


def groups_of(model: Any, chosen: list[int]) -> list[Group]:
    objective = of()
    return [objective.group(model, batch) for batch in pack(model.config, whole=True, chosen=chosen).batches]


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        (PackLimits(50, 12, 40), "positions; the limits are"), (PackLimits(TOKENS, 3, 40), "a pack of 7 videos"),
        (PackLimits(TOKENS, 9, 4), "tokens of text; the limit is 4"),
    ],
)  # fmt: skip
def test_a_pack_above_its_limits_is_refused(build, limits, words):
    model, objective = build(text_embed_dim=5), of()
    objective.limits = limits
    with pytest.raises(ConfigError, match=words):
        objective.sums(model, pack(model.config), 0)
