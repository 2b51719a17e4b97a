"""The same global batches for any number of ranks and threads, before and after a kill, in both modes."""

import json

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.wfm.data.loader.samples import ORDERS, Group, clips, images, packed, planned
from wfm.data.loader import ArrayDataset, Loader, LoaderConfig
from wfm.data.order import Lane, Source
from wfm.data.order.batches import Batching, BatchOrder, one_shape
from wfm.errors import ConfigError

RANKS, WORKERS = (1, 2, 8), (0, 1, 3)


@pytest.mark.parametrize("mode", ORDERS)
def test_all_ranks_and_threads_see_the_same_global_batches(mode):
    sources = [clips()] if mode == "bucketed" else [clips(), images()]
    wanted = planned(ORDERS[mode](sources), 12)
    for ranks in RANKS:
        for workers in WORKERS:
            group = Group(sources, ORDERS[mode](sources), ranks, workers, skipped_count=10**6)
            assert [group.step() for _ in range(12)] == wanted, (ranks, workers)
            group.close()


part = st.tuples(st.integers(0, 5), st.sampled_from(RANKS), st.sampled_from(WORKERS))


@pytest.mark.parametrize("mode", ORDERS)
@given(parts=st.lists(part, min_size=2, max_size=4), damaged=st.sets(st.integers(0, 39), max_size=3))
@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_killed_anywhere_it_goes_on_with_the_very_next_batch(mode, parts, damaged):
    sources = [clips()]
    sources[0].damaged = damaged
    total = sum(steps for steps, _, _ in parts)
    alone = Group(sources, ORDERS[mode](sources), 1, 0, skipped_count=10**6)
    wanted = [alone.step() for _ in range(total)]
    found, state = [], None
    for steps, ranks, workers in parts:
        group = Group(sources, ORDERS[mode](sources), ranks, workers, skipped_count=10**6)
        for loader in group.loaders:
            if state is not None:
                loader.restore(json.loads(state))
        found += [group.step() for _ in range(steps)]
        state = json.dumps(group.state())
        group.close()  # with whatever it had read ahead
    assert found == wanted


def test_an_epoch_loses_and_repeats_nothing():
    source = clips()
    order = packed([source])
    group = Group([source], order, 2, 3)
    seen = [row for _ in range(12) for _, row, _, _ in group.step()]
    group.close()
    assert {row: seen.count(row) for row in range(40)}.keys() == set(range(40))
    assert max(map(seen.count, range(40))) - min(map(seen.count, range(40))) <= 2  # open packs hold the rest


def test_a_change_of_ranks_in_the_midst_forgets_what_was_read_ahead():
    source = clips()
    wanted = planned(packed([source]), 6)
    with Loader(source, packed([source]), LoaderConfig(workers=2)) as loader:
        group = Group([source], packed([source]), 1, 0)
        group.loaders = [loader]
        assert [group.step() for _ in range(3)] == wanted[:3]
        state = loader.state()
        loader.share_with(0, 2)
        other = Loader(source, packed([source]), LoaderConfig(workers=0))
        other.restore(state)
        other.share_with(1, 2)
        group.loaders = [loader, other]
        assert [group.step() for _ in range(3)] == wanted[3:]


class NotAtOnce:
    """The same samples without `rows`: read one by one."""

    def __init__(self, data: ArrayDataset) -> None:
        self.ids, self.shapes, self.sizes, self.identity, self.read = (
            data.ids, data.shapes, data.sizes, data.identity, data.read,
        )  # fmt: skip


def arrays(captions: bool) -> ArrayDataset:
    from wfm.data.captions import CaptionTable

    generator = torch.Generator().manual_seed(0)
    values = {"latents": torch.randn(30, 4, 2, 3, 3, generator=generator), "fps": torch.rand(30, generator=generator)}
    text = CaptionTable(torch.randn(12, 5), torch.tensor([3, 1, 8]), torch.arange(30) % 3) if captions else None
    return ArrayDataset(tuple(f"s{row}" for row in range(30)), values, text)


@pytest.mark.parametrize("captions", [False, True])
@pytest.mark.parametrize("shaped", [False, True])
def test_rows_of_arrays_taken_at_once_are_those_that_are_read_one_by_one(captions, shaped):
    data = arrays(captions)

    def order() -> BatchOrder:
        if not shaped:
            return one_shape(data.ids, 4, 0)
        return BatchOrder([Lane("samples", [Source.of("samples", data)])], Batching(samples=4), 0)

    for ranks in (1, 3):
        for workers in (0, 2):
            for rank in range(ranks):
                with (
                    Loader(data, order()) as fast,
                    Loader(NotAtOnce(data), order(), LoaderConfig(workers=workers)) as slow,
                ):
                    for loader in (fast, slow):
                        loader.share_with(rank, ranks)
                    for _ in range(9):
                        one, two = fast.next(), slow.next()
                        assert one.keys() == two.keys() == {*data.read(0), "seeds"}
                        assert all(torch.equal(one[name], two[name]) for name in one)
                    assert not fast._threads


def test_other_values_are_another_identity_and_another_order_is_refused():
    one, two = clips(), clips()
    assert Loader(one, packed([one])).identity == Loader(two, packed([two])).identity
    two.identity = "f" * 64
    assert Loader(one, packed([one])).identity != Loader(two, packed([two])).identity
    with pytest.raises(ConfigError, match="have changed, and it would repeat or lose samples"):
        Loader(one, packed([one], bins=3)).restore(Loader(one, packed([one])).state())


def test_sources_are_those_of_the_order():
    source, other = clips(), images()
    with pytest.raises(ConfigError, match=r"the order is of the sources \['clips'\], and given are \['images'\]"):
        Loader({"images": other}, packed([source]))
    with pytest.raises(ConfigError, match=r"\['clips', 'images'\], and given are \['\(one alone\)'\]"):
        Loader(source, packed([source, other]))
    with pytest.raises(ConfigError, match="'clips': the order wants its row 39, and given are 20 samples"):
        Loader(clips(20), packed([source]))
    source.ids[0], source.ids[39] = source.ids[39], source.ids[0]
    with pytest.raises(ConfigError, match="'clips': row 0 is 'clips-0', and the order is of another sample there"):
        Loader(clips(), packed([source]))


def test_a_split_sample_comes_back_in_parts():
    source = clips()
    order = packed([source], budget=8, packs=4, oversize="split")
    group = Group([source], order, 1, 2)
    assert [group.step() for _ in range(10)] == planned(order, 10)
    loader = Loader(source, order, LoaderConfig(workers=0))
    frames: dict[tuple[int, int], list[float]] = {}
    for _ in range(40):
        batch = loader.next()
        for sample, epoch in zip(batch.samples, batch.epochs.tolist(), strict=True):
            row = int(sample["latents"][0].flatten()[0])
            frames.setdefault((row, epoch), []).extend(sample["latents"][1, :, 0, 0].tolist())
    whole = [sorted(seen) == list(range(source.shapes[row][0])) for (row, epoch), seen in frames.items() if epoch == 1]
    assert whole == [True] * 40
    group.close()


def test_a_gpu_that_is_not_there_is_refused_by_name():
    source = clips()
    assert not torch.cuda.is_available()
    with pytest.raises(ConfigError, match=r"loader\.device: 'cuda:1', and torch sees no GPU here"):
        Loader(source, packed([source]), LoaderConfig(device="cuda:1"))


def test_how_a_loader_reads_enters_no_key():
    assert LoaderConfig(workers=7, skipped_count=0).what() == {}
    with pytest.raises(ConfigError, match="workers"):
        LoaderConfig.parse({"workers": -1})
