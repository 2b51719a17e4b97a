"""Costs in closed form against what torch counts when the networks run."""

import math
import subprocess
import sys

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from wfm.errors import ConfigError
from wfm.families.autoregressive.build import transformer
from wfm.families.diffusion.build import denoiser as build_denoiser
from wfm.models.autoregressive import AutoregressiveConfig
from wfm.models.cost import Video, cost_of
from wfm.models.diffusion.config import DenoiserConfig, DiffusionConfig
from wfm.models.diffusion.inputs import Context, Vector
from wfm.models.diffusion.network import DiffusionTransformer
from wfm.models.fast_cpu import FastRMSNorm, fast_cpu
from wfm.models.layers import RMSNorm
from wfm.models.presets import PRESETS
from wfm.models.slots import SlotConfig
from wfm.models.tokenizer import Tokenizer, TokenizerConfig

SMALL = DiffusionConfig(
    num_attention_heads=4, attention_head_dim=24, num_layers=3, text_embed_dim=40, adaln_lora_dim=16
)


CONDITIONS = {
    "depth": SlotConfig(slot="vector", width=3, tensors=("depth",)),
    "story": SlotConfig(slot="context", width=5, tensors=("story",)),
    "flow": SlotConfig(slot="channels", width=6, tensors=("flow",)),
}


def _fused_cpu_attention(q, k, v, *rest, out_shape=None, **more) -> int:
    """torch's counter knows the fused kernels of CUDA but not the CPU's, whose work would be left out."""
    return sdpa_flop_count(q, k, v)


def _fused_cpu_backward(grad, q, k, v, *rest, out_shape=None, **more) -> int:
    """Five products of the size of one (q k again, and four gradients), as torch counts it for CUDA."""
    return sdpa_flop_count(q, k, v) * 5 // 2


def _onednn_linear(x, weight, *rest, out_shape=None, **more) -> int:
    """What `fast_cpu` multiplies with."""
    return 2 * math.prod(x) * weight[0]


COUNTED_TOO = {
    torch.ops.mkldnn._linear_pointwise: _onednn_linear,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _fused_cpu_attention,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _fused_cpu_backward,
}


def counted(run) -> int:
    """FLOPs of `run()` by torch's counter."""
    with FlopCounterMode(display=False, custom_mapping=COUNTED_TOO) as counter:
        run()
    return counter.get_total_flops()


def kept(module: torch.nn.Module, run) -> int:
    """fp32 numbers that autograd keeps for the backward pass of `run()`, each storage once, weights left out."""
    weights = {parameter.untyped_storage().data_ptr() for parameter in module.parameters()}
    found: dict[int, int] = {}
    alive = []

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            found[storage.data_ptr()] = storage.nbytes() // 4
        alive.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        run()
    return sum(found.values())


def diffusion(config: DiffusionConfig, video: str, batch: int, text_tokens: int):
    cost = cost_of(config, Video.parse(video), batch=batch, text_tokens=text_tokens)
    torch.manual_seed(0)
    text = torch.randn(batch, text_tokens, config.text_embed_dim) if config.text_embed_dim else None
    vectors = {name: Vector(torch.randn(batch, width)) for name, width in config.vectors.items()}
    contexts = {
        name: Context(torch.randn(batch, 77, width)) for name, width in config.contexts.items() if name != "text"
    }
    mask = torch.zeros(batch, 1, 1, 1, 1) if config.condition_mask else None
    network = DiffusionTransformer(config)
    latents = torch.randn(batch, *cost.latents)
    channels = {name: torch.randn(batch, width, *cost.latents[1:]) for name, width in config.channels.items()}
    told = {"condition_mask": mask, "vectors": vectors, "contexts": contexts, "channels": channels}
    return cost, network, lambda: network(latents, torch.zeros(batch), text, **told)


