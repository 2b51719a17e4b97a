"""The networks are plain modules: whoever wraps, swaps, hooks, compiles or spreads a part of one finds it where a reader of the
paper expects it. What makes them fast on a CPU stands outside (`test_fast_cpu.py`)."""

import ast
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import wfm.models
from tests.wfm.models import tiny
from wfm.models.autoregressive import AutoregressiveConfig, AutoregressiveTransformer
from wfm.models.diffusion import Conditions, Denoiser, DenoiserConfig
from wfm.models.diffusion_decoder.config import DecoderConfig
from wfm.models.diffusion_decoder.network import DiffusionDecoder
from wfm.models.fast_cpu import fast_cpu
from wfm.models.layers import Attention
from wfm.models.tokenizer import Tokenizer, TokenizerConfig
from wfm.parallel.attention import attention

ROOT = Path(__file__).parents[3]
PROJECTIONS = (nn.Linear, nn.Conv2d, nn.Conv3d, nn.Embedding)
NETWORK = {
    "num_layers": 2, "num_attention_heads": 2, "attention_head_dim": 12, "adaln_lora_dim": 8, "patch_size": (1, 2, 2),
    "max_size": (4, 8, 8),
}  # fmt: skip


def denoiser() -> None:
    """With everything that a denoiser can have: text, actions, given frames and what follows them, learned uncertainty."""
    config = {"network": {**NETWORK, "in_channels": 4, "text_embed_dim": 10, "condition_mask": True}, "action_width": 3,
              "temporal_compression": 2, "fps": 10, "uncertainty": 6, "repeat_last": True, "extrapolate": True}  # fmt: skip
    model = tiny.drawn(Denoiser(DenoiserConfig.parse(config)))
    latents, actions = tiny.draw(2, 4, 3, 8, 4), tiny.draw(2, 3, 27)
    with seen(model):
        told = {"past": latents[:, :, :1], "extrapolated": latents, "actions": actions, "text": tiny.draw(2, 5, 10)}
        model.denoise(latents, 1.0, Conditions(told))
        model.uncertainty(torch.ones(1, dtype=torch.float64))


def autoregressive() -> None:
    """With everything that it can have."""
    config = AutoregressiveConfig(
        levels=(4, 4), dim=24, layers=2, heads=4, kv_heads=2, head_dim=12, ffn_dim=40, patch=1, order="raster",
        vocabulary="flat", text_embed_dim=10, action_width=3, action_hidden=8, temporal_compression=2, fps=10, medusa_heads=2,
    )  # fmt: skip
    model = tiny.drawn(AutoregressiveTransformer(config))
    with seen(model):
        model.with_drafts(tiny.tokens()[0], {"actions": tiny.draw(2, 3, 27), "text": tiny.draw(2, 5, 10)})


def digits() -> None:
    """Tokens spelt by their digits, with those of the extrapolated past beside them."""
    config = AutoregressiveConfig(
        levels=(4, 4), dim=24, layers=1, heads=2, kv_heads=2, head_dim=12, ffn_dim=40, patch=2, order="frame",
        vocabulary="digits", extrapolate=True,
    )  # fmt: skip
    model = tiny.drawn(AutoregressiveTransformer(config))
    with seen(model):
        model(tiny.tokens()[0], {"extrapolated": tiny.tokens()[0]})


def tokenizer() -> None:
    """Video networks with a linear code."""
    model = tiny.tokenizer()
    with seen(model):
        model(tiny.draw(2, 3, 9, 16, 16).tanh())


def images() -> None:
    """Image networks."""
    config = {"dimensions": 2, "channels": [32, 32, 64], "latent_channels": 5, "z_channels": 7, "spatial_compression": 8,
              "temporal_compression": 1, "levels": (4, 4, 4, 4, 4)}  # fmt: skip
    model = tiny.drawn(Tokenizer(TokenizerConfig.parse(config)))
    with seen(model):
        model(tiny.draw(1, 3, 2, 32, 32).tanh())


def decoder() -> None:
    """The diffusion decoder."""
    network = {**NETWORK, "in_channels": 4, "text_embed_dim": 0}
    config = {"denoiser": {"network": network}, "levels": (4, 4), "token_channels": 5, "embedding": "codes"}
    model = tiny.drawn(DiffusionDecoder(DecoderConfig.parse(config)))
    like = tiny.draw(2, 4, 3, 8, 4)
    with seen(model):
        model.denoise(like, 1.0, model.conditioned(torch.randint(0, 16, (2, 3, 4, 2)), like))


@contextmanager
def seen(model: nn.Module) -> Iterator[None]:
    """Hook every projection of `model`; after the calls inside, each must have been called as a module."""
    wanted = {name for name, part in model.named_modules() if isinstance(part, PROJECTIONS)}
    called: set[str] = set()
    hooks = [
        part.register_forward_hook(lambda *_, name=name: called.add(name))
        for name, part in model.named_modules()
        if name in wanted
    ]
    yield
    for hook in hooks:
        hook.remove()
    assert wanted
    assert not wanted - called, sorted(wanted - called)


@pytest.mark.parametrize("model", [denoiser, autoregressive, digits, tokenizer, images, decoder])
def test_every_projection_is_called_as_a_module(model):
    model()


def test_and_that_is_seen_where_it_does_not_hold():
    """Broken twins: an attention that reads `to_q.weight`, a convolution whose weights are composed elsewhere."""
    for name in ("dit", "tokenizer"):
        make, given = tiny.MODELS[name]
        model = fast_cpu(make())
        with pytest.raises(AssertionError, match=r"to_q|conv"), seen(model):
            model(*given())


