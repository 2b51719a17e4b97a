"""The diffusion decoder against decoding the discrete tokens directly, on held-out clips of the demo's corpus.

    wfm run decoder --profile demo --store URL          # after the demo: trains the decoder alone
    python -m tests.benchmarks.diffusion_decoder --store URL

Tokens of true frames of the test split are shown three ways: by the discrete tokenizer itself, by the decoder (the one-step
mean, and a draw), and by the decoder told nothing. PSNR [dB] and SSIM against the frames themselves, and the gain over
direct decoding with a 95 % bootstrap interval over sessions. Longer clips are decoded in overlapping windows;
`seam` is the mean change from frame to frame where one window hands over to the next, over that of the same frames when the
video is decoded whole; `boundary` is the latter over the change elsewhere (a latent frame begins there in any case).
One JSON line.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tests.benchmarks.paired import THREADS, print_line
from wfm.artifacts import Artifact, Store
from wfm.data.pixels import as_frames, as_video
from wfm.data.windows import Window, windows
from wfm.evaluation.bootstrap import Bootstrap
from wfm.evaluation.metrics.psnr import psnr_per_frame
from wfm.evaluation.metrics.ssim import ssim_per_frame
from wfm.families.diffusion_decoder.draw import TokenDecoder
from wfm.generation.sampler_config import SamplerConfig
from wfm.models.folder import open_model
from wfm.models.tokenizer import Tokenizer

SAMPLED = SamplerConfig(sampler="euler", steps=4)


def spread(found: list[Window], limit: int) -> list[Window]:
    return found[:: max(1, len(found) // limit)][:limit]


def videos(found: list[Window]) -> Tensor:
    return as_video(torch.from_numpy(np.stack([window.frames for window in found])))


@torch.no_grad()
def told_nothing(one: TokenDecoder, tokens: Tensor, grid: tuple[int, int], seeds: list[int]) -> Tensor:
    """The decoder's mean with zeros in place of the tokens."""
    decoder = one.decoder
    shape = (len(tokens), decoder.config.network.in_channels, tokens.shape[1], *grid)
    noise = torch.stack([torch.randn(shape[1:], generator=torch.Generator().manual_seed(seed)) for seed in seeds])
    ready = decoder.conditioned(tokens, noise, keep=torch.zeros(len(tokens), dtype=torch.bool))
    top = one.sampling.sigma_max
    return one.tokenizer.decode(decoder.denormalise(decoder.denoise(noise * top, top, ready))).clamp(-1, 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", required=True)
    parser.add_argument("--decoder", default="decoder/curated@latest")
    parser.add_argument("--clips", type=int, default=96)
    parser.add_argument("--long-clips", type=int, default=24)
    parser.add_argument("--size", type=int, nargs=2, default=[64, 64])
    arguments = parser.parse_args()
    torch.set_num_threads(THREADS)
    store = Store.open(arguments.store)
    artifact = store.artifact(store.resolve(arguments.decoder))
    with tempfile.TemporaryDirectory() as scratch:
        artifact.fetch_tree("", Path(scratch))
        decoder = TokenDecoder.load(Path(scratch))
    discrete, _ = open_model(store.artifact(artifact.manifest.inputs["tokenizer_discrete"]))
    latents = store.artifact(artifact.manifest.inputs["latents"])
    dataset = store.artifact(latents.manifest.inputs["dataset"])
    size = (arguments.size[0], arguments.size[1])
    found = spread(list(windows(dataset, "test", num_frames=33, stride_frames=32, size=size)), arguments.clips)
    truth = np.stack([window.frames for window in found])
    grid = (size[0] // decoder.tokenizer.config.spatial_compression,) * 2
    shown: dict[str, list[np.ndarray]] = {"direct": [], "mean": [], "sampled": [], "told_nothing": []}
    for start in range(0, len(found), 16):
        part = found[start : start + 16]
        with torch.no_grad():
            tokens = discrete.tokens(videos(part))
            shown["direct"].append(as_frames(discrete.decode_tokens(tokens).clamp(-1, 1)).numpy())
        seeds = list(range(start, start + len(part)))
        shown["mean"].append(as_frames(decoder.decode(tokens, size, seeds=seeds)).numpy())
        drawn = decoder._replace(sampling=SAMPLED, mode="sample")
        shown["sampled"].append(as_frames(drawn.decode(tokens, size, seeds=seeds)).numpy())
        shown["told_nothing"].append(as_frames(told_nothing(decoder, tokens, grid, seeds)).numpy())
    made = {name: np.concatenate(parts) for name, parts in shown.items()}
    psnr = {name: psnr_per_frame(video, truth).mean(1) for name, video in made.items()}
    ssim = {name: float(ssim_per_frame(video, truth).mean()) for name, video in made.items()}
    bootstrap = Bootstrap([window.session_id for window in found])
    gains = {name: bootstrap.mean(psnr[name] - psnr["direct"]) for name in ("mean", "sampled", "told_nothing")}
    print_line(
        benchmark="diffusion_decoder",
        clips=len(found),
        psnr={name: round(float(values.mean()), 3) for name, values in psnr.items()},
        ssim={name: round(value, 4) for name, value in ssim.items()},
        gain={
            n: [v if v is None else round(v, 3) for v in (e.mean, e.low, e.high)]
            for n, e in gains.items()
            if e is not None
        },
        **seams(decoder, discrete, dataset, size, arguments.long_clips),
    )


def seams(
    decoder: TokenDecoder, discrete: Tokenizer, dataset: Artifact, size: tuple[int, int], limit: int
) -> dict[str, object]:
    """Change from frame to frame at handovers of windows of 4 latent frames that share 2, over that elsewhere; 65 frames."""
    found = spread(list(windows(dataset, "test", num_frames=65, stride_frames=64, size=size)), limit)
    if not found:
        return {"long_clips": 0}
    cut = decoder._replace(window=4, overlap=2)
    step = decoder.tokenizer.config.temporal_compression
    changes: dict[str, list[np.ndarray]] = {"cut": [], "whole": []}
    psnr: dict[str, list[float]] = {"cut": [], "whole": []}
    frames = 1 + 8 * step
    handover = np.zeros(frames - 1, bool)
    for latent in range(2, 9 - 2, 2):  # windows [0, 4), [2, 6), ...: latent frames 2 and 3 are the first that two share
        first = 1 + (latent - 1) * step  # first frame of that latent
        handover[[first - 1, first + step - 1, first + 2 * step - 1]] = True  # into, within and out of the overlap
    for window in found:
        with torch.no_grad():
            tokens = discrete.tokens(videos([window]))
        for name, one in (("cut", cut), ("whole", decoder)):
            video = as_frames(one.decode(tokens, size, seeds=[0])).numpy()
            changes[name].append(np.abs(np.diff(video[0].astype(np.float32), axis=0)).mean((1, 2, 3)))  # [frames - 1]
            psnr[name].append(float(psnr_per_frame(video, window.frames[None]).mean()))
    at = {name: float(np.stack(values)[:, handover].mean()) for name, values in changes.items()}
    return {
        "long_clips": len(found),
        "seam": round(at["cut"] / at["whole"], 3),
        "boundary": round(at["whole"] / float(np.stack(changes["whole"])[:, ~handover].mean()), 3),
        "long_psnr": {name: round(float(np.mean(values)), 3) for name, values in psnr.items()},
    }


if __name__ == "__main__":
    main()
