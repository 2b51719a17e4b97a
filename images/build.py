"""Build the image of a role: ``python images/build.py ROLE --tag NAME [--base IMAGE] [-- further arguments of the builder]``.

Calls ``buildah bud`` (or ``podman build``, ``docker build``: ``--builder``) on images/Containerfile with the arguments that
roles.toml and the code give. Run it by the Python in which wfm is installed: it takes the digest of the code, which the image
carries and the build checks.
"""

import argparse
import hashlib
import json
import os
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pipelines.lock import digest

ROOT = Path(__file__).resolve().parents[1]
PIP = ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS", "PIP_NO_INDEX")
"""Passed on from the environment to the pip of the build."""

SOURCES_ALONE = "flash-attn"
"""What PyPI has no wheel of: compiled in the build."""


def command(asked: argparse.Namespace, rest: Sequence[str], roles: dict[str, dict[str, list[str]]]) -> list[str]:
    """The builder's command line. Raises SystemExit with the choices for an unknown role or extra, and for passwords."""
    if asked.role not in roles:
        raise SystemExit(f"unknown role {asked.role!r}. Choices: {', '.join(roles)}")
    role, more = roles[asked.role], [name for name in asked.more.split(",") if name]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    if unknown := [name for name in more if name not in extras]:
        raise SystemExit(f"unknown extra {', '.join(unknown)}. Choices: {', '.join(extras)}")
    _refuse_passwords()
    lines = [line for name in more for line in extras[name]]
    given = {
        "BASE_IMAGE": asked.base,
        "BUILD_IMAGE": asked.build_base or asked.base,
        "ROLE": asked.role,
        "EXTRAS": ",".join(role["extras"]),
        "MORE_EXTRAS": ",".join([*role["more"], *more]),
        "COMPILED": " ".join(line.partition(";")[0] for line in lines if line.startswith(SOURCES_ALONE)),
        "DEBIAN": " ".join(role["debian"]),
        "CODE": digest(),
        "PACKAGES": _packages(roles, project),
        "REVISION": asked.revision,
        "SOURCE": asked.source,
        **{name: os.environ[name] for name in PIP if os.environ.get(name)},
    }
    arguments = [word for name, value in given.items() for word in ("--build-arg", f"{name}={value}")]
    return [
        *shlex.split(asked.builder), *arguments, "--file", str(ROOT / "images" / "Containerfile"), "--tag", asked.tag,
        *rest, str(ROOT),
    ]  # fmt: skip


def _refuse_passwords() -> None:
    """Raises SystemExit for a build argument with a password: whoever has the image reads it in the image's history."""
    for name in PIP:
        if any(urlsplit(word).password or urlsplit(word).username for word in os.environ.get(name, "").split()):
            raise SystemExit(
                f"{name} holds a user or a password, which would stand in the history of the image: leave it out of the "
                "address, and let the build read a .netrc: -- --volume $HOME/.netrc:/root/.netrc:ro"
            )


def _packages(roles: dict[str, dict[str, list[str]]], project: dict[str, Any]) -> str:
    """Digest of what says which packages lie below `more`: a builder's cache does not look into what a layer only mounts."""
    extras = {extra for role in roles.values() for extra in (*role["extras"], "s3", "gcs")}
    asked = [project["dependencies"], {extra: project["optional-dependencies"][extra] for extra in sorted(extras)}]
    asked.append({name: role["extras"] for name, role in roles.items()})
    files = [(ROOT / name).read_text() for name in ("constraints.txt", "images/build-tools.txt", "images/install.py")]
    return hashlib.sha256(json.dumps([asked, files]).encode()).hexdigest()


def main() -> None:
    """Build it; exits as the builder does."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("role")
    parser.add_argument("--tag", required=True)
    parser.add_argument("--base", default="debian:bookworm-slim", help="Debian's or CUDA's image")
    parser.add_argument("--build-base", default="", help="the image that compiles, if another: CUDA's devel image")
    parser.add_argument("--more", default="", help="further extras of pyproject.toml: gpu, curate-models, text, …")
    parser.add_argument(
        "--revision", default="", help="label org.opencontainers.image.revision (default: the code's digest)"
    )
    parser.add_argument("--source", default="", help="label org.opencontainers.image.source: where the repository lies")
    # docker's format: that of OCI has no health check
    parser.add_argument("--builder", default="buildah bud --layers --format docker")
    words = [*sys.argv[1:], "--"]
    own, rest = words[: words.index("--")], words[words.index("--") + 1 : -1]
    roles = tomllib.loads((ROOT / "images" / "roles.toml").read_text())
    sys.exit(subprocess.run(command(parser.parse_args(own), rest, roles)).returncode)


if __name__ == "__main__":
    main()
