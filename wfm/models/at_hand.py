"""Whether numbers of a tensor may be looked at: not where that would hold up the processor until a GPU is there."""

import torch
from torch import Tensor


def at_hand(tensor: Tensor) -> bool:
    """Whether a check may read `tensor` without waiting for a device, or breaking a graph that is being compiled. What reads
    values to refuse them asks this first: on a GPU they are not refused, and a step waits for nothing."""
    return tensor.device.type == "cpu" and not torch.compiler.is_compiling()
