"""The main job as small as it can be: every stage runs on real input, nothing worth showing is learned.

wfm run world_model --profile smoke        # at most 3 minutes on two cores
"""

from typing import Any

from wfm.recipes.demo import TARGETS


def settings() -> dict[str, dict[str, Any]]:
    """Values by node name."""
    tokenizer = {
        "training": {"steps": 24, "batch_size": 4, "learning_rate": 1e-3, "warmup_steps": 4, "validate_every": 12},
        "num_frames": 33,
        "stride_frames": 32,
        "max_windows": 48,
        "start_windows": 32,
        "validation_windows": 4,
    }
    small = {
        "patch_size": 8, "channels": (32, 32), "encoder_blocks": 0, "decoder_blocks": 1, "mid_blocks": 0,
        "mid_attention": False, "end_kernel": 1, "z_channels": 32, "linear_code": True,
    }  # fmt: skip
    training = {"steps": 24, "batch_size": 8, "learning_rate": 2e-3, "warmup_steps": 4, "validate_every": 12}
    windows = {"max_windows": 8, "examples": 2}
    return {
        "promotion": {"dataset": "curated-smoke", "model": "smoke-{family}"},  # not in the place of what was learned
        "simulate_videos": {
            "sessions": 6,
            "views": 2,
            "shots_per_video": 2,
            "seconds_per_shot": (1.8, 2.4),
            "constant_rate_share": 0.7,
            "static_camera_share": 0.15,
        },
        "train_tokenizer_continuous": {"model": {**small, "latent_channels": 8}, **tokenizer},
        "train_tokenizer_discrete": {"model": {**small, "latent_channels": 6, "levels": (8, 8, 8, 5, 5, 5)}, **tokenizer},
        "encode_latents_continuous": {"stride_frames": 8, "extrapolate_from": 9},
        "encode_latents_discrete": {"stride_frames": 8, "extrapolate_from": 9},
        "train_diffusion": {
            "family": "diffusion",
            "diffusion": {
                "network": {
                    "num_attention_heads": 2, "attention_head_dim": 24, "num_layers": 2, "adaln_lora_dim": 16,
                    "condition_mask": True, "max_size": (16, 64, 64), "rope_scale": (1.0, 1.0, 1.0), "zero_output": True,
                },
                "repeat_last": True, "extrapolate": True, "linear_prior": True,
            },
            "training": training,
            "validation_windows": 4,
        },
        "train_autoregressive": {
            "family": "autoregressive",
            "autoregressive": {
                "dim": 48, "layers": 2, "heads": 2, "kv_heads": 1, "head_dim": 24, "ffn_dim": 96, "rope_theta": 100.0,
                "order": "frame", "vocabulary": "digits", "patch": 2, "copy_bias": True, "action_hidden": 48,
                "extrapolate": True,
            },
            "training": training,
            "validation_windows": 4,
        },
        "train_decoder": {"training": training, "validation_windows": 4},
        "generate_diffusion": {**windows, "sampling": {"steps": 4, "batch_size": 8}},
        "generate_autoregressive": {**windows, "sampling": {"batch_size": 8}},
        "write_report": {"targets": TARGETS},
    }  # fmt: skip
