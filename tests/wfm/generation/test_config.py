import subprocess
import sys

import pydantic
import pytest

from wfm.families.autoregressive.card import DecodingConfig
from wfm.generation.sampler_config import SamplerConfig


def test_configs_and_components_are_torch_free() -> None:
    """Keys are computed from these in a process that must stay light."""
    code = (
        "import sys, components.generate_videos, components.publish_model, wfm.models.autoregressive.config; "
        "heavy = {'torch', 'av', 'dask', 'mujoco'} & set(sys.modules); sys.exit(f'loaded {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "bad",
    [
        {"steps": 0},
        {"temperature": 0.0},
        {"top_p": 1.5},
        {"sampler": "magic"},
        {"batch_size": 0},
        {"shift": 0.0},
        {"guidance": {"scale": -1}},
        {"guidance": {"convention": "imagen"}},
        {"augment_sigma": -0.1},
        {"sigma_min": 80.0},
    ],
)
def test_impossible_values_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(pydantic.ValidationError, match=next(iter(bad))):
        (SamplerConfig if next(iter(bad)) in SamplerConfig.model_fields else DecodingConfig)(**bad)  # type: ignore[arg-type]
