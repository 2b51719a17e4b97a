"""Peak memory of encoding and decoding, group by group against the whole clip at once. Linux only. JSON lines.

    python tests/benchmarks/tokenizer_memory.py
    python tests/benchmarks/tokenizer_memory.py --channels 128 256 512 512 --blocks 2 3 --size 256 256

Every row is a process of its own, so that none profits from memory that another left behind. `growth_mib` is the peak
of its resident memory during the call, less what it held before: weights, libraries (a call on two latent frames has
loaded them; what it freed was given back to the system) and, for the whole clip, the input stand before; activations
and results come on top. A stream makes its groups as it goes and lets go of every result, as one that reads and writes
files would. `held_mib` is what a stream holds between groups. glibc is told to give memory back at once
(MALLOC_MMAP_THRESHOLD_, unless set), so that a row says what was in use and not what the heap had not returned yet.
"""

import argparse
import ctypes
import json
import os
import subprocess
import sys
from collections.abc import Iterator

import torch

from wfm.models.tokenizer import Tokenizer, TokenizerConfig
from wfm.models.tokenizer.streaming import StreamingDecoder, StreamingEncoder

MIB = 2**20


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--channels", type=int, nargs="+", default=[32, 64, 128, 128], help="widths of the tokenizer")
    parser.add_argument("--blocks", type=int, nargs=2, default=[2, 3], help="residual blocks a level: encoder, decoder")
    parser.add_argument("--size", type=int, nargs=2, default=[256, 256], help="height and width [pixels]")
    parser.add_argument("--frames", type=int, nargs="+", default=[33, 65, 129])
    parser.add_argument("--window", type=int, default=4, help="latent frames that a stream's attention sees; 0: all")
    parser.add_argument("--sides", nargs="+", choices=["encode", "decode"], default=["encode", "decode"])
    parser.add_argument("--modes", nargs="+", choices=["stream", "whole"], default=["stream", "whole"])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--row", nargs=3, metavar=("SIDE", "MODE", "FRAMES"), help="measure one row in this process")
    return parser


def status(name: str) -> int:
    """A figure of this process [bytes], such as VmRSS (resident now) or VmHWM (its peak since the last reset)."""
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


def reset_peak() -> None:
    """Let VmHWM start again from what is resident now."""
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")


@torch.no_grad()
def measure(given: argparse.Namespace, side: str, mode: str, frames: int) -> dict[str, object]:
    torch.set_num_threads(given.threads)
    torch.manual_seed(0)
    blocks = {"encoder_blocks": given.blocks[0], "decoder_blocks": given.blocks[1]}
    config = TokenizerConfig.parse({"channels": given.channels, **blocks})
    tokenizer = Tokenizer(config).eval()
    latents = config.latent_frames(frames)
    height, width = given.size
    s, ct = config.spatial_compression, config.temporal_compression

    def group(size: int) -> torch.Tensor:
        if side == "encode":
            return torch.rand(1, 3, size, height, width) * 2 - 1
        return torch.randn(1, config.latent_channels, size, height // s, width // s)

    def groups(count: int) -> Iterator[torch.Tensor]:
        yield group(1)
        for _ in range(count - 1):
            yield group(ct if side == "encode" else 1)

    coder = (StreamingEncoder if side == "encode" else StreamingDecoder)(tokenizer, given.window)

    def run(count: int, clip: torch.Tensor | None) -> None:
        if clip is not None:
            (tokenizer.encode if side == "encode" else tokenizer.decode)(clip)
            return
        coder.reset()
        for each in groups(count):
            coder.push(each)

    def clip(count: int) -> torch.Tensor | None:
        return None if mode == "stream" else group(1 + (count - 1) * ct if side == "encode" else count)

    run(2, clip(2))
    coder.reset()
    whole = clip(latents)
    ctypes.CDLL(None).malloc_trim(0)
    before = status("VmRSS")
    reset_peak()
    run(latents, whole)
    growth = status("VmHWM") - before
    return {
        "side": side,
        "mode": mode,
        "frames": frames,
        "growth_mib": round(growth / MIB, 1),
        "held_mib": round(coder.bytes / MIB, 2),
        "size": given.size,
        "channels": given.channels,
        "attention_latents": given.window if mode == "stream" else 0,
    }


def main() -> None:
    given = arguments().parse_args()
    if given.row:
        side, mode, frames = given.row
        print(json.dumps({"benchmark": "tokenizer_memory", **measure(given, side, mode, int(frames))}), flush=True)
        return
    environment = {"MALLOC_MMAP_THRESHOLD_": str(64 * 1024), **os.environ}
    for side in given.sides:
        for mode in given.modes:
            for frames in given.frames:
                row = [sys.executable, __file__, *sys.argv[1:], "--row", side, mode, str(frames)]
                subprocess.run(row, check=True, env=environment)


if __name__ == "__main__":
    main()
