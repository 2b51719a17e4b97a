"""How a causal transformer is trained: its config settled by the data, and its objective."""

from collections.abc import Sequence

from wfm.conditions.extrapolation import require_encoded
from wfm.errors import ConfigError
from wfm.families.autoregressive import cost
from wfm.families.autoregressive.card import AutoregressiveTrainingConfig
from wfm.families.autoregressive.decoding import require_context
from wfm.models.autoregressive.config import AutoregressiveConfig
from wfm.models.autoregressive.network import AutoregressiveTransformer
from wfm.models.autoregressive.objective import AutoregressiveObjective
from wfm.models.autoregressive.pack import PackLimits
from wfm.models.cost.work import Work
from wfm.models.family import Fitting
from wfm.models.video_tokenizer import TokenizerCard
from wfm.training.config import filled
from wfm.training.data_config import PhaseConfig, pack_bounds
from wfm.training.encoded import Encoded
from wfm.training.fit_world_model import known_of, shapes_of, text_length_of


class AutoregressiveFitting(Fitting):
    """Of an `AutoregressiveTransformer`."""

    takes_packs = True
    free_fields = frozenset({"medusa_heads"})
    new_tensors = ("medusa.",)

    def settle(
        self, config: AutoregressiveTrainingConfig, tokenizer: TokenizerCard, data: Encoded
    ) -> AutoregressiveConfig:
        """The transformer with everything that follows from the data filled in."""
        if config.autoregressive.extrapolate:
            require_encoded("autoregressive", data.extrapolate_from)
        known = {**known_of(tokenizer, data), "levels": list(tokenizer.levels)}
        known["text_embed_dim"] = data.text_width
        return AutoregressiveConfig.parse(filled(config.autoregressive, known, "autoregressive"))

    def objective(self, config: AutoregressiveTrainingConfig) -> AutoregressiveObjective:
        """Cross-entropy."""
        return AutoregressiveObjective(config.cross_entropy)

    def work(self, card: AutoregressiveConfig, shape: tuple[int, int, int], text_tokens: int) -> Work:
        """By its closed formulas."""
        return cost.work(card, shape, text_tokens)

    def require_shapes(
        self,
        model: AutoregressiveTransformer,
        config: AutoregressiveTrainingConfig,
        shapes: Sequence[tuple[int, int, int]],
    ) -> None:
        """Any that patches divide and the context holds; in frame order no images, of which nothing is left to predict."""
        phases = config.training.data.phases or (PhaseConfig(),)
        for frames, height, width in shapes:
            require_context(model, frames, (height, width))
            if frames == 1 and config.autoregressive.order == "frame" and any(one.min_frames < 2 for one in phases):
                raise ConfigError(
                    f"autoregressive.order is 'frame', and samples of {(frames, height, width)} are images, whose only frame "
                    "is predicted from nothing: leave them out (training.data.phases: min_frames=2), or set 'raster'"
                )

    def limit_packs(
        self,
        objective: AutoregressiveObjective,
        model: AutoregressiveTransformer,
        config: AutoregressiveTrainingConfig,
        data: Encoded,
    ) -> None:
        """With compiled blocks each pack is filled up to what any may hold, so that all are one graph."""
        if config.parallel.compile:
            objective.limits = pack_limits(model, config, data)


def pack_limits(model: AutoregressiveTransformer, config: AutoregressiveTrainingConfig, data: Encoded) -> PackLimits:
    """The most that a pack holds: positions and videos. Raises ConfigError for contexts other than the text, of
    whose length nothing is known."""
    others = [name for name in model.config.contexts if name != "text"]
    if others:
        raise ConfigError(
            f"parallel.compile with training.data.mode 'packs': nothing says how long {', '.join(others)} may be; set "
            "parallel.compile=false, or 'buckets'"
        )
    most = pack_bounds(config.training.data, shapes_of(data.train.values()))
    return PackLimits(most.tokens // model.slots, most.samples, max(1, most.samples * text_length_of(data)))


FITTING = AutoregressiveFitting()
