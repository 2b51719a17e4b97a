"""Install one layer of an image's packages into /opt/venv, as the build does: ``python install.py shared|EXTRA,EXTRA``.

``shared`` is what all roles of roles.toml need alike, so that their images have one layer in common; of extras it is what that
leaves. Run by the Python that has pip, beside pyproject.toml, constraints.txt and roles.toml; needs nothing but Python 3.11.
"""

import subprocess
import sys
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

STORES = ("s3", "gcs")
"""Extras of every role: the stores that a stage may be sent to."""
UNBOUND = "gpu"
"""Extra that is resolved without the constraints, which were seen on CPU only."""
BESIDE = Path(__file__).resolve().parent


def shared(project: Mapping[str, Any], roles: Mapping[str, Any]) -> list[str]:
    """The requirements of all roles alike. `project`: that table of pyproject.toml; `roles`: what roles.toml says."""
    extras = project["optional-dependencies"]
    of_roles = [requirements(project, of["extras"]) for of in roles.values()]
    alike = [line for line in of_roles[0] if all(line in others for others in of_roles)]
    return list(dict.fromkeys([*project["dependencies"], *(line for name in STORES for line in extras[name]), *alike]))


def requirements(project: Mapping[str, Any], names: Iterable[str]) -> list[str]:
    """Those of extras, each once. Raises SystemExit with the choices for one that there is not."""
    extras = project["optional-dependencies"]
    unknown = [name for name in names if name not in extras]
    if unknown:
        raise SystemExit(f"unknown extra {', '.join(unknown)}. Choices: {', '.join(extras)}")
    return list(dict.fromkeys(line for name in names for line in extras[name]))


def main() -> None:
    """Call pip."""
    project = tomllib.loads((BESIDE / "pyproject.toml").read_text())["project"]
    common = shared(project, tomllib.loads((BESIDE / "roles.toml").read_text()))
    names = [name for name in sys.argv[1].split(",") if name]
    wanted = common if names == ["shared"] else [one for one in requirements(project, names) if one not in common]
    bound = [] if UNBOUND in names else ["-c", str(BESIDE / "constraints.txt")]
    pip = [sys.executable, "-m", "pip", "--python", "/opt/venv/bin/python", "install", "--quiet", *bound]
    if wanted:
        subprocess.run([*pip, "--find-links", str(BESIDE / "compiled"), *wanted], check=True)


if __name__ == "__main__":
    main()
