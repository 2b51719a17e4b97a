"""What each term of the tokenizer's loss does: equal steps from one start, from the pixel error alone to all terms.

    python tests/benchmarks/tokenizer_losses.py                        # the demo's simulated worlds, rendered on the spot
    python tests/benchmarks/tokenizer_losses.py --store URL --dataset dataset/curated      # a curated dataset

Prints one JSON line a row. Every row has the demo's tokenizer, the same weights to begin with, the same batches, optimiser
and number of steps; only the loss differs. Figures are of held-out windows (other sessions), reconstructed by the averaged
weights. The feature net needs no weights from outside and is not LPIPS; `judge_features` is another net than the one that
was trained on, and `flow_judge` another estimator (DIS).
"""

import argparse
import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wfm.artifacts import Store
from wfm.data.loader import ArrayDataset, Loader
from wfm.data.motion import FlowEstimator
from wfm.data.order import one_shape
from wfm.data.passes import batches
from wfm.data.pixels import as_frames, as_video, video_batch
from wfm.data.window_samples import WindowSamples, list_windows
from wfm.evaluation.features import GaborPyramid, frames_to_tensor
from wfm.evaluation.metrics.perceptual_distance import perceptual_distance as judged_distance
from wfm.evaluation.metrics.psnr import psnr_per_frame
from wfm.evaluation.metrics.ssim import ssim_per_frame
from wfm.families.tokenizer.card import TokenizerTrainingConfig
from wfm.families.tokenizer.fit import first_weights, rival_of
from wfm.models.tokenizer import Tokenizer, TokenizerObjective
from wfm.models.tokenizer.optical_flow import LucasKanade, flow_distance
from wfm.models.tokenizer.perceptual import GaborNet, gram_distance, perceptual_distance
from wfm.recipes import demo
from wfm.simulation.camera import pose_at
from wfm.simulation.config import SimulationConfig
from wfm.simulation.render import renderer_for
from wfm.simulation.session import plan_session
from wfm.training.loop import train
from wfm.training.metrics import read_curve

FRAMES = 33
HELD = 24
"""Windows that figures are of."""
JUDGED_PAIRS = 8
"""Frame pairs a window whose flow DIS takes."""


def main() -> None:
    arguments = parse()
    torch.set_num_threads(arguments.threads)
    training, held = windows_of(arguments)
    for name, loss in rows(arguments.steps):
        if arguments.rows and name not in arguments.rows:
            continue
        print(json.dumps(one_row(name, loss, training, held, arguments)), flush=True)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--rows", nargs="*", default=[], help="only these rows")
    source_of(parser)
    return parser.parse_args()


def source_of(parser: argparse.ArgumentParser) -> None:
    """Options that say where the windows come from."""
    parser.add_argument("--sessions", type=int, default=16, help="sessions rendered; one in four is held out")
    parser.add_argument("--store", default="", help="take a data set from this store, and render nothing")
    parser.add_argument("--dataset", default="dataset/curated")
    parser.add_argument("--threads", type=int, default=2)


def windows_of(arguments: argparse.Namespace) -> tuple[ArrayDataset, np.ndarray]:
    """Training windows, and held-out frames uint8 `[N, T, H, W, 3]`."""
    return from_store(arguments) if arguments.store else rendered(arguments.sessions)


