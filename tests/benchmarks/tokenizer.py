"""The video tokenizer against diffusers' AutoencoderKLCosmos: same weights, CPU, fp32, in turn.

    python -m tests.benchmarks.tokenizer                                 # all rows (minutes)
    python -m tests.benchmarks.tokenizer --rows small-17x128x128 --pairs 3
    python -m tests.benchmarks.tokenizer --clock cpu                     # on a busy machine: one thread, CPU seconds

One JSON line a measurement: `ratio` is rival / ours (above 1, ours is faster) over ABBA pairs. `small` has channels
(32, 64, 128, 128), `full` is CV8x8x8 with its 105M parameters. `ratio_best_batch` is per clip, against the rival at its
best batch of 1, 2 and 4. `floor_share` is the least time over the measured one: the convolutions, products and attention
that a call really does, counted as it runs, at the best rate that this machine showed for each kind. Memory is the growth
of the peak resident size over one call, each side in a process of its own.
"""

import argparse
import ctypes
import gc
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import diffusers
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from tests.benchmarks.paired import THREADS, Floor, Paired, best_batch, measure_floor, paired, print_line
from wfm.models.fast_cpu import fast_cpu
from wfm.models.tokenizer import Tokenizer, TokenizerConfig

SIZES = {"small": (32, 64, 128, 128), "full": (128, 256, 512, 512)}
ROWS = ["small-17x128x128", "small-33x256x256", "full-17x128x128"]
WHATS = ["forward", "forward+backward"]


def models(size: str) -> dict[str, nn.Module]:
    """Ours and the rival with the same weights."""
    channels = SIZES[size]
    diffusers.logging.set_verbosity_error()
    torch.manual_seed(0)
    rival = diffusers.AutoencoderKLCosmos(
        encoder_block_out_channels=channels, decode_block_out_channels=(*channels[1:], channels[-1])
    )
    ours = Tokenizer(TokenizerConfig(channels=channels))
    ours.load_state_dict(rival.state_dict())
    return {"ours": fast_cpu(ours.eval()), "rival": rival.eval()}


def clip_of(row: str, batch: int = 1) -> Tensor:
    frames, height, width = (int(part) for part in row.split("-")[1].split("x"))
    return torch.rand(batch, 3, frames, height, width, generator=torch.Generator().manual_seed(1)) * 2 - 1


def call_of(model: nn.Module, video: Tensor, *, backward: bool) -> Callable[[], object]:
    """Encode and decode; with `backward` the gradients too, which are dropped."""

    def rebuilt() -> Tensor:
        out = model(video)
        return out if isinstance(out, Tensor) else out.sample

    def forward() -> object:
        with torch.no_grad():
            return rebuilt()

    def both() -> object:
        rebuilt().square().mean().backward()
        model.zero_grad(set_to_none=True)
        return None

    return both if backward else forward


def least(call: Callable[[], object], floor: Floor) -> float:
    """Seconds that the arithmetic of `call` takes at this machine's best rates."""
    with FlopCounterMode(display=False) as counter:
        call()
    kinds = {"convolution": 0.0, "attention": 0.0, "gemm": 0.0}
    for operation, flops in counter.get_flop_counts()["Global"].items():
        name = str(operation)
        kinds["convolution" if "conv" in name else "attention" if "attention" in name else "gemm"] += flops
    return floor.seconds(**kinds)


