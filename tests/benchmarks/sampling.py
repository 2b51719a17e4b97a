"""A whole text-to-world sampling: our sampler and network against the denoising loop of diffusers' Cosmos pipeline.

    python -m tests.benchmarks.sampling                    # all rows, minutes
    python -m tests.benchmarks.sampling --rows 192x320     # one shape, WIDTHxTOKENS
    python -m tests.benchmarks.sampling --clock cpu        # with WFM_BENCHMARK_THREADS=1, on a machine in use

One JSON line a row: `ratio` is rival / ours over ABBA pairs, one whole sampling each. Same weights, noise, prompt and
negative prompt, guidance 7 in Cosmos's convention, 36 calls of the network for each prediction. The rival's loop is that of
its text-to-world pipeline: EDMEulerScheduler, two forward passes a step (prompt, negative prompt), each scaled, stepped and
mixed as there. Ours is RES-2AB with 35 steps between 36 noise levels, both predictions in one batch, prompt and shape
prepared once, weights packed. `difference` is ours with Euler's 36 steps against the rival's result, relative: the same
numbers, so that the comparison is one.
"""

import argparse
import time
import types
from typing import Any

import diffusers.models.transformers.transformer_cosmos as peer_module
import torch
import torch.nn.functional as F
from diffusers import EDMEulerScheduler
from torch import Tensor

from tests.benchmarks.paired import THREADS, paired, print_line
from wfm.families.diffusion.build import denoiser
from wfm.families.diffusion.draw import draw_latents
from wfm.generation.sampler_config import GuidanceConfig, SamplerConfig
from wfm.generation.samplers import seeded_noise
from wfm.models.diffusion import Conditions, Denoiser, DenoiserConfig
from wfm.models.fast_cpu import fast_cpu

GRIDS = {320: (5, 16, 16), 2048: (8, 32, 32)}
"""Latent sizes (T, H, W) by tokens."""
ROWS = ["192x320", "384x320", "192x2048"]
TEXT_TOKENS, TEXT_WIDTH, GUIDANCE = 32, 384, 7.0


def patch_peer() -> None:
    """The peer's only use of torchvision is a nearest resize."""
    peer_module.transforms = types.SimpleNamespace(
        functional=types.SimpleNamespace(resize=lambda x, size, interpolation: F.interpolate(x, size, mode="nearest")),
        InterpolationMode=types.SimpleNamespace(NEAREST="nearest"),
    )


def models(same: dict[str, Any]) -> tuple[Denoiser, torch.nn.Module]:
    """Ours and the rival's with the same weights; what starts at zero is random. same: fields that both configs have."""
    torch.manual_seed(0)
    network = {"in_channels": 16, "qk_norm_eps": 1e-5, **same}
    ours = fast_cpu(denoiser(DenoiserConfig.parse({"network": network})).eval())
    for parameter in ours.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.02)
    rival = peer_module.CosmosTransformer3DModel(in_channels=16, out_channels=16, **same).eval()
    rival.load_state_dict(ours.network.state_dict())
    return ours, rival


@torch.no_grad()
def rival_loop(
    model: torch.nn.Module, noise: Tensor, text: Tensor, negative: Tensor, *, steps: int, fps: int
) -> Tensor:
    """Clean latents `[B, C, T, H, W]` of the rival: its scheduler, two passes a step, guidance on the clean latents."""
    scheduler = EDMEulerScheduler(sigma_min=0.002, sigma_max=80.0, sigma_data=0.5, final_sigmas_type="zero")
    scheduler.set_timesteps(steps)
    latents = noise * scheduler.config.sigma_max
    padding = latents.new_zeros(1, 1, 8 * latents.shape[3], 8 * latents.shape[4])
    for time_step in scheduler.timesteps:
        inputs = scheduler.scale_model_input(latents, time_step)
        more = {"fps": fps, "padding_mask": padding, "return_dict": False}
        told = model(inputs, time_step.expand(len(latents)), text, **more)[0]
        other = model(inputs, time_step.expand(len(latents)), negative, **more)[0]
        both = torch.cat([other, told])
        both = scheduler.step(both, time_step, torch.cat([latents, latents]), return_dict=False)[1]
        scheduler._step_index -= 1
        other, told = both.chunk(2)
        clean = told + GUIDANCE * (told - other)
        latents = scheduler.step(clean, time_step, latents, return_dict=False, pred_original_sample=clean)[0]
    return latents


def our_sampling(
    model: Denoiser, size: tuple[int, int, int], text: Tensor, negative: Tensor, *, sampler: str, steps: int, fps: int
) -> Tensor:
    """The same of ours: seeds 0, 1, ... for the noise."""
    sampling = SamplerConfig.parse(
        {
            "sampler": sampler,
            "steps": steps,
            "sigma_min": 0.002,
            "guidance": GuidanceConfig(scale=GUIDANCE, convention="cosmos").resolved(),
        }
    )
    latents = draw_latents(
        model,
        Conditions(tensors={"text": text}, fps=float(fps)),
        (16, *size),
        seeds=list(range(len(text))),
        mode="sample",
        sampling=sampling,
        negative={"text": negative},
    )
    return model.normalise(latents)


def measure(name: str, pairs: int, clock: str) -> dict[str, Any]:
    """The line of one row."""
    width, tokens = (int(part) for part in name.split("x"))
    size = GRIDS[tokens]
    ours, rival = models(
        {
            "num_attention_heads": width // 48, "attention_head_dim": 48, "num_layers": 6, "text_embed_dim": TEXT_WIDTH,
            "adaln_lora_dim": 256, "max_size": (16, 64, 64),
        }
    )  # fmt: skip
    generator = torch.Generator().manual_seed(1)
    text, negative = torch.randn(2, 1, TEXT_TOKENS, TEXT_WIDTH, generator=generator)
    noise = seeded_noise((16, *size), [0], device=torch.device("cpu"), dtype=torch.float32)

    def mine(sampler: str = "res_2ab", steps: int = 36) -> Tensor:
        return our_sampling(ours, size, text, negative, sampler=sampler, steps=steps, fps=24)

    def theirs() -> Tensor:
        return rival_loop(rival, noise, text, negative, steps=36, fps=24)

    wanted = theirs()
    difference = float((mine("euler", 36) - wanted).abs().max() / wanted.abs().max())
    timer = time.process_time if clock == "cpu" else time.perf_counter
    result = paired(mine, theirs, pairs=pairs, seconds=0.0, clock=timer)
    return {"difference": difference, **result.as_dict()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="*", default=ROWS)
    parser.add_argument("--pairs", type=int, default=9)
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall")
    arguments = parser.parse_args()
    torch.set_num_threads(THREADS)
    patch_peer()
    for name in arguments.rows:
        print_line(
            benchmark="sampling", row=name, clock=arguments.clock, **measure(name, arguments.pairs, arguments.clock)
        )


if __name__ == "__main__":
    main()
