"""How the page and the cards say a figure: signs, ends of intervals, and what subsets and baselines are called."""

from collections.abc import Callable

from wfm.evaluation.schema import Estimate

SUBSETS = {
    "all": "all windows",
    "moving": "the camera moves",
    "static": "the camera rests",
    "fixed_rate": "the camera turns at a fixed rate",
    "changing_action": "an action changes",
}
BASELINES = {"repeat_last": "the last frame held", "flow": "optical flow"}
"""What has to be beaten, as it stands in a sentence."""
ACROSS_ZERO, NO_INTERVAL = "interval across zero", "one session: no interval"


def doubt(estimate: Estimate) -> str:
    """Why the sign of a mean is not known; "" where it is."""
    if estimate.low is None or estimate.high is None:
        return absent(estimate)
    return ACROSS_ZERO if estimate.low <= 0 <= estimate.high else ""


def absent(estimate: Estimate) -> str:
    """Why a figure has no interval: one session says nothing of how sessions differ, a ratio may have none of its own."""
    return NO_INTERVAL if estimate.sessions < 2 else "no interval"


def signed(value: float, digits: int = 1) -> str:
    """+3.1 or −3.1, with a true minus."""
    return f"{value:+.{digits}f}".replace("-", "−")


def ends(estimate: Estimate, shown: Callable[[float], str]) -> str:
    """The two ends of an interval, or that there is none."""
    if estimate.low is None or estimate.high is None:
        return absent(estimate)
    return f"{shown(estimate.low)}, {shown(estimate.high)}"
