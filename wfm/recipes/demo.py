"""The main job on a laptop: 64x64 video, 9 frames given, 24 predicted, on two cores in minutes.

    wfm run world_model --profile demo

Budgets are in steps; LOG.md has the experiments that set them.
"""

from typing import Any


def _target(variant: str, figure: str, at_least: float, end: str = "low", family: str = "diffusion") -> dict[str, Any]:
    return {"family": family, "variant": variant, "figure": figure, "at_least": at_least, "end": end}


TARGETS = (
    _target("sampled", "gain", 3.0),
    _target("mean", "gain", 4.0),
    _target("sampled", "share_of_windows", 0.9, "mean"),
    _target("sampled", "way_closed", 0.35, "mean"),
    _target("mean", "way_closed", 0.45, "mean"),
    _target("sampled", "gain_over_flow", 0.0),
    _target("sampled", "action_gain", 0.0),
    _target("greedy", "gain", 0.5, family="autoregressive"),
    _target("greedy", "action_gain", 0.0, family="autoregressive"),
)
"""What the demo is to reach on held-out windows; beating optical flow is a wish, shown like the others."""


GATE = {"floors": ({"figure": "gain", "at_least": 0.0},), "not_worse": ({"metric": "psnr_db", "slack": 0.5},)}
"""What a model must show to be called latest: nearer to the truth than the last frame held still, and no worse than what is
called so now [dB]."""


def settings() -> dict[str, dict[str, Any]]:
    """Values by node name."""
    # one level at the latents' resolution beside the linear code
    tokenizer = {
        "patch_size": 8, "channels": (192, 192), "encoder_blocks": 1, "decoder_blocks": 3, "mid_blocks": 0,
        "mid_attention": False, "end_kernel": 1, "z_channels": 64, "linear_code": True,
    }  # fmt: skip
    windows = {"max_windows": 160, "stride_frames": 16}
    return {
        "promotion": {"gate": GATE},
        "simulate_videos": {
            "sessions": 40, "views": 2, "shots_per_video": 4, "seconds_per_shot": (2.4, 4.0), "fps": 30,
        },
        "select_clips": {"split": {"train": 0.7, "val": 0.1, "test": 0.2}},
        "train_tokenizer_continuous": {
            "model": {**tokenizer, "latent_channels": 16},
            "training": {"steps": 220, "batch_size": 8, "learning_rate": 1e-3},
        },
        "train_tokenizer_discrete": {
            "model": {**tokenizer, "latent_channels": 10, "levels": (8, 8, 8, 8, 5, 5, 5, 5, 5, 5)},
            "training": {"steps": 200, "batch_size": 8, "learning_rate": 1e-3},
        },
        "encode_latents_continuous": {"stride_frames": 10, "extrapolate_from": 9},
        "encode_latents_discrete": {"stride_frames": 10, "extrapolate_from": 9},
        "train_diffusion": {
            "family": "diffusion",
            "diffusion": {
                "network": {
                    "num_attention_heads": 4, "attention_head_dim": 48, "num_layers": 6, "adaln_lora_dim": 64,
                    "condition_mask": True, "max_size": (16, 64, 64), "rope_scale": (1.0, 1.0, 1.0), "zero_output": True,
                },
                "repeat_last": True, "extrapolate": True, "linear_prior": True,
            },
            "edm": {"pixel_share": 1.0, "pure_noise_probability": 0.5},
            "flow": {"pixel_share": 1.0, "pure_noise_probability": 0.5},
            "training": {"steps": 450, "optimizer": "muon"},
        },
        "train_autoregressive": {
            "family": "autoregressive",
            "autoregressive": {
                "dim": 192, "layers": 6, "heads": 4, "kv_heads": 2, "head_dim": 48, "ffn_dim": 512, "rope_theta": 100.0,
                "order": "frame", "vocabulary": "digits", "patch": 2, "copy_bias": True, "action_hidden": 192,
                "extrapolate": True,
            },
            "cross_entropy": {"input_noise": 0.1, "ordinal_smoothing": 0.6},
            "training": {"steps": 200, "batch_size": 32, "optimizer": "muon"},
        },
        "train_decoder": {"training": {"steps": 300, "optimizer": "muon"}},
        "generate_diffusion": {**windows, "sampling": {"sampler": "euler", "steps": 4, "batch_size": 32}},
        "generate_autoregressive": {**windows, "sampling": {"batch_size": 32}},
        "write_report": {"targets": TARGETS},
    }  # fmt: skip
