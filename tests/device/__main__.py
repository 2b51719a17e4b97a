"""What only a GPU can show, for the day that one is there: at most eight minutes, and a line of JSON at the end.

    python -m tests.device                  on the GPU; without one everything is skipped, and counted as that
    python -m tests.device --rehearse       the same checks on the CPU, as far as they go there: that they run at all

    varlen        attention kernels of packs against the fp64 reference: outputs, log-sum-exp, gradients
    pack_step     a training step on packs, compiled: one graph for packs of all mixtures, the gradients of the plain step
    fsdp          the step with parameters spread over one device: the weights of the plain step
    validated     a training with its validations: the figures of the CPU
    cupy          measurements of curation on the GPU: the numbers of numpy

A check that cannot be made says why. What is rehearsed on a CPU counts as rehearsed and not as passed.
"""

import argparse
import json
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from tests.device import curation, kernels, training
from tests.device.check import Skipped

SECONDS = 480.0
"""For all checks together; what has not begun by then is skipped."""

CHECKS: dict[str, Callable[[torch.device], Iterator[tuple[str, Callable[[], dict[str, float]]]]]] = {
    "varlen": kernels.checks,
    "pack_step": training.compiled,
    "fsdp": training.spread,
    "validated": training.validated,
    "cupy": curation.checks,
}


@dataclass
class Told:
    """What came of a check."""

    check: str
    state: str
    "passed | failed | skipped | rehearsed"
    seconds: float = 0.0
    reason: str = ""
    figures: dict[str, float] = field(default_factory=dict)


def told(name: str, run: Callable[[], dict[str, float]], good: str, left: float) -> Told:
    """Run one check."""
    if left <= 0:
        return Told(name, "skipped", reason=f"the {SECONDS:.0f} s were over")
    began = time.monotonic()
    try:
        figures = run()
    except Skipped as error:
        return Told(name, "skipped", reason=str(error))
    except Exception as error:
        traceback.print_exc()
        return Told(name, "failed", time.monotonic() - began, f"{type(error).__name__}: {error}"[:500])
    return Told(name, good, time.monotonic() - began, figures=figures)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rehearse", action="store_true", help="on the CPU, as far as it goes")
    parser.add_argument("--only", choices=CHECKS, action="append", help="these alone")
    arguments = parser.parse_args()
    began = time.monotonic()
    here = torch.cuda.is_available() and not arguments.rehearse
    device = torch.device("cuda" if here else "cpu")
    found = []
    for name in arguments.only or CHECKS:
        for inner, run in CHECKS[name](device):
            if not (here or arguments.rehearse):
                found.append(Told(f"{name}/{inner}", "skipped", reason="no CUDA device"))
                continue
            left = SECONDS - (time.monotonic() - began)
            found.append(told(f"{name}/{inner}", run, "passed" if here else "rehearsed", left))
            print(f"{found[-1].check}: {found[-1].state} {found[-1].reason}", file=sys.stderr, flush=True)
    states = ("passed", "failed", "skipped", "rehearsed")
    line: dict[str, Any] = {
        "device": torch.cuda.get_device_name() if here else "cpu",
        "torch": torch.__version__,
        "seconds": round(time.monotonic() - began, 1),
        **{state: sum(one.state == state for one in found) for state in states},
        "checks": [asdict(one) for one in found],
    }
    print(json.dumps(line))
    return 1 if line["failed"] else 0


if __name__ == "__main__":
    raise SystemExit(main())
