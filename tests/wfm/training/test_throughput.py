"""What is told of the speed: by hand, by ranks of unequal work, and FLOPs by each sample's own length as torch counts them."""

import threading

import torch
from torch.utils.flop_counter import FlopCounterMode

from tests.wfm.models.test_cost import COUNTED_TOO
from tests.wfm.parallel.threads import in_threads
from tests.wfm.training.rank_runs import SAMPLES, run
from wfm.data.order import one_shape
from wfm.errors import ConfigError
from wfm.families.autoregressive import cost as autoregressive_cost
from wfm.families.diffusion import cost as diffusion_cost
from wfm.families.diffusion.build import denoiser
from wfm.families.tokenizer import cost as tokenizer_cost
from wfm.models.autoregressive import AutoregressiveConfig
from wfm.models.cost import Video, Work, cost_of
from wfm.models.diffusion.config import DenoiserConfig, EDMConfig
from wfm.models.diffusion.objective import DenoisingObjective
from wfm.models.tokenizer import TokenizerConfig
from wfm.parallel.ranks import ALONE
from wfm.training.data_config import DataConfig
from wfm.training.throughput import Throughput, budget_of, in_words, known, shapes_in, thinned

NETWORK = {
    "in_channels": 4, "concat_padding_mask": False, "num_attention_heads": 2, "attention_head_dim": 48, "num_layers": 2,
    "adaln_lora_dim": 8, "max_size": (8, 32, 32), "text_embed_dim": 0,
}  # fmt: skip
DENOISER = DenoiserConfig.parse({"network": NETWORK, "statistics_frames": 2})


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


class Packs:
    """Samples of two packs by shape, as packs come to a model."""

    def __init__(self, *shapes):
        self.batches = tuple(
            {"latents": torch.zeros(count, 4, *shape), "packs": torch.arange(count) % 2} for count, shape in shapes
        )


def test_the_rates_of_an_interval_by_hand():
    clock = Clock()
    speed = Throughput(lambda shape, text: Work(shape[0] * 10, 1000 + text), peak_flops=1000.0, budget=64, clock=clock)
    with speed.computing():
        clock.now += 3.0
    speed.add(Packs((3, (1, 4, 4)), (1, (2, 4, 4))))
    clock.now += 1.0
    found = speed.point(ALONE, waited_for_data=0.5, waited_for_store=0.0)
    assert found["tokens_per_second"] == (3 * 10 + 20) / 4
    assert found["flops_per_second"] == 4 * 1000 / 4
    assert found["mfu"] == 1.0
    assert found["padding"] == 1 - (3 * 16 + 32) / 128
    assert (found["balance"], found["balance_of_work"]) == (1.0, 1.0)
    assert (found["waiting_for_data"], found["waiting_for_store"]) == (0.125, 0.0)
    assert found["memory_bytes"] > 2**20
    assert "device_memory_bytes" not in found or torch.cuda.is_available()
    # the next interval knows nothing of this one
    clock.now += 2.0
    speed.add({"latents": torch.zeros(2, 4, 1, 4, 4), "text": torch.zeros(2, 7, 5)})
    found = speed.point(ALONE, waited_for_data=1.5, waited_for_store=2.0)
    assert found["flops_per_second"] == 2 * 1007 / 2
    assert (found["waiting_for_data"], found["waiting_for_store"]) == (0.5, 1.0)
    assert "padding" not in found


def test_ranks_of_unequal_work_are_told_of_alike():
    def one(ranks):
        clock = Clock()
        speed = Throughput(lambda shape, text: Work(1, 100), peak_flops=50.0, clock=clock)
        with speed.computing():
            clock.now += (1.0, 3.0)[ranks.rank]
        clock.now = 4.0
        speed.add({"tokens": torch.zeros((1, 4)[ranks.rank], 2, 4, 4)})
        return speed.point(ranks, waited_for_data=0.0, waited_for_store=0.0)

    mine, theirs = in_threads(2, one)
    assert mine == theirs
    assert mine["tokens_per_second"] == 5 / 4
    assert mine["balance"] == 3.0 / 2.0
    assert mine["balance_of_work"] == 4 / 2.5
    assert mine["mfu"] == 500 / 4 / (2 * 50)


def test_what_is_not_known_is_not_told_and_ends_no_training():
    def fails(shape, text):
        raise ConfigError("no such shape")

    assert known(fails)((2, 3, 4), 0) == Work(24)
    speed = Throughput()
    speed.add({"x": torch.zeros(3)})
    found = speed.point(ALONE, waited_for_data=0.0, waited_for_store=0.0)
    assert not {"mfu", "flops_per_second", "padding"} & set(found)
    assert in_words(found) == ""


