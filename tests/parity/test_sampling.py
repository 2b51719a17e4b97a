"""A whole sampling against the denoising loop of diffusers' Cosmos text-to-world pipeline: Euler, guidance, two prompts."""

import pytest
import torch

from tests.benchmarks.sampling import models, our_sampling, patch_peer, rival_loop
from wfm.generation.samplers import seeded_noise

SIZE = (2, 4, 6)


@pytest.mark.parametrize("fps", [24, 30])
def test_euler_with_guidance_is_the_peers_loop(fps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Relative to the largest latent, fp32 (measured: 1.3e-6)."""
    patch_peer()
    ours, rival = models(
        {
            "num_attention_heads": 2, "attention_head_dim": 12, "num_layers": 2, "text_embed_dim": 8,
            "adaln_lora_dim": 4, "max_size": (4, 16, 16),
        }
    )  # fmt: skip
    text, negative = torch.randn(2, 2, 5, 8, generator=torch.Generator().manual_seed(1))
    noise = seeded_noise((16, *SIZE), [0, 1], device=torch.device("cpu"), dtype=torch.float32)
    wanted = rival_loop(rival, noise, text, negative, steps=12, fps=fps)
    made = our_sampling(ours, SIZE, text, negative, sampler="euler", steps=12, fps=fps)
    difference = float((made - wanted).abs().max() / wanted.abs().max())
    assert difference < 1e-5
