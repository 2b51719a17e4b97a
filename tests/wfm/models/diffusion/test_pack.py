"""A pack is its samples: losses, gradients and the draws of each, one by one and together.

In fp64. Every condition of the registry is in one of the models, and of each sample of a pack some are missing; images and
clips of several sizes stand in one pack.
"""

from functools import cache

import pytest
import torch
import torch._dynamo.testing
from torch import Tensor

from tests.wfm.models.diffusion.conftest import make_denoiser
from wfm.conditions.action import feature_width
from wfm.conditions.condition import CONDITIONS, Condition, condition_class
from wfm.data.loader.batches import PackedBatch
from wfm.data.loader.grouped import GroupedBatch, grouped
from wfm.errors import ConfigError
from wfm.models.diffusion import Denoiser, DenoisingObjective, EDMConfig, FlowConfig, by_rows
from wfm.models.diffusion.pack import Group, PackLimits, forward_pack
from wfm.models.fast_cpu import fast_cpu
from wfm.models.loss import quotient

BOTH = {"edm": EDMConfig, "flow": FlowConfig}
SHAPES = [(3, 4, 4), (1, 4, 6), (1, 4, 4), (2, 4, 4), (1, 4, 6), (3, 2, 4), (1, 4, 4), (3, 4, 4)]
CHANNELS, COMPRESSION = 3, 4
OWN = {
    "past": {},
    "extrapolation": {"extrapolate": True},
    "text": {"network": {"text_embed_dim": 6}},
    "action": {"action_width": 2},
}
"""Conditions that the denoiser's configuration has fields for, by which they are switched on."""
CLOSE = 1e-10


def fields_of(names: tuple[str, ...]) -> dict:
    """The configuration of a model with these conditions."""
    fields: dict = {"network": {"condition_mask": "past" in names}, "conditions": {}}
    for name in names:
        if name in OWN:
            fields["network"] |= OWN[name].get("network", {})
            fields |= {key: value for key, value in OWN[name].items() if key != "network"}
        else:
            kind = condition_class(name)
            fields["conditions"][name] = {
                "slot": kind.slot, "width": width_of(kind), "tensors": kind.tensor_names(), "dropout": 0.3,
            }  # fmt: skip
    return fields


def width_of(kind: type[Condition]) -> int:
    """What enters its slot; of two components, where it reads actions, the width of their features."""
    if "actions" in kind.reads:
        return feature_width(2, COMPRESSION)
    return {"vector": 2, "context": 6, "channels": CHANNELS}[kind.slot]


def tensors_of(name: str, shape: tuple[int, int, int], draw) -> dict[str, Tensor]:
    """What a sample of this shape holds of a condition."""
    kind, (frames, height, width) = condition_class(name), shape
    first, *more = kind.tensor_names()
    if name == "past":
        return {}  # an objective shows the window's own
    if kind.slot == "context":
        length = 1 + int(draw(1).abs() * 3) % 4
        return {first: draw(length, 6), **{one: torch.tensor(length) for one in more}}
    if kind.slot == "channels":
        return {first: draw(CHANNELS, frames, height, width)}
    return {first: draw(1 + (frames - 1) * COMPRESSION, 2)}


@cache
def pack_of(names: tuple[str, ...], padding: bool = False) -> PackedBatch:
    """Two packs of eight samples: of every third a condition is not there at all, of every fourth it says so itself."""
    generator, samples = torch.Generator().manual_seed(1), []

    def draw(*size: int) -> Tensor:
        return torch.randn(*size, generator=generator).double()

    for i, shape in enumerate(SHAPES):
        sample = {"latents": draw(CHANNELS, *shape), "fps": torch.tensor([12.0, 24.0, 30.0][i % 3])}
        for nth, name in enumerate(names):
            mine = tensors_of(name, shape, draw)
            first = condition_class(name).tensor_names()[0]
            if first in mine and (i + nth) % 3 == 2:
                continue
            sample |= mine
            if first in mine and condition_class(name).slot != "context":
                sample[f"has_{first}"] = torch.tensor((i + nth) % 4 != 1)
        if padding:
            sample["padding_mask"] = torch.ones(1, *shape[1:]).tril().double()
        samples.append(sample)
    count = len(samples)
    lengths = torch.tensor([t * h * w for t, h, w in SHAPES])
    zeros = torch.zeros(count, dtype=torch.int64)
    return PackedBatch(
        tuple(samples), torch.tensor([0, 5, count]), lengths, zeros, torch.arange(40, 40 + count), zeros, ("a",) * count
    )


