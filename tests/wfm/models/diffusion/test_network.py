"""The diffusion transformer: packs, what can be prepared, what each input does, and what is refused.

Its numbers are held against the peer and a plain twin in tests/parity/test_diffusion.py.
"""

import copy
import math

import pytest
import torch
from torch import Tensor

from wfm.errors import ConfigError
from wfm.models.diffusion.config import DiffusionConfig
from wfm.models.diffusion.inputs import Vector, from_patches, to_patches
from wfm.models.diffusion.network import DiffusionTransformer
from wfm.models.fast_cpu import fast_cpu
from wfm.models.layers import AdaLayerNormLoRA
from wfm.models.parallel_config import ParallelConfig
from wfm.models.parallelize import parallelize

SMALL = {
    "in_channels": 4, "num_attention_heads": 2, "attention_head_dim": 18, "num_layers": 2, "mlp_ratio": 2.0,
    "text_embed_dim": 16, "adaln_lora_dim": 4, "max_size": (6, 32, 32),
}  # fmt: skip
CLOSE = 3e-6  # of the largest output, between ways to compute the same in fp32; worst measured 8e-7


def make(dtype: torch.dtype = torch.float32, **more) -> DiffusionTransformer:
    """A small network whose every weight says something (gates start at zero otherwise)."""
    torch.manual_seed(0)
    model = DiffusionTransformer(DiffusionConfig.parse({**SMALL, **more}))
    for name, parameter in model.named_parameters():
        torch.nn.init.normal_(parameter, mean=float("norm" in name and parameter.ndim == 1), std=0.25)
    return model.to(dtype).eval()


