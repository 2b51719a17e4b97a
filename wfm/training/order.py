"""Which order a run reads its samples in: batches of one shape, with the weights of a mixture where there is one."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wfm.data.mixture import Mixture, mixture_of, read_mixture
from wfm.data.order import BatchOrder, one_shape
from wfm.errors import ConfigError
from wfm.training.config import TrainingConfig

if TYPE_CHECKING:
    from wfm.artifacts import Artifact


def read_weights(config: TrainingConfig, categories: "Artifact | None" = None) -> Mixture | None:
    """The mixture of a run: of the artifact ``categories`` (`components.classify_clips`) or of the file
    ``config.mixture``; None where neither is given. Raises ConfigError for both."""
    if categories is None:
        return read_mixture(Path(config.mixture)) if config.mixture else None
    if config.mixture:
        raise ConfigError(
            f"training.mixture = {config.mixture!r}, and classify_clips made a mixture too: leave one of them out"
        )
    return mixture_of(categories.table("mixture"), f"categories {categories.key[:12]}")


def data_plan(sample_ids: Sequence[str], config: TrainingConfig, mixture: Mixture | None) -> BatchOrder:
    """The order. Raises DataError for samples that the mixture does not know (`Mixture.of_samples`)."""
    weights = None if mixture is None else mixture.of_samples(sample_ids)
    return one_shape(sample_ids, config.batch_size, config.seed, weights)


def mixture_note(sample_ids: Sequence[str], mixture: Mixture | None) -> dict[str, Any]:
    """What a run says of its mixture: its hash, and the share of each category in what is drawn. Empty without one."""
    if mixture is None:
        return {}
    shares = {name: round(share, 6) for name, share in mixture.shares(sample_ids).items()}
    return {"mixture": {"sha256": mixture.sha256, "shares": shares}}
