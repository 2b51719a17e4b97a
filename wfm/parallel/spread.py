"""A model whose parameters, gradients and optimiser state are spread over ranks (FSDP2), with copies of it or not (HSDP).

    spread = spread_over(mesh_over(ranks, shard=4), model, blocks)   # last of all passes; parameters are DTensors from here on
    loss, values = spread.run(objective.loss, model, batch, step)    # whatever reads parameters runs by this
    spread.communicate(last)                                         # before each backward pass of several
    loss.backward()
    spread.settle(ranks)                                             # gradients are sums over all ranks now
    with spread.together(ranks, "step"): ...                         # around all of these, and whatever else moves parts

A mesh has `shard` ranks times `replicate` copies: each copy holds the model once, cut by rows, and copies add up their
gradients. A block's parameters are whole while its `forward` runs, or a method that its class names in `called_apart`; all
others while `run` does. **Gradients are sums**: whoever wants a mean weights the loss before.

`Whole` is the twin of a model that each rank holds all of: the same calls, which do nothing.
"""

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import torch
from torch import Tensor, nn

from wfm.errors import ConfigError
from wfm.parallel.ranks import ALONE, Ranks
from wfm.parallel.shards import REPLICATE, SHARD, is_spread, whole

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh

Arguments = ParamSpec("Arguments")
ResultT = TypeVar("ResultT")


class Whole:
    """A model that is on each rank as a whole: its gradients are for `Ranks.average` to add up."""

    def run(
        self, function: Callable[Arguments, ResultT], *arguments: Arguments.args, **named: Arguments.kwargs
    ) -> ResultT:
        """What the function gives, called with the model's parameters there for it."""
        return function(*arguments, **named)

    def together(self, ranks: Ranks, label: str) -> AbstractContextManager[None]:
        """Held while parts travel: a rank that fails in it is lost to the others, who wait for its tensors and hear no words
        (`Ranks.only_together`). Of a model that is whole nothing travels, and what fails is told."""
        return nullcontext()

    def communicate(self, last: bool) -> None:
        """Whether the backward passes from here on add up gradients over ranks: only the `last` of several has to."""
        return None

    def settle(self, ranks: Ranks) -> None:
        """After the last backward pass: parameters that had no gradient on any rank have none. Every rank calls it."""
        return None


