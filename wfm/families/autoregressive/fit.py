"""How a causal transformer is trained: its config settled by the data, and its objective."""

from collections.abc import Sequence

from wfm.conditions.extrapolation import require_encoded
from wfm.data.samples import Samples
from wfm.errors import ConfigError
from wfm.families.autoregressive.card import AutoregressiveTrainingConfig
from wfm.families.autoregressive.decoding import require_context
from wfm.models.autoregressive.config import AutoregressiveConfig
from wfm.models.autoregressive.network import AutoregressiveTransformer
from wfm.models.autoregressive.objective import AutoregressiveObjective
from wfm.models.autoregressive.pack import PackLimits
from wfm.models.family import Fitting
from wfm.models.video_tokenizer import TokenizerCard
from wfm.training.config import filled
from wfm.training.data_config import DataConfig, PhaseConfig
from wfm.training.encoded import Encoded
from wfm.training.fit_world_model import known_of
from wfm.training.joined import JoinedSamples


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
            lengths = [samples.text_length for samples in data.train.values() if isinstance(samples, JoinedSamples)]
            objective.limits = pack_limits(
                model, config.training.data, list(data.train.values()), max(lengths, default=0)
            )


def pack_limits(
    model: AutoregressiveTransformer, recipe: DataConfig, sources: Sequence[Samples], text_length: int
) -> PackLimits:
    """The most that a pack holds: positions by the budget, videos by the smallest sample, or where samples are cut by the
    smallest frame. Raises ConfigError for contexts other than the text, of whose length nothing is known."""
    others = [name for name in model.config.contexts if name != "text"]
    if others:
        raise ConfigError(
            f"parallel.compile with training.data.mode 'packs': nothing says how long {', '.join(others)} may be; set "
            "parallel.compile=false, or 'buckets'"
        )
    budget = max(phase.tokens or recipe.tokens for phase in recipe.phases or (PhaseConfig(),))
    first = 1 if recipe.oversize in ("cut", "split") else 0
    segments = budget // min(int(samples.shapes[:, first:].prod(1).min()) for samples in sources)
    return PackLimits(budget // model.slots, segments, max(1, segments * text_length))


FITTING = AutoregressiveFitting()
