"""A network without weights, then its weights: each tensor is in memory once.

network = without_weights(lambda: DiffusionTransformer(config))     # parameters have shapes, buffers have values
fill(network, file, {ours: theirs, ...})                            # every name, shape and dtype is checked first
"""

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from math import prod
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from wfm.errors import ConfigError, DataError, WfmError
from wfm.models.convert.tensor_file import Entry, TensorFile, drop_pages
from wfm.models.finite import is_finite

Network = TypeVar("Network", bound=nn.Module)

WEIGHT_DTYPES = ("float64", "float32", "bfloat16", "float16")
"""Dtypes that a weight may have."""

_SETTERS = {
    "uniform_",
    "normal_",
    "trunc_normal_",
    "zero_",
    "zeros_",
    "ones_",
    "fill_",
    "copy_",
    "constant_",
    "mul_",
    "add_",
}

_MAKERS = ("arange", "empty", "eye", "full", "linspace", "ones", "rand", "randn", "zeros")
"""Functions that make as many numbers as they are told; of those that take a range, a bound of it."""

_MORE_TENSORS, _MORE_NUMBERS = 2_000, 2**27  # beyond a file's own: what a network derives, or a file lacks

_patching = threading.Lock()


def network_for(make: Callable[[], Network], entries: Mapping[str, Entry], source: str) -> Network:
    """`without_weights` of a configuration that came with a file of tensors: a network that could not be filled from it is
    refused before memory is set aside. Raises ConfigError."""
    budget = _Budget(
        len(entries) + _MORE_TENSORS, sum(entry.count for entry in entries.values()) + _MORE_NUMBERS, source
    )
    try:
        return without_weights(make, budget)
    except WfmError:
        raise
    except (ArithmeticError, LookupError, MemoryError, RuntimeError, TypeError, ValueError) as error:
        words = str(error).strip().partition("\n")[0][:200]
        raise ConfigError(
            f"{source}: no network can be made of this configuration ({type(error).__name__}: {words})"
        ) from None


def without_weights(make: Callable[[], Network], budget: "_Budget | None" = None) -> Network:
    """What `make` returns, its parameters on torch's meta device: shapes and dtypes, no numbers, no time to initialise.

    Buffers are real, since what a network derives (tables, code books) is not in a checkpoint. `make` must not read its
    own parameters.
    """
    with _parameters_on_meta(budget), _Still(budget):
        return make()


class _Budget:
    """What a network may have at most: tensors, and numbers in all of them."""

    def __init__(self, tensors: int, numbers: int, source: str) -> None:
        self._tensors, self._numbers, self._source = tensors, numbers, source
        self._most = tensors, numbers

    def take(self, tensors: int, numbers: int) -> None:
        """Raises ConfigError where nothing is left."""
        self._tensors -= tensors
        self._numbers -= numbers
        if self._tensors < 0 or self._numbers < 0:
            raise ConfigError(
                f"{self._source}: this configuration describes a network of more than {self._most[0]:,} tensors or "
                f"{self._most[1]:,} numbers, far more than the weights beside it hold. Do the two belong together?"
            )


class _Still(TorchFunctionMode):
    """Within, what only sets the numbers of a tensor without numbers is not done: torch would import its symbolic
    shapes for it, some 80 MB and a second or more. What makes numbers asks the budget first."""

    def __init__(self, budget: _Budget | None) -> None:
        super().__init__()
        self._budget = budget

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__name__", "") in _SETTERS:
            tensor = args[0] if args else kwargs.get("tensor")
            if isinstance(tensor, Tensor) and tensor.is_meta:
                return tensor
        if self._budget is not None and getattr(func, "__name__", "") in _MAKERS:
            sizes = kwargs.get("size", args[0] if args and isinstance(args[0], tuple | list) else args)
            if isinstance(sizes, tuple | list) and all(isinstance(size, int) for size in sizes):
                self._budget.take(0, prod(sizes))
        return func(*args, **kwargs)