def shape_of_mesh(size: int, shard: int, replicate: int) -> tuple[int, int]:
    """(copies, ranks of each) for `size` ranks: `shard` 0 is as many as there are, `replicate` 0 as many copies as that leaves.

    Raises ConfigError where they do not come to `size`.
    """
    ranks = shard or max(1, size // (replicate or 1))
    copies = replicate or size // ranks
    if copies * ranks != size:
        raise ConfigError(
            f"parallel.shard = {shard} and parallel.replicate = {replicate} do not fit {size} ranks: their product has to be "
            f"{size}. shard 0 takes all ranks, replicate 0 as many copies as shard leaves"
        )
    return copies, ranks


def mesh_over(ranks: Ranks, *, shard: int, replicate: int = 0, device: str = "cpu") -> "DeviceMesh | None":
    """The mesh of all ranks, which all call this; None where nothing is to be spread: one rank a copy, or one process.
    `device`: where the model is (cpu, cuda or cuda:1).

    Raises ConfigError as `shape_of_mesh`.
    """
    copies, size = shape_of_mesh(ranks.size, shard, replicate)
    if size == 1:
        return None
    from torch.distributed.device_mesh import init_device_mesh

    kind = torch.device(device).type
    if copies == 1:
        return init_device_mesh(kind, (size,), mesh_dim_names=(SHARD,))
    return init_device_mesh(kind, (copies, size), mesh_dim_names=(REPLICATE, SHARD))


def spread_over(mesh: "DeviceMesh | None", model: nn.Module, blocks: Iterable[nn.Module]) -> Whole:
    """Spread `model`, the same on all ranks, over a mesh, each of its `blocks` for itself; without a mesh it stays whole."""
    return Whole() if mesh is None else Spread(mesh, model, blocks)


class Spread(Whole):
    """A model of which each rank holds a part. Rows of a parameter are cut into as many equal parts, the last ones shorter."""

    def __init__(self, mesh: "DeviceMesh", model: nn.Module, blocks: Iterable[nn.Module]) -> None:
        from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

        self.mesh = mesh
        scalars = [name for name, parameter in model.named_parameters() if parameter.ndim == 0]
        if scalars:
            raise ConfigError(
                f"parallel.shard: {', '.join(scalars[:4])}: a parameter without rows cannot be spread; give it one"
            )
        nothing = [name for name, one in model.named_parameters() if one.requires_grad and not one.numel()]
        if nothing:  # FSDP would fail in the first backward pass, and name none of them
            raise ConfigError(
                f"parallel.shard: {', '.join(nothing[:4])}: a parameter without numbers learns nothing and cannot be spread; "
                "freeze it (requires_grad_(False)), or do without it"
            )
        self._root = _Root(model)
        for block in blocks:
            block.register_forward_hook(_no_view)  # before those of FSDP
            fully_shard(block, mesh=mesh)
            for name in getattr(block, "called_apart", ()):
                setattr(block, name, _without_views(block, getattr(block, name)))
                register_fsdp_forward_method(block, name)
        fully_shard(self._root, mesh=mesh, reshard_after_forward=False)
        self._units = [unit for unit in self._root.modules() if hasattr(unit, "set_gradient_divide_factor")]
        for unit in self._units:
            unit.set_gradient_divide_factor(1.0)  # type: ignore[operator]
            unit.set_force_sum_reduction_for_comms(True)  # type: ignore[operator]  # gloo knows no other
        # a rank whose samples use fewer parameters would else add up other tensors than the others do
        self._root.set_reduce_scatter_unused_params(True)  # type: ignore[operator]
        self._names = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
        self._used: set[str] = set()
        for name, part in model.named_modules():
            if part in self._units:
                self._watch(part, f"{name}.")
        self._root.first = self._note

    def run(
        self, function: Callable[Arguments, ResultT], *arguments: Arguments.args, **named: Arguments.kwargs
    ) -> ResultT:
        found = self._root(function, *arguments, **named)
        if not torch.is_grad_enabled():
            self._root.reshard()  # type: ignore[operator]  # where no backward pass does
        return found  # type: ignore[no-any-return]

    def together(self, ranks: Ranks, label: str) -> AbstractContextManager[None]:
        return ranks.only_together(label)

    def communicate(self, last: bool) -> None:
        self._root.set_requires_gradient_sync(last)  # type: ignore[operator]

    def settle(self, ranks: Ranks) -> None:
        used = ranks.any_of_many([name in self._used for name in self._names], "gradients")
        self._used.clear()
        unused = {name for name, one in zip(self._names, used, strict=True) if not one}
        for name, parameter in self._root.model.named_parameters() if unused else ():
            if name in unused:
                parameter.grad = None

    def _watch(self, block: nn.Module, prefix: str) -> None:
        """Note which parameters of a block get gradients: whole ones are there from its first call on, after FSDP's hook."""

        @torch.compiler.disable
        def once(module: nn.Module, given: Any) -> None:
            if torch.is_grad_enabled():
                self._note(module, prefix)
                handle.remove()

        handle = block.register_forward_pre_hook(once)

    def _note(self, module: nn.Module, prefix: str = "") -> None:
        for name, parameter in module.named_parameters(prefix=prefix.rstrip(".")):
            if parameter.requires_grad and not is_spread(parameter):
                parameter.register_post_accumulate_grad_hook(lambda _, name=name: self._used.add(name))


class _Root(nn.Module):
    """Around a model, so that FSDP's root is not the model's own `forward`: objectives call other methods too."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.first: Callable[[nn.Module], None] | None = None
        "Called once, with the model, when a call may be learned from."

    def forward(self, function: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        """The function's result, which has to hold the loss where FSDP finds it: in tuples, lists and dicts."""
        if self.first is not None and torch.is_grad_enabled():
            self.first(self.model)
            self.first = None
        return function(*arguments, **named)


def _no_view(block: nn.Module, given: Any, output: Any) -> Any:
    """FSDP listens at what a block gives, and would not hear of a view that is changed in place."""
    if isinstance(output, tuple):
        return tuple(_no_view(block, given, one) for one in output)
    viewed = isinstance(output, Tensor) and (torch.compiler.is_compiling() or output._base is not None)
    return output.clone() if viewed else output


def _without_views(block: nn.Module, method: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *given: _no_view(block, given, method(*given))


def gathered(model: nn.Module, ranks: Ranks = ALONE, *, keep: bool = True) -> dict[str, Tensor]:
    """`gathered_tensors` of a model's state dict."""
    return gathered_tensors(model.state_dict(), ranks, keep=keep)


def gathered_tensors(tensors: Mapping[str, Tensor], ranks: Ranks = ALONE, *, keep: bool = True) -> dict[str, Tensor]:
    """All of each tensor by name, of spread ones put together on the CPU. All `ranks` call this; one that does not `keep` them
    helps, holds one tensor at a time, and gets none. Raises RankLost as `Ranks.only_together`."""
    found = {}
    travels = any(map(is_spread, tensors.values()))
    with ranks.only_together("gathering") if travels else nullcontext():
        for name, tensor in tensors.items():
            full = whole(tensor.detach())
            if keep:
                found[name] = full.cpu() if is_spread(tensor) else full
    return found
