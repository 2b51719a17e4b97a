"""Optimisers: AdamW for everything, or Muon (`muon`) for the hidden matrices with AdamW for the rest, which for a run of a few
hundred steps is worth more than what it costs. Of parameters that are spread over ranks each rank keeps the state of its part.
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from wfm.parallel.shards import scale_down, total_norm
from wfm.training.config import TrainingConfig
from wfm.training.muon import Muon


class Optimizers:
    """The optimisers of a run behind one interface, with state by parameter name."""

    def __init__(self, module: nn.Module, config: TrainingConfig) -> None:
        named = {name: p for name, p in module.named_parameters() if p.requires_grad}
        hidden = {n: p for n, p in named.items() if config.optimizer == "muon" and is_hidden_matrix(n, p)}
        rest = {n: p for n, p in named.items() if n not in hidden}
        groups = [
            {"params": [p for p in rest.values() if p.ndim >= 2], "weight_decay": config.weight_decay},
            {"params": [p for p in rest.values() if p.ndim < 2], "weight_decay": 0.0},
        ]
        adam = torch.optim.AdamW(
            [g for g in groups if g["params"]], lr=config.learning_rate, betas=config.betas, fused=True
        )
        self.members: list[tuple[torch.optim.Optimizer, float]] = [(adam, config.learning_rate)]
        if hidden:
            muon = Muon(hidden.values(), config.matrix_learning_rate, weight_decay=config.weight_decay)
            self.members.append((muon, config.matrix_learning_rate))
        self.names: dict[Tensor, str] = {parameter: name for name, parameter in named.items()}

    def step(self, factor: float) -> None:
        """Update with the peak rates times `factor`, and forget the gradients."""
        for optimizer, peak in self.members:
            for group in optimizer.param_groups:
                group["lr"] = peak * factor
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor of state as `<parameter name>/<state name>`."""
        return {f"{name}/{key}": value for name, key, value in self._states()}

    def _states(self) -> Iterator[tuple[str, str, Tensor]]:
        for optimizer, _ in self.members:
            for parameter, state in optimizer.state.items():
                for key, value in state.items():
                    yield self.names[parameter], key, value

    def stateless(self) -> list[str]:
        """Parameters without state: none has had a gradient yet."""
        return sorted(set(self.names.values()) - {name for name, _, _ in self._states()})

    def wanted(self, stateless: set[str]) -> dict[str, Tensor]:
        """What `tensors` gives when every parameter but these has its state: tensors of the same names, shapes and dtypes."""
        number = torch.zeros((), dtype=torch.float32)
        return {
            f"{self.names[parameter]}/{key}": number if key == "step" else parameter
            for optimizer, _ in self.members
            for group in optimizer.param_groups
            for parameter in group["params"]
            for key in (("momentum",) if isinstance(optimizer, Muon) else ("exp_avg", "exp_avg_sq", "step"))
            if self.names[parameter] not in stateless
        }

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """The inverse of `tensors`. Raises KeyError for state of a parameter that is not here."""
        by_name: dict[str, dict[str, Tensor]] = {}
        for key, value in tensors.items():
            name, _, state = key.rpartition("/")
            by_name.setdefault(name, {})[state] = value
        owners = {
            self.names[parameter]: (optimizer, parameter)
            for optimizer, _ in self.members
            for group in optimizer.param_groups
            for parameter in group["params"]
        }
        for name, values in by_name.items():
            optimizer, parameter = owners[name]
            optimizer.state[parameter] = {key: value.to(parameter.device, copy=True) for key, value in values.items()}


def norm_of(module: nn.Module) -> Tensor:
    """The norm of all gradients of a module, a scalar on its device; of spread ones over all ranks, which all ask."""
    return total_norm(p.grad for p in module.parameters() if p.grad is not None)


def clip(module: nn.Module, norm: Tensor, limit: float) -> None:
    """Scale the gradients of a module, whose norm is known, to at most `limit`; 0: no limit. Waits for nothing."""
    if limit:
        scale_down([p.grad for p in module.parameters() if p.grad is not None], limit, norm)


def is_hidden_matrix(name: str, parameter: nn.Parameter) -> bool:
    """Whether Muon should take a parameter: matrices inside blocks, not those at the model's ends or tables."""
    return parameter.ndim == 2 and any(part in name for part in ("blocks.", "layers."))
