"""Objects of Kubernetes in files: YAML or JSON that others wrote."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from wfm.errors import DataError, InputError, MissingPackage

_MOST_BYTES = 4 * 2**20
"""Of a file: an object of a cluster has 1.5 MB at most, and a file may hold some."""
_MOST_OBJECTS = 2000
_MOST_DEPTH = 100
_FILES = (".yaml", ".yml", ".json")
_KUSTOMIZATION = ("kustomization.yaml", "kustomization.yml", "Kustomization")
_KEPT = {"apiVersion", "kind", "metadata", "resources", "components"}
"""Of a kustomization, what changes no object."""


def objects_under(paths: Sequence[Path]) -> list[Any]:
    """What files and folders hold. A folder with a kustomization is what that names. Raises InputError where one changes what
    it names: only kustomize says what comes of it."""
    return [each for path in paths for file in _files(path) for each in objects_of(file)]


def _files(path: Path, above: tuple[Path, ...] = ()) -> Iterator[Path]:
    """Of a file or a folder; `above`: the kustomizations that name it."""
    if not path.is_dir():
        yield path
        return
    if path.resolve() in above:
        raise InputError(f"{str(path)!r}: kustomizations name each other in a circle")
    found = next((path / name for name in _KUSTOMIZATION if (path / name).is_file()), None)
    if found is None:
        yield from sorted(file for file in path.rglob("*") if file.suffix in _FILES and file.is_file())
        return
    for told in objects_of(found):
        if not isinstance(told, dict):
            raise InputError(
                f"{str(found)!r} is no kustomization: {told!r:.80} stands where fields are, such as resources"
            )
        others = sorted(name for name in set(told) - _KEPT if told[name])
        if others:
            raise InputError(
                f"{str(found)!r} changes what it names ({', '.join(map(str, others))}): render it, kubectl kustomize {path} > "
                "all.yaml, and give that file"
            )
        for field in ("resources", "components"):
            names = told.get(field) or []
            if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
                raise InputError(f"{str(found)!r}: {field} = {names!r:.80}: give a list of files and folders")
            for name in names:
                yield from _files(path / name, (*above, path.resolve()))


def objects_of(file: Path) -> list[Any]:
    """What a file holds. Raises InputError where it cannot be read, DataError where it is no YAML or too much of it."""
    try:
        with file.open("rb") as opened:
            data = opened.read(_MOST_BYTES + 1)
    except OSError as error:
        raise InputError(f"{str(file)!r} cannot be read: {error.strerror}") from None
    if len(data) > _MOST_BYTES:
        raise DataError(f"{str(file)!r} has more than {_MOST_BYTES} bytes: split it")
    found = _parsed(data, str(file))
    if len(found) > _MOST_OBJECTS:
        raise DataError(f"{str(file)!r} holds {len(found)} objects: at most {_MOST_OBJECTS} are looked at together")
    return found


def _parsed(data: bytes, file: str) -> list[Any]:
    try:
        import yaml
    except ImportError:
        raise MissingPackage("pyyaml", extra="k8s", purpose="reading objects of Kubernetes") from None

    class Loader(yaml.SafeLoader):  # type: ignore[misc]
        """YAML as Kubernetes reads it: a date is text."""

        yaml_implicit_resolvers = {
            first: [(tag, pattern) for tag, pattern in several if not tag.endswith(":timestamp")]
            for first, several in yaml.SafeLoader.yaml_implicit_resolvers.items()
        }

    try:
        _refuse_bombs(data, file)
        return [each for each in yaml.load_all(data, Loader) if each is not None]
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: a number that cannot be
        raise DataError(f"{file!r} is no YAML: {' '.join(str(error).split())[:300]}") from None


def _refuse_bombs(data: bytes, file: str) -> None:
    """Raises DataError for aliases, by which a few lines become millions of values, and for what is nested too deep."""
    import yaml

    depth = 0
    for event in yaml.parse(data, Loader=yaml.SafeLoader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if isinstance(event, yaml.AliasEvent):
            raise DataError(f"{file!r} has an alias (*{event.anchor}): write out what it stands for")
        if depth > _MOST_DEPTH:
            raise DataError(f"{file!r} is nested more than {_MOST_DEPTH} levels deep")