@pytest.mark.parametrize(
    ("change", "video", "batch", "text_tokens"),
    [
        ({}, "17x64x96", 1, 12),
        ({"condition_mask": True, "action_dim": 9, "mlp_ratio": 3.0}, "9x128x128", 2, 77),
        ({"text_embed_dim": 0, "concat_padding_mask": False, "extra_pos_embed": False}, "33x128x64", 3, 0),
        ({"num_attention_heads": 8, "attention_head_dim": 64, "text_embed_dim": 1024}, "1x256x256", 1, 512),
        ({"conditions": CONDITIONS}, "9x64x64", 2, 77),
    ],
)
def test_flops_of_the_transformer(change, video, batch, text_tokens):
    cost, network, run = diffusion(SMALL.model_copy(update=change), video, batch, text_tokens)
    assert cost.parameters == sum(parameter.numel() for parameter in network.parameters())
    with torch.no_grad():
        assert cost.flops == pytest.approx(counted(run), rel=0.01)  # measured: equal
    training = counted(lambda: run().sum().backward())
    assert cost.training_flops == pytest.approx(training, rel=0.01)


def test_what_a_denoiser_learns_beside_its_network():
    network = SMALL.model_copy(update={"condition_mask": True})
    config = DenoiserConfig(
        network=network, action_width=3, uncertainty=128, repeat_last=True, linear_prior=True, temporal_compression=4
    )
    cost = cost_of(config, Video(17, 128, 128), text_tokens=12)
    module = build_denoiser(config)
    assert cost.parameters == sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)
    assert cost.latents[1] == 5, "it knows the compression in time that it was made for"


TOKENIZERS = {
    "video": TokenizerConfig(channels=(32, 64, 96, 96)),
    "discrete": TokenizerConfig(
        channels=(16, 32, 64, 64), spatial_compression=16, latent_channels=6, levels=(8, 8, 8, 5, 5, 5)
    ),
    "360p": TokenizerConfig(channels=(32, 64, 64, 96), temporal_compression=4, patch_size=2, z_channels=32),
    "image": TokenizerConfig(dimensions=2, temporal_compression=1, channels=(32, 64, 96, 96)),
    "linear code": TokenizerConfig(
        channels=(48, 48), patch_size=8, mid_blocks=0, mid_attention=False, end_kernel=1, linear_code=True
    ),
}


@pytest.mark.parametrize(("frames", "height", "width", "batch"), [(17, 64, 96, 1), (1, 128, 128, 2), (33, 64, 64, 1)])
@pytest.mark.parametrize("kind", TOKENIZERS)
def test_flops_of_the_tokenizers(kind, frames, height, width, batch):
    config = TOKENIZERS[kind]
    cost = cost_of(config, Video(frames, height, width), batch=batch)
    torch.manual_seed(0)
    network = fast_cpu(Tokenizer(config))
    assert cost.parameters == sum(parameter.numel() for parameter in network.parameters())
    video = torch.randn(batch, config.in_channels, frames, height, width)
    encoding = sum(part.flops for part in cost.parts if "encod" in part.name or part.name == "to latents")
    with torch.no_grad():
        assert encoding == pytest.approx(counted(lambda: network.encode(video)), rel=0.01)
        latents = network.encode(video)
        assert latents.shape == (batch, *cost.latents)
        assert cost.flops - encoding == pytest.approx(counted(lambda: network.decode(latents)), rel=0.01)


def test_flops_of_a_published_tokenizer():
    """The 105M default at a size that runs in seconds."""
    config = PRESETS["cv8x8x8"].config
    network, video = fast_cpu(Tokenizer(config)), torch.randn(1, 3, 9, 64, 64)
    with torch.no_grad():
        assert cost_of(config, Video(9, 64, 64)).flops == pytest.approx(counted(lambda: network(video)), rel=0.01)


def test_activations_of_the_transformer():
    """With the norms of one kernel each that a GPU has; torch's on a CPU are several, which keep what is between them."""
    for change in ({}, {"text_embed_dim": 0}, {"mlp_ratio": 2.0}, {"num_layers": 6}):
        cost, network, run = diffusion(SMALL.model_copy(update=change), "25x128x128", 1, 16)
        for part in network.modules():
            part.__class__ = FastRMSNorm if type(part) is RMSNorm else type(part)
        assert cost.saved == pytest.approx(kept(network, run), rel=0.05), change  # worst measured: 3 %
        fast = kept(fast_cpu(network), run)
        assert 0.9 * cost.saved < fast < cost.saved, change


