"""The jobs of a run, held back and let go by this machine's own access to the cluster's API (a kubeconfig); in words.

Engines know nothing of jobs that launchers made: `wfm suspend` and `resume` reach them here. Without access the engine's part
is done all the same, and what was not done is said.
"""

import time

from pipelines.runs.submission import who
from wfm.errors import WfmError

_TOLD = 5
_LOOKS, _LOOK_SECONDS = 5, 1.0


class Jobs:
    """Jobs in one namespace."""

    def __init__(self, namespace: str, url: str = "") -> None:
        """`url`: of an API server without accounts, for tests; else as the kubeconfig says."""
        self.namespace, self._url = namespace, url

    def hold(self, run_id: str) -> str:
        """Take them out of the queue; what became of them, or that their GPUs are not freed."""
        from wfm.cluster import holding
        from wfm.cluster.api import Api

        try:
            api = Api.connect(namespace=self.namespace, url=self._url)
            for left in reversed(range(_LOOKS)):
                lines = holding.hold(api, run_id, who())
                if not any(line.endswith(holding.NO_PLACE) for line in lines) or not left:
                    break
                time.sleep(_LOOK_SECONDS)  # Kueue is about to give it one
        except WfmError as error:
            return f"its jobs run on, and GPUs are NOT freed: {error}"
        return "; ".join(_some(lines)) or "it has no jobs that hold GPUs"

    def let_go(self, run_id: str) -> str:
        """Take `hold` back; what became of them, or that they wait on."""
        from wfm.cluster import holding
        from wfm.cluster.api import Api

        try:
            lines = holding.let_go(Api.connect(namespace=self.namespace, url=self._url), run_id)
        except WfmError as error:
            return (
                f"jobs that were held back stay so: ask once more from where the cluster's API can be reached ({error})"
            )
        return "; ".join(_some(lines)) or "none of its jobs was held back"


def _some(lines: list[str]) -> list[str]:
    more = len(lines) - _TOLD
    return lines[:_TOLD] + ([f"and {more} more"] if more > 0 else [])
