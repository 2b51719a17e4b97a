"""What a pipeline's results are called, and what they must show to be called so: a recipe's section ``promotion``.

    "promotion": {"dataset": "curated-smoke", "model": "smoke-{family}"}          # dataset/curated-smoke, model/smoke-diffusion
    "promotion": {"gate": {"floors": [{"figure": "gain", "at_least": 0.0}], "not_worse": [{"slack": 0.5}]}}

``--name trial`` calls all of it otherwise for one run (``dataset/trial``, ``model/trial-diffusion``), ``--no-promote`` gives no
name at all, ``--set promotion.gate=null`` takes the gate away. No key knows of any of it.
"""

from typing import Self

import pydantic

from wfm.artifacts.address import check_name
from wfm.config import Config
from wfm.errors import InputError
from wfm.evaluation.gate import Gate

PROMOTION = "promotion"
"""The section of a recipe, and the first word of a setting, that is of no node."""
_FAMILY, _DATASET = "{family}", "{dataset}"


class Promotion(Config):
    """Names of what is made, without their kinds."""

    dataset: str = "curated"
    model: str = _FAMILY
    "``{family}`` stands for the family: each has a name of its own."
    decoder: str = _DATASET
    "``{dataset}`` stands for the dataset's name."
    gate: Gate | None = None
    "What a model's evaluation must show; one that fails it becomes ``@candidate`` in place of ``@latest``. None: nothing."

    @pydantic.model_validator(mode="after")
    def _are_names(self) -> Self:
        if _FAMILY not in self.model:
            raise ValueError(f"model = {self.model!r}: put {_FAMILY} where the family goes, or two models get one name")
        try:
            self.of_dataset(), self.of_model("family"), self.of_decoder()
        except InputError as error:
            raise ValueError(str(error)) from None
        return self

    def called(self, name: str = "", dataset: str = "") -> "Promotion":
        """The same under other names: ``name`` for all, ``dataset`` for the dataset. Raises InputError for none."""
        changes: dict[str, str] = {}
        if name:
            changes |= {"dataset": check_name(name, "--name"), "model": f"{name}-{_FAMILY}", "decoder": name}
        if dataset:
            changes["dataset"] = check_name(dataset, "--dataset: the name of a new dataset")
        return self.model_copy(update=changes)

    def of_dataset(self) -> str:
        """``dataset/NAME``."""
        return f"dataset/{check_name(self.dataset, 'promotion.dataset')}"

    def of_model(self, family: str) -> str:
        """``model/NAME`` of a family's model."""
        return f"model/{check_name(self.model.replace(_FAMILY, family), 'promotion.model')}"

    def of_decoder(self) -> str:
        """``decoder/NAME``."""
        return f"decoder/{check_name(self.decoder.replace(_DATASET, self.dataset), 'promotion.decoder')}"
