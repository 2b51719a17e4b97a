"""A linear layer without bias, and the one place that chooses which matrix product it runs on.

x [..., K], weight [N, K]  ->  [..., N]
"""

import torch.nn.functional as F
from torch import Tensor, nn


def product(x: Tensor, weight: Tensor) -> Tensor:
    """x `[..., K]` times weight `[N, K]` transposed: `[..., N]`."""
    return F.linear(x, weight)


class Linear(nn.Linear):
    """`nn.Linear` without bias on `product`; same parameter, same state dict."""

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__(in_features, out_features, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """x `[..., in_features]` -> `[..., out_features]`."""
        return product(x, self.weight)
