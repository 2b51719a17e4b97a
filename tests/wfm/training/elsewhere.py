"""A device that is not there: tensors that say they are on another (by the name of `meta`, which torch can do without), are
computed on the CPU, and mix with none that are here.

    with Elsewhere():
        model.to(THERE)
        model(x.to(THERE))       # as on the CPU
        model(x)                # Mixed: tensors of two devices

What a GPU would refuse is refused: an operation on tensors of both places, but for numbers (tensors without axes, which torch
takes from the CPU) and where values are put to indices of the CPU. Attention chooses its kernels by the device: in fp64 that is
the reference.
"""

import sys
from contextlib import contextmanager

import torch
import torch.optim
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._foreach_utils import _get_fused_kernels_supported_devices
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

from wfm.data.loader.device import Mover

THERE = torch.device("meta")
CPU = torch.device("cpu")
_LENGTHS = ("pack_attention", "pack_attention_backward")
"""Ours, that are told lengths in host memory."""
_INDEXING = ("index", "index_put", "index_put_", "_unsafe_index", "_index_put_impl_")


class Mixed(RuntimeError):
    """Tensors of two devices met in an operation."""


class There(Tensor):
    """A tensor that says it is there."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> "There":
        made = torch.Tensor._make_wrapper_subclass(
            cls, held.size(), strides=held.stride(), storage_offset=held.storage_offset(), dtype=held.dtype,
            device=THERE, requires_grad=held.requires_grad,
        )  # fmt: skip
        made.held = held
        return made

    def __tensor_flatten__(self):
        return ["held"], None

    @staticmethod
    def __tensor_unflatten__(held, context, size, stride):
        return There(held["held"])

    def __repr__(self) -> str:
        return f"There({self.held!r})"

    def tolist(self):
        return self.held.tolist()

    def numpy(self, **_):
        raise TypeError("numpy reads tensors of the CPU alone")

    def __deepcopy__(self, memo):
        return There(self.held.clone())

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        return dispatched(function, args, kwargs or {})


class Made(TorchFunctionMode):
    """Tensors of Python's numbers: no dispatch sees that torch moves them there."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if function is Tensor.new_tensor and isinstance(args[0], There):
            return There(torch.tensor(*args[1:], **{"dtype": args[0].dtype, **kwargs}))
        if function in (torch.tensor, torch.as_tensor) and torch.device(kwargs.get("device") or CPU) == THERE:
            given = args[0].held if isinstance(args[0], There) else args[0]
            return There(function(given, *args[1:], **{**kwargs, "device": CPU}))
        return function(*args, **kwargs)


class Elsewhere(TorchDispatchMode):
    """In here there is such a device."""

    def __enter__(self):
        self.made = Made()
        self.made.__enter__()
        return super().__enter__()

    def __exit__(self, *raised):
        super().__exit__(*raised)
        self.made.__exit__(*raised)

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        return dispatched(function, args, kwargs or {})


def dispatched(function, args, kwargs):
    name = function.overloadpacket.__name__
    tensors = [one for one in tree_flatten((args, kwargs))[0] if isinstance(one, Tensor)]
    there = [one for one in tensors if isinstance(one, There)]
    here = [one for one in tensors if not isinstance(one, There) and one.ndim]
    asked = kwargs.get("device")
    moves = name in ("_to_copy", "copy_")
    if there and here and not moves and name not in _LENGTHS and not (name in _INDEXING and isinstance(args[0], There)):
        raise Mixed(f"{function}: {len(there)} of its tensors are on {THERE}, and {len(here)} on the CPU")
    with torch.utils._python_dispatch._disable_current_modes():
        given, named = tree_map(_held, (args, {**kwargs, **({} if asked is None else {"device": CPU})}))
        found = function(*given, **named)
    if asked is not None:
        is_there = torch.device(asked).type == THERE.type
    elif name == "copy_" or name in _INDEXING:
        is_there = isinstance(args[0], There)
    else:
        is_there = bool(there)
    if name.endswith("_") and not name.startswith("_") and isinstance(args[0], Tensor):
        return args[0]  # in place: what it holds was changed
    return tree_map(lambda one: There(one) if isinstance(one, Tensor) else one, found) if is_there else found


def _held(one):
    return one.held if isinstance(one, There) else one


@contextmanager
def training_elsewhere(monkeypatch):
    """In here whatever is fitted is trained there: a GPU's loader puts batches where the training is, on a stream that this has
    not."""

    def __init__(self, device, pin):
        self._device, self._pin, self._stream = torch.device(device), False, None

    def send(self, batch):  # from any thread, whose operations no mode sees
        return self._each(batch, There), None

    with monkeypatch.context() as patched, Elsewhere():
        patched.setattr(Mover, "__init__", __init__)
        patched.setattr(Mover, "send", send)
        patched.setattr(
            "wfm.training.fit.place", lambda config: config.loader.model_copy(update={"device": THERE.type})
        )
        supported = [THERE.type, *_get_fused_kernels_supported_devices()]
        fused = sys.modules["torch.optim.optimizer"]  # torch.optim has no such attribute
        patched.setattr(fused, "_get_fused_kernels_supported_devices", lambda: supported)
        yield