def measure(row: str, floor: Floor, pairs: int, whats: list[str], *, best_batch_too: bool) -> None:
    """The lines of one row, at batch 1 and against the rival's best batch."""
    sides = models(row.split("-")[0])
    for what in whats:
        backward = what == "forward+backward"
        calls = {name: call_of(model, clip_of(row), backward=backward) for name, model in sides.items()}
        result = paired(calls["ours"], calls["rival"], pairs=pairs)
        line: dict[str, object] = {"what": what, **result.as_dict()}
        shares = (least(calls[name], floor) / sorted(times)[len(times) // 2] for name, times in times_of(result))
        line["floor_share"] = [round(share, 3) for share in shares]

        def at(batch: int, backward: bool = backward) -> Callable[[], object]:
            return call_of(sides["rival"], clip_of(row, batch), backward=backward)

        if best_batch_too:
            best = best_batch(at)
            line["rival_best_batch"] = best
            line["ratio_best_batch"] = round(paired(calls["ours"], at(best), pairs=pairs).ratio / best, 3)
        print_line(benchmark="tokenizer", row=row, **line, convolution_gflops=round(floor.convolution / 1e9))


def times_of(result: Paired) -> list[tuple[str, list[float]]]:
    return [("ours", result.ours), ("rival", result.rival)]


def measure_on_cpu_clock(row: str, pairs: int, whats: list[str]) -> None:
    """One thread and CPU seconds instead of wall time: what others do on the machine weighs less."""
    sides = models(row.split("-")[0])
    torch.set_num_threads(1)
    for what in whats:
        backward = what == "forward+backward"
        calls = [call_of(sides[name], clip_of(row), backward=backward) for name in ("ours", "rival")]
        times: tuple[list[float], list[float]] = ([], [])
        for call in calls:
            call()
        for pair in range(pairs):
            for side in (0, 1) if pair % 2 == 0 else (1, 0):
                start = time.process_time()
                calls[side]()
                times[side].append(time.process_time() - start)
        print_line(benchmark="tokenizer", row=row, what=what, clock="cpu", **Paired(*times).as_dict())


def growth(side: str, row: str, *, backward: bool) -> float:
    """Growth of the peak resident size over one call [MiB], in this process, after a call on a small clip."""
    size = row.split("-")[0]
    model = models(size)[side]
    call_of(model, clip_of(f"{size}-9x64x64"), backward=backward)()
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # memory freed so far would hide what the call takes (glibc)
    call = call_of(model, clip_of(row), backward=backward)
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # the peak counts from here
    before = peak_mib()
    call()
    return peak_mib() - before


def peak_mib() -> float:
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) / 1024 for line in file if line.startswith("VmHWM"))


def measure_memory(row: str, whats: list[str]) -> None:
    for what in whats:
        backward = what == "forward+backward"
        grown = {}
        for side in ("ours", "rival"):
            command = [sys.executable, "-m", "tests.benchmarks.tokenizer", "--growth", side, "--rows", row]
            done = subprocess.run(
                [*command, *(["--backward"] if backward else [])], capture_output=True, text=True, check=True
            )
            grown[side] = float(done.stdout)
        line: dict[str, Any] = {f"{side}_mib": round(value, 1) for side, value in grown.items()}
        print_line(
            benchmark="tokenizer",
            row=row,
            what=f"memory, {what}",
            **line,
            share=round(grown["ours"] / grown["rival"], 3),
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="*", default=ROWS)
    parser.add_argument("--what", nargs="*", choices=WHATS, default=WHATS)
    parser.add_argument("--pairs", type=int, default=9, help="0: memory alone")
    parser.add_argument("--no-best-batch", action="store_true", help="the rival at batch 1 alone")
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall")
    parser.add_argument("--no-memory", action="store_true")
    parser.add_argument("--growth", choices=["ours", "rival"], help="print one side's growth of memory and end")
    parser.add_argument("--backward", action="store_true", help="with --growth: forward and backward")
    arguments = parser.parse_args()
    torch.set_num_threads(THREADS)
    if arguments.growth:
        print(growth(arguments.growth, arguments.rows[0], backward=arguments.backward))
        return
    timed = arguments.clock == "wall" and arguments.pairs
    floor = measure_floor(tokens=1024, head_dim=128, heads=1) if timed else None
    for row in arguments.rows:
        if floor is not None:
            measure(row, floor, arguments.pairs, arguments.what, best_batch_too=not arguments.no_best_batch)
        elif arguments.pairs:
            measure_on_cpu_clock(row, arguments.pairs, arguments.what)
        if not arguments.no_memory:
            measure_memory(row, arguments.what)


if __name__ == "__main__":
    main()
