"""Make the base and the three images that the checks run, for a CPU, from packages that this machine's pip and apt can reach.

pip's own settings (mirrors, folders, certificates) stay outside: it fills a folder of wheels here, and the build, which mounts
that folder, looks nowhere else. Fails when anything does; says what came out.
"""

import json
import os
import runpy
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
IMAGES = ROOT / "images"
WHEELS = ROOT / "build" / "wheels"
BASE = "localhost/wfm-base:bookworm"
TOOLS = ("pip>=24", "setuptools>=77", "wheel", "cyclonedx-bom", "debsbom")
PLACE = "/mnt"
"""Where the folder is mounted: one that every Debian has."""
ROLES = ("curation", "training", "control")
GIVEN = ("--isolation=chroot", "--volume", f"{WHEELS}:{PLACE}:ro")


def builder_environment() -> dict[str, str]:
    """By which the pip of the build looks into the folder alone."""
    return {**os.environ, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": PLACE, "PYTHONPATH": str(ROOT)}


def fill_wheels() -> None:
    """Every package of every role, as a wheel."""
    install = runpy.run_path(str(IMAGES / "install.py"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    roles = tomllib.loads((IMAGES / "roles.toml").read_text())
    wanted = install["shared"](project, roles)
    for role in roles.values():
        wanted += install["requirements"](project, [*role["extras"], *role["more"]])
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--wheel-dir", str(WHEELS)]
    subprocess.run([*pip, "--constraint", str(ROOT / "constraints.txt"), *TOOLS, *dict.fromkeys(wanted)], check=True)


def build(role: str, root: Path = ROOT, tag: str = "") -> None:
    """The image of a role."""
    subprocess.run(
        [
            sys.executable, str(root / "images" / "build.py"), role, "--tag", tag or f"localhost/wfm-{role}", "--base", BASE,
            "--", "--quiet", *GIVEN,
        ],
        env=builder_environment() | {"PYTHONPATH": str(root)}, check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip


def layers(name: str) -> list[tuple[str, str, str]]:
    """(id, size, what made it) of the layers of an image that hold anything, from the base up."""
    history = json.loads(
        subprocess.run(["podman", "history", "--format", "json", name], capture_output=True, check=True).stdout
    )
    made = [one for one in history[::-1] if one["size"]]
    ids = json.loads(subprocess.run(["podman", "inspect", name], capture_output=True, check=True).stdout)
    return [
        (identifier, f"{one['size'] / 1e6:.2f} MB", " ".join(one["CreatedBy"].split("/bin/sh -c")[-1].split())[:70])
        for identifier, one in zip(ids[0]["RootFS"]["Layers"], made, strict=True)
    ]


def main() -> None:
    """All of it."""
    if os.getuid() != 0:
        sys.exit("building and running these images needs root: sudo make containers")
    fill_wheels()
    if subprocess.run(["podman", "image", "exists", BASE]).returncode:
        subprocess.run([str(IMAGES / "debian_base"), BASE], check=True)
    for role in ROLES:
        build(role)
        name = f"localhost/wfm-{role}"
        size = int(subprocess.run(["podman", "inspect", "--format", "{{.Size}}", name], capture_output=True).stdout)
        print(f"{name}: {size / 1e6:.0f} MB")
        for identifier, weight, what in layers(name):
            print(f"  {identifier[7:19]} {weight:>10}  {what}")


if __name__ == "__main__":
    main()
