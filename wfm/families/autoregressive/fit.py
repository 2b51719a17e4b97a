"""How a causal transformer is trained: its config settled by the data, and its objective."""

from wfm.conditions.extrapolation import require_encoded
from wfm.families.autoregressive import cost
from wfm.families.autoregressive.card import AutoregressiveTrainingConfig
from wfm.models.autoregressive.config import AutoregressiveConfig
from wfm.models.autoregressive.objective import AutoregressiveObjective
from wfm.models.cost.work import Work
from wfm.models.family import Fitting
from wfm.models.video_tokenizer import TokenizerCard
from wfm.training.config import filled
from wfm.training.encoded import Encoded
from wfm.training.fit_world_model import known_of


class AutoregressiveFitting(Fitting):
    """Of an `AutoregressiveTransformer`."""

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


FITTING = AutoregressiveFitting()
