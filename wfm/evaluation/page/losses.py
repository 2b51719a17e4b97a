"""What a model loses to: each baseline that is nearer to the truth than its headline videos, and by how much."""

from dataclasses import dataclass

from wfm.evaluation.page.words import ACROSS_ZERO, BASELINES, SUBSETS, doubt, ends, signed
from wfm.evaluation.schema import Estimate, Metrics

ASKED = ("fixed_rate", "static", "all")
"""Subsets in whose words a result is told; the others stand in the tables."""


@dataclass(frozen=True)
class Loss:
    """A baseline that is better on average; `gain` is the model's over it [dB], so its mean is below zero."""

    subset: str
    baseline: str
    gain: Estimate

    @property
    def text(self) -> str:
        """Such as "0.7 dB worse than optical flow [−1.2, −0.4]", and where its sign is not known, that."""
        unsure = f" ({ACROSS_ZERO})" if doubt(self.gain) == ACROSS_ZERO else ""
        return f"{abs(self.gain.mean):.1f} dB worse than {BASELINES[self.baseline]} [{ends(self.gain, signed)}]{unsure}"


def losses(metrics: Metrics, subset: str) -> list[Loss]:
    """Baselines that are nearer to the truth than the headline videos on a subset, the worst loss first."""
    report = metrics.subsets.get(subset)
    gains = report.gains.get(metrics.headline_variant, {}) if report and not report.absent else {}
    found = [
        Loss(subset, baseline, gain.psnr_gain_db)
        for baseline in BASELINES
        if (gain := gains.get(baseline)) is not None and gain.psnr_gain_db is not None and gain.psnr_gain_db.mean < 0
    ]
    return sorted(found, key=lambda loss: loss.gain.mean)


def losses_told(metrics: Metrics) -> str:
    """All of them in a sentence, by subset; "" where no baseline is better."""
    told = []
    for subset in ASKED:
        if found := losses(metrics, subset):
            where = f"where {SUBSETS[subset]}" if subset != "all" else f"over {SUBSETS[subset]}"
            told.append(f"{where}, {' and '.join(loss.text for loss in found)}")
    return "; ".join(told)