def rows(steps: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Cosmos's weights, all from the start but the discriminator's, which has a quarter of the run to learn alone; without
    R1, which keeps it from learning anything in so few steps."""
    yield "l2", {"error": "l2"}
    loss: dict[str, Any] = {"error": "l1"}
    yield "l1", loss
    for name, term in (
        ("perceptual", {"after": 0.1}),
        ("gram", {"after": 0.062}),
        ("flow", {"after": 0.01}),
        ("adversarial", {"weight": {"after": 0.1, "start": steps // 4}, "lead_steps": steps // 4, "adaptive": True,
                         "channels": 16}),
    ):  # fmt: skip
        loss = {**loss, name: term}
        yield f"+{name}", loss


def rendered(sessions: int) -> tuple[ArrayDataset, np.ndarray]:
    """Windows of the demo's simulation without its junk: training samples, and held-out frames uint8 `[N, T, H, W, 3]`."""
    config = SimulationConfig.parse({**demo.settings()["simulate_videos"], "sessions": sessions})
    found: dict[bool, list[np.ndarray]] = {True: [], False: []}
    renderer = renderer_for(config.size, config.fps)
    for index in range(sessions):
        session = plan_session(config, index)
        for shot in (shot for shot in session.shots if shot.kind == "world"):
            renderer.world.load(shot.scene)
            renderer.load(shot.scene)
            clips: list[list[np.ndarray]] = [[] for _ in session.views]
            for k in range(shot.num_frames):
                if k:
                    renderer.world.advance(shot.commands.actions[k - 1, 2:], shot.commands.actor[k])
                renderer.update()
                for clip, view in zip(clips, session.views, strict=True):
                    pose = pose_at(view, shot.commands.azimuth[k], shot.commands.elevation[k])
                    clip.append(halved(renderer.frame(pose)[0]))
            for clip in clips:
                starts = range(0, len(clip) - FRAMES + 1, FRAMES - 1)
                found[index % 4 == 3] += [np.stack(clip[start : start + FRAMES]) for start in starts]
    train_frames = torch.from_numpy(np.stack(found[False]))
    samples = ArrayDataset(tuple(f"w{i}" for i in range(len(train_frames))), {"frames": train_frames})
    return samples, np.stack(found[True])[:: max(1, len(found[True]) // HELD)][:HELD]


def halved(picture: np.ndarray) -> np.ndarray:
    """uint8 [H, W, 3] at half the size."""
    height, width, _ = picture.shape
    return picture.reshape(height // 2, 2, width // 2, 2, 3).mean((1, 3)).round().astype(np.uint8)


def from_store(arguments: argparse.Namespace) -> tuple[ArrayDataset, np.ndarray]:
    """The same from a curated data set's train and val splits."""
    store = Store.open(arguments.store)
    dataset = store.artifact(store.resolve(arguments.dataset))

    def read(split: str, limit: int) -> ArrayDataset:
        found = list_windows(dataset, split, num_frames=FRAMES, stride_frames=FRAMES - 1, most=limit)
        samples = WindowSamples(dataset, found, size=(64, 64))
        frames = torch.cat([batch["frames"] for _, batch in batches(samples)])
        return ArrayDataset(samples.ids, {"frames": frames})

    return read("train", 2000), read("val", HELD).arrays["frames"].numpy()


def settings(loss: dict[str, Any], steps: int) -> TokenizerTrainingConfig:
    """The demo's tokenizer with another loss."""
    recipe = demo.settings()["train_tokenizer_continuous"]
    training = {**recipe["training"], "steps": steps, "log_every": max(1, steps // 40), "checkpoint_every": 10**9}
    return TokenizerTrainingConfig.parse({**recipe, "loss": loss, "training": {**training, "checkpoint_seconds": 1e9}})


def one_row(
    name: str, loss: dict[str, Any], samples: ArrayDataset, held: np.ndarray, arguments: argparse.Namespace
) -> dict[str, Any]:
    """Train from the common start and measure."""
    config = settings(loss, arguments.steps)
    torch.manual_seed(config.training.seed)
    model = first_weights(config, samples)
    objective = TokenizerObjective(config.loss)
    crop = video_batch(config.crop_frames)
    data = Loader(
        samples, one_shape(samples.sample_ids, config.training.batch_size, config.training.seed), transform=crop
    )
    batch = as_video(samples.arrays["frames"][: config.training.batch_size, : config.crop_frames])
    at_start = decoder_pulls(model, objective, batch, arguments.steps)
    with tempfile.TemporaryDirectory() as scratch:
        began = time.perf_counter()
        train(model, objective, data, config.training, scratch=Path(scratch), rival=rival_of(objective, config))
        seconds = time.perf_counter() - began
        curve = read_curve(Path(scratch) / "metrics.jsonl")
    return {
        "row": name,
        "terms": [term for term in ("perceptual", "gram", "flow", "adversarial") if term in loss],
        "steps": arguments.steps,
        "windows": len(samples),
        "held_out": len(held),
        "seconds_a_step": round(seconds / arguments.steps, 3),
        **measured(model, held),
        "decoder_gradient_start": at_start,
        "decoder_gradient_end": decoder_pulls(model, objective, batch, arguments.steps),
        "discriminator_accuracy": [
            [point["step"], round(point["discriminator_accuracy"], 3)]
            for point in curve
            if "discriminator_accuracy" in point
        ],
        "discriminator_accuracy_held_out": held_out_accuracy(model, objective, held),
    }


def decoder_pulls(model: Tokenizer, objective: TokenizerObjective, video: Tensor, step: int) -> dict[str, float]:
    """Norm of the gradient into the decoder's parameters from each term, weighted as at `step` (balance left out)."""
    with torch.no_grad():
        latents = model.encode(video)
    rebuilt = model.decode(latents)
    parameters = [p for p in model.parameters() if p.requires_grad]
    pulls = {}
    for name, term in objective.terms(rebuilt, video, step).items():
        gradients = torch.autograd.grad(term.weight * term.value, parameters, retain_graph=True, allow_unused=True)
        norm = torch.stack([g.norm() for g in gradients if g is not None]).norm()
        pulls[name] = float(f"{float(norm):.4g}")
    return pulls


@torch.no_grad()
def rebuild(model: Tokenizer, held: np.ndarray) -> Tensor:
    return torch.cat([model(as_video(part)) for part in torch.from_numpy(held).split(8)]).clamp(-1, 1)


@torch.no_grad()
def held_out_accuracy(model: Tokenizer, objective: TokenizerObjective, held: np.ndarray) -> float | None:
    """Of the trained discriminator on windows that it has not seen; None without one."""
    from wfm.models.tokenizer.discriminator import accuracy

    if objective.discriminator is None:
        return None
    real, false = (
        torch.cat([objective.discriminator(part) for part in video.split(8)])
        for video in (as_video(torch.from_numpy(held)), rebuild(model, held))
    )
    return round(float(accuracy(real, false)), 3)


@torch.no_grad()
def measured(model: Tokenizer, held: np.ndarray) -> dict[str, float]:
    """Every figure of the held-out windows' reconstructions, on 8-bit frames."""
    made = as_frames(rebuild(model, held)).numpy()
    video, rebuilt = as_video(torch.from_numpy(held)), as_video(torch.from_numpy(made))
    net, judge, estimator = GaborNet(), GaborPyramid(), LucasKanade()
    features, grams, flows, judged = [], [], [], []
    for one, other in zip(rebuilt.split(1), video.split(1), strict=True):
        ours, theirs = (net(v.transpose(1, 2).flatten(0, 1)) for v in (one, other))
        features.append(float(perceptual_distance(ours, theirs, net.layer_weights)))
        grams.append(float(gram_distance(ours, theirs, net.layer_weights, videos=1)))
        flows.append(float(flow_distance(estimator, one, other, 2)))
    for one, other in zip(made, held, strict=True):
        judged.append(float(judged_distance(judge(frames_to_tensor(one)), judge(frames_to_tensor(other))).mean()))
    change = [np.diff(frames.astype(np.float32), axis=1) for frames in (made, held)]
    edges = [np.abs(np.diff(frames.astype(np.float32), axis=3)).mean() for frames in (made, held)]
    figures = {
        "psnr": psnr_per_frame(made, held).mean(),
        "ssim": ssim_per_frame(made, held).mean(),
        "features": np.mean(features),
        "judge_features": np.mean(judged),
        "gram": np.mean(grams),
        "flow": np.mean(flows),
        "flow_judge": judged_flow(made, held),
        "temporal_error": np.abs(change[0] - change[1]).mean(),  # frame-to-frame change [grey levels]
        "sharpness": edges[0] / edges[1],  # mean slope along x over the original's
    }
    return {name: float(f"{float(value):.5g}") for name, value in figures.items()}


def judged_flow(made: np.ndarray, held: np.ndarray) -> float:
    """Mean distance [px] between DIS's flows of both videos, on frame pairs spread over each window."""
    estimator = FlowEstimator()
    pairs = np.linspace(0, held.shape[1] - 2, JUDGED_PAIRS).astype(int)
    found = []
    for one, other in zip(made, held, strict=True):
        for k in pairs:
            difference = estimator.between(one[k], one[k + 1]) - estimator.between(other[k], other[k + 1])
            found.append(float(np.linalg.norm(difference, axis=-1).mean()))
    return float(np.mean(found))


if __name__ == "__main__":
    main()
