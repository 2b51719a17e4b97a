"""One diffusion model of two sizes, as small as it can be: first small pictures alone, then both blended at exact rates.

    wfm run world_model --profile progressive        # a few minutes on two cores

For data and sizes of your own copy the three settings below `smoke`'s; what they mean: docs/training.md.
"""

from typing import Any

from wfm.recipes import smoke

DATA: dict[str, Any] = {
    "lanes": {
        "small": {"rate": 1, "sources": {"latents_small": 1}},
        "full": {"rate": 3, "sources": {"latents_full": 1}},
    },
    "phases": [{"steps": 8, "lanes": {"small": {"sources": {"latents_small": 1}}}}, {}],
}
"""Of 24 steps the first 8 are of small pictures; of the others every fourth."""


def settings() -> dict[str, dict[str, Any]]:
    """Values by node name."""
    values = {
        name: own for name, own in smoke.settings().items() if "autoregressive" not in name and "discrete" not in name
    }
    diffusion, full = values["train_diffusion"], values["encode_latents_continuous"]
    return {
        **values,
        "promotion": {**values["promotion"], "model": "progressive-{family}"},
        "encode_latents_small": {**full, "size": (32, 32)},
        "train_diffusion": {**diffusion, "training": {**diffusion["training"], "data": DATA}},
    }
