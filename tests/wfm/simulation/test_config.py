import subprocess
import sys

import pytest

from wfm.errors import ConfigError
from wfm.simulation.config import SimulationConfig


def test_workers_alone_stay_out_of_the_key() -> None:
    assert set(SimulationConfig().how()) == {"workers"}
    assert SimulationConfig(workers=7).what() == SimulationConfig(workers=1).what()
    assert SimulationConfig(size=96).what() != SimulationConfig().what()


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"seconds_per_shot": (5.0, 3.0)}, "seconds_per_shot"),
        ({"orbit_rate_range": (0.0, 3.0)}, "orbit_rate_range"),
        ({"static_camera_share": 0.7, "constant_rate_share": 0.7}, "static_camera_share"),
        ({"size": 63}, "size"),
        ({"sesions": 3}, "sessions"),
    ],
)
def test_wrong_values_are_refused_by_name(values: dict[str, object], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        SimulationConfig.parse(values)


def test_the_component_and_its_config_load_nothing_heavy() -> None:
    code = (
        "import sys, components.simulate_videos;"
        "heavy = {'mujoco', 'torch', 'av', 'dask', 'distributed', 'PIL'} & set(sys.modules);"
        "sys.exit(f'loaded {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