@pytest.mark.parametrize("kind", ["video", "360p", "image"])
def test_activations_of_the_tokenizers(kind):
    config = TOKENIZERS[kind]
    network, video = Tokenizer(config), torch.randn(1, 3, 17, 128, 128)
    found = kept(network, lambda: network(video))
    assert cost_of(config, Video(17, 128, 128)).saved == pytest.approx(found, rel=0.15)


def test_the_papers_figures():
    """Cosmos section 5.1.4: the 14B model at 720p has 280 GB of states and 310 GB of activations, and 56,320 tokens."""
    cost = cost_of(PRESETS["diffusion-14b"].config, Video(121, 704, 1280))
    memory = cost.memory()
    assert cost.tokens == 56_320
    assert memory["training states, all"] / 1e9 == pytest.approx(280, rel=0.03)
    assert memory["training activations, paper's count"] / 1e9 == pytest.approx(310, rel=0.01)
    assert memory["training activations, checkpointed"] < memory["training activations, bf16"] / 10
    assert cost_of(PRESETS["diffusion-7b"].config).latents == (16, 16, 88, 160)
    assert 3 * cost.flops < cost.training_flops < 3.5 * cost.flops


@pytest.mark.parametrize(
    ("video", "words"),
    [
        ("120x704x1280", "113 or 121"),
        ("121x724x1280", "height 724 must be a multiple of 16"),
        ("121x700x1280", "nearest: 688 or 704"),
        ("121x704x8", "width 8 must be a multiple of 16; nearest: 16"),
        ("121x4096x1280", "exceed the model's max_size"),
    ],
)
def test_a_video_that_does_not_fit_is_refused(video, words):
    with pytest.raises(ConfigError, match=words):
        cost_of(PRESETS["diffusion-7b"].config, Video.parse(video))


def test_videos_as_text():
    assert Video.parse(" 121X704x1280") == Video(121, 704, 1280)
    assert Video.parse("64x96") == Video(1, 64, 96)
    assert Video.parse("5sx704x1280", compression=8) == Video(121, 704, 1280)
    assert Video.parse("2.5sX64x96", fps=30, compression=4) == Video(73, 64, 96)
    assert Video.parse("0sx64x96", compression=8) == Video(1, 64, 96)
    with pytest.raises(ConfigError, match="fps is 0"):
        Video.parse("5sx64x96", fps=0)
    for text in ("", "704", "1x2x3x4", "0x64x64", "axb", "-1x2"):
        with pytest.raises(ConfigError, match="FRAMESxHEIGHTxWIDTH"):
            Video.parse(text)


def test_costs_need_no_torch():
    code = (
        "import sys; from wfm.models.presets import preset; from wfm.models.cost import cost_of\n"
        "cost_of(preset('diffusion-14b').config); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("values", "video", "batch"),
    [
        ({}, "17x128x96", 2),
        ({"text_embed_dim": 24, "absolute_embedding": True}, "33x64x128", 1),
        ({"kv_heads": 4}, "9x160x160", 3),
    ],
)
def test_flops_of_the_autoregressive_transformer_are_torchs(values, video, batch):
    small = {"dim": 96, "layers": 2, "heads": 4, "kv_heads": 2, "head_dim": 24, "ffn_dim": 160, "levels": (5, 5, 3)}
    config = AutoregressiveConfig(**{**small, **values})
    model, size = transformer(config), Video.parse(video)
    cost = cost_of(config, size, batch=batch, text_tokens=7)
    _, frames, rows, columns = cost.latents
    ids = torch.zeros(batch, frames * rows * columns, 1, dtype=torch.int64)
    words = torch.zeros(batch, 7, config.text_embed_dim) if config.text_embed_dim else None
    counter = FlopCounterMode(display=False, custom_mapping=COUNTED_TOO)
    with torch.no_grad(), counter:
        model.step(
            ids,
            model.condition({}, batch, frames + 1),
            (rows, columns),
            contexts=model.prepare_contexts({"text": words}, batch=batch),
        )
    assert cost.flops == pytest.approx(counter.get_total_flops(), rel=0.01)
    assert cost.parameters == sum(parameter.numel() for parameter in model.parameters())
    with pytest.raises(ConfigError, match="exceed the model's context of 12800"):
        cost_of(config, Video(41, 640, 1024))
