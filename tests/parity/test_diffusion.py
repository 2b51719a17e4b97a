"""The diffusion transformer against diffusers' CosmosTransformer3DModel: same weights, same numbers.

The peer is a pinned development dependency; without it these tests fail, they do not skip. It keeps fp32 islands (time
embedding, rotary tables, the length of the learned positions), so that fp64 agrees to about 1e-7 only; our own fp64 is
held to 1e-10 by a plain twin written here in loops and einsum.
"""

import math
import types

import diffusers.models.transformers.transformer_cosmos as peer_module
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.parity.frozen_keys import read_keys
from wfm.models.diffusion.config import DiffusionConfig
from wfm.models.diffusion.network import DiffusionTransformer

FORWARD = {torch.float32: 1e-5, torch.float64: 1e-6}  # of the largest output; worst measured 4.5e-7 and 2.5e-7
GRADIENT = 1e-5  # of the model's largest gradient, fp32; worst measured 4.6e-7
HALF = 0.03  # bf16 against fp32, of the output's norm; worst measured 1.0e-2 (the peer against itself: 1.1e-2)

SMALL = {
    "in_channels": 4, "num_attention_heads": 2, "attention_head_dim": 18, "num_layers": 2, "mlp_ratio": 2.0,
    "text_embed_dim": 16, "adaln_lora_dim": 4, "max_size": (6, 32, 32), "qk_norm_eps": 1e-5,
}  # fmt: skip
CASES = {
    "many frames, not square, padded": ({}, (3, 6, 10), None),
    "fps": ({}, (4, 8, 6), 16),
    "one frame": ({}, (1, 8, 4), None),
    "no padding mask": ({"concat_padding_mask": False}, (3, 6, 6), 30),
    "no learned positions": ({"extra_pos_embed": False}, (2, 4, 10), 24),
    "condition mask": ({"condition_mask": True}, (3, 6, 4), 24),
    "stretched": ({"rope_scale": (2.0, 1.5, 3.0), "attention_head_dim": 24, "num_attention_heads": 3}, (5, 10, 14), 12),
    "big patches": ({"patch_size": (1, 4, 2), "max_size": (6, 32, 16)}, (2, 12, 6), None),
}


class _Nearest:
    """What the peer imports from torchvision (which is not needed otherwise): a nearest resize."""

    functional = types.SimpleNamespace(resize=lambda x, size, interpolation: F.interpolate(x, size, mode=interpolation))
    InterpolationMode = types.SimpleNamespace(NEAREST="nearest")


@pytest.fixture(autouse=True)
def _resize(monkeypatch):
    monkeypatch.setattr(peer_module, "transforms", _Nearest, raising=False)


def pair(values: dict, dtype: torch.dtype) -> tuple[DiffusionTransformer, peer_module.CosmosTransformer3DModel]:
    """Both networks with the same random weights, those that start at zero or one (gates, norms) too."""
    config = DiffusionConfig.parse({**SMALL, **values})
    same = (
        "num_attention_heads", "attention_head_dim", "num_layers", "mlp_ratio", "text_embed_dim", "adaln_lora_dim", "max_size",
        "patch_size", "rope_scale", "concat_padding_mask",
    )  # fmt: skip
    torch.manual_seed(0)
    peer = peer_module.CosmosTransformer3DModel(
        in_channels=config.in_channels + config.condition_mask,
        out_channels=config.in_channels,
        extra_pos_embed_type="learnable" if config.extra_pos_embed else None,
        **{name: getattr(config, name) for name in same},
    )
    for name, parameter in peer.named_parameters():
        torch.nn.init.normal_(parameter, mean=float("norm" in name and parameter.ndim == 1), std=0.25)
    ours = DiffusionTransformer(config)
    ours.load_state_dict(peer.state_dict())  # strict: the same names and shapes
    ours, peer = ours.to(dtype), peer.to(dtype)
    if peer.learnable_pos_embed is not None and dtype == torch.float64:
        peer.learnable_pos_embed.float()  # it cannot take the length of an fp64 vector
    return ours, peer


