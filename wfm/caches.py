"""Where libraries keep what they make for themselves: compiled kernels, fonts, downloads. One stated place, when there must be.

With a home that can be written to, and no ``WFM_CACHE``, nothing is changed: each library has its own habit. In a pod the root
is read-only and the home belongs to nobody; then all of them, and the home itself, go below ``WFM_CACHE``, or below the
folder for temporary files. A variable that somebody has set is left alone.

Called before the libraries are loaded: most look once, at import.
"""

import contextlib
import os
import tempfile
from pathlib import Path

from wfm.errors import InputError

COMPILED = {
    "TORCHINDUCTOR_CACHE_DIR": "torchinductor",
    "TRITON_CACHE_DIR": "triton",
    "TORCH_EXTENSIONS_DIR": "torch_extensions",
    "NUMBA_CACHE_DIR": "numba",
    "CUDA_CACHE_PATH": "cuda",
    "CUPY_CACHE_DIR": "cupy",
    "MPLCONFIGDIR": "matplotlib",
}
"""Made again when lost: variable of the environment -> folder."""
_HOMES = {"XDG_CACHE_HOME": "xdg/cache", "XDG_CONFIG_HOME": "xdg/config", "XDG_DATA_HOME": "xdg/data"}
_BROUGHT = {"HF_HOME": ".cache/huggingface", "TORCH_HOME": ".cache/torch"}
"""Variable -> where it lies in the home: what an image brought along there is still read when the home cannot be written."""
_TEMPORARY = ("/tmp", "/var/tmp")


def prepare() -> None:
    """Give every library a place that can be written to. Raises InputError when there is none, or ``WFM_CACHE`` is none."""
    _name_user()
    home = os.environ.get("HOME", "")
    homeless = not can_be_written(Path(home)) if home else True
    if not (homeless or os.environ.get("WFM_CACHE")):
        return
    root = _root()
    os.environ["WFM_CACHE"] = str(root)
    wanted = dict(COMPILED)
    if homeless:
        wanted |= _HOMES
        for variable, place in _BROUGHT.items():
            brought = Path(home, place)
            os.environ.setdefault(variable, str(brought if home and brought.is_dir() else root / "libraries" / place))
        os.environ["HOME"] = str(_made(root / "home"))
    for variable, folder in wanted.items():
        os.environ.setdefault(variable, str(root / "libraries" / folder))
    if not any(map(can_be_written, _temporary())):
        os.environ["TMPDIR"] = str(_made(root / "tmp"))
        tempfile.tempdir = None  # looked for again


def _root() -> Path:
    named = os.environ.get("WFM_CACHE")
    if named:
        try:
            return _made(Path(named).absolute())
        except OSError as error:
            raise InputError(
                f"WFM_CACHE is {named!r}, which cannot be written to ({error.strerror}): name a folder on a disk of this "
                "machine or pod (an emptyDir) that this user may write"
            ) from None
    for folder in _temporary():
        with contextlib.suppress(OSError):
            return _made(folder / f"wfm-cache-{os.getuid()}", mode=0o700)
    tried = ", ".join([f"HOME={os.environ.get('HOME', '')!r}", *map(str, _temporary())])
    raise InputError(
        f"there is no place for caches that can be written to (tried: {tried}): set WFM_CACHE to a folder on a disk of this "
        "machine or pod (an emptyDir) that this user may write"
    )


def _made(folder: Path, mode: int = 0o777) -> Path:
    """The folder, made and tried. Raises OSError, also where the folder (with `mode` for one user) is somebody else's."""
    folder.mkdir(mode=mode, parents=True, exist_ok=True)
    about = folder.lstat()
    if mode == 0o700 and (folder.is_symlink() or about.st_uid != os.geteuid() or about.st_mode & 0o077):
        raise PermissionError(13, "belongs to somebody else", str(folder))
    with tempfile.TemporaryFile(dir=folder):
        return folder


def can_be_written(folder: Path) -> bool:
    """Whether the folder is there, and this user may make files in it."""
    return folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)


def _temporary() -> list[Path]:
    named = os.environ.get("TMPDIR")
    return [Path(place) for place in ((named,) if named else _TEMPORARY)]


def _name_user() -> None:
    """A pod may run under a number that no user has; libraries ask for the name (`getpass.getuser`) and would fail."""
    import pwd

    try:
        pwd.getpwuid(os.getuid())
    except KeyError:
        os.environ.setdefault("USER", f"user-{os.getuid()}")
