"""What checks share."""

from importlib.util import find_spec

import torch


class Skipped(Exception):
    """A check that cannot be made here, and why."""


def require_package(name: str) -> None:
    if find_spec(name) is None:
        raise Skipped(f"the package {name} is not installed")


def require_cuda(device: torch.device, what: str) -> None:
    if device.type != "cuda":
        raise Skipped(f"{what} is of CUDA alone")


def worst(one: torch.Tensor, two: torch.Tensor) -> float:
    """Largest difference, over the largest number of `two`."""
    one, two = one.detach().double(), two.detach().double()
    return float((one - two).abs().max()) / (float(two.abs().max()) or 1.0)


def require(figure: float, bound: float, what: str) -> float:
    """The figure, if it is within its bound."""
    if not figure <= bound:  # NaN fails too
        raise AssertionError(f"{what} is {figure:.3g}, at most {bound:g} is right")
    return figure
