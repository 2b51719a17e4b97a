"""The reconstruction loss: its options change what they claim to."""

import torch

from wfm.models.tokenizer import TokenizerObjective
from wfm.models.tokenizer.config import ReconstructionConfig


class Shifted(torch.nn.Module):
    """A "tokenizer" whose reconstruction is off by a constant."""

    def forward(self, video: torch.Tensor) -> torch.Tensor:
        return video + 0.5


VIDEO = {"video": torch.zeros(1, 3, 5, 8, 8)}


def loss(**values) -> float:
    return float(TokenizerObjective(ReconstructionConfig(**values)).loss(Shifted(), VIDEO, 0)[0])


def test_errors():
    assert loss(error="l2") == 0.25
    assert loss(error="l1") == 0.5


def test_gradient_weight_sees_edges_only():
    assert loss(gradient_weight=1.0) == loss()  # a constant shift has no edges

    class Edge(torch.nn.Module):
        def forward(self, video):
            out = video.clone()
            out[..., 0] += 1
            return out

    plain, sharp = (
        float(TokenizerObjective(ReconstructionConfig(gradient_weight=w)).loss(Edge(), VIDEO, 0)[0]) for w in (0.0, 1.0)
    )
    assert sharp > plain


def test_psnr_is_on_the_unit_range():
    values = TokenizerObjective(ReconstructionConfig()).loss(Shifted(), VIDEO, 0)[1]
    assert abs(values["psnr"] - 12.0412) < 1e-3  # an error of 0.25 on [0, 1]
