"""What a reader calls each set of videos and which colour it has: from what the models say of themselves."""

from collections.abc import Sequence

from wfm.evaluation.schema import Metrics

SHARED = {"repeat_last": "Repeat last frame", "flow": "Optical flow", "truth": "Truth"}
"""Sets of videos that are the same whatever the model."""
OWN = {"shuffled_action": "shuffled action"}


class Cast:
    """The models of a page, in its order: the first has the first colour."""

    def __init__(self, metrics_list: Sequence[Metrics]) -> None:
        self._models = {metrics.family: metrics for metrics in metrics_list}
        self._places = {family: place for place, family in enumerate(self._models)}

    def title(self, family: str) -> str:
        """What a reader calls a family; one that was not evaluated goes by its name."""
        metrics = self._models.get(family)
        return metrics.title if metrics is not None and metrics.title else family.replace("_", " ").capitalize()

    def name(self, family: str, video: str) -> str:
        """What a reader calls a set of videos."""
        if video in SHARED:
            return SHARED[video]
        head = self.title(family)
        if video == "tokenizer":
            return f"{head} ceiling"
        labels = self._models[family].labels if family in self._models else {}
        return f"{head}, {labels.get(video) or OWN.get(video, video)}"

    def panel(self, family: str, video: str) -> str:
        """A name short enough to stand in a panel: the family alone for its headline variant."""
        head = self.title(family)
        return head if video == self._models[family].headline_variant else f"{head} {video}"

    def role(self, family: str, video: str) -> str:
        """The colour role of a set of videos: by the place of its model, and of the variant beside the headline one."""
        if video in SHARED:
            return video
        place = self._places.get(family, len(self._places))
        if video == "tokenizer":
            return f"ceiling_{place}"
        variants = self._models[family].variants if family in self._models else []
        number = variants.index(video) if video in variants else 0
        return f"model_{place}_{number}" if number else f"model_{place}"