def draw(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def batch(size: tuple[int, int, int] = (3, 6, 4), samples: int = 2) -> tuple[Tensor, Tensor, Tensor]:
    """Latents, noise levels, text."""
    return draw(samples, 4, *size), draw(samples, seed=2), draw(samples, 7, 16, seed=3)


def assert_close(found: Tensor, wanted: Tensor) -> None:
    assert found.shape == wanted.shape
    assert (found - wanted).abs().max() <= CLOSE * wanted.abs().max()


def test_a_text_without_tokens_says_nothing():
    """Before: SIGFPE ended the process. What is left of the cross-attention is zero, as of a text whose values are."""
    model, (latents, c_noise, _) = make(), batch()
    nothing = draw(2, 0, 16)
    found = model(latents, c_noise, nothing)
    mute = make()
    for block in mute.blocks:
        torch.nn.init.zeros_(block.attn2.to_v.weight)
    assert_close(found, mute(latents, c_noise, draw(2, 7, 16)))
    assert torch.equal(model(latents, c_noise, draw(1, 0, 16), text_lengths=[0]), found)
    assert torch.equal(model(latents, c_noise), found), "nor does none"
    assert torch.equal(model(latents, c_noise, model.prepare_text(nothing)), found)
    assert_close(torch.stack(model.packed(list(latents), c_noise, draw(0, 16), text_lengths=[0, 0])), found)
    found.sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


def test_no_samples_are_refused():
    """Before: IndexError, and torch.cat's error."""
    with pytest.raises(ConfigError, match=r"wanted \[B, C, T, H, W\], got \[0, 4, 3, 6, 4\]"):
        make()(draw(0, 4, 3, 6, 4), draw(0), draw(0, 7, 16))
    with pytest.raises(ConfigError, match="an empty pack"):
        make().packed([], draw(0), draw(0, 7, 16))


# Packs

SIZES = [(2, 6, 4), (3, 4, 4), (1, 8, 8), (2, 6, 4)]


def segments() -> list[Tensor]:
    return [draw(4, *size, seed=10 + i) for i, size in enumerate(SIZES)]


@torch.no_grad()
@pytest.mark.parametrize("packed_text", [False, True])
def test_a_pack_equals_its_segments_one_by_one(packed_text):
    model, pieces = make(action_dim=3, condition_mask=True), segments()
    c_noise, text, lengths, action = draw(4, seed=2), draw(4, 7, 16, seed=3), [2, 7, 5, 1], draw(4, 3, seed=4)
    fps = [12.0, 24.0, None, 8.0]
    given = [torch.ones(1, t, 1, 1) * (torch.arange(t) < 1)[:, None, None] for t, _, _ in SIZES]
    padding = [None, torch.ones(1, 32, 32), None, torch.ones(1, 6, 4).tril()]
    shown = torch.cat([t[:n] for t, n in zip(text, lengths, strict=True)]) if packed_text else text
    found = model.packed(
        pieces,
        c_noise,
        shown,
        text_lengths=lengths,
        fps=fps,
        vectors={"action": Vector(action)},
        condition_mask=given,
        padding_mask=padding,
    )
    for i, piece in enumerate(pieces):
        wanted = model(
            piece[None], c_noise[i : i + 1], text[i : i + 1], text_lengths=lengths[i : i + 1], fps=fps[i],
            vectors={"action": Vector(action[i : i + 1])}, condition_mask=given[i][None],
            padding_mask=None if padding[i] is None else padding[i][None],
        )  # fmt: skip
        assert_close(found[i], wanted[0])


def test_gradients_of_a_pack_are_those_of_its_segments():
    model, pieces = make(), segments()
    c_noise, text = draw(4, seed=2), draw(4, 7, 16, seed=3)
    gradients = []
    for packed in (True, False):
        model.zero_grad()
        if packed:
            out = model.packed(pieces, c_noise, text)
        else:
            out = [model(p[None], c_noise[i : i + 1], text[i : i + 1])[0] for i, p in enumerate(pieces)]
        torch.cat([o.flatten().square() for o in out]).sum().backward()
        gradients.append([parameter.grad.clone() for parameter in model.parameters()])
    largest = max(float(g.abs().max()) for g in gradients[1])
    for one, other in zip(*gradients, strict=True):
        assert (one - other).abs().max() <= 1e-5 * largest  # worst measured 2e-7


@torch.no_grad()
def test_no_segment_sees_another():
    model, pieces = make(), segments()
    before = model.packed(pieces, draw(4), draw(4, 7, 16))
    pieces[1] = pieces[1] + 1
    after = model.packed(pieces, draw(4), draw(4, 7, 16))
    assert [torch.equal(a, b) for a, b in zip(before, after, strict=True)] == [True, False, True, True]


@torch.no_grad()
def test_noise_of_each_frame_in_a_pack():
    model, pieces = make(), segments()
    levels = [draw(size[0], seed=20 + i) for i, size in enumerate(SIZES)]
    text = draw(4, 7, 16)
    found = model.packed(pieces, torch.cat(levels), text)
    for i, piece in enumerate(pieces):
        assert_close(found[i], model(piece[None], levels[i][None], text[i : i + 1])[0])


@torch.no_grad()
def test_patches_that_are_packed_already():
    model, pieces = make(concat_padding_mask=False), segments()
    patches = torch.cat([to_patches(p[None], (1, 2, 2)) for p in pieces])
    grids = [(t, h // 2, w // 2) for t, h, w in SIZES]
    out = model.packed_patches(patches, grids, draw(4), draw(4, 7, 16))
    first = from_patches(out[: 2 * 3 * 2], grids[0], (1, 2, 2))[0]
    assert torch.equal(first, model.packed(pieces, draw(4), draw(4, 7, 16))[0])


# Prepared parts


@torch.no_grad()
@pytest.mark.parametrize("per_frame", [False, True])
def test_prepared_parts_give_the_same_bits(per_frame):
    model = make(action_dim=3)
    latents, c_noise, text = batch()
    action = draw(2, 3, seed=5)
    if per_frame:
        c_noise, action = draw(2, 3, seed=2), draw(2, 3, 3, seed=5)
    wanted = model(latents, c_noise, text, text_lengths=[4, 7], fps=16, vectors={"action": Vector(action)})
    shape = model.prepare_shape(latents.shape[2:], fps=16)
    prompt = model.prepare_text(text, [4, 7])
    noise = model.prepare_noise(c_noise, {"action": Vector(action)})
    assert torch.equal(model(latents, noise, prompt, shape=shape), wanted)
    assert torch.equal(model(latents, c_noise, prompt, shape=shape, vectors={"action": Vector(action)}), wanted)
    assert torch.equal(model(latents, noise, text, text_lengths=[4, 7], fps=16), wanted)


@torch.no_grad()
def test_one_prompt_and_one_noise_level_for_all_samples():
    model = make()
    latents, _, text = batch()
    level = torch.tensor([0.3])
    wanted = model(latents, level.expand(2), text[:1].expand(2, -1, -1))
    assert_close(model(latents, level, text[:1]), wanted)
    assert_close(model(latents, model.prepare_noise(level), model.prepare_text(text[:1])), wanted)


@torch.no_grad()
def test_prepared_parts_of_a_pack():
    model, pieces = make(), segments()
    c_noise, text, fps = draw(4), draw(4, 7, 16), [8.0, 12.0, None, 24.0]
    wanted = model.packed(pieces, c_noise, text, text_lengths=[3, 1, 7, 2], fps=fps)
    found = model.packed(
        pieces,
        model.prepare_noise(c_noise),
        model.prepare_text(text, [3, 1, 7, 2]),
        shape=model.prepare_shape(SIZES, fps),
    )
    assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))


# What each input does


@torch.no_grad()
def test_every_input_matters_to_its_own_sample():
    model = make(action_dim=3, condition_mask=True)
    latents, c_noise, text = batch()
    plain = {
        "latents": latents, "c_noise": c_noise, "text": text, "action": draw(2, 3, seed=5), "fps": [12.0, 24.0],
        "condition_mask": torch.zeros(2, 1, 3, 6, 4), "padding_mask": torch.zeros(2, 1, 6, 4), "text_lengths": [5, 6],
    }  # fmt: skip

    def run(action: Tensor, **given) -> Tensor:
        return model(vectors={"action": Vector(action)}, **given)

    before = run(**plain)
    for name, value in plain.items():
        changed = value.clone() if isinstance(value, Tensor) else list(value)
        changed[0] = changed[0] + 1
        after = run(**{**plain, name: changed})
        assert not torch.allclose(before[0], after[0]), name
        assert_close(after[1], before[1])


@torch.no_grad()
def test_fps_of_each_sample_and_plain_positions():
    model = make()
    latents, c_noise, text = batch()
    mixed = model(latents, c_noise, text, fps=torch.tensor([12.0, 30.0]))
    assert_close(mixed[0], model(latents, c_noise, text, fps=12)[0])
    assert_close(mixed[1], model(latents, c_noise, text, fps=30)[1])
    assert_close(model(latents, c_noise, text, fps=24), model(latents, c_noise, text))  # 24 is the unit of time
    one = latents[:, :, :1]
    assert_close(model(one, c_noise, text, fps=5), model(one, c_noise, text))  # an image has no time


@torch.no_grad()
def test_noise_and_action_may_differ_in_detail():
    """A level a sample with an action a frame, and the other way round."""
    model = make(action_dim=3)
    latents, c_noise, text = batch()
    action = draw(2, 3, 3, seed=5)
    spread = c_noise[:, None].expand(2, 3)
    assert_close(
        model(latents, c_noise, text, vectors={"action": Vector(action)}),
        model(latents, spread, text, vectors={"action": Vector(action)}),
    )
    levels = draw(2, 3, seed=6)
    once = draw(2, 3, seed=7)
    everywhere = once[:, None].expand(2, 3, 3)
    assert_close(
        model(latents, levels, text, vectors={"action": Vector(once)}),
        model(latents, levels, text, vectors={"action": Vector(everywhere)}),
    )


@torch.no_grad()
def test_without_text_there_is_no_cross_attention():
    model = make(text_embed_dim=0)
    assert not [name for name in model.state_dict() if "norm2" in name or "attn2" in name]
    latents, c_noise, _ = batch()
    assert model(latents, c_noise).shape == latents.shape


@torch.no_grad()
def test_extra_channels_follow_the_latents():
    model = make(extra_channels=2)
    assert model.patch_embed.proj.in_features == (4 + 2 + 1) * 4
    latents, c_noise, text = batch()
    out = model(torch.cat([latents, draw(2, 2, 3, 6, 4)], dim=1), c_noise, text)
    assert out.shape == latents.shape


def test_patches_keep_their_places():
    x = draw(2, 3, 2, 4, 6)
    tokens = to_patches(x, (1, 2, 2))
    assert tokens.shape == (2 * 2 * 2 * 3, 12)
    assert torch.equal(tokens[4].view(3, 2, 2), x[0, :, 0, 2:4, 2:4])  # (channel, row, column)
    out = from_patches(torch.arange(6.0)[:, None].expand(6, 12), (1, 2, 3), (1, 2, 2))
    assert out[0, 0, 0, ::2, ::2].tolist() == [[0, 1, 2], [3, 4, 5]]
    order = from_patches(torch.arange(12.0)[None], (1, 1, 1), (1, 2, 2))[0, :, 0]
    assert order[1].tolist() == [[1, 4], [7, 10]]  # (row, column, channel)


# The start


def test_the_start_is_cosmos_s():
    torch.manual_seed(0)
    model = DiffusionTransformer(DiffusionConfig.parse({**SMALL, "num_attention_heads": 8, "action_dim": 3}))
    block = model.transformer_blocks[0]
    bound = (6 / (144 + 288)) ** 0.5
    weight = block.ff.net[0].proj.weight
    assert bound * 0.99 < float(weight.detach().abs().max()) <= bound
    assert float(model.time_embed.t_embedder["linear_1"].weight.detach().std()) == pytest.approx(0.02, rel=0.05)
    assert float(model.learnable_pos_embed.pos_emb_h.detach().std()) == pytest.approx(0.02, rel=0.1)
    assert all(not m.linear_2.weight.any() for m in block.modules() if isinstance(m, AdaLayerNormLoRA))
    assert model.norm_out.linear_2.weight.any()
    assert model.proj_out.weight.any()
    assert not model.action_embedder_B_D.fc2.weight.any()


def test_open_gates_start_near_one_and_closed_ones_near_zero():
    found = []
    for opened in (True, False):
        torch.manual_seed(0)
        model = DiffusionTransformer(DiffusionConfig.parse({**SMALL, "open_gates": opened}))
        embedding, lora = model.time_embed(torch.tensor([-1.0, 0.0, 1.0]))
        found.append(model.transformer_blocks[0].norm1.modulation(embedding, lora).gate.detach())
    assert torch.allclose(found[0], torch.ones_like(found[0]), atol=0.35)
    assert found[1].abs().max() < 0.1


def test_zero_output_predicts_nothing():
    model = DiffusionTransformer(DiffusionConfig.parse({**SMALL, "zero_output": True}))
    with torch.no_grad():
        assert model(*batch()).abs().max() == 0


def test_a_model_of_bf16_and_one_on_no_device():
    half = make(torch.bfloat16)
    latents, c_noise, text = batch()
    out = half(latents.bfloat16(), c_noise, text)  # noise levels stay fp32
    assert out.dtype == torch.bfloat16
    with torch.device("meta"):
        model = DiffusionTransformer(DiffusionConfig.parse(SMALL))
        out = model(torch.empty(2, 4, 3, 6, 4), torch.empty(2), torch.empty(2, 7, 16), fps=24)
    assert out.is_meta
    assert out.shape == (2, 4, 3, 6, 4)


# From outside


def test_checkpointed_gradients_are_the_plain_ones():
    gradients = []
    for kind in ("none", "full"):
        model = make()
        parallelize(model.blocks, ParallelConfig(activation_checkpointing=kind))
        saved = 0

        def count(x: Tensor) -> Tensor:
            nonlocal saved
            saved += x.numel()
            return x

        with torch.autograd.graph.saved_tensors_hooks(count, lambda x: x):
            out = model(*batch(), fps=12)
        out.square().sum().backward()
        gradients.append((saved, [p.grad for p in model.parameters()], set(model.state_dict())))
    (most, plain, names), (least, again, same) = gradients
    assert least < most / 3
    assert names == same
    assert all(torch.equal(a, b) for a, b in zip(plain, again, strict=True))


@pytest.mark.long
def test_a_copy_of_a_checkpointed_model_runs_its_own_weights():
    model = make()
    parallelize(model.blocks, ParallelConfig(activation_checkpointing="full"))
    twin = copy.deepcopy(model)
    before = twin(*batch(), fps=12)
    torch.nn.init.zeros_(model.blocks[0].ff.net[2].weight)
    assert torch.equal(twin(*batch(), fps=12), before)
    assert not torch.equal(model(*batch(), fps=12), before)


@pytest.mark.parametrize(("checkpointing", "fast"), [("none", False), ("full", True)])
def test_compiled_blocks_compute_the_same(checkpointing, fast, monkeypatch):
    model, eager = fast_cpu(make()) if fast else make(), make()
    parallelize(model.blocks, ParallelConfig(activation_checkpointing=checkpointing, compile=True))
    monkeypatch.setattr("wfm.models.product.FEW", 0)  # as large products are
    many = batch((3, 8, 12))
    found, wanted = model(*many, fps=12), eager(*many, fps=12)
    assert_close(found.detach(), wanted.detach())
    found.square().sum().backward()
    wanted.square().sum().backward()
    largest = max(float(p.grad.abs().max()) for p in eager.parameters())
    for one, other in zip(model.parameters(), eager.parameters(), strict=True):
        assert (one.grad - other.grad).abs().max() <= 1e-5 * largest


# What is refused


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"latents": draw(2, 5, 3, 6, 4)}, "5 channels given"),
        ({"latents": draw(4, 3, 6, 4)}, "wanted .B, C, T, H, W."),
        ({"latents": draw(2, 4, 3, 6, 4).double()}, "float64 given to a model in torch.float32"),
        ({"latents": draw(2, 4, 3, 5, 4)}, "patches of 2x2"),
        ({"latents": draw(2, 4, 7, 6, 4)}, "exceed max_size"),
        ({"text": draw(2, 7, 15)}, r"text: wanted \[B, L, 16\]"),
        ({"text": None, "text_lengths": [3, 3]}, "text_lengths: given without a text"),
        ({"text": draw(3, 7, 16)}, "text: 3 for 2 samples"),
        ({"text_lengths": [0, 3]}, "1 ... 7"),
        ({"text_lengths": [3]}, "1 lengths for 2 samples"),
        ({"text": draw(14, 16)}, "text_lengths: needed"),
        ({"text": draw(14, 16), "text_lengths": [7, 6]}, "do not cover"),
        ({"c_noise": draw(3)}, "c_noise: got .3."),
        ({"c_noise": draw(2, 4)}, "c_noise: got .2, 4."),
        ({"c_noise": torch.tensor([1, 2])}, "floating point"),
        ({"fps": 0}, "fps: 0"),
        ({"fps": [1.0, 2.0, 3.0]}, "fps: 3 values for 2 samples"),
        ({"vectors": {"action": Vector(draw(2, 3))}}, "action_dim"),
        ({"condition_mask": torch.zeros(2, 1, 3, 6, 4)}, "without that channel"),
        ({"padding_mask": torch.zeros(3, 1, 6, 4)}, "padding_mask: wanted"),
    ],
)
def test_wrong_inputs_are_refused(change, words):
    given = dict(zip(("latents", "c_noise", "text"), batch(), strict=True)) | change
    with pytest.raises(ConfigError, match=words):
        make()(**given)