def test_shapes_and_budgets():
    assert list(shapes_in({"video": torch.zeros(2, 3, 5, 8, 6)})) == [(2, (5, 8, 6), 0)]
    assert list(shapes_in({"tokens": torch.zeros(2, 3, 4, 5), "text": torch.zeros(2, 9, 1)})) == [(2, (3, 4, 5), 9)]
    packs = {"mode": "packs", "tokens": 128}
    assert budget_of(DataConfig()) == 0
    assert budget_of(DataConfig.parse(packs)) == 128
    assert budget_of(DataConfig.parse({**packs, "phases": [{"steps": 3, "tokens": 64}, {}]})) == 0


def counted(shape, count):
    """FLOPs of a training step on some samples, by torch's counter."""
    model, objective = denoiser(DENOISER), DenoisingObjective(EDMConfig(condition_latents=(0,)))
    batch = {"latents": torch.randn(count, 4, *shape), "seeds": torch.arange(count)}
    with FlopCounterMode(display=False, custom_mapping=COUNTED_TOO) as counter:
        objective.loss(model, batch, 0)[0].backward()
    return counter.get_total_flops()


def test_the_work_of_samples_of_several_shapes_is_what_torch_counts_of_each():
    shapes = [((1, 8, 8), 3), ((4, 16, 16), 1), ((2, 24, 8), 2)]
    works = [diffusion_cost.work(DENOISER, shape, 0).times(count) for shape, count in shapes]
    torchs = [counted(shape, count) for shape, count in shapes]
    for work, by_torch in zip(works, torchs, strict=True):
        assert work.flops == by_torch
    # the broken twin: attention over the whole pack, as if it were one sample, is far off
    tokens = sum(work.tokens for work in works)
    assert tokens == 3 * 16 + 256 + 2 * 96
    as_one = diffusion_cost.work(DENOISER, (8, 2, tokens // 2 // 2 // 2 * 2), 0).flops
    assert as_one > 1.1 * sum(work.flops for work in works)


def test_works_are_those_of_the_cost_of_a_model():
    config = AutoregressiveConfig(
        levels=(8, 8), dim=64, layers=2, heads=4, kv_heads=2, head_dim=16, ffn_dim=128, temporal_compression=8
    )
    video = Video(9, 64, 128)
    whole = cost_of(config, video)
    assert autoregressive_cost.work(config, whole.latents[1:], 0) == Work(whole.tokens, whole.training_flops)
    tokenizer = TokenizerConfig(channels=(16, 16, 32), temporal_compression=4, spatial_compression=8)
    of_tokenizer = cost_of(tokenizer, Video(9, 32, 32))
    assert tokenizer_cost.work(tokenizer, (9, 32, 32)) == Work(of_tokenizer.tokens, of_tokenizer.training_flops)


def test_words_and_thinning():
    point = {"tokens_per_second": 12345.0, "mfu": 0.314, "padding": 0.05, "balance": 1.31}
    assert in_words(point) == "12.3 k tokens/s, MFU 31%, padding 5%, slowest rank 1.31 x the mean"
    assert in_words({"tokens_per_second": 7.0, "balance": 1.01}) == "7 tokens/s"
    points = [{"step": step, "mfu": 0.1, "reader_bytes": 3} for step in range(1, 101)]
    assert [one["step"] for one in thinned(points, 4)] == [25, 50, 75, 100]
    assert thinned(points[:2]) == [{"step": 1, "mfu": 0.1}, {"step": 2, "mfu": 0.1}]
    assert thinned([]) == []


def test_samples_are_counted_as_they_are_drawn_and_no_stand_in_is(tmp_path, monkeypatch):
    """Two ranks and an order of batches of one sample, whatever `batch_size` says: the second rank has nothing of any step."""
    added, own = [], Throughput.add

    def noted(self, *given):
        added.append(threading.current_thread().name)
        own(self, *given)

    monkeypatch.setattr(Throughput, "add", noted)
    order = one_shape([f"s{number}" for number in range(SAMPLES)], 1, 3)
    ends = in_threads(2, lambda ranks: run("sparse", tmp_path, ranks, order=order))
    assert len(added) == 20, "stand-ins were counted too: 40"
    for end in ends:  # batch_size times steps would be 120
        assert round(end.result.samples_per_second * end.result.seconds) == 20
