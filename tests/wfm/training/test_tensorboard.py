"""TensorBoard reads what a training wrote: the numbers of the curves, none twice after a resume."""

import sys

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.wfm.training.test_loop import configuration, run
from wfm.errors import Cancelled, ConfigError, MissingPackage
from wfm.training.loop import CLOCK
from wfm.training.metrics import read_curve


def test_tensorboard_reads_the_curves_of_a_run_that_was_stopped_and_went_on(tmp_path):
    config = configuration(tensorboard=str(tmp_path / "board"), log_every=3)
    watched = {"validate": lambda model: {"x": 2.5}}
    with pytest.raises(Cancelled):
        run(tmp_path / "scratch", config=config, stop_at=10, **watched)
    (folder,) = (tmp_path / "board").iterdir()
    assert folder.name.startswith("training-")
    run(tmp_path / "scratch", config=config, **watched)
    board = EventAccumulator(str(folder)).Reload()
    curve = [point for point in read_curve(tmp_path / "scratch/metrics.jsonl") if "loss" in point]
    for name in ("loss", "error", "gradient_norm", "learning_rate"):
        told = [(event.step, event.value) for event in board.Scalars(f"training/{name}")]
        assert told == [(point["step"], pytest.approx(point[name], rel=1e-6)) for point in curve], name
    assert [(event.step, event.value) for event in board.Scalars("validation/x")] == [(24, 2.5)]
    clock = read_curve(tmp_path / "scratch" / CLOCK)
    told = [event.value for event in board.Scalars("throughput/memory_bytes")]
    assert told == [pytest.approx(point["memory_bytes"], rel=1e-6) for point in clock]


def test_a_folder_that_cannot_be_written_and_a_package_that_is_not_there(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"training.tensorboard is '.*file', which cannot be written"):
        run(tmp_path / "scratch", config=configuration(tensorboard=str(tmp_path / "file")))
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(MissingPackage, match=r"pip install 'wfm\[tensorboard\]'"):
        run(tmp_path / "scratch", config=configuration(tensorboard=str(tmp_path / "board")))
    run(tmp_path / "scratch", config=configuration())  # without it nothing is loaded