def singles(packed: PackedBatch) -> list[GroupedBatch]:
    """Each sample as a pack of its own."""
    found = []
    for i, sample in enumerate(packed.samples):
        one = slice(i, i + 1)
        found.append(
            grouped(
                PackedBatch(
                    (sample,), torch.tensor([0, 1]), packed.lengths[one], packed.starts[one], packed.seeds[one],
                    packed.epochs[one], packed.sources[one],
                )
            )
        )  # fmt: skip
    return found


def slope(model: Denoiser, objective: DenoisingObjective, batches: list, count: int) -> tuple[Tensor, list[Tensor]]:
    """Loss and gradients of the sum over batches, over `count` samples."""
    model.zero_grad()
    total = 0.0
    for batch in batches:
        sums, _ = objective.sums(model, batch, 0)
        loss = quotient(sums, {"denoising": count})
        loss.backward()
        total = total + loss.detach()
    return total, [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in model.parameters()]


def prior_says_something(model: Denoiser) -> None:
    """A prior with weights of its own, as if it had been fitted."""
    for prior in (model.prior, model.prior_extrapolated):
        if prior is not None:
            generator = torch.Generator().manual_seed(5)
            for table in (prior.weight, prior.bias):
                table.copy_(0.1 * torch.randn(table.shape, generator=generator))
            prior.deviation.uniform_(0.2, 0.6, generator=generator)


def made(names: tuple[str, ...], **more) -> Denoiser:
    fields = fields_of(names)
    network = {"num_layers": 1, **fields.pop("network"), **more.pop("network", {})}
    model = make_denoiser(network=network, **{**fields, **more}).double()
    prior_says_something(model)
    return model


def assert_same(found: tuple, wanted: tuple) -> None:
    assert abs(float(found[0] - wanted[0])) <= CLOSE * abs(float(wanted[0]))
    largest = max(float(g.abs().max()) for g in wanted[1])
    assert largest > 0
    worst = max(float((a - b).abs().max()) for a, b in zip(found[1], wanted[1], strict=True))
    assert worst <= CLOSE * largest  # measured worst: 4e-16


ALL = tuple(sorted(CONDITIONS.names()))
SINGLE = {name: (name,) if name == "past" else ("past", name) for name in ALL}
CASES = [("edm", ALL), ("flow", ALL), ("flow", ()), *(("edm", names) for names in SINGLE.values())]


@pytest.mark.parametrize(("objective", "names"), CASES, ids=[f"{kind}-{'+'.join(names)}" for kind, names in CASES])
def test_the_gradient_of_a_pack_is_the_sum_over_its_samples(names, objective):
    config = BOTH[objective](condition_latents=(0, 1, 2) if "past" in names else (0,))
    model, packed = made(names, objective=objective), pack_of(names)
    wanted = slope(model, DenoisingObjective(config), singles(packed), len(SHAPES))
    whole = grouped(packed)
    assert_same(slope(model, DenoisingObjective(config), [whole], len(SHAPES)), wanted)
    assert_same(slope(model, DenoisingObjective(config), list(whole.split()), len(SHAPES)), wanted)


MANY = {
    "linear_prior": True, "extrapolate": True, "repeat_last": True, "uncertainty": 8, "fps_positions": True,
    "network": {"extra_pos_embed": True, "concat_padding_mask": True},
}  # fmt: skip
OPTIONS = {"prior": {"linear_prior": True, "published_mask": True}, "everything": MANY}


@pytest.mark.parametrize(("objective", "per_frame"), [("edm", False), ("flow", True), ("edm", True)])
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_so_it_is_with_every_option(options, per_frame, objective):
    names = ("past", "extrapolation", "text", "action") if "extrapolate" in options else ("past", "text", "action")
    config = BOTH[objective](condition_latents=(0, 1, 2), per_frame=per_frame)
    model = made(names, **{**options, "objective": objective})
    packed = pack_of(names, padding="network" in options)
    found, wanted = (
        slope(model, DenoisingObjective(config), batches, len(SHAPES))
        for batches in ([grouped(packed)], singles(packed))
    )
    assert_same(found, wanted)


