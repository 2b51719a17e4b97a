"""What the autoregressive transformer is trained to do: predict each next token, given true earlier ones and the
actions.

Cross-entropy per symbol plus the z-loss ``z_loss * mean(logsumexp(logits)^2)`` that keeps logits from drifting
(Cosmos's code: coefficient 1e-4 on the mean; the paper writes 3e-4 on a sum of squares: the code is followed).
"""

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional

from wfm.errors import ConfigError
from wfm.models.autoregressive.config import AutoregressiveObjectiveConfig
from wfm.models.autoregressive.network import AutoregressiveTransformer
from wfm.models.autoregressive.vocabulary import Vocabulary
from wfm.models.presence import kept, present_of, tensors_of
from wfm.models.seeding import seeded_generator
from wfm.models.slots import SlotConfig


class AutoregressiveObjective:
    """Loss of an `AutoregressiveTransformer`. Batch: tokens int ``[B, t, h, w]``, seeds int64 ``[B]``, the
    tensors of the model's conditions that there are, and ``has_<tensor>`` bool ``[B]`` of those that not all samples have.
    All randomness of a sample comes from its own seed."""

    def __init__(self, config: AutoregressiveObjectiveConfig) -> None:
        self.config = config

    def loss(
        self, model: AutoregressiveTransformer, batch: Mapping[str, Tensor], step: int
    ) -> tuple[Tensor, dict[str, float]]:
        """Mean loss over all predicted symbols, and metrics: cross-entropy per token [nats], share of symbols
        predicted right; with Medusa heads also `draft_accuracy`, that of the first head."""
        tokens = batch["tokens"].long()
        vocabulary = model.vocabulary
        noisy, keeps_action = self.draw(batch["seeds"], tokens, vocabulary)
        slots = model.config.slots
        keep = {
            name: self.keep(name, slot, batch["seeds"]).to(tokens.device)
            for name, slot in slots.items()
            if name == "text" or slot.dropout
        }
        keep["action"] = keeps_action.to(tokens.device)
        logits, drafts = model.with_drafts(
            noisy, tensors=tensors_of(slots, batch), present=present_of(slots, batch, keep)
        )
        symbols = vocabulary.symbols(model.targets(tokens))  # [B, n, slots, S]
        loss, values = self._of(logits, symbols, vocabulary)
        if drafts is not None:
            more, values["draft_accuracy"] = self._of_drafts(drafts, symbols, vocabulary)
            loss = loss + self.config.medusa_weight * more
        return loss, values

    def _of(self, logits: Tensor, symbols: Tensor, vocabulary: Vocabulary) -> tuple[Tensor, dict[str, float]]:
        """Of logits ``[..., width]`` for symbols ``[..., S]``."""
        blocks = vocabulary.split(logits)
        entropy, z, right = logits.new_zeros(()), logits.new_zeros(()), 0.0
        for index, block in enumerate(blocks):
            flat, target = block.flatten(0, -2), symbols[..., index].flatten()
            entropy = entropy + self._cross_entropy(flat, target)
            z = z + flat.logsumexp(dim=-1).square().mean()
            right += float((flat.detach().argmax(dim=-1) == target).float().mean())
        loss = (entropy + self.config.z_loss * z) / len(blocks)
        return loss, {"cross_entropy_per_token": float(entropy.detach()), "accuracy": right / len(blocks)}

    def _of_drafts(self, drafts: Tensor, symbols: Tensor, vocabulary: Vocabulary) -> tuple[Tensor, float]:
        """Sum over the Medusa heads, each counted less than the one before; drafts ``[B, n, K, slots, width]``, whose head j
        at row k is to say what row k + 1 + j of the symbols ``[B, n, slots, S]`` holds. And how often the first is right."""
        total, right = drafts.new_zeros(()), 0.0
        for j in range(min(drafts.shape[2], symbols.shape[1] - 1)):
            loss, values = self._of(drafts[:, : -1 - j, j], symbols[:, 1 + j :], vocabulary)
            total = total + self.config.medusa_decay**j * loss
            right = values["accuracy"] if j == 0 else right
        return total, right

    def keep(self, name: str, slot: SlotConfig, seeds: Tensor) -> Tensor:
        """Which samples keep a condition, bool ``[B]``: from the seed alone."""
        dropout = self.config.text_dropout if name == "text" else slot.dropout
        return torch.stack([kept(int(seed), name, dropout) for seed in seeds])

    def _cross_entropy(self, logits: Tensor, target: Tensor) -> Tensor:
        """logits ``[M, size]``, target int64 ``[M]`` -> mean cross-entropy [nats]."""
        config = self.config
        if config.ordinal_smoothing <= 0:
            return functional.cross_entropy(logits, target, label_smoothing=config.label_smoothing)
        level = torch.arange(logits.shape[-1], device=logits.device)
        wanted = torch.softmax(-0.5 * ((level - target[:, None]) / config.ordinal_smoothing) ** 2, dim=-1)
        return functional.cross_entropy(logits, wanted.to(logits.dtype), label_smoothing=config.label_smoothing)

    def draw(self, seeds: Tensor, tokens: Tensor, vocabulary: Vocabulary) -> tuple[Tensor, Tensor]:
        """Noisy input tokens ``[B, t, h, w]``, and which samples keep their actions, bool ``[B]``: each row from its own seed
        alone."""
        if not len(seeds):
            raise ConfigError("a batch of no samples: there is nothing to learn from")
        noisy, keep = [], []
        for seed, row in zip(seeds.tolist(), tokens, strict=True):
            generator = seeded_generator(int(seed))
            keep.append(bool(torch.rand((), generator=generator) >= self.config.action_dropout))
            noisy.append(self._disturb(row, vocabulary, generator) if self.config.input_noise > 0 else row)
        return torch.stack(noisy), torch.tensor(keep)

    def _disturb(self, tokens: Tensor, vocabulary: Vocabulary, generator: torch.Generator) -> Tensor:
        """tokens ``[t, h, w]`` with a drawn share of symbols changed."""
        symbols = vocabulary.symbols(tokens)  # [t, h, w, S]
        share = torch.rand((), generator=generator) * self.config.input_noise
        hit = (torch.rand(symbols.shape, generator=generator) < share).to(tokens.device)
        sizes = torch.tensor(vocabulary.sizes)
        if len(vocabulary.sizes) > 1:
            move = torch.randint(0, 2, symbols.shape, generator=generator) * 2 - 1
            other = (symbols + move.to(tokens.device)).clamp(min=0).minimum((sizes - 1).to(tokens.device))
        else:
            other = torch.randint(0, vocabulary.size, symbols.shape, generator=generator).to(tokens.device)
        return vocabulary.ids(torch.where(hit, other, symbols))
