"""Which tensor of ours is which tensor of the original Cosmos checkpoints. Pure functions on names.

Ours are diffusers' names (CosmosTransformer3DModel, AutoencoderKLCosmos), so that side needs no map. The original's are those
of `general_dit.py` and of the tokenizer's `layers3d.py` and `layers2d.py`. Every function here goes from ours to theirs: a
reader makes the names of its own network and looks for exactly those.

Names that only the original has are listed in `LEFT_OUT`; whatever else is too many or too few is an error elsewhere.
"""

import re
from collections.abc import Callable

_BLOCK = r"^transformer_blocks\.(\d+)\."

_TRANSFORMER: tuple[tuple[str, str | Callable[[re.Match[str]], str]], ...] = (
    (r"^patch_embed\.proj\.", "x_embedder.proj.1."),
    (r"^learnable_pos_embed\.", "extra_pos_embedder."),
    (r"^time_embed\.t_embedder\.", "t_embedder.1."),
    (r"^time_embed\.norm\.", "affline_norm."),
    # A block of theirs is three of one kind, counted from 0: self-attention, cross-attention, feed-forward
    (
        _BLOCK + r"norm([123])\.linear_([12])\.",
        lambda m: f"blocks.block{m[1]}.blocks.{int(m[2]) - 1}.adaLN_modulation.{m[3]}.",
    ),
    (_BLOCK + r"attn([12])\.(to_[qkv])\.", lambda m: f"blocks.block{m[1]}.blocks.{int(m[2]) - 1}.block.attn.{m[3]}.0."),
    (
        _BLOCK + r"attn([12])\.norm_([qk])\.",
        lambda m: f"blocks.block{m[1]}.blocks.{int(m[2]) - 1}.block.attn.to_{m[3]}.1.",
    ),
    (_BLOCK + r"attn([12])\.to_out\.0\.", lambda m: f"blocks.block{m[1]}.blocks.{int(m[2]) - 1}.block.attn.to_out.0."),
    (_BLOCK + r"ff\.net\.0\.proj\.", r"blocks.block\1.blocks.2.block.layer1."),
    (_BLOCK + r"ff\.net\.2\.", r"blocks.block\1.blocks.2.block.layer2."),
    (r"^norm_out\.linear_([12])\.", r"final_layer.adaLN_modulation.\1."),
    (r"^proj_out\.", "final_layer.linear."),
    (r"^action_embedder_B_(3?D)\.", r"action_embedder_B_\1."),  # the original's own names
)

_CAUSAL: tuple[tuple[str, str], ...] = (
    (r"attention\.to_([qkv])\.", r"attention.w\1."),
    (r"attention\.to_out\.0\.", "attention.wo."),
    (r"attention\.norm_([qk])\.", r"attention.\1_norm."),
)
"""Of the autoregressive transformer, whose other names are the original's own."""

_SHARED: tuple[tuple[str, str], ...] = (
    (r"\.down_blocks\.(\d+)\.resnets\.", r".down.\1.block."),
    (r"\.up_blocks\.(\d+)\.resnets\.", r".up.\1.block."),
    (r"\.down_blocks\.(\d+)\.downsamplers\.0\.", r".down.\1.downsample."),
    (r"\.up_blocks\.(\d+)\.upsamplers\.0\.", r".up.\1.upsample."),
    (r"\.mid_block\.resnets\.0\.", ".mid.block_1."),
    (r"\.mid_block\.resnets\.1\.", ".mid.block_2."),
    (r"\.to_([qkv])\.", r".\1."),
    (r"\.to_out\.0\.", ".proj_out."),
    (r"\.conv_shortcut\.", ".nin_shortcut."),
)
_VIDEO: tuple[tuple[str, str], ...] = (
    (r"\.mid_block\.attentions\.0\.", ".mid.attn_1.0."),
    (r"\.mid_block\.temp_attentions\.0\.", ".mid.attn_1.1."),
    (r"\.conv_s\.", ".0.conv3d."),
    (r"\.conv_t\.", ".1.conv3d."),
    # A causal convolution wraps a plain one. The factorised pairs are done above, norms wrap their own
    (
        r"(^|\.)((?:post_)?quant_conv|nin_shortcut|proj_out|[qkv]|(?:up|down)sample\.conv[123])\.(weight|bias)$",
        r"\1\2.conv3d.\3",
    ),
)
_IMAGE: tuple[tuple[str, str], ...] = ((r"\.mid_block\.attentions\.0\.", ".mid.attn_1."),)

LEFT_OUT: dict[str, str] = {
    r"logvar\..*": "the learned uncertainty of the loss; a denoiser can take it (denoiser=True)",
    r".*_extra_state": "bookkeeping of Transformer Engine",
    r"pos_embedder\.(seq|dim_(spatial|temporal)_range)": "positions, worked out anew",
    r"(.*\.)?(wavelets|_arange|patch_size_buffer)": "Haar taps, worked out anew",
    r"(.*\.)?(_levels|_basis|implicit_codebook)": "the FSQ code book, worked out anew",
}
"""Names of the original that need no place with us, and why."""


def transformer_name(ours: str) -> str:
    """Name of a diffusion transformer's tensor in the original, without its `net.` prefix. Raises KeyError for a name that
    has none there."""
    for pattern, theirs in _TRANSFORMER:
        renamed, hits = re.subn(pattern, theirs, ours)
        if hits:
            return renamed
    raise KeyError(ours)


def causal_name(ours: str) -> str:
    """Name of an autoregressive transformer's tensor in the original (`autoregressive/networks/transformer.py`)."""
    for pattern, theirs in _CAUSAL:
        ours = re.sub(pattern, theirs, ours)
    return ours


def tokenizer_name(ours: str, *, levels: int, dimensions: int) -> str:
    """Name of a tokenizer's tensor in the original; `levels` of the networks, `dimensions` 3 for video, 2 for images.

    The original counts the decoder's levels from the pixels, diffusers and we from the latents.
    """
    theirs = ours
    for pattern, replacement in _SHARED + (_VIDEO if dimensions == 3 else _IMAGE):
        theirs = re.sub(pattern, replacement, theirs)
    return re.sub(r"\.up\.(\d+)\.", lambda m: f".up.{levels - 1 - int(m[1])}.", theirs)


def reason_left_out(theirs: str) -> str | None:
    """Why a tensor of the original has no place with us; None if it must have one."""
    for pattern, reason in LEFT_OUT.items():
        if re.fullmatch(pattern, theirs):
            return reason
    return None
