"""Which code this process runs, and in which image; refused where the plan saw another.

An image carries `image.json` beside the code: ``{"role", "code"}``, the latter a digest of the code of all stages
(`pipelines/lock.py`). By what reference it was started nothing in it can know: whoever starts it says so in ``WFM_IMAGE``
(name@sha256:…). The spec of a node says what the planner saw: ``code``, the node's code id, and ``image_reference``, that of
the cluster's settings. Launcher and stage compare both: no run is made of two codes, or images, in silence.

``python -m components.image`` is the health check of an image: says what it is, and exits 1 with what is wrong.
"""

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.derivation import ROOT
from wfm import caches
from wfm.errors import InputError

IMAGE, FILE = "WFM_IMAGE", "image.json"


@dataclass(frozen=True)
class Identity:
    """What is known of an image: the reference it was started by, its role, the digest of its code."""

    image: str
    role: str
    code: str

    def __str__(self) -> str:
        image = self.image or (f"a {self.role} image whose starter set no {IMAGE}" if self.role else "no image")
        return f"{image}, code {self.code[:12]}" if self.code else image


def identity(root: Path = ROOT) -> Identity:
    """Of this process. Raises InputError for an image.json that is none."""
    path = root / FILE
    try:
        said = json.loads(path.read_text()) if path.exists() else {"role": "", "code": ""}
        return Identity(os.environ.get(IMAGE, ""), str(said["role"]), str(said["code"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} does not say which image this is ({error!r}): build the image again") from None


def refuse_other(spec: Mapping[str, Any], code: str, who: str = "this stage", starts: str | None = None) -> None:
    """Raise InputError when `code` (the node's code id here) or the image (of this process, or what it `starts`) is another
    than the planner saw. What either of them does not know is not compared."""
    planned, image, here = spec.get("code") or code, str(spec.get("image_reference", "")), identity()
    other = here.image if starts is None else starts
    if planned != code:
        raise InputError(
            f"{spec['node']}: the plan was made with code {_short(planned)} (image: {image or 'none'}), {who} runs code "
            f"{_short(code)} (image: {here}). Start it from the image that was planned, or plan again with the code of this "
            "one (wfm run)"
        )
    if image and other and image != other:
        verb = "runs in" if starts is None else "would start"
        raise InputError(
            f"{spec['node']}: the plan names the image {image}, {who} {verb} {other}; the code is the same "
            f"({_short(code)}), what is installed may not be. Name the image that was planned, or plan again with this one"
        )


def _short(code: str) -> str:
    """A code id as people tell them apart: a stage's version as it is, of a hash its beginning."""
    return code[:12]


def faults(root: Path = ROOT) -> list[str]:
    """What is wrong with this container, in words: as its user, here, now."""
    wrong = [f"{root / FILE} is not there: this is no image of wfm"] * (not (root / FILE).exists())
    wrong += [f"the user {os.getuid()} can write the code in {root}: it must be root's"] * caches.can_be_written(root)
    wrong += ["it runs as root: start it as user 1000"] * (os.getuid() == 0)
    try:
        caches.prepare()
    except InputError as error:
        wrong.append(str(error))
    return wrong


if __name__ == "__main__":
    found = faults()
    print("\n".join(found) or identity())
    sys.exit(bool(found))
