"""Where a training computes, and in what.

    place(config)                    the loader's config, with the device that the training is on
    to_device(model, device)         its weights there, in fp32 at least: they are the master weights
    device_of(model)                 where it is: what is validated goes there too
    computing(device, precision)     autocast, for the forward passes inside

Unrun on a GPU: there was none at hand. On a CPU bf16 runs by torch.autocast as it does there.
"""

import os
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import nn

from wfm.data.loader.config import LoaderConfig
from wfm.training.config import TrainingConfig


def place(config: TrainingConfig, environment: Mapping[str, str] = os.environ) -> LoaderConfig:
    """How batches are read for a training: they are put where it computes. Of several ranks on a machine `cuda` is to each the
    GPU of its number there."""
    device = config.device or config.loader.device
    if device == "cuda" and "LOCAL_RANK" in environment:
        device = f"cuda:{int(environment['LOCAL_RANK'])}"
    return config.loader.model_copy(update={"device": device})


def to_device(model: nn.Module, device: torch.device) -> None:
    """Move a model in place, where it is not there yet; parameters in half precision become fp32, which optimisers and averages
    need: a step of a thousandth would be lost in bf16."""
    for parameter in model.parameters():
        if parameter.is_floating_point() and parameter.dtype.itemsize < 4:
            parameter.data = parameter.data.float()
    if any(tensor.device != device for tensor in (*model.parameters(), *model.buffers())):
        model.to(device)


def device_of(model: nn.Module) -> torch.device:
    """Where the parameters of a model are; one that has none is on the CPU."""
    return next((parameter.device for parameter in model.parameters()), torch.device("cpu"))


def in_bf16(device: torch.device, precision: str) -> bool:
    """Whether a `precision` of the config means bf16 there."""
    return precision == "bf16" or (precision == "auto" and device.type == "cuda")


def computing(device: torch.device, precision: str) -> AbstractContextManager[object]:
    """Forward passes inside compute in what the config says."""
    return torch.autocast(device.type, torch.bfloat16) if in_bf16(device, precision) else nullcontext()