def inputs(values: dict, size: tuple[int, int, int], dtype: torch.dtype) -> dict:
    """Arguments by our names, for two samples."""
    generator = torch.Generator().manual_seed(1)
    drawn = {
        "latents": torch.randn(2, 4, *size, generator=generator, dtype=dtype),
        "c_noise": torch.randn(2, generator=generator, dtype=dtype),
        "text": torch.randn(2, 7, 16, generator=generator, dtype=dtype),
    }
    if values.get("condition_mask"):
        drawn["condition_mask"] = torch.rand(2, 1, *size, generator=generator).round().to(dtype)
    if values.get("concat_padding_mask", True):  # in pixels, alike for both samples: all that the peer takes
        drawn["padding_mask"] = torch.rand(1, 1, 8 * size[1], 8 * size[2], generator=generator).round().to(dtype)
    return drawn


def both(values: dict, size: tuple[int, int, int], fps: int | None, dtype: torch.dtype, way=lambda model: model):
    """Outputs of ours and of the peer; way: what is done to ours."""
    ours, peer = pair(values, dtype)
    ours = way(ours)
    given = inputs(values, size, dtype)
    theirs = dict(zip(("hidden_states", "timestep", "encoder_hidden_states"), list(given.values())[:3], strict=True))
    masks = {name: given[name] for name in ("condition_mask", "padding_mask") if name in given}
    return ours(**given, fps=fps), peer(**theirs, **masks, fps=fps).sample


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("case", CASES)
def test_forward(case, dtype, way):
    found, wanted = both(*CASES[case], dtype, way)
    assert found.shape == wanted.shape
    assert (found - wanted).abs().max() <= FORWARD[dtype] * wanted.abs().max()


@pytest.mark.parametrize("case", CASES)
def test_gradients(case, way):
    values, size, fps = CASES[case]
    ours, peer = pair(values, torch.float32)
    ours = way(ours)
    given = inputs(values, size, torch.float32)
    weight = torch.randn(2, 4, *size, generator=torch.Generator().manual_seed(2))
    gradients = []
    for model, names in (
        (ours, ("latents", "c_noise", "text")),
        (peer, ("hidden_states", "timestep", "encoder_hidden_states")),
    ):
        arguments = {
            new: given[old].clone().requires_grad_()
            for old, new in zip(("latents", "c_noise", "text"), names, strict=True)
        }
        masks = {name: given[name] for name in ("condition_mask", "padding_mask") if name in given}
        out = model(**arguments, **masks, fps=fps)
        ((out if model is ours else out.sample) * weight).sum().backward()
        inside = {name: p.grad for name, p in model.named_parameters()}
        gradients.append(inside | {f"input {i}": x.grad for i, x in enumerate(arguments.values())})
    found, wanted = gradients
    assert found.keys() == wanted.keys()
    largest = max(float(g.abs().max()) for g in wanted.values())
    for name, gradient in wanted.items():
        assert (found[name] - gradient).abs().max() <= GRADIENT * largest, name


@torch.no_grad()
def test_one_noise_level_a_latent_frame():
    ours, peer = pair({}, torch.float32)
    given = inputs({}, (3, 6, 10), torch.float32)
    levels = torch.randn(2, 3, generator=torch.Generator().manual_seed(3))
    found = ours(given["latents"], levels, given["text"], padding_mask=given["padding_mask"])
    wanted = peer(
        given["latents"], levels[:, None, :, None, None], given["text"], padding_mask=given["padding_mask"]
    ).sample
    assert (found - wanted).abs().max() <= FORWARD[torch.float32] * wanted.abs().max()


