"""How the blocks of a transformer are run, and over how many ranks it is spread. Torch-free."""

from typing import Literal

from wfm.config import Config, Natural, how


class ParallelConfig(Config):
    """What is applied to a network from outside. None of it changes the result but for rounding, so all of it is `how`."""

    activation_checkpointing: Literal["none", "selective", "full"] = how("none")
    """What the backward pass computes again. full: everything but the input of each block is; selective: all but what products
    and attention give, which costs most to compute."""
    compile: bool = how(False)
    "Compile each block (torch.compile): minutes at the start, then fewer passes over memory. Needs a C++ compiler on a CPU."
    shard: Natural = how(1)
    """Ranks that share one copy of the model: each holds that part of parameters, gradients and optimiser state (FSDP). 1: each
    rank holds all; 0: as many ranks as there are."""
    replicate: Natural = how(0)
    "Copies of the model (HSDP): `shard` times this is the number of ranks. 0: as many as `shard` leaves."