def test_so_it_is_on_a_cpu_made_fast():
    names = ("past", "text", "action")
    model, packed, objective = made(names), pack_of(names), DenoisingObjective(EDMConfig())
    wanted = slope(model, objective, singles(packed), len(SHAPES))
    assert_same(slope(fast_cpu(model), objective, [grouped(packed)], len(SHAPES)), wanted)


def test_a_mean_of_means_is_another_gradient():
    """The broken twin: each pack divided by its own samples, 5 and 3 of them."""
    names = ("past", "action")
    model, packed, objective = made(names), pack_of(names), DenoisingObjective(EDMConfig())
    _, wanted = slope(model, objective, [grouped(packed)], len(SHAPES))
    parts = [slope(model, objective, [one], len(one)) for one in grouped(packed).split()]
    broken = [(a + b) / 2 for a, b in zip(parts[0][1], parts[1][1], strict=True)]
    largest = max(float(g.abs().max()) for g in wanted)
    assert max(float((a - b).abs().max()) for a, b in zip(broken, wanted, strict=True)) > 0.01 * largest


def test_what_a_sample_draws_is_the_same_in_a_pack_and_alone():
    """To the bit: noise, noise level, what is given, what is dropped."""
    names = ALL
    model, packed, objective = made(names), pack_of(names), DenoisingObjective(EDMConfig())
    alone = {
        int(one.batches[0]["seeds"][0]): objective.draw(model, one.batches[0]["seeds"], one.batches[0]["latents"].shape)
        for one in singles(packed)
    }
    seen = 0
    for batch in grouped(packed).batches:
        drawn = objective.draw(model, batch["seeds"], batch["latents"].shape)
        for place, seed in enumerate(batch["seeds"].tolist()):
            assert all(torch.equal(values[place], alone[seed][name][0]) for name, values in drawn.items())
            seen += 1
    assert seen == len(SHAPES)


def test_the_loss_of_a_batch_of_one_shape_has_its_bits():
    """A pack of equal shapes goes the way of a dense batch."""
    model, objective = made(("past",)), DenoisingObjective(EDMConfig())
    batch = {"latents": torch.randn(4, 3, 3, 4, 4).double(), "seeds": torch.arange(4)}
    one = GroupedBatch(({**batch, "packs": torch.zeros(4, dtype=torch.int64)},))
    assert torch.equal(objective.loss(model, batch, 0)[0], objective.loss(model, one, 0)[0])


LIMITS = PackLimits(tokens=60, segments=12, frames=24, context=40)


def test_padding_to_a_fixed_size_changes_nothing():
    names = ALL
    model, packed = made(names), pack_of(names)
    plain, padded = (DenoisingObjective(EDMConfig(), limits) for limits in (None, LIMITS))
    wanted = slope(model, plain, [grouped(packed)], len(SHAPES))
    assert_same(slope(model, padded, [grouped(packed)], len(SHAPES)), wanted)
    assert_same(slope(model, padded, list(grouped(packed).split()), len(SHAPES)), wanted)


def test_what_does_not_fit_is_refused():
    model, packed = made(("past", "text")), pack_of(("past", "text"))
    for name, most in (("tokens", 40), ("segments", 7), ("frames", 14), ("context", 3)):
        limits = PackLimits(**{**vars(LIMITS), name: most})
        with pytest.raises(ConfigError, match=f"limits.{name}"):
            DenoisingObjective(EDMConfig(), limits).loss(model, grouped(packed), 0)
    network = model.network
    with pytest.raises(ConfigError, match="empty pack"):
        forward_pack(network, [])
    channels = network.config.latent_channels
    with pytest.raises(ConfigError, match=r"c_noise: got \[3\]"):
        forward_pack(network, [Group(torch.zeros(2, channels, 1, 4, 4).double(), torch.zeros(3).double())])


# What is kept for the backward, and graphs


def saved_bytes(call) -> int:
    """Bytes that autograd keeps, each memory once."""
    seen: dict[int, int] = {}

    def keep(x: Tensor) -> Tensor:
        storage = x.untyped_storage()
        seen[storage.data_ptr()] = storage.nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        out = call()
    assert out.requires_grad
    return sum(seen.values())