@torch.no_grad()
def test_text_lengths_hide_what_follows():
    ours, peer = pair({}, torch.float32)
    given = inputs({}, (3, 6, 10), torch.float32)
    keep = (torch.arange(7)[None] < torch.tensor([[3], [6]])).bool()
    found = ours(**given, text_lengths=[3, 6])
    wanted = peer(
        given["latents"], given["c_noise"], given["text"], attention_mask=keep, padding_mask=given["padding_mask"]
    ).sample
    assert (found - wanted).abs().max() <= FORWARD[torch.float32] * wanted.abs().max()


@torch.no_grad()
@pytest.mark.parametrize("case", ["many frames, not square, padded", "condition mask", "stretched"])
def test_half_precision(case):
    values, size, fps = CASES[case]
    exact, _ = both(values, size, fps, torch.float32)
    rough, _ = both(values, size, fps, torch.bfloat16)
    assert rough.dtype == torch.bfloat16
    assert (rough.float() - exact).norm() <= HALF * exact.norm()


# The plain twin


def twin(
    model: DiffusionTransformer, latents: Tensor, c_noise: Tensor, text: Tensor, fps: float | None, masks: list[Tensor]
) -> Tensor:
    """The network again for one sample at a time, from its weights alone; masks `[B, 1, T, H, W]` in channel order."""
    weights, config = model.state_dict(), model.config
    x = torch.cat([latents, *masks], dim=1)
    return torch.stack([_twin_of_one(weights, config, *sample, fps) for sample in zip(x, c_noise, text, strict=True)])


