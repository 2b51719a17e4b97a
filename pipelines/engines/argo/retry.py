"""Which ends of a pod are tried again: one expression over status, exit code and message.

Argo knows two ends that are none of success: Failed (the main container ended with a code, or the pod has a message of its own,
as when it was evicted) and Error (it was deleted, or failed before or after main). The code is text, and -1 where nobody saw
one. Codes of ours are `wfm.errors`'; from 129 on they are signals; 64 and 65 are argoexec's own trouble. Beside an expression
Argo needs no policy, and tries both kinds.
"""

from typing import Any

from wfm.errors import InputError, TryAgain, WfmError

ARGOEXEC = (64, 65)
"""What Argo's own program ends with when it failed, in the place of main."""
UNSEEN, BESIDE = -1, 0
"""Nobody saw an exit code: evicted, deleted, lost, never started; main was through, and what is beside it failed."""
EXPRESSION = (
    f"lastRetry.exitCode == '{InputError.exit_code}' ? false : "
    f"lastRetry.exitCode == '{WfmError.exit_code}' ? retries == '0' : "
    "lastRetry.message contains 'OOMKilled' ? retries == '0' : "
    "lastRetry.status == 'Error' or "
    f"lastRetry.exitCode in [{', '.join(repr(str(code)) for code in (UNSEEN, BESIDE, *ARGOEXEC, TryAgain.exit_code))}] or "
    "asInt(lastRetry.exitCode) > 128"
)
"""Wrong input never; a bug and too little memory once, at the first end; what is the cluster's trouble, or passes, as often as
the limit allows. Anything else (126, 127: the image has no such command) never."""
FIRST, FACTOR, LONGEST = "30s", "2", "10m"
"""Between two tries."""


def strategy(limit: int) -> dict[str, Any]:
    """``retryStrategy`` with so many tries after the first."""
    return {
        "limit": str(limit),
        "expression": EXPRESSION,
        "backoff": {"duration": FIRST, "factor": FACTOR, "cap": LONGEST},
    }
