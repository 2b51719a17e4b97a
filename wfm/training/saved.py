"""Open a model folder that lies in an artifact."""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wfm.models.folder import ModelCard, load_model

if TYPE_CHECKING:
    from wfm.artifacts import Artifact


def open_model(artifact: "Artifact", folder: str = "model") -> tuple[Any, ModelCard]:
    """The network in the artifact's `folder/` and its card; every byte is verified on the way."""
    with tempfile.TemporaryDirectory(prefix="wfm-model-") as scratch:
        artifact.fetch_tree(f"{folder}/", Path(scratch))
        return load_model(Path(scratch) / folder)
