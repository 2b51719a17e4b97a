"""Open a model folder that lies in an artifact."""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wfm.errors import ConfigError
from wfm.models.folder import ModelCard, load_model

if TYPE_CHECKING:
    from wfm.artifacts import Artifact


def open_model(artifact: "Artifact", family: str, folder: str = "model") -> tuple[Any, ModelCard]:
    """The network in the artifact's `folder/` and its card; every byte is verified on the way. Raises ConfigError for a model
    of another family than the config names: its code is not in the key."""
    with tempfile.TemporaryDirectory(prefix="wfm-model-") as scratch:
        artifact.fetch_tree(f"{folder}/", Path(scratch))
        network, card = load_model(Path(scratch) / folder)
    if card.family != family:
        raise ConfigError(
            f"{artifact.kind} {artifact.key[:12]} is of family {card.family}, the config names {family}: set tokenizer_family"
        )
    return network, card
