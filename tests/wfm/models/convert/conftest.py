"""Small models of every kind that has weights elsewhere, and the memory of a process."""

import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
from torch import nn

from wfm.families.diffusion.build import denoiser as build_denoiser
from wfm.models.diffusion.config import DenoiserConfig, DiffusionConfig
from wfm.models.diffusion.network import DiffusionTransformer
from wfm.models.tokenizer.config import TokenizerConfig
from wfm.models.tokenizer.network import Tokenizer

DIT = DiffusionConfig(
    in_channels=4, num_attention_heads=2, attention_head_dim=12, num_layers=2, mlp_ratio=2.0, text_embed_dim=16,
    adaln_lora_dim=4, max_size=(4, 16, 16), condition_mask=True,
)  # fmt: skip
ACTION = DIT.model_copy(update={"action_dim": 5, "condition_mask": False})
VIDEO = TokenizerConfig(latent_channels=4, z_channels=4, channels=(8, 8, 16, 16), encoder_blocks=1, decoder_blocks=2)
DISCRETE = VIDEO.model_copy(
    update={"spatial_compression": 16, "levels": (4, 3, 3), "latent_channels": 3, "z_channels": 8, "encoder_blocks": 2}
)
IMAGE = TokenizerConfig(
    dimensions=2, temporal_compression=1, spatial_compression=16, channels=(32, 32, 64, 64), latent_channels=4, z_channels=4,
    encoder_blocks=1, decoder_blocks=2,
)  # fmt: skip
DENOISER = DenoiserConfig(network=DIT, uncertainty=8, statistics_frames=2, published_mask=True)
CONFIGS = {"dit": DIT, "action": ACTION, "video": VIDEO, "discrete": DISCRETE, "image": IMAGE, "denoiser": DENOISER}


def make(name: str, dtype: torch.dtype = torch.float32) -> nn.Module:
    """A model whose every number is random: zeros and ones of an initialisation would hide a mix-up."""
    config = CONFIGS[name]
    torch.manual_seed(0)
    if isinstance(config, DenoiserConfig):
        module: nn.Module = build_denoiser(config)
    else:
        module = DiffusionTransformer(config) if isinstance(config, DiffusionConfig) else Tokenizer(config)
    with torch.no_grad():
        for tensor in [*module.parameters(), *(b for b in module.buffers() if b.is_floating_point())]:
            tensor.copy_(torch.randn(tensor.shape).abs() + 0.1)
    return module.to(dtype).eval()


def same(one: nn.Module, other: nn.Module) -> bool:
    """Bitwise the same state."""
    first, second = one.state_dict(), other.state_dict()
    return first.keys() == second.keys() and all(
        first[name].dtype == second[name].dtype and torch.equal(first[name], second[name]) for name in first
    )


MEASURE = '''
import sys
def memory(key):
    """[MB]"""
    with open("/proc/self/status") as status:
        return int(next(line.split()[1] for line in status if line.startswith(key))) / 1024
def start():
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # the peak counts from here
    return memory("VmRSS:")
'''


@pytest.fixture
def growth() -> Callable[..., float]:
    """Run Python code in a process of its own; the peak of what it added to the resident memory [MB].

    `before` is not counted: imports. The code may print; its output is part of the failure message.
    """

    def run(before: str, code: str) -> float:
        body = f"{MEASURE}\n{before}\nbase = start()\n{code}\nprint('GROWTH', memory('VmHWM:') - base)\n"
        done = subprocess.run([sys.executable, "-c", body], capture_output=True, text=True, timeout=500)
        assert done.returncode == 0, done.stdout + done.stderr
        return float(done.stdout.split("GROWTH")[1])

    return run
