"""Reading ahead: in bounded memory, in any order, over readers that fail, hang, or are never asked again."""

import gc
import os
import signal
import subprocess
import sys
import threading
import time
import weakref
from pathlib import Path

import pytest

from tests.wfm.data.loader.samples import Group, clips, handed, packed, planned
from wfm import pulse
from wfm.data.loader import Loader, LoaderConfig
from wfm.data.loader.ahead import Ahead
from wfm.errors import Cancelled, TryAgain

ROOT = Path(__file__).resolve().parents[4]
SIZE = 300_000
"""Above `work.RUN_BYTES`: each sample is a run of its own."""


def settled(loader: Loader) -> None:
    """Until all of its threads wait: nothing may be read any more."""
    while loader._ahead is None or len(loader._ahead._room._waiters) < loader.config.workers:
        time.sleep(0.005)


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("wfm-loader")]


def peaks(prefetch_bytes: int, steps: int = 4) -> tuple[list[int], list[int]]:
    """Most bytes in flight between two steps, and bytes of the step that was taken next."""
    source = clips(size=SIZE)
    order = packed([source])
    most, of_step, taken = [], [], 0
    with Loader(source, order, LoaderConfig(workers=3, prefetch_bytes=prefetch_bytes)) as loader:
        for _ in range(steps):
            taken += len(loader.next().samples)
            settled(loader)
            most.append((len(source.begun) - taken) * SIZE)
            assert loader.counters()["bytes_in_flight"] == most[-1]
        of_step = [len(rows) * SIZE for rows in planned(order, steps + 1)[1:]]
    return most, of_step


