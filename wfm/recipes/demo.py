"""The main job on a laptop: 64x64 video, 9 frames given, 24 predicted, on two cores in minutes.

    wfm run world_model --profile demo

Budgets are in steps; LOG.md has the experiments that set them.
"""

from typing import Any

MIRROR_SIGNS = (-1.0, 1.0, 1.0, -1.0)
"""What a left-right mirror does to the actions: the orbit turns round, and with it the world's y axis."""


def settings() -> dict[str, dict[str, Any]]:
    """Values by node name."""
    generate = {"max_windows": 128, "stride_frames": 16, "sampling": {"sampler": "heun", "steps": 6, "sigma_max": 80.0}}
    return {
        "simulate_videos": {"sessions": 40, "views": 2, "shots_per_video": 4, "seconds_per_shot": (3.0, 5.0)},
        "train_tokenizer_continuous": {
            "model": {"latent_channels": 16},
            "training": {"steps": 300, "batch_size": 8, "learning_rate": 1e-3},
        },
        "train_tokenizer_discrete": {
            "model": {"latent_channels": 10, "levels": (8, 8, 8, 8, 5, 5, 5, 5, 5, 5)},
            "training": {"steps": 300, "batch_size": 8, "learning_rate": 1e-3},
        },
        "encode_latents_continuous": {"stride_frames": 8, "mirror": True, "mirror_signs": MIRROR_SIGNS},
        "encode_latents_discrete": {"stride_frames": 8, "mirror": True, "mirror_signs": MIRROR_SIGNS},
        "train_diffusion": {
            "family": "diffusion",
            "edm": {"pixel_share": 1.0},
            "training": {"steps": 600, "optimizer": "muon"},
        },
        "train_autoregressive": {
            "family": "autoregressive",
            "autoregressive": {
                "dim": 192, "layers": 6, "heads": 4, "kv_heads": 2, "head_dim": 48, "ffn_dim": 512, "rope_theta": 100.0,
                "order": "frame", "vocabulary": "digits", "patch": 2, "copy_bias": True, "action_hidden": 192,
            },
            "training": {"steps": 400, "optimizer": "muon"},
        },
        "generate_diffusion": generate,
        "generate_autoregressive": generate,
    }  # fmt: skip
