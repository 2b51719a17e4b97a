"""The autoregressive transformer against transformers' Qwen3: same weights, same logits, gradients and greedy tokens.

Qwen3 is the same block (grouped-query attention, RMSNorm on each head's queries and keys, SwiGLU, rotary halves) with
one rotary axis. It is compared twice: with all our rotary dimensions given to one axis, and with Qwen3 turned by the
three-axis tables of the plain twin below. Parameter names are mapped one to one; a name more or less on either side
fails. The peer casts norms and rotary tables to fp32; in fp64 runs these two are replaced by the same formulas in fp64,
so that 1e-10 is asked of all of it. The peer is a pinned development dependency; without it these tests fail.
"""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers.models.qwen3.modeling_qwen3 as peer_module
from torch import Tensor
from transformers import Qwen3Config, Qwen3ForCausalLM

from wfm.families.autoregressive.build import transformer
from wfm.families.autoregressive.decoding import continue_tokens, greedy
from wfm.models.autoregressive import AutoregressiveConfig, AutoregressiveTransformer
from wfm.models.rotary import Rope, rope_3d

FORWARD = {torch.float32: 1e-5, torch.float64: 1e-10}  # of the largest logit; worst measured 2.5e-6 and 3.8e-15
GRADIENT = {
    torch.float32: 1e-5,
    torch.float64: 1e-10,
}  # of the model's largest gradient; worst measured 2.4e-6 and 3.9e-15
HALF = 0.04  # bf16 against fp32, of the logits' norm; measured 2.1e-2 (the peer against itself: 2.3e-2)

SMALL: dict[str, Any] = {
    "levels": (5, 4, 3), "dim": 48, "layers": 3, "heads": 4, "kv_heads": 2, "head_dim": 12, "ffn_dim": 80,
}  # fmt: skip
CASES: dict[str, dict[str, Any]] = {
    "grouped": {},
    "one key head": {"kv_heads": 1, "layers": 2},
    "a key head for each query head": {"heads": 3, "kv_heads": 3, "head_dim": 16},
    "inner width differs from dim": {"dim": 40, "heads": 8, "kv_heads": 2, "head_dim": 18, "rope_theta": 1e4},
    "wide head, other epsilon": {"dim": 64, "heads": 2, "kv_heads": 1, "head_dim": 128, "norm_eps": 1e-3},
}
SIZE = (3, 4)  # tokens of a latent frame
NAMES = {
    "tok_embeddings": "model.embed_tokens", "norm": "model.norm", "output": "lm_head",
    "attention_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm",
    "attention.to_q": "self_attn.q_proj", "attention.to_k": "self_attn.k_proj", "attention.to_v": "self_attn.v_proj",
    "attention.to_out.0": "self_attn.o_proj", "attention.norm_q": "self_attn.q_norm", "attention.norm_k": "self_attn.k_norm",
    "feed_forward.w1": "mlp.gate_proj", "feed_forward.w3": "mlp.up_proj", "feed_forward.w2": "mlp.down_proj",
}  # fmt: skip


class OneAxis(AutoregressiveTransformer):
    """The network with all rotary dimensions given to the position in the sequence."""

    def _rope(self, place: Tensor, dtype: torch.dtype) -> Rope:
        rows, columns = SIZE
        positions = (place[:, 0] * rows + place[:, 1]) * columns + place[:, 2]
        dim, theta = self.config.head_dim, self.config.rope_theta
        frequency = theta ** -(torch.arange(0, dim, 2, dtype=torch.float64) / dim)
        angle = positions[:, None].double() * frequency
        dtype = torch.promote_types(dtype, torch.float32)
        return Rope(angle.cos().to(dtype), angle.sin().to(dtype))


