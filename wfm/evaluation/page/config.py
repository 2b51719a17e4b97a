"""What is chosen about a page. Torch-free: components compute keys from it."""

from pathlib import Path
from typing import Annotated, Literal, Self

import pydantic

from wfm.config import Config, added
from wfm.errors import ConfigError
from wfm.evaluation.metric import HEADLINE


def _has_gains(name: str) -> str:
    if name != HEADLINE:
        from wfm.evaluation.metrics import frame_metric

        try:
            frame_metric(name)
        except ConfigError as error:
            raise ValueError(str(error)) from None
    return name


HERE = Path(__file__).parent
PARTS = ("page.html.j2", "macros.html.j2", "style.css", "script.js")
"""The files of the page that are not Python."""


class Target(Config):
    """A figure the result is held against."""

    family: str
    "Family of the model."
    variant: str
    "Its videos, by the name of the variant."
    subset: str = "fixed_rate"
    "Subset of windows; see `wfm.evaluation.subsets`."
    figure: Literal["gain", "share_of_windows", "way_closed", "gain_over_flow", "action_gain"]
    "gain: over repeat-last, in the metric's unit; action_gain: right over shuffled action [dB]; shares in 0..1."
    metric: Annotated[str, pydantic.AfterValidator(_has_gains)] = added("psnr_db")
    "Metric of a gain, by the name of its row (`wfm.evaluation.metrics`); above zero is better whichever way it counts."
    end: Literal["low", "mean"] = "low"
    "Which must reach the target: the lower end of the 95 % interval, or the mean."
    at_least: float
    "The target; for the gains in the metric's unit, for the shares in 0..1."

    @pydantic.model_validator(mode="after")
    def _of_psnr(self) -> Self:
        if self.metric != HEADLINE and self.figure not in ("gain", "gain_over_flow"):
            raise ValueError(
                f"metric {self.metric!r}: figure {self.figure!r} is of {HEADLINE} alone; "
                "choose the figure gain or gain_over_flow"
            )
        return self


class PageConfig(Config):
    """One page."""

    title: str = "World model report"
    "Heading of the page."
    examples: int = pydantic.Field(6, ge=0, le=48)
    "Windows shown beside truth and baselines."
    action_examples: int = pydantic.Field(2, ge=0, le=24)
    "Windows a model shown under the right and a shuffled action."
    rejected: int = pydantic.Field(12, ge=0, le=120)
    "Rejected clips shown, spread over the reasons."
    targets: tuple[Target, ...] = ()
    "Figures the result is held against."


def template_parts() -> list[Path]:
    """The paths of `PARTS`, in a fixed order: what they hold is in the page's key."""
    return [HERE / name for name in PARTS]