@contextmanager
def _parameters_on_meta(budget: _Budget | None) -> Iterator[None]:
    """Within, a parameter loses its numbers the moment a module takes it. `torch.device("meta")` would take the buffers'
    too."""
    register = nn.Module.register_parameter

    def register_shape(self: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        if budget is not None and threading.get_ident() == here:
            budget.take(1, 0)
        if parameter is not None and not parameter.is_meta and threading.get_ident() == here:
            parameter = nn.Parameter(parameter.data.to("meta"), requires_grad=parameter.requires_grad)
        register(self, name, parameter)

    with _patching:
        here = threading.get_ident()
        nn.Module.register_parameter = register_shape  # type: ignore[method-assign,assignment]
        try:
            yield
        finally:
            nn.Module.register_parameter = register  # type: ignore[method-assign]


def check_entries(wanted: Mapping[str, Tensor], entries: Mapping[str, Entry], source: str, *, hint: str = "") -> None:
    """Refuse a file whose names, shapes or dtypes are not exactly those of `wanted`. Raises DataError."""
    problems = [f"missing {name}" for name in sorted(wanted.keys() - entries.keys())]
    problems += [f"unexpected {name}" for name in sorted(entries.keys() - wanted.keys())]
    for name in sorted(wanted.keys() & entries.keys()):
        entry, tensor = entries[name], wanted[name]
        if entry.shape != tuple(tensor.shape):
            problems.append(f"{name} is {list(entry.shape)}, wanted {list(tensor.shape)}")
        elif tensor.is_floating_point() and entry.dtype not in WEIGHT_DTYPES:
            problems.append(f"{name} is {entry.dtype}, wanted one of {', '.join(WEIGHT_DTYPES)}")
        elif not tensor.is_floating_point() and entry.dtype != str(tensor.dtype).removeprefix("torch."):
            problems.append(f"{name} is {entry.dtype}, wanted {str(tensor.dtype).removeprefix('torch.')}")
    if problems:
        more = f" and {len(problems) - 5} more" if len(problems) > 5 else ""
        advice = f". {hint}" if hint else ""
        raise DataError(f"{source}: the tensors do not fit the model: {'; '.join(problems[:5])}{more}{advice}")


def fill(
    network: nn.Module,
    homes: Mapping[str, TensorFile],
    names: Mapping[str, str],
    *,
    dtype: torch.dtype | None = None,
    as_built: bool = False,
    device: str = "cpu",
) -> None:
    """Give `network` its tensors, in place; `names` says what each is called in the file `homes` gives for that name.

    A tensor is read, converted and moved before the next one is: beside the model there is never more than one; open the
    files mapped where tensors are to change. Without
    `dtype` a tensor keeps that of the file or, `as_built`, takes that of the network. Tensors of `network` that `names` does
    not hold stay as they are and must be real. The files must have been checked (`check_entries`). Raises DataError for a
    tensor with numbers that are not finite: its model would give nothing else.
    """
    state = network.state_dict()
    for name, theirs in names.items():
        tensor, wanted = homes[theirs].read(theirs), state[name]
        kind = dtype if dtype is not None and wanted.is_floating_point() else None
        state[name] = tensor.to(device=device, dtype=kind or (wanted.dtype if as_built else tensor.dtype))
        if not is_finite(state[name]):
            raise _not_finite(f"{homes[theirs].path}: {theirs}", tensor, state[name].dtype)
        if state[name] is not tensor:
            drop_pages(tensor)
    network.load_state_dict(state, strict=True, assign=True)
    network.to(device)  # the buffers that no file holds


def _not_finite(what: str, tensor: Tensor, dtype: torch.dtype) -> DataError:
    if is_finite(tensor):
        kinds = [str(kind).removeprefix("torch.") for kind in (tensor.dtype, dtype)]
        return DataError(f"{what} holds numbers beyond {kinds[1]}; keep its {kinds[0]}, or take bfloat16 or float32")
    return DataError(
        f"{what} holds numbers that are NaN or infinite: the file is damaged, or its training broke off; fetch it again, "
        "or take an earlier checkpoint"
    )