def test_more_that_is_refused():
    model, (latents, c_noise, text) = make(action_dim=3, condition_mask=True), batch()
    given = {"condition_mask": torch.zeros(2, 1, 3, 6, 4), "vectors": {"action": Vector(draw(2, 3))}}
    with pytest.raises(ConfigError, match="condition_mask: this model is told"):
        model(latents, c_noise, text, vectors=given["vectors"])
    with pytest.raises(ConfigError, match="condition_mask: wanted"):
        model(latents, c_noise, text, **given | {"condition_mask": torch.zeros(2, 1, 2, 6, 4)})
    with pytest.raises(ConfigError, match="features of width 3"):
        model(latents, c_noise, text, **given | {"vectors": {"action": Vector(draw(2, 4))}})
    with pytest.raises(ConfigError, match="shape: prepared for"):
        model(latents, c_noise, text, **given, shape=model.prepare_shape((2, 6, 4)))
    with pytest.raises(ConfigError, match="fps: already part"):
        model(latents, c_noise, text, **given, fps=24, shape=model.prepare_shape((3, 6, 4)))
    noise = model.prepare_noise(c_noise, given["vectors"])
    with pytest.raises(ConfigError, match="action: already part"):
        model(latents, noise, text, **given)
    with pytest.raises(ConfigError, match="prepared for 2 rows"):
        model(draw(5, 4, 3, 6, 4), noise, draw(5, 7, 16), condition_mask=torch.zeros(5, 1, 3, 6, 4))
    with pytest.raises(ConfigError, match="text_lengths: already part"):
        model(latents, noise, model.prepare_text(text), text_lengths=[3, 3], condition_mask=given["condition_mask"])
    without = make(text_embed_dim=0, concat_padding_mask=False)
    with pytest.raises(ConfigError, match="without cross-attention"):
        without(latents, c_noise, text)
    with pytest.raises(ConfigError, match="without that channel"):
        without(latents, c_noise, padding_mask=torch.zeros(2, 1, 6, 4))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("patch_size", [2, 2, 2]),
        ("attention_head_dim", 15),
        ("max_size", [0, 8, 8]),
        ("rope_scale", [0, 1, 1]),
        ("num_layers", 0),
    ],
)
def test_wrong_configurations_are_refused(field, value):
    with pytest.raises(ConfigError, match=field):
        DiffusionConfig.parse({field: value})


@pytest.mark.parametrize("levels", [[1], [2], [2, 4]])
def test_autocast_computes_in_half_precision(levels):
    """One noise level for all, one a sample, one a latent frame: within 2e-2 of fp32 (worst seen 4e-3), and with gradients."""
    model = make()
    latents, text = draw(2, 4, 4, 4, 6), draw(2, 7, 16, seed=3)
    c_noise = torch.linspace(-1, 1, math.prod(levels)).view(levels)
    wanted = model(latents, c_noise, text)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = model(latents, c_noise, text)
        with torch.no_grad():
            assert (model(latents, c_noise, text) - out).norm() < 1e-2 * out.norm()
    assert out.dtype == torch.bfloat16
    assert (out - wanted).norm() < 2e-2 * wanted.norm()
    out.float().square().mean().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
