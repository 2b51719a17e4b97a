"""The one place where a seed is derived from names and numbers: the same on every machine, unrelated for related parts."""

import hashlib


def mix(*parts: int | str) -> int:
    """A 63-bit hash of integers and strings: what seeds the noise, crop or dropout of (seed, sample, epoch)."""
    text = "\x1f".join(f"{type(part).__name__[0]}{part}" for part in parts)
    return _seed(hashlib.blake2b(text.encode(), digest_size=8).digest())


def derived_seed(*parts: int | str) -> int:
    """The 63-bit seed of what is drawn from a trained model: of a held-out window, of the next window of a rollout.

    Not `mix`, though it does the same: published videos were drawn with these values, and their seeds must go on giving them.
    """
    return _seed(hashlib.sha256(":".join(str(part) for part in parts).encode()).digest())


def _seed(digest: bytes) -> int:
    return int.from_bytes(digest[:8], "big") >> 1
