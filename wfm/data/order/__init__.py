"""The order: which samples make up global step k, for ever the same, from integers alone.

Read in this order:

    lanes     lanes of sources side by side: which has step k, the state to go on from, and what a loader asks of any order
    steps     `Order`: global steps of packs under a token budget, and each rank's share
    batches   `BatchOrder`, the other mode: global steps of samples of one shape; `one_shape` where there is but one
    phases    orders one after the other: `Phases`
    packs     what either is made of: samples by source and row, with their seeds
    columns   numbers of a million samples that take no memory: worked out where they are looked at, or mapped
    sources   samples as lengths, keys, weights; what becomes of one that no pack can hold, by a rule and counted
    draws     draw n of stream v as a pure function: V virtual streams, each with its own shuffle for every epoch
    blending  which of several sources has draw n, at exact rates; which lane has step n
    shuffle   permutations that are computed and not kept (hashing: what they draw from)
    packing   streaming best-fit under a token budget, with an age limit; all of a stream's state
    balance   packs of like cost into the same step, attention's l**2 counted
    stand_in  what takes the place of a sample that cannot be read
    state     the record of all streams, checked when it is read

The state of a stream is how many draws it made and which of them lie in its open packs; all else follows from it. Ranks and
workers own nothing: each plans the same steps and takes its share, so any number of them sees the same global batches.

Error bounds: a source's draws are within one of its rate at any prefix of a stream, so within V of it over all streams; a
weighted sample's are within one of its weight at the end of any epoch; a sample's pack is closed `age` draws of its stream
after it came, at the latest.
"""

from wfm.data.order.batches import Batching, BatchOrder, BatchStep, one_shape
from wfm.data.order.lanes import AnyOrder, AnyStep, Lane
from wfm.data.order.packs import Pack
from wfm.data.order.phases import Phase, Phases
from wfm.data.order.sources import Source, sample_keys
from wfm.data.order.steps import Order, Packing, Step

__all__ = [
    "AnyOrder", "AnyStep", "BatchOrder", "BatchStep", "Batching", "Lane", "Order", "Pack", "Packing", "Phase", "Phases",
    "Source", "Step", "one_shape", "sample_keys",
]  # fmt: skip