def _twin_of_one(
    w: dict, config: DiffusionConfig, x: Tensor, c_noise: Tensor, text: Tensor, fps: float | None
) -> Tensor:
    d, (_, p, q), (_, frames, rows, columns) = config.width, config.patch_size, x.shape
    places = [(t, h, k) for t in range(frames) for h in range(rows // p) for k in range(columns // q)]
    cut = [x[:, t, h * p : h * p + p, k * q : k * q + q].flatten() for t, h, k in places]
    h = torch.stack(cut) @ w["patch_embed.proj.weight"].T
    waves = [c_noise * math.exp(-math.log(1e4) * i / (d // 2)) for i in range(d // 2)]
    wave = torch.stack([a.cos() for a in waves] + [a.sin() for a in waves])
    lora = w["time_embed.t_embedder.linear_2.weight"] @ F.silu(w["time_embed.t_embedder.linear_1.weight"] @ wave)
    embedding = wave / (wave.pow(2).mean() + 1e-6).sqrt() * w["time_embed.norm.weight"]

    def modulation(name: str, parts: int) -> tuple[Tensor, ...]:
        mixed = w[f"{name}.linear_2.weight"] @ (w[f"{name}.linear_1.weight"] @ F.silu(embedding)) + lora[: parts * d]
        return mixed.split(d)

    def norm(y: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
        y = y - y.mean(1, keepdim=True)
        return y / (y.pow(2).mean(1, keepdim=True) + 1e-6).sqrt() * (1 + scale) + shift

    def attend(name: str, y: Tensor, source: Tensor, turn: bool) -> Tensor:
        heads = {n: (s @ w[f"{name}.to_{n}.weight"].T).unflatten(1, (config.num_attention_heads, -1))
                 for n, s in (("q", y), ("k", source), ("v", source))}  # fmt: skip
        for n in "qk":
            mean = heads[n].pow(2).mean(-1, keepdim=True)
            heads[n] = heads[n] / (mean + config.qk_norm_eps).sqrt() * w[f"{name}.norm_{n}.weight"]
            if turn:
                heads[n] = torch.stack(
                    [_turned(one, place, config, fps) for one, place in zip(heads[n], places, strict=True)]
                )
        scores = torch.einsum("ihd,jhd->hij", heads["q"], heads["k"]) / math.sqrt(config.attention_head_dim)
        out = torch.einsum("hij,jhd->ihd", scores.softmax(-1), heads["v"])
        return out.flatten(1) @ w[f"{name}.to_out.0.weight"].T

    for i in range(config.num_layers):
        block = f"transformer_blocks.{i}"
        if config.extra_pos_embed:
            table = [w[f"learnable_pos_embed.pos_emb_{axis}"] for axis in "thw"]
            added = torch.stack([table[0][t] + table[1][r] + table[2][c] for t, r, c in places])
            h = h + added / (1e-6 + added.norm(dim=1, keepdim=True) / math.sqrt(d))
        for j, name in enumerate(("attn1", "attn2", "ff"), start=1):
            shift, scale, gate = modulation(f"{block}.norm{j}", 3)
            y = norm(h, shift, scale)
            if name == "ff":
                y = y @ w[f"{block}.ff.net.0.proj.weight"].T
                y = (y * 0.5 * (1 + torch.erf(y / math.sqrt(2)))) @ w[f"{block}.ff.net.2.weight"].T
            else:
                y = attend(f"{block}.{name}", y, y if j == 1 else text, j == 1)
            h = h + gate * y
    h = norm(h, *modulation("norm_out", 2)) @ w["proj_out.weight"].T
    out = h.new_zeros(config.in_channels, frames, rows, columns)
    for (t, r, c), token in zip(places, h, strict=True):
        out[:, t, r * p : r * p + p, c * q : c * q + q] = token.view(p, q, -1).permute(2, 0, 1)
    return out


def _turned(heads: Tensor, place: tuple[int, int, int], config: DiffusionConfig, fps: float | None) -> Tensor:
    """Heads `[H, D]` at one place, each pair (i, i + D / 2) rotated by its angle."""
    size, half = config.attention_head_dim, config.attention_head_dim // 2
    space = size // 6 * 2
    angles = []
    for axis, width in enumerate((size - 2 * space, space, space)):
        theta = config.rope_theta * config.rope_scale[axis] ** (width / (width - 2))
        position = place[axis] * (24 / fps if axis == 0 and fps else 1)
        angles += [position * theta ** (-2 * i / width) for i in range(width // 2)]
    out = heads.clone()
    for i, angle in enumerate(angles):
        a, b = heads[:, i], heads[:, i + half]
        out[:, i] = a * math.cos(angle) - b * math.sin(angle)
        out[:, i + half] = b * math.cos(angle) + a * math.sin(angle)
    return out


@torch.no_grad()
@pytest.mark.parametrize("case", CASES)
def test_plain_twin(case):
    values, size, fps = CASES[case]
    model, _ = pair(values, torch.float64)
    given = inputs(values, size, torch.float64)
    masks = [given["condition_mask"]] if "condition_mask" in given else []
    if "padding_mask" in given:
        rows, columns = (torch.arange(n) * 8 for n in size[1:])  # the nearest pixel is the first of each 8
        channel = given["padding_mask"][:, :, rows][..., columns]
        masks.append(channel[:, :, None].expand(2, 1, *size))
    wanted = twin(model, given["latents"], given["c_noise"], given["text"], fps, masks)
    found = model(**given, fps=fps)
    assert (found - wanted).abs().max() <= 1e-10 * wanted.abs().max()  # worst measured 1.5e-15


# Sizes

PRESETS = {
    "diffusion-7b": ({"num_attention_heads": 32, "num_layers": 28}, 7_236_192_256),
    "diffusion-14b": ({"num_attention_heads": 40, "num_layers": 36}, 14_267_149_312),
    "diffusion-7b-v2w": ({"num_attention_heads": 32, "num_layers": 28, "condition_mask": True}, 7_236_208_640),
    "diffusion-14b-v2w": ({"num_attention_heads": 40, "num_layers": 36, "condition_mask": True}, 14_267_169_792),
}


@pytest.mark.parametrize("name", PRESETS)
def test_exact_counts_and_published_keys(name):
    values, wanted = PRESETS[name]
    with torch.device("meta"):
        model = DiffusionTransformer(DiffusionConfig.parse({"attention_head_dim": 128, **values}))
    assert sum(parameter.numel() for parameter in model.parameters()) == wanted
    shapes = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    assert shapes == read_keys(f"{name}.diffusers").weights