class Replaced(nn.Module):
    """Another attention of the same signature, which notes the heads that it is given."""

    def __init__(self, heads: set[tuple[int, int]]) -> None:
        super().__init__()
        self.noted = heads

    def forward(self, q: Tensor, k: Tensor, v: Tensor, q_segments, kv_segments, *, mask="full") -> Tensor:
        self.noted.add((q.shape[1], k.shape[1]))
        return attention(q, k, v, q_segments, kv_segments, mask=mask, kernel="naive")


@pytest.mark.parametrize("fast", [False, True])
@pytest.mark.parametrize(("name", "heads"), [("dit", (2, 2)), ("raster", (4, 2)), ("frame", (4, 2))])
def test_attention_can_be_swapped_and_gets_grouped_heads_as_they_are(name, heads, fast):
    make, given = tiny.MODELS[name]
    model = make()
    names, wanted, noted = list(model.state_dict()), model(*given()), set()
    for part in model.modules():
        if isinstance(part, Attention):
            part.core = Replaced(noted)
    found = (fast_cpu(model) if fast else model)(*given())
    assert noted == {heads}
    assert list(model.state_dict()) == names
    assert torch.allclose(found, wanted, rtol=1e-11, atol=1e-11)
    for part in model.modules():
        if isinstance(part, Attention):
            part.core.forward = lambda q, k, v, *_, mask: 0 * q
    assert not torch.allclose(model(*given()), wanted)  # nothing goes past it


def overwritten(model: nn.Module, given: list[Tensor]) -> set[str]:
    """Modules whose output somebody changed in place after they gave it."""
    outputs: list[tuple[str, Tensor, int]] = []

    def note(name: str, out: object) -> None:
        if isinstance(out, Tensor):
            outputs.append((name, out, out._version))

    hooks = [
        part.register_forward_hook(lambda _, __, out, name=name: note(name, out))
        for name, part in model.named_modules()
    ]
    model(*given)
    for hook in hooks:
        hook.remove()
    return {name for name, out, version in outputs if out._version != version}


@pytest.mark.parametrize("learning", [True, False])
@pytest.mark.parametrize("name", tiny.MODELS)
def test_nothing_that_a_module_gave_is_changed_in_place(name, learning):
    """FSDP2 and hooks lose their place on a view that is overwritten."""
    make, given = tiny.MODELS[name]
    with torch.set_grad_enabled(learning):
        assert not overwritten(make(), given())
        if not learning and name in ("dit", "tokenizer"):
            assert overwritten(fast_cpu(make()), given())  # which may, as nobody else holds it


def test_model_files_know_nothing_of_what_makes_them_fast():
    fast = {"wfm.models.fast_cpu", "wfm.models.product", "wfm.models.fused"}
    home = Path(wfm.models.__file__).parent
    outside = {"fast_cpu.py", "fused.py", "product.py", "folder.py", "parallelize.py"}
    knowing = set()
    for path in home.rglob("*.py"):
        if path.name in outside or path == home / "tokenizer" / "__init__.py":  # says which twins there are
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module in fast or "fast_cpu" in (node.module or "")):
                knowing.add(path.name)
            if isinstance(node, ast.ImportFrom) and node.module == "wfm.models":
                assert not {f"wfm.models.{alias.name}" for alias in node.names} & fast, path
    assert not knowing


def outcome(model: nn.Module, given: list[Tensor]) -> list[Tensor]:
    """The output, and the gradients of all parameters that have one."""
    out = model(*given)
    model.zero_grad()
    (out * torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view_as(out)).sum().backward()
    return [out.detach(), *(p.grad.clone() for p in model.parameters() if p.grad is not None)]


@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.long)])
@pytest.mark.parametrize("name", tiny.MODELS)
def test_torch_compile_takes_the_plain_model(name, backend):
    """`aot_eager` traces forward and backward as `inductor` does; that then calls a C++ compiler, which takes far longer."""
    make, given = tiny.MODELS[name]
    wanted, model = outcome(make(), given()), make()
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    for block in tiny.blocks_of(model):
        block.compile(dynamic=False, backend=backend)
    with torch._dynamo.config.patch(error_on_recompile=False, suppress_errors=False):
        found = outcome(model, given())
    assert torch._dynamo.utils.counters["frames"]["ok"] > 0
    largest = max(float(x.abs().max()) for x in wanted)
    assert len(found) == len(wanted)
    for one, other in zip(found, wanted, strict=True):
        assert (one - other).abs().max() <= 1e-12 * largest  # fp64; worst measured: see LOG


@pytest.mark.parametrize(
    "name", [name if name == "dit" else pytest.param(name, marks=pytest.mark.long) for name in tiny.MODELS]
)
def test_fsdp2_on_two_ranks_takes_the_plain_model(name, tmp_path):
    """Half a batch a rank, parameters spread over both: outputs, and gradients once put together, of the whole batch."""
    out = tmp_path / "found.json"
    launched = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*launched, "-m", "tests.wfm.models.fsdp_ranks", str(out), name],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip  # by PYTHONPATH: a Dask cluster of another test leaves PYTHONSAFEPATH behind
    assert done.returncode == 0, done.stderr[-4000:]
    ranks = json.loads(out.read_text())
    assert len(ranks) == 2
    for off in ranks:
        assert max(off.values()) <= 1e-12, off  # fp64; worst measured 1e-15
