"""Trained embedders from local files: CLIP, Cosmos-Embed1, and anything exported as TorchScript (InternVideo2 among them).

Every one is ``frames uint8 [T, H, W, 3] -> float32 [D]``. Nothing is downloaded. Files enter the key by their sha256, which the
config must state: other weights are another embedding. Cosmos-Embed1's folder and TorchScript run code that came with the
weights, so they ask for ``run_code``.
"""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np

from wfm.artifacts.verified import hash_file
from wfm.errors import ConfigError, DataError, MissingPackage

Embedder = Callable[[np.ndarray], np.ndarray]
RUNS_CODE = ("cosmos-embed1", "torchscript")


def digest(path: Path) -> str:
    """sha256 over the names and bytes of a file, or of all files of a folder."""
    if not path.exists():
        raise ConfigError(f"weights = {str(path)!r}: no such file or folder; give the local folder of the embedder")
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    total = hashlib.sha256()
    for file in files:
        total.update(f"{file.relative_to(path)}\0{hash_file(file)[1]}\n".encode())
    return total.hexdigest()


def open_embedder(model: str, weights: str, weights_sha256: str, *, run_code: bool, device: str) -> Embedder:
    """The embedder of a local file or folder. Raises `ConfigError` where it is not the one that the config names."""
    if model in RUNS_CODE and not run_code:
        raise ConfigError(
            f"model = {model!r} runs code that lies beside its weights: read it, then allow it with run_code = true"
        )
    path = Path(weights)
    found = digest(path)
    if found != weights_sha256:
        raise ConfigError(
            f"weights_sha256 = {weights_sha256!r}, but {path.name!r} has {found!r}: these weights make other embeddings"
        )
    try:
        import torch  # noqa: F401
        import transformers  # noqa: F401
    except ImportError:
        raise MissingPackage("transformers", extra="text", purpose=f"model={model!r} in embed_clips") from None
    return {"clip": _clip, "cosmos-embed1": _cosmos_embed, "torchscript": _torchscript}[model](path, device)


def open_tower(path: Path, side: Literal["vision", "text"]) -> Any:
    """One side of the CLIP of a folder, with its projection, in float32. Raises `DataError` for a folder that lacks it."""
    import torch
    import transformers

    said = transformers.logging
    level, bars = said.get_verbosity(), said.is_progress_bar_enabled()
    said.set_verbosity_error()  # of a whole CLIP the other side is left over: no news
    said.disable_progress_bar()
    kind = {"vision": transformers.CLIPVisionModelWithProjection, "text": transformers.CLIPTextModelWithProjection}[
        side
    ]
    try:
        config = transformers.AutoConfig.from_pretrained(str(path), local_files_only=True)
        if isinstance(config, transformers.CLIPConfig):  # a side's own config need not state the common width
            width, config = config.projection_dim, getattr(config, f"{side}_config")
            config.projection_dim = width
        network, found = kind.from_pretrained(
            str(path), config=config, local_files_only=True, use_safetensors=True, dtype=torch.float32,
            output_loading_info=True,
        )  # fmt: skip
    except Exception as error:  # transformers raises many kinds for a broken folder
        raise DataError(f"{path}: transformers cannot open this CLIP ({error})") from error
    finally:
        said.set_verbosity(level)
        if bars:
            said.enable_progress_bar()
    if wrong := sorted(map(str, [*found["missing_keys"], *found["mismatched_keys"]])):
        raise DataError(f"{path}: the weights do not hold {', '.join(wrong[:5])}: not a CLIP with its {side} tower")
    return network.eval()


def _clip(path: Path, device: str) -> Embedder:
    """The mean of CLIP's image embeddings of the frames; the folder's own preprocessing."""
    import torch
    import transformers

    network = open_tower(path, "vision").to(device)
    try:
        prepare = transformers.CLIPImageProcessor.from_pretrained(str(path), local_files_only=True)
    except Exception as error:  # transformers raises many kinds for a broken folder
        raise DataError(f"{path}: transformers cannot open this CLIP's preprocessing ({error})") from error

    def embed(frames: np.ndarray) -> np.ndarray:
        pixels = prepare(images=list(frames), return_tensors="pt")["pixel_values"]  # [T, 3, h, w]
        with torch.no_grad():
            each = torch.nn.functional.normalize(network(pixel_values=pixels.to(device)).image_embeds, dim=-1)
        return each.mean(dim=0).float().cpu().numpy()

    return embed


def _cosmos_embed(path: Path, device: str) -> Embedder:
    """Cosmos-Embed1's video embedding, by the code in its folder."""
    import torch
    import transformers

    local: dict[str, Any] = {"trust_remote_code": True, "local_files_only": True}
    network = transformers.AutoModel.from_pretrained(str(path), **local).eval().to(device)
    prepare = transformers.AutoProcessor.from_pretrained(str(path), **local)
    kind = next(network.parameters()).dtype

    def embed(frames: np.ndarray) -> np.ndarray:
        videos = np.ascontiguousarray(frames.transpose(0, 3, 1, 2))[None]  # [1, T, 3, H, W]
        with torch.no_grad():
            made = network.get_video_embeddings(**prepare(videos=videos, return_tensors="pt").to(device, dtype=kind))
        return made.visual_proj[0].float().cpu().numpy()

    return embed


def _torchscript(path: Path, device: str) -> Embedder:
    """A module that takes float32 [1, T, 3, H, W] in 0 to 1 and gives [1, D]; normalising colours is its own affair."""
    import torch

    network = torch.jit.load(str(path), map_location=device).eval()  # type: ignore[no-untyped-call]

    def embed(frames: np.ndarray) -> np.ndarray:
        x = torch.from_numpy(np.ascontiguousarray(frames.transpose(0, 3, 1, 2))).to(device).float()[None] / 255
        with torch.no_grad():
            made = network(x)
        return made[0].float().cpu().numpy()

    return embed
