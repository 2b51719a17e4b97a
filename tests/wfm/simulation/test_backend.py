import subprocess
import sys

RUN = """
import os, sys
os.environ["MUJOCO_GL"] = {backend!r}
from wfm.errors import WfmError
from wfm.simulation.backend import load_mujoco
try:
    load_mujoco()
except WfmError as error:
    print(type(error).__name__, error.exit_code, error)
"""


def run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False).stdout


def test_no_opengl_is_wrong_input_with_advice() -> None:
    said = run(RUN.format(backend="disabled"))
    assert said.startswith("InputError 78")
    assert "libosmesa6" in said


def test_no_mujoco_names_the_extra() -> None:
    said = run("import sys; sys.modules['mujoco'] = None\n" + RUN.format(backend="osmesa"))
    assert said.startswith("MissingPackage 78")
    assert "wfm[curate]" in said
