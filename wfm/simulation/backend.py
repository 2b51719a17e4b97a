"""The one place that imports MuJoCo: it picks an off-screen OpenGL before the import, as MuJoCo demands."""

import ctypes.util
import os
from types import ModuleType

from wfm.errors import InputError, MissingPackage


def load_mujoco() -> ModuleType:
    """The mujoco module with an off-screen renderer; raises `MissingPackage` naming the extra.

    A MUJOCO_GL that is already set wins. Else OSMesa, which needs no display and no device, then EGL. One rasteriser thread
    a process: sessions run in parallel processes, and more threads only fight over the same cores.
    """
    os.environ.setdefault("LP_NUM_THREADS", "1")
    if "MUJOCO_GL" not in os.environ:
        os.environ["MUJOCO_GL"] = "osmesa" if ctypes.util.find_library("OSMesa") else "egl"
    if os.environ["MUJOCO_GL"] in ("osmesa", "egl"):
        os.environ.setdefault("PYOPENGL_PLATFORM", os.environ["MUJOCO_GL"])
    try:
        import mujoco
    except ModuleNotFoundError as error:
        if error.name != "mujoco":
            raise
        raise MissingPackage("mujoco", extra="curate", purpose="Simulated video") from None
    except (ImportError, AttributeError, OSError) as error:  # what MuJoCo and PyOpenGL raise without the library
        raise _no_opengl(error) from error
    if not hasattr(mujoco, "GLContext"):
        raise _no_opengl(f"mujoco offers no OpenGL context with MUJOCO_GL={os.environ['MUJOCO_GL']!r}")
    return mujoco


def _no_opengl(why: object) -> InputError:
    return InputError(
        f"no off-screen OpenGL for simulated video (MUJOCO_GL={os.environ['MUJOCO_GL']!r}: {why}): install libosmesa6 "
        "(or libegl1 and libegl-mesa0), such as with apt-get, or set MUJOCO_GL to osmesa or egl"
    )
