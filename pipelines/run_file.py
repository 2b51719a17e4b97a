"""A run file: what is asked of a pipeline, in TOML, instead of a chain of ``--set``.

    pipeline = "world_model"
    profile = "demo"
    videos = "clips"                 # a path is meant from the folder of this file, ~/clips from your home
    name = "pendulum"

    [set.train_diffusion]
    training.steps = 300

It may come from others: it is data, of which nothing is run and nothing is looked up. Names that do not exist are errors,
values keep their types, and an address with a password is refused, because a run writes down what was asked of it. In
``[set]`` a text that begins with ``./`` or ``../`` is a path from the folder of the file, any other is taken as it stands.
"""

import json
import math
import os
import re
import stat
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pydantic

from wfm.config import Config, parse_assignment
from wfm.credentials import carries_credentials
from wfm.errors import ConfigError, InputError

if TYPE_CHECKING:
    from pipelines.request import Request

ENDING = ".toml"
_MOST_BYTES = 2**20
_LONG_NAME = re.compile(r"""(?<![\w-])(?:(?:[\w-]+|"[^"\n]*"|'[^'\n]*')[ \t]*\.[ \t]*){64}""")
"""A dotted name of so many parts means no option, and reading it would take memory by the square of them."""
_Stage = dict[str, Any]


class RunFile(Config):
    """The keys of a run file."""

    pipeline: str
    profile: str = "demo"
    videos: str = ""
    "Folder, archive, file, glob, list or URL."
    dataset: str = ""
    engine: str = ""
    name: str = ""
    promote: bool = pydantic.Field(True, strict=True)
    team: str = ""
    set: dict[str, _Stage] = {}
    "Stage -> fields."
    overrides: tuple[str, ...] = ()
    "As ``--set`` has them, after `set`: for what TOML cannot say (null)."

    def assignments(self) -> tuple[str, ...]:
        """All of both, as ``--set`` has them."""
        made = [
            f"{path}={json.dumps(value)}" for stage, fields in self.set.items() for path, value in _flat(fields, stage)
        ]
        return (*made, *self.overrides)


def read_run_file(path: Path) -> RunFile:
    """Read one. Raises InputError where it cannot be read, ConfigError naming the key that is wrong and the choices."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # looked at before it is opened: a pipe would be waited for
            raise InputError(f"the run file {str(path)!r} is no plain file")
        with path.open("rb") as opened:
            data = opened.read(_MOST_BYTES + 1)
    except OSError as error:
        raise InputError(f"the run file {str(path)!r} cannot be read: {error.strerror}") from None
    if len(data) > _MOST_BYTES:
        raise InputError(f"the run file {str(path)!r} has more than {_MOST_BYTES} bytes")
    try:
        text = data.decode()
        if _LONG_NAME.search(text):
            raise InputError(f"the run file {str(path)!r}: a name has more than 64 parts with a dot between")
        values = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # also what is no UTF-8
        raise InputError(f"the run file {str(path)!r} is no TOML: {error}") from None
    try:
        asked = RunFile.parse(values)
        folder = path.absolute().parent
        videos = asked.videos and _from(folder, asked.videos)
        tables = {stage: _placed(fields, folder, f"set.{stage}") for stage, fields in asked.set.items()}
        for key, text in (("videos", asked.videos), *(("overrides", each) for each in asked.overrides)):
            _without_password(key, text)
        for each in asked.overrides:
            parse_assignment(each)
    except ConfigError as error:
        raise ConfigError(f"the run file {str(path)!r}: {error}") from None
    return asked.model_copy(update={"videos": videos, "set": tables})


def _from(folder: Path, text: str) -> str:
    """A path as it is meant from the folder of the file, ``~/…`` from the home of whoever runs it; an address stays. Raises
    ConfigError for the home of a user that is not there."""
    if "://" in text:
        return text
    whole = os.path.expanduser(text)
    if whole.startswith("~"):
        raise ConfigError(
            f"key 'videos' = {text!r}: there is no such home here; ./{text} means a file of that name beside this one"
        )
    return str(folder / whole)


def _placed(value: Any, folder: Path, key: str) -> Any:
    """A value of ``[set]`` as an option can be: with its paths whole. Raises ConfigError for what an option cannot be."""
    if isinstance(value, dict):
        return {name: _placed(each, folder, f"{key}.{name}") for name, each in value.items()}
    if isinstance(value, list):
        return [_placed(each, folder, key) for each in value]
    if isinstance(value, str):
        _without_password(key, value)
        return str(folder / value) if value.startswith(("./", "../")) else value
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"key {key!r} = {value}: give a finite number")
    if not isinstance(value, bool | int | float):
        raise ConfigError(f"key {key!r} = {value}: no option is a date or a time; write it as text")
    return value


def _without_password(key: str, text: str) -> None:
    if carries_credentials(text):
        raise ConfigError(f"key {key!r}: the address has a password in it, and a run writes down what was asked of it")


def _flat(fields: Mapping[str, Any], head: str) -> Iterator[tuple[str, Any]]:
    """(dotted name, value) of each; a table inside is a section, an empty one a value."""
    for name, value in fields.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{head}.{name}")
        else:
            yield f"{head}.{name}", value


def run_file_of(request: "Request", engine: str = "", team: str = "") -> str:
    """What was asked of a run, as the text of a run file that asks for the same."""
    known = {"engine": engine, "team": team}
    lines = []
    for key, field in RunFile.model_fields.items():
        value = known.get(key, getattr(request, key, None))
        if isinstance(value, str | bool) and (value != field.default or key == "profile"):
            lines.append(f"{key} = {_toml(value)}")
    tables: dict[str, list[str]] = {}
    for text in request.overrides:
        (stage, *path), value = parse_assignment(text)
        name = ".".join(map(_key, path))
        tables.setdefault(stage, []).append(f"{name} = {_toml(value)}")
    sections = [f"\n[set.{_key(stage)}]\n" + "\n".join(fields) for stage, fields in tables.items()]
    if not _says(sections, request.overrides):
        listed = ",\n".join(f"    {_toml(each)}" for each in request.overrides)
        lines, sections = [*lines, f"overrides = [\n{listed},\n]"], []
    return "\n".join([*lines, *sections]) + "\n"


def _says(sections: list[str], overrides: tuple[str, ...]) -> bool:
    """Whether the tables ask for these overrides, in this order: one may stand above another that means the same field."""
    try:
        asked = RunFile.parse({"pipeline": "x", **tomllib.loads("\n".join(sections))}).assignments()
    except (ValueError, ConfigError):
        return False
    return [parse_assignment(text) for text in asked] == [parse_assignment(text) for text in overrides]


def _key(name: str) -> str:
    return name if name.replace("_", "").replace("-", "").isalnum() and name.isascii() else _toml(name)


def _toml(value: Any) -> str:
    """JSON says numbers, truths, texts and lists as TOML does; null and tables it does not, which `_says` finds."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
