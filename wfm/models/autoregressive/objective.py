"""What the autoregressive transformer is trained to do: predict each next token, given true earlier ones and the
actions.

Cross-entropy per symbol plus the z-loss ``z_loss * mean(logsumexp(logits)^2)`` that keeps logits from drifting
(Cosmos's code: coefficient 1e-4 on the mean; the paper writes 3e-4 on a sum of squares: the code is followed).
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from wfm.data.loader.grouped import GroupedBatch, batches_of
from wfm.errors import ConfigError
from wfm.models.autoregressive.config import AutoregressiveObjectiveConfig
from wfm.models.autoregressive.network import AutoregressiveTransformer
from wfm.models.autoregressive.pack import Group, PackLimits, Scores, dense_scores, scores_of
from wfm.models.autoregressive.vocabulary import Vocabulary
from wfm.models.binned import by_kind
from wfm.models.loss import Mean, Summed
from wfm.models.presence import kept, present_of, tensors_of
from wfm.models.seeding import seeded_generator
from wfm.models.slots import SlotConfig

AnyBatch = Mapping[str, Tensor] | GroupedBatch


class AutoregressiveObjective(Summed):
    """Loss of an `AutoregressiveTransformer`. Batch: tokens int ``[B, t, h, w]``, seeds int64 ``[B]``, the
    tensors of the model's conditions that there are, and ``has_<tensor>`` bool ``[B]`` of those that not all samples have; or
    such batches together, as packs. All randomness of a sample comes from its own seed.

    Terms: `token`, over all tokens that are predicted, and with Medusa heads `draft<j>`, over those that head j drafts: each
    token counts alike, of whatever video. limits: what packs are filled up to; None: they are not.
    """

    def __init__(self, config: AutoregressiveObjectiveConfig, limits: PackLimits | None = None) -> None:
        self.config, self.limits = config, limits

    def counts(self, model: AutoregressiveTransformer, batch: AnyBatch, step: int) -> dict[str, float]:
        """Tokens of each term."""
        config, totals = model.config, [0] * (1 + model.config.medusa_heads)
        for one in batches_of(batch):
            videos, frames, height, width = one["tokens"].shape
            rows, columns = model.grid(height, width)
            predicted = frames * rows * columns
            if not config.begin_token:
                predicted = max(predicted - model.stride(height, width), 0)
            for j in range(len(totals)):
                totals[j] += videos * model.slots * max(predicted - j, 0)
        names = ["token", *(f"draft{j}" for j in range(config.medusa_heads))]
        return {name: float(total) for name, total in zip(names, totals, strict=True)}

    def sums(
        self, model: AutoregressiveTransformer, batch: AnyBatch, step: int
    ) -> tuple[dict[str, Tensor], dict[str, Mean]]:
        """The sums; and measured the cross-entropy per token [nats], the share of symbols predicted right, with Medusa heads
        `draft_accuracy`, that of the first; of packs the loss of their images and of their videos."""
        if isinstance(batch, GroupedBatch) and self.limits is not None:
            return _added_up([self._sums(model, pack) for pack in batch.split()])  # of one size each
        return self._sums(model, batch)

    def _sums(self, model: AutoregressiveTransformer, batch: AnyBatch) -> tuple[dict[str, Tensor], dict[str, Mean]]:
        groups = [self.group(model, one) for one in batches_of(batch)]
        vocabulary = model.vocabulary
        if isinstance(batch, GroupedBatch):
            scores = scores_of(model, groups, self.limits)
            # what is to be learned are the tokens as they are, not as they enter
            targets = torch.cat([model.targets(one["tokens"].long()).flatten(0, 1) for one in batch.batches])
        else:
            (group,) = groups
            logits, drafts = model.with_drafts(group.tokens, tensors=group.tensors, present=group.present)
            targets = model.targets(batch["tokens"].long()).flatten(0, 1)
            scores = dense_scores(logits, drafts)
        symbols = vocabulary.symbols(targets)  # [M, slots, S]
        each, values = self._of(scores.logits, symbols, vocabulary)
        sums = {"token": each.sum()}
        if isinstance(batch, GroupedBatch):
            values |= of_kinds(each, [rows * model.slots for rows in scores.rows], batch)
        for j in range(model.config.medusa_heads):
            of_head, more = self._of_drafts(scores, symbols, vocabulary, j)
            sums[f"draft{j}"] = self.config.medusa_weight * self.config.medusa_decay**j * of_head.sum()
            if j == 0:
                values["draft_accuracy"] = more["accuracy"]
        return sums, values

    def group(self, model: AutoregressiveTransformer, batch: Mapping[str, Tensor]) -> Group:
        """What enters of samples of one size: their tokens with what noise is drawn, and the conditions that they keep."""
        tokens, slots = batch["tokens"].long(), model.config.slots
        noisy, keeps_action = self.draw(batch["seeds"], tokens, model.vocabulary)
        keep = {
            name: self.keep(name, slot, batch["seeds"]).to(tokens.device)
            for name, slot in slots.items()
            if name == "text" or slot.dropout
        }
        keep["action"] = keeps_action.to(tokens.device)
        return Group(noisy, tensors_of(slots, batch), present_of(slots, batch, keep))

    def _of(
        self, logits: Tensor, symbols: Tensor, vocabulary: Vocabulary, there: Tensor | None = None
    ) -> tuple[Tensor, dict[str, Mean]]:
        """Of logits ``[M, slots, width]`` for symbols ``[M, slots, S]``: the loss of each token, ``[M slots]``, 0 of one
        that is not `there`, bool ``[M slots]``."""
        blocks = vocabulary.split(logits)
        entropy = z = right = logits.new_zeros(symbols.shape[:2].numel())
        for index, block in enumerate(blocks):
            flat, target = block.flatten(0, -2), symbols[..., index].flatten()
            entropy = entropy + self._cross_entropy(flat, target)
            z = z + flat.logsumexp(dim=-1).square()
            right = right + (flat.detach().argmax(dim=-1) == target)
        each, measured = (entropy + self.config.z_loss * z) / len(blocks), entropy.detach()
        count: Tensor | float = float(len(entropy))
        if there is not None:
            each, measured, right = each * there, measured * there, right * there
            count = there.sum()
        found = {
            "cross_entropy_per_token": Mean(measured.sum(), count),
            "accuracy": Mean(right.sum() / len(blocks), count),
        }
        return each, found

    def _of_drafts(
        self, scores: Scores, symbols: Tensor, vocabulary: Vocabulary, head: int
    ) -> tuple[Tensor, dict[str, Mean]]:
        """As `_of`, of a Medusa head. Head j at a row is to say what the row 1 + j places on in the same video holds."""
        assert scores.drafts is not None
        there = (scores.left > head)[:, None].expand(symbols.shape[:2]).flatten()
        return self._of(scores.drafts[:, head], symbols.roll(-1 - head, 0), vocabulary, there)

    def keep(self, name: str, slot: SlotConfig, seeds: Tensor) -> Tensor:
        """Which samples keep a condition, bool ``[B]``: from the seed alone."""
        dropout = self.config.text_dropout if name == "text" else slot.dropout
        return torch.stack([kept(int(seed), name, dropout) for seed in seeds])

    def _cross_entropy(self, logits: Tensor, target: Tensor) -> Tensor:
        """logits ``[M, size]``, target int64 ``[M]`` -> cross-entropies ``[M]`` [nats]."""
        config = self.config
        wanted = target
        if config.ordinal_smoothing > 0:
            level = torch.arange(logits.shape[-1], device=logits.device)
            near = torch.softmax(-0.5 * ((level - target[:, None]) / config.ordinal_smoothing) ** 2, dim=-1)
            wanted = near.to(logits.dtype)
        return functional.cross_entropy(logits, wanted, label_smoothing=config.label_smoothing, reduction="none")

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


def of_kinds(each: Tensor, rows: Sequence[int], batch: GroupedBatch) -> dict[str, Mean]:
    """The mean loss of images and of videos, of `each` ``[M]``, so many `rows` of each group."""
    parts = zip(each.split(list(rows)), batch.batches, strict=True)
    return _joined([by_kind("loss", part, group["tokens"].shape[1]) for part, group in parts])


def _added_up(
    parts: Sequence[tuple[dict[str, Tensor], dict[str, Mean]]],
) -> tuple[dict[str, Tensor], dict[str, Mean]]:
    """Sums and what is measured, of several packs."""
    first, *others = (sums for sums, _ in parts)
    for more in others:
        first = {name: total + more[name] for name, total in first.items()}
    return first, _joined([values for _, values in parts])


def _joined(parts: Sequence[Mapping[str, Mean]]) -> dict[str, Mean]:
    found: dict[str, Mean] = {}
    for part in parts:
        for name, mean in part.items():
            before = found.get(name, Mean(0.0, 0.0))
            found[name] = Mean(before.total + mean.total, before.count + mean.count)
    return found
