"""How the blocks of a transformer are run. Torch-free."""

from typing import Literal

from wfm.config import Config, how


class ParallelConfig(Config):
    """What `wfm.models.parallelize` applies. None of it changes the result, so all of it is `how`."""

    activation_checkpointing: Literal["none", "full"] = how("none")
    "full: keep only the input of each block and compute the rest again in the backward pass."
    compile: bool = how(False)
    "Compile each block (torch.compile): minutes at the start, then fewer passes over memory. Needs a C++ compiler on a CPU."
