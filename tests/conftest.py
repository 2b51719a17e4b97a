"""Fixtures that many tests share: a finished smoke run of the main job, made once."""

import fcntl
import gc
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest

Wfm = Callable[..., subprocess.CompletedProcess[str]]


def run_wfm(*arguments: str, store: Path, timeout: float = 900, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run the command ``wfm`` as a user would, in a process of its own."""
    environment = {**os.environ, "WFM_STORE": str(store), "COLUMNS": "160", "NO_COLOR": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "pipelines.commands.cli", *arguments],
        capture_output=True,
        text=True,
        timeout=timeout,
        env=environment,
    )
    if check and done.returncode != 0:
        raise AssertionError(f"wfm {' '.join(arguments)} ended with {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done


def make_film(
    path: Path, seed: int, *, frames: int = 72, size: tuple[int, int] = (96, 128), pixel_format: str = "yuv420p"
) -> Path:
    """A pan over a picture of its own, with a hard cut half-way."""
    height, width = size
    rng = np.random.default_rng(seed)
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=24)
        stream.height, stream.width, stream.pix_fmt = height, width, pixel_format
        worlds = [_world(rng, height, width + 4 * frames) for _ in range(2)]
        for index in range(frames):
            world = worlds[index * 2 // frames]
            pixels = np.ascontiguousarray(world[:, 3 * index : 3 * index + width])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, "rgb24").reformat(format=pixel_format)))
        container.mux(stream.encode())
    return path


def _world(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    coarse = rng.integers(0, 256, (height // 12 + 1, width // 12 + 1, 3), dtype=np.uint8)
    return coarse.repeat(12, axis=0).repeat(12, axis=1)[:height, :width]


ALONE = "WFM_TEST_ALONE"  # the id of the test that this process was started for


def pytest_configure() -> None:
    """Ctrl-C is what tests expect, also where a shell started this in the background and had it ignored."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_finish() -> None:
    """What is there now, two million objects of modules and tests, stays to the end: it is looked through no more (1.2 s each
    time)."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a test that is marked ``alone`` in a process of its own.

    What traces memory is: until Python 3.12.9 ``tracemalloc.stop`` crashes a process whose native threads call into
    Python meanwhile (cpython issue 128679), and other tests leave such threads behind.
    """
    if not pyfuncitem.get_closest_marker("alone") or os.environ.get(ALONE) == pyfuncitem.nodeid:
        return None
    without = [word for name in ("cacheprovider", "hypothesispytest") for word in ("-p", f"no:{name}")]  # 3 s to import
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *without, pyfuncitem.nodeid],
        cwd=pyfuncitem.config.rootpath,
        env={**os.environ, ALONE: pyfuncitem.nodeid},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return True


@pytest.fixture(scope="session")
def film() -> Callable[..., Path]:
    """``film(path, seed, frames=, size=, pixel_format=)`` writes a small video with a hard cut."""
    return make_film


@pytest.fixture(scope="session")
def wfm() -> Wfm:
    """The command, to be called with ``store=``."""
    return run_wfm


@pytest.fixture(scope="session")
def smoke_store(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """A store in which the smoke profile of the main job has run, unbroken: one for all processes that share the tests."""
    own = tmp_path_factory.getbasetemp()
    folder = (own if worker_id == "master" else own.parent) / "smoke"
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "output.txt").exists():
            done = run_wfm("run", "world_model", "--profile", "smoke", store=folder / "store")
            (folder / "output.txt").write_text(done.stdout + done.stderr)
    return folder / "store"


@pytest.fixture
def whole_clip(tmp_path: Path) -> Path:
    """A folder with a CLIP of random weights: both towers, tokenizer, preprocessing, as OpenAI's are laid out."""
    import torch
    import transformers
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    letters = list(bytes_to_unicode().values())
    words = [*letters, *(f"{letter}</w>" for letter in letters), "re", "red</w>", "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {word: number for number, word in enumerate(words)}
    tokenizer = transformers.CLIPTokenizer(vocab=vocabulary, merges=[("r", "e"), ("re", "d</w>")])
    small = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    special = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    torch.manual_seed(0)
    config = transformers.CLIPConfig(
        text_config={**small, **special, "vocab_size": len(words), "max_position_embeddings": 16},
        vision_config={**small, "image_size": 32, "patch_size": 8},
        projection_dim=24,
    )
    folder = tmp_path / "whole clip"
    transformers.CLIPModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    sizes = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
    transformers.CLIPImageProcessor(**sizes).save_pretrained(folder)
    return folder