def wide_pack(model: Denoiser) -> list[Group]:
    """Of four images in two sizes and a clip: every segment of its own level."""
    channels = model.network.config.latent_channels
    draw = torch.Generator().manual_seed(3)
    return [
        Group(torch.randn(n, channels, *shape, generator=draw).double(), torch.randn(n, generator=draw).double())
        for n, shape in ((2, (1, 16, 16)), (2, (1, 16, 12)), (1, (3, 16, 16)))
    ]


def test_modulations_are_not_kept_token_by_token(monkeypatch):
    """What the modulations of a pack keep is a row for each segment: a pack keeps at most 2 % more than as many tokens in equal
    segments do. Spread over the tokens (the broken twin) it would be a third more."""
    model = fast_cpu(made((), network={"attention_head_dim": 48, "num_layers": 2}))
    network, groups = model.network, wide_pack(model)

    def of_pack() -> Tensor:
        return sum(out.square().sum() for out in forward_pack(network, groups))

    whole = sum(len(group.latents) * group.latents.shape[2:].numel() for group in groups)
    equal = Group(torch.randn(whole // 256, *groups[0].latents.shape[1:]).double(), torch.randn(whole // 256).double())

    def of_equal() -> Tensor:
        return network(equal.latents, equal.c_noise).square().sum()

    packed, dense = saved_bytes(of_pack) / whole, saved_bytes(of_equal) / (whole // 256 * 256)
    monkeypatch.setattr(by_rows, "modulated", by_rows.plain_modulated)
    monkeypatch.setattr(by_rows, "gated", by_rows.plain_gated)
    broken = saved_bytes(of_pack) / whole
    assert packed <= 1.02 * dense  # measured:
    assert broken > 1.25 * packed


@pytest.mark.parametrize("known", [True, False], ids=["runs", "index"])
@pytest.mark.parametrize("tokens", [(4, 4, 2, 2, 2, 7), (0, 3, 0), (5,)], ids=str)
def test_modulation_by_rows_equals_its_plain_twin(tokens, known):
    """Forward and gradients in fp64, where lengths are known on the host and where only the index is."""
    rows = by_rows.Rows.of(tokens, torch.device("cpu"))
    rows = rows if known else by_rows.Rows(rows.index)
    draw = torch.Generator().manual_seed(0)
    x, y = (torch.randn(sum(tokens), 6, generator=draw).double().requires_grad_() for _ in range(2))
    shift, scale, gate = (torch.randn(len(tokens), 6, generator=draw).double().requires_grad_() for _ in range(3))
    weight = torch.randn(sum(tokens), 6, generator=draw).double()
    results = []
    for norm, gates in ((by_rows.modulated, by_rows.gated), (by_rows.plain_modulated, by_rows.plain_gated)):
        out = gates(x, gate, norm(x, shift, scale, rows) * y, rows)
        results.append((out, *torch.autograd.grad((out * weight).sum(), (x, y, shift, scale, gate))))
    for one, other in zip(*results, strict=True):
        assert torch.allclose(one, other, atol=1e-13)  # measured worst: 3e-15


def test_one_graph_for_eleven_packs():
    """Of the blocks, compiled by themselves as in training; without limits each pack is a graph, or several."""
    names, packs = ("past", "text", "action"), []
    for i in range(11):
        whole = pack_of(names)
        chosen = [j for j in range(len(SHAPES)) if (j * 7 + i) % 3 or j == i % 8]
        packs.append(
            PackedBatch(
                tuple(whole.samples[j] for j in chosen), torch.tensor([0, len(chosen)]), whole.lengths[chosen],
                whole.starts[chosen], whole.seeds[chosen] + i, whole.epochs[chosen], ("a",) * len(chosen),
            )
        )  # fmt: skip
    counts = {}
    for limits in (LIMITS, None):
        torch.compiler.reset()
        counter = torch._dynamo.testing.CompileCounter()
        model, eager = made(names), made(names)
        model.network.blocks[0].compile(backend=counter, dynamic=False)
        objective, plain = DenoisingObjective(EDMConfig(), limits), DenoisingObjective(EDMConfig())
        for packed in packs if limits else packs[:2]:
            count = len(packed.samples)
            found = slope(model, objective, [grouped(packed)], count)
            assert_same(found, slope(eager, plain, [grouped(packed)], count))
        counts[limits is None] = counter.frame_count
    assert counts[False] == 1
    assert counts[True] >= 2
