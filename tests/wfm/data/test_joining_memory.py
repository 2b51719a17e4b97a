"""What joining signals and text to many samples takes: arrays, not Python objects. Run as a process of its own, whose memory is
traced."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
CLIPS = 20_000

SCRIPT = f"""
import sys, tracemalloc
import numpy as np, pyarrow as pa, torch
from wfm.data.captions import read_captions
from wfm.data.encoded_samples import Words
from wfm.data.signals import SignalTable
from wfm.families.diffusion_decoder.fit import PairedSamples, joined
from wfm.training.order import mixture_note
import wfm.families.diffusion_decoder.fit as fit

count = {CLIPS}
names = pa.chunked_array([pa.array(np.char.add("clip-of-some-length-", np.arange(count).astype(str)))])


class Some:
    ids = Words(names)
    shapes = np.ones((count, 3), np.int64)
    sizes = np.full(count, 8)
    identity = "x"


fit.tensors_of = lambda samples: {{"latents", "tokens"}}
# what the twin of before made: a dict a clip, and one of its tracks
BROKEN = len(sys.argv) > 1
clips = pa.table({{"clip_id": names, "num_frames": np.full(count, 2)}})
tracemalloc.start()
if BROKEN:
    rows = clips.to_pylist()
    tracks = [{{"actions": one}} for one in np.split(np.zeros((2 * count, 1), np.float32), count)]
    place = {{row["clip_id"]: i for i, row in enumerate(rows)}}
else:
    values = {{"actions": np.zeros((2 * count, 1), np.float32)}}
    meanings = {{"actions": {{"shape": [1], "meaning": {{"names": ["a"]}}}}}}
    table = SignalTable(clips, values, {{"actions": 2 * np.arange(count)}}, meanings)
    places = table.places(names, np.zeros(count, np.int64), np.full(count, 2))
    assert (places == np.arange(count)).all()
    both = joined(Some(), Some())
    assert len(both) == count and both.ids[7] == Some.ids[7]
    assert mixture_note([both], None) == {{}}
print(tracemalloc.get_traced_memory()[1] / count)
"""


def bytes_a_clip(*arguments: str) -> float:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *arguments], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return float(done.stdout)


@pytest.mark.alone
def test_joining_takes_no_python_object_a_clip() -> None:
    """Arrays of 8 bytes each, 60 to 70 a clip in all; the twin of before, its signals alone, takes 700."""
    assert bytes_a_clip() < 130
    assert bytes_a_clip("as before") > 400