def plain_angles(place: tuple[int, int, int], head_dim: int, theta: float) -> list[float]:
    """The plain twin of `rope_3d`: the angle of each pair at one place (t, h, w), head_dim / 2 numbers."""
    space = head_dim // 6 * 2
    out = []
    for position, dim in zip(place, (head_dim - 2 * space, space, space), strict=True):
        out += [position / math.pow(theta, 2 * pair / dim) for pair in range(dim // 2)]
    return out


def three_axes(head_dim: int, theta: float) -> Callable[..., tuple[Tensor, Tensor]]:
    """What stands in for the peer's rotary module: cos and sin `[1, n, head_dim]` of positions in raster order."""
    rows, columns = SIZE

    def tables(x: Tensor, position_ids: Tensor) -> tuple[Tensor, Tensor]:
        places = [(n // (rows * columns), n // columns % rows, n % columns) for n in position_ids[0].tolist()]
        angle = torch.tensor([2 * plain_angles(p, head_dim, theta) for p in places], dtype=torch.float64)[None]
        return angle.cos().to(x.dtype), angle.sin().to(x.dtype)

    return tables


def one_axis(head_dim: int, theta: float) -> Callable[..., tuple[Tensor, Tensor]]:
    """The peer's own rotary tables, computed in fp64."""

    def tables(x: Tensor, position_ids: Tensor) -> tuple[Tensor, Tensor]:
        angle = torch.tensor(
            [
                [
                    2 * [n / math.pow(theta, 2 * i / head_dim) for i in range(head_dim // 2)]
                    for n in position_ids[0].tolist()
                ]
            ],
            dtype=torch.float64,
        )
        return angle.cos().to(x.dtype), angle.sin().to(x.dtype)

    return tables


def peer_name(name: str) -> str:
    """The peer's name of our parameter."""
    stem = name.removesuffix(".weight")
    if not stem.startswith("layers."):
        return f"{NAMES[stem]}.weight"
    _, layer, rest = stem.split(".", 2)
    return f"model.layers.{layer}.{NAMES[rest]}.weight"


def pair(
    values: dict[str, Any], dtype: torch.dtype, axes: int, monkeypatch: pytest.MonkeyPatch
) -> tuple[AutoregressiveTransformer, Qwen3ForCausalLM]:
    """Both networks with the same random weights, the gains of the norms too."""
    config = AutoregressiveConfig(**{**SMALL, **values})
    torch.manual_seed(len(str(values)))
    ours = (OneAxis if axes == 1 else AutoregressiveTransformer)(config)
    weights = {}
    for name, parameter in ours.named_parameters():
        if name.startswith("action."):  # "no action": starts at zero and stays there
            continue
        random = torch.randn(parameter.shape, dtype=torch.float64)
        centre, spread = (1.0, 0.2) if parameter.ndim == 1 else (0.0, 1.5 / math.sqrt(parameter.shape[1]))
        parameter.data.copy_(centre + spread * random)
        weights[peer_name(name)] = parameter.data.clone()
    peer = Qwen3ForCausalLM._from_config(
        Qwen3Config(
            vocab_size=config.vocabulary_size, hidden_size=config.dim, intermediate_size=config.ffn_dim,
            num_hidden_layers=config.layers, num_attention_heads=config.heads, num_key_value_heads=config.kv_heads,
            head_dim=config.head_dim, rms_norm_eps=config.norm_eps, tie_word_embeddings=False, max_position_embeddings=512,
            rope_parameters={"rope_type": "default", "rope_theta": config.rope_theta}, bos_token_id=None, eos_token_id=None,
        ),
        attn_implementation="sdpa",
    )  # fmt: skip
    peer.load_state_dict(weights, strict=True)
    rotary = peer.model.rotary_emb
    if axes == 3:
        monkeypatch.setattr(rotary, "forward", three_axes(config.head_dim, config.rope_theta))
    elif dtype == torch.float64:
        monkeypatch.setattr(rotary, "forward", one_axis(config.head_dim, config.rope_theta))
    if dtype == torch.float64:
        monkeypatch.setattr(peer_module.Qwen3RMSNorm, "forward", _norm_in_fp64)
    return ours.to(dtype).eval(), peer.to(dtype).eval()


def _norm_in_fp64(self: peer_module.Qwen3RMSNorm, x: Tensor) -> Tensor:
    return self.weight * x / (x.square().mean(-1, keepdim=True) + self.variance_epsilon).sqrt()


def tokens(frames: int, batch: int = 2) -> Tensor:
    """Random ids of SMALL's vocabulary, `[batch, frames, *SIZE]`."""
    return torch.randint(0, 60, (batch, frames, *SIZE), generator=torch.Generator().manual_seed(frames))


@pytest.mark.parametrize("axes", [1, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["fp32", "fp64"])
@pytest.mark.parametrize("case", CASES)
def test_logits_and_gradients_are_the_peers(case, dtype, axes, monkeypatch, way) -> None:
    ours, peer = pair(CASES[case], dtype, axes, monkeypatch)
    ours = way(ours)
    ids = tokens(3)
    mine = ours(ids)[:, :, 0]  # [B, N - 1, vocabulary]
    theirs = peer(input_ids=ids.flatten(1)[:, :-1]).logits
    assert mine.shape == theirs.shape
    assert (mine - theirs).abs().max() <= FORWARD[dtype] * theirs.abs().max()

    upstream = torch.randn(mine.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64).to(dtype)
    (mine * upstream).sum().backward()
    (theirs * upstream).sum().backward()
    wanted = {name: p.grad for name, p in peer.named_parameters()}
    got = {peer_name(name): p.grad for name, p in ours.named_parameters() if not name.startswith("action.")}
    assert got.keys() == wanted.keys()
    largest = max(g.abs().max() for g in wanted.values())
    for name, gradient in got.items():
        assert wanted[name].abs().max() > 1e-3 * largest, f"{name} does not matter to the peer: nothing is compared"
        assert (gradient - wanted[name]).abs().max() <= GRADIENT[dtype] * largest, name


@pytest.mark.parametrize("axes", [1, 3])
def test_greedy_tokens_are_those_of_the_peers_generate(axes, monkeypatch) -> None:
    """fp64, both with their key/value caches; ours without one too."""
    ours, peer = pair({}, torch.float64, axes, monkeypatch)
    past, frames = tokens(1, batch=3), 4
    given, wanted = past[0].numel(), frames * math.prod(SIZE)
    theirs = peer.generate(
        input_ids=past.flatten(1),
        attention_mask=torch.ones(3, given, dtype=torch.int64),
        max_new_tokens=wanted - given,
        do_sample=False,
        use_cache=True,
        pad_token_id=0,
    )
    assert len(theirs[:, given:].unique()) > 5  # a sequence that repeats one token would agree by chance
    for use_cache in (True, False):
        mine = continue_tokens(ours, {"past": past}, frames=frames, choose=greedy, use_cache=use_cache)
        assert torch.equal(mine.flatten(1), theirs)


@pytest.mark.parametrize("axes", [1, 3])
def test_another_rotary_layout_is_seen(axes, monkeypatch) -> None:
    """Agreement is not for want of sensitivity: a peer turned by the other layout gives other logits."""
    ours, peer = pair({}, torch.float64, axes, monkeypatch)
    other = one_axis if axes == 3 else three_axes
    monkeypatch.setattr(peer.model.rotary_emb, "forward", other(12, ours.config.rope_theta))
    ids = tokens(3)
    with torch.no_grad():
        theirs = peer(input_ids=ids.flatten(1)[:, :-1]).logits
        assert (ours(ids)[:, :, 0] - theirs).abs().max() > 1e-2 * theirs.abs().max()


@pytest.mark.parametrize("head_dim", [6, 12, 18, 32, 128])
@pytest.mark.parametrize("theta", [1e4, 5e5])
def test_rotary_tables_against_the_plain_twin(head_dim, theta) -> None:
    places = [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (4, 39, 63), (32, 7, 5)]  # Cosmos: 5 x 40 x 64 places
    # 1e-13: worst measured 6.9e-15
    rope = rope_3d(torch.tensor(places), head_dim, theta=theta, dtype=torch.float64)
    for row, place in enumerate(places):
        angles = plain_angles(place, head_dim, theta)
        assert rope.cos.shape[1] == len(angles) == head_dim // 2
        for index, angle in enumerate(angles):
            assert abs(float(rope.cos[row, index]) - math.cos(angle)) < 1e-13
            assert abs(float(rope.sin[row, index]) - math.sin(angle)) < 1e-13


@pytest.mark.parametrize("order", ["raster", "frame"])
def test_gradients_flow_from_the_past_alone(order, monkeypatch) -> None:
    """d logits[k] / d input[j] is exactly zero for j behind k's own block, and nowhere else."""
    torch.manual_seed(4)
    model = transformer(AutoregressiveConfig(**{**SMALL, "order": order})).double()
    ids = tokens(4, batch=1)
    stride = model.stride(*SIZE)
    inputs = model.embed(model.patchify(ids)[:, :-stride]).detach().requires_grad_()
    monkeypatch.setattr(model, "embed", lambda _: inputs)
    logits = model(ids)
    for row in {0, stride - 1, stride, 2 * stride + stride // 2, logits.shape[1] - 1}:
        (gradient,) = torch.autograd.grad(logits[0, row].square().sum(), inputs, retain_graph=True)
        reached = gradient[0].abs().amax(dim=-1) > 0
        end = (row // stride + 1) * stride
        assert reached[:end].all()
        assert not reached[end:].any()


def test_half_precision_stays_near_full(monkeypatch) -> None:
    ours, peer = pair({}, torch.float32, 3, monkeypatch)
    ids = tokens(3)
    with torch.no_grad():
        full, flat = ours(ids), ids.flatten(1)[:, :-1]
        theirs = peer(input_ids=flat).logits
        error = (ours.bfloat16()(ids).float() - full).norm() / full.norm()
        peers = (peer.bfloat16()(input_ids=flat).logits.float() - theirs).norm() / theirs.norm()
    assert 0 < error < HALF
    assert error < 1.5 * peers  # no worse than the peer is against itself
