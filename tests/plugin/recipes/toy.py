"""The main job from a dataset of frames of 16x16 on: a family of another package, and one of ours with a condition of it."""

from typing import Any

SIZE = {"size": (16, 16), "num_frames": 13}
BRIGHTNESS: dict[str, Any] = {"brightness": {"frames": 5}}
FUTURES = {"past_frames": 5, "stride_frames": 12, "examples": 1}


def settings() -> dict[str, dict[str, Any]]:
    """Values by node name."""
    training = {"batch_size": 8, "warmup_steps": 2, "validate_every": 0, "learning_rate": 5e-3}
    tokenizer = {
        "temporal_compression": 4, "spatial_compression": 4, "latent_channels": 8, "channels": (8, 8), "decoder_blocks": 1,
        "mid_blocks": 0, "mid_attention": False, "linear_code": True,
    }  # fmt: skip
    network = {"num_attention_heads": 2, "attention_head_dim": 12, "num_layers": 1, "adaln_lora_dim": 4}
    return {
        "encode_signals": {"conditions": BRIGHTNESS, "size": (16, 16)},
        "train_tokenizer_continuous": {
            "model": tokenizer, "training": {**training, "steps": 40}, "crop_frames": 9, **SIZE,
        },
        "encode_latents_continuous": {"stride_frames": 4, **SIZE},
        "train_toy_linear": {
            "conditions": {**BRIGHTNESS, "action": {}},
            "training": {**training, "steps": 300, "learning_rate": 2e-2},
        },
        "train_diffusion": {
            "conditions": BRIGHTNESS, "training": {**training, "steps": 4},
            "diffusion": {"network": network}, "edm": {"condition_latents": (2,)},
        },
        "generate_toy_linear": {**FUTURES, "sampling": {"steps": 4, "batch_size": 4}},
        "generate_diffusion": {**FUTURES, "sampling": {"steps": 2, "batch_size": 4}},
        "evaluate_toy_linear": {"resamples": 20, "examples": 1},
        "evaluate_diffusion": {"resamples": 20, "examples": 1},
    }  # fmt: skip