def test_what_is_in_flight_is_bounded_in_bytes_and_fills_its_bound():
    most, _ = peaks(100 * SIZE + SIZE // 2)
    assert most == [100 * SIZE] * 4


def test_one_step_is_read_ahead_however_large():
    most, of_step = peaks(SIZE // 2)
    assert most == of_step


def test_a_loader_without_the_bound_is_caught(monkeypatch):
    monkeypatch.setattr(Ahead, "_fits", lambda self, run: True)
    most, _ = peaks(100 * SIZE + SIZE // 2)
    assert max(most) > 101 * SIZE


def test_readers_may_finish_in_any_order():
    source = clips(size=SIZE)
    order = packed([source])
    wanted = planned(order, 4)
    first = wanted[0][0][1]
    later = threading.Event()

    def before(row: int) -> None:
        if row == first and not later.is_set():
            assert later.wait(20)
        elif len(source.begun) > len(wanted[0]) + len(wanted[1]):
            later.set()

    source.before = before
    with Loader(source, order, LoaderConfig(workers=3)) as loader:
        assert [sorted(handed(loader.next())) for _ in range(4)] == wanted


def test_quick_reads_go_on_where_one_of_them_hangs():
    source = clips()
    order = packed([source])
    hung, free = threading.Event(), threading.Event()

    def before(row: int) -> None:
        if len(source.begun) > 500 and not hung.is_set():
            hung.set()
            free.wait()

    source.before = before
    with Loader(source, order, LoaderConfig(workers=3, prefetch_bytes=6_000_000)) as loader:
        found = [sorted(handed(loader.next()))]
        began = time.monotonic()
        while len(source.begun) < 5000:
            assert time.monotonic() - began < 60, "the others wait for the one that hangs"
            time.sleep(0.01)
        free.set()
        found += [sorted(handed(loader.next())) for _ in range(59)]
    assert found == planned(order, 60)


@pytest.mark.parametrize("workers", [0, 3])
def test_a_reader_that_fails_ends_the_step_it_belongs_to_and_that_alone(workers):
    source = clips(400)
    order = packed([source])
    wanted = planned(order, 4)
    seen = {row for step in wanted[:2] for _, row, _, _ in step}
    broken = next(row for _, row, _, _ in wanted[2] if row not in seen)

    def before(row: int) -> None:
        if row == broken:
            raise ZeroDivisionError("a bug of the reader")

    source.before = before
    with Loader(source, order, LoaderConfig(workers=workers)) as loader:
        assert [sorted(handed(loader.next())) for _ in range(2)] == wanted[:2]
        state = loader.state()
        for _ in range(2):
            with pytest.raises(ZeroDivisionError, match="a bug of the reader") as caught:
                loader.next()
            assert caught.value.__notes__[-1] == f"data of step 2, sample clips-{broken} of 'clips'"
            assert loader.state() == state
        source.before = lambda row: None
        assert [sorted(handed(loader.next())) for _ in range(2)] == wanted[2:]


@pytest.mark.parametrize("workers", [0, 3])
def test_storage_that_one_rank_cannot_read_is_tried_again_and_never_replaced(workers):
    source, other = clips(), clips()
    order = packed([source])
    wanted = planned(order, 2)
    group = Group([source], order, 2, workers)
    group.loaders[1].close()
    group.loaders[1] = Loader(other, order, LoaderConfig(workers=workers))
    group.loaders[1].share_with(1, 2)

    def away(row: int) -> None:
        raise TryAgain("503 SlowDown")

    other.before = away
    one = handed(group.loaders[0].next())
    with pytest.raises(TryAgain, match=r"data of step 0, sample clips-\d+ of 'clips': 503 SlowDown") as caught:
        group.loaders[1].next()
    assert isinstance(caught.value.__cause__, TryAgain)
    assert not group.loaders[1].skipped
    other.before = lambda row: None
    assert sorted(one + handed(group.loaders[1].next())) == wanted[0]
    assert group.step() == wanted[1]
    group.close()


@pytest.mark.parametrize("workers", [0, 2])
def test_what_a_transform_raises_is_raised_at_its_step(workers):
    source = clips()
    order = packed([source])
    second = {seed for _, _, _, seed in planned(order, 2)[1]}

    def transform(batch):
        if int(batch.seeds[0]) in second:
            raise ValueError("no such crop")
        return len(batch.samples)

    with Loader(source, order, LoaderConfig(workers=workers), transform=transform) as loader:
        assert loader.next() == len(planned(order, 1)[0])
        for _ in range(2):
            with pytest.raises(ValueError, match="no such crop"):
                loader.next()


class Hanging:
    """A source whose reads hang from the second step on, until `free`."""

    def __init__(self) -> None:
        self.source, self.free = clips(size=SIZE), threading.Event()
        self.order = packed([self.source])
        first = len(planned(self.order, 1)[0])
        self.source.before = lambda row: None if len(self.source.begun) <= first else self._hang()

    def _hang(self) -> None:
        self.free.wait()


def test_whoever_waits_can_be_stopped_and_is_seen_to_wait():
    hanging = Hanging()
    asked = []

    def stopping() -> bool:
        asked.append(pulse.sign())
        return len(asked) == 2

    with Loader(hanging.source, hanging.order, LoaderConfig(workers=2)) as loader:
        loader.next()
        state, waited = loader.state(), loader.waited
        with pulse.expecting("step", 77), pytest.raises(Cancelled, match="waiting for data"):
            loader.next(stopping)
        assert {(sign.what, sign.limit, sign.waits) for sign in asked} == {("data", 77, False)}
        assert asked[0].count == asked[1].count, "nothing was read: no sign of life"
        assert loader.state() == state
        assert loader.waited - waited > 0.3
        hanging.free.set()
        assert sorted(handed(loader.next())) == planned(hanging.order, 2)[1]


def test_without_workers_too_whoever_waits_can_be_stopped():
    hanging = Hanging()
    stops = iter([False, True])
    with Loader(hanging.source, hanging.order, LoaderConfig(workers=0)) as loader:
        loader.next()
        state, began = loader.state(), time.monotonic()
        with pytest.raises(Cancelled, match="waiting for data"):
            loader.next(lambda: next(stops))
        assert time.monotonic() - began < 5
        assert loader.state() == state
        assert not loader.ready(0.1)
        assert loader.waited > 0.1
        hanging.free.set()
        assert loader.ready(10)
        read = len(hanging.source.begun)
        assert sorted(handed(loader.next())) == planned(hanging.order, 2)[1]
        assert len(hanging.source.begun) == read, "what was ready is what is handed out, and nothing was read ahead"
    assert not threads()


def test_reads_that_get_on_are_signs_of_life():
    source = clips(size=SIZE)
    source.before = lambda row: time.sleep(0.1)
    counts = []

    def stopping() -> bool:
        counts.append(pulse.sign().count)
        return False

    with Loader(source, packed([source]), LoaderConfig(workers=1)) as loader:
        loader.next(stopping)
    assert len(set(counts)) == len(counts) > 1


def test_ctrl_c_works_while_it_waits():
    hanging = Hanging()
    with Loader(hanging.source, hanging.order, LoaderConfig(workers=2)) as loader:
        loader.next()
        timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            loader.next()
        hanging.free.set()


def test_closing_ends_the_threads_and_waits_for_no_reader_that_hangs(caplog):
    with Loader(clips(), packed([clips()]), LoaderConfig(workers=3)) as loader:
        loader.next()
        assert len(threads()) == 3
    assert not threads()
    with pytest.raises(RuntimeError, match="closed"):
        loader.next()
    hanging = Hanging()
    loader = Loader(hanging.source, hanging.order, LoaderConfig(workers=2))
    loader.next()
    while hanging.source.reading < 2:
        time.sleep(0.01)
    began = time.monotonic()
    loader.close(seconds=0.2)
    assert time.monotonic() - began < 2
    assert "2 of the threads that read still hang in a read after 0.2 s" in caplog.text
    hanging.free.set()
    for thread in threads():
        thread.join(5)
    assert not threads()


def test_a_batch_that_was_taken_when_ctrl_c_came_comes_again(monkeypatch):
    source = clips()
    order = packed([source])
    hand_out = Ahead._hand_out

    def interrupted(self):
        hand_out(self)
        raise KeyboardInterrupt

    with Loader(source, order, LoaderConfig(workers=2)) as loader:
        loader.next()
        with monkeypatch.context() as patched:
            patched.setattr(Ahead, "_hand_out", interrupted)
            with pytest.raises(KeyboardInterrupt):
                loader.next()
        assert sorted(handed(loader.next())) == planned(order, 2)[1]


def test_whoever_waits_is_told_when_another_thread_closes():
    hanging = Hanging()
    loader = Loader(hanging.source, hanging.order, LoaderConfig(workers=2))
    loader.next()
    threading.Timer(0.2, loader.close, (0.1,)).start()
    with pytest.raises(RuntimeError, match="closed while data was waited for"):
        loader.next()
    hanging.free.set()


def test_what_was_read_ahead_and_forgotten_is_not_kept():
    source = clips()
    with Loader(source, packed([source]), LoaderConfig(workers=2, prefetch_bytes=200_000)) as loader:
        loader.next()
        settled(loader)
        forgotten = weakref.ref(loader._ahead)
        loader.restore(loader.state())
        loader.next()
        for _ in range(200):
            gc.collect()
            if forgotten() is None:
                break
            time.sleep(0.02)
        assert forgotten() is None


def test_a_loader_that_nobody_has_any_more_ends_its_threads():
    loader = Loader(clips(), packed([clips()]), LoaderConfig(workers=2))
    loader.next()
    known = threads()
    assert len(known) == 2
    del loader
    gc.collect()
    for thread in known:
        thread.join(5)
    assert not threads()


SCRIPT = """
import time
from tests.wfm.data.loader.samples import clips, packed
from wfm.data.loader import Loader, LoaderConfig
source = clips(size=300_000)
loader = Loader(source, packed([source]), LoaderConfig(workers=2))
loader.next()
source.before = lambda row: time.sleep(600)
loader.next()
while source.reading < 2:
    time.sleep(0.01)
print("the end")
"""


def test_a_reader_that_hangs_does_not_hold_the_process_at_its_end():
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.replace("loader.next()\nwhile", "while")],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert (done.returncode, done.stdout) == (0, "the end\n"), done.stderr
