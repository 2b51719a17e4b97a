"""Files from outside the store that training reads, by what is in them. Torch-free: keys are made of it."""

from pathlib import Path

from wfm.artifacts.verified import hash_file
from wfm.errors import ConfigError
from wfm.training.config import ContinuedConfig, TrainedConfig


def external_files(config: TrainedConfig) -> dict[str, dict[str, str]] | None:
    """sha256 of every file read, by field and file name; None when there is none.

    Paths stay out, so that a file may move. Raises ConfigError, before anything runs, for a field without its file.
    """
    found: dict[str, dict[str, str]] = {}
    if config.training.mixture:
        path = Path(config.training.mixture)
        if not path.is_file():
            raise ConfigError(
                f"training.mixture = {config.training.mixture!r} is not a file: `wfm taxonomy FILE --out FOLDER` writes one"
            )
        found["training.mixture"] = {"table": hash_file(path)[1]}
    if isinstance(config, ContinuedConfig) and config.initial:
        folder = Path(config.initial)
        names = sorted(path for path in folder.glob("*") if path.suffix in (".json", ".safetensors"))
        if not any(path.name == "config.json" for path in names):
            raise ConfigError(f"initial = {config.initial!r} is not a model folder: there is no config.json in it")
        found["initial"] = {path.name: hash_file(path)[1] for path in names}
    for field, (name, advice) in config.own_files().items():
        if not Path(name).is_file():
            raise ConfigError(advice)
        found[field] = {"weights": hash_file(Path(name))[1]}
    return found or None
