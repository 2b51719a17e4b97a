"""A network without weights, then its weights: each tensor is in memory once.

network = without_weights(lambda: DiffusionTransformer(config))     # parameters have shapes, buffers have values
fill(network, file, {ours: theirs, ...})                            # every name, shape and dtype is checked first
"""

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from wfm.errors import DataError
from wfm.models.convert.reading import Entry, TensorFile, drop_pages

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

_patching = threading.Lock()


def without_weights(make: Callable[[], Network]) -> Network:
    """What `make` returns, its parameters on torch's meta device: shapes and dtypes, no numbers, no time to initialise.

    Buffers are real, since what a network derives (tables, code books) is not in a checkpoint. `make` must not read its
    own parameters.
    """
    with _parameters_on_meta(), _Still():
        return make()


class _Still(TorchFunctionMode):
    """Within, what only sets the numbers of a tensor without numbers is not done: torch would import its symbolic
    shapes for it, some 80 MB and a second or more."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__name__", "") in _SETTERS:
            tensor = args[0] if args else kwargs.get("tensor")
            if isinstance(tensor, Tensor) and tensor.is_meta:
                return tensor
        return func(*args, **kwargs)


@contextmanager
def _parameters_on_meta() -> Iterator[None]:
    """Within, a parameter loses its numbers the moment a module takes it. `torch.device("meta")` would take the buffers'
    too."""
    register = nn.Module.register_parameter

    def register_shape(self: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
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


def is_finite(tensor: Tensor) -> bool:
    """Whether no number is NaN or infinite: one pass without a copy, two where a sum of finite ones is beyond the type."""
    if not tensor.is_floating_point() or bool(tensor.sum().isfinite()):
        return True
    return all(bool(part.isfinite().all()) for part in tensor.flatten().split(1 << 24))


def _not_finite(what: str, tensor: Tensor, dtype: torch.dtype) -> DataError:
    if is_finite(tensor):
        kinds = [str(kind).removeprefix("torch.") for kind in (tensor.dtype, dtype)]
        return DataError(f"{what} holds numbers beyond {kinds[1]}; keep its {kinds[0]}, or take bfloat16 or float32")
    return DataError(
        f"{what} holds numbers that are NaN or infinite: the file is damaged, or its training broke off; fetch it again, "
        "or take an earlier checkpoint"
    )
