"""Linear least squares over rows that come in batches and are not kept: what is fitted in closed form before training."""

import torch
from torch import Tensor

RIDGE = 1e-4
"""Added to the mean square of each feature, so that features which say the same are told apart."""


class LeastSquares:
    """Normal equations, summed in fp64: of features `[n, F]`, to which a constant is added, and what is to be said of each,
    `[n, C]`.

    Its size is that of the answer, whatever the number of rows."""

    def __init__(self) -> None:
        self._gram: Tensor | None = None
        self._cross = self._square = torch.zeros(())
        self.count = 0.0
        "Rows so far, as often as they count."

    def add(self, features: Tensor, wanted: Tensor, weight: float = 1.0) -> None:
        """More rows, each of which counts `weight` times. Products of one call are in their own dtype: some hundred thousand
        rows of fp32 at once are good."""
        rows = torch.cat([features, features.new_ones(len(features), 1)], dim=1)  # [n, F + 1]
        gram, cross, square = (
            weight * of.double() for of in (rows.T @ rows, rows.T @ wanted, wanted.double().square().sum(0))
        )
        if self._gram is None:
            self._gram, self._cross, self._square = gram, cross, square
        else:
            self._gram += gram
            self._cross += cross
            self._square += square
        self.count += weight * len(rows)

    def solve(self) -> tuple[Tensor, Tensor, Tensor]:
        """Weight fp32 `[C, F]`, bias `[C]`, and the deviation `[C]` of what is left. Needs a row or more."""
        assert self._gram is not None, "no rows were added"
        damping = RIDGE * self.count * torch.eye(len(self._gram), dtype=torch.float64, device=self._gram.device)
        solution = torch.linalg.solve(self._gram + damping, self._cross)
        left = self._square - 2 * (solution * self._cross).sum(0) + (solution * (self._gram @ solution)).sum(0)
        return solution[:-1].T.float(), solution[-1].float(), (left / self.count).clamp(min=0).sqrt().float()
