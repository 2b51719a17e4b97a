"""Optimisers: AdamW for everything, or Muon for the hidden matrices with AdamW for the rest.

Muon (Jordan et al. 2024) replaces the momentum of a matrix by the nearest semi-orthogonal one (five Newton-Schulz
steps), so every direction of the matrix learns at the same speed. For a run of a few hundred steps that is worth
more than what it costs.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from wfm.training.config import TrainingConfig

_NS = (3.4445, -4.7750, 2.0315)


class Muon(torch.optim.Optimizer):
    """Momentum, orthogonalised. Parameters are matrices; step size is scaled by sqrt(max(1, rows / columns))."""

    def __init__(self, params: Iterable[Any], lr: float, momentum: float = 0.95, weight_decay: float = 0.0) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One update. Matrices of one shape are orthogonalised together."""
        for group in self.param_groups:
            by_shape: dict[tuple[int, int], list[nn.Parameter]] = {}
            for parameter in group["params"]:
                if parameter.grad is not None:
                    by_shape.setdefault(tuple(parameter.shape), []).append(parameter)
            for shape, parameters in by_shape.items():
                self._update(parameters, shape, group)

    def _update(self, parameters: list[nn.Parameter], shape: tuple[int, int], group: dict[str, Any]) -> None:
        directions = []
        for parameter in parameters:
            gradient = parameter.grad
            assert gradient is not None
            state = self.state[parameter]
            if not state:
                state["momentum"] = torch.zeros_like(parameter)
            state["momentum"].lerp_(gradient, 1 - group["momentum"])
            directions.append(gradient.lerp(state["momentum"], group["momentum"]))  # Nesterov
        updates = orthogonalise(torch.stack(directions))
        scale = max(1.0, shape[0] / shape[1]) ** 0.5
        for parameter, update in zip(parameters, updates, strict=True):
            parameter.mul_(1 - group["lr"] * group["weight_decay"])
            parameter.add_(update, alpha=-group["lr"] * scale)


def orthogonalise(matrices: Tensor, steps: int = 5) -> Tensor:
    """Matrices `[N, rows, columns]` with all singular values moved near 1 (between about 0.7 and 1.2)."""
    a, b, c = _NS
    tall = matrices.shape[-2] > matrices.shape[-1]
    x = matrices.mT if tall else matrices
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if tall else x


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
    """The norm of all gradients of a module, a scalar on its device."""
    return torch.nn.utils.get_total_norm([p.grad for p in module.parameters() if p.grad is not None])


def clip(module: nn.Module, norm: Tensor, limit: float) -> None:
    """Scale the gradients of a module, whose norm is known, to at most `limit`; 0: no limit. Waits for nothing."""
    if limit:
        torch.nn.utils.clip_grads_with_norm_(module.parameters(), limit, norm)


def is_hidden_matrix(name: str, parameter: nn.Parameter) -> bool:
    """Whether Muon should take a parameter: matrices inside blocks, not those at the model's ends or tables."""
    return parameter.ndim == 2 and any(part in name for part in ("blocks.", "layers."))
