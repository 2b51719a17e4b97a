"""Embeddings by caption: equal captions are encoded once, and none twice between runs that share a folder.

    <folder>/<encoder, length and dtype>/<pack>.safetensors      one tensor [length, width] a caption, named by its key

The key of a caption is sha256 over (normalised caption, encoder identity, max length). Each call writes what it had to encode
as one pack, whole or not at all; packs are only ever added, so several processes may share a folder. A pack that cannot be
read is left aside with a warning, and its captions are encoded again.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from wfm.log import get_logger
from wfm.models.text.config import TextConfig
from wfm.models.text.encoders import TextEncoder, normalised

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class EncodedCaptions:
    """Embeddings of distinct captions, one after the other."""

    captions: tuple[str, ...]
    embeddings: Tensor
    "`[sum of lengths, width]`."
    lengths: Tensor
    "int64 `[captions]`: tokens of each."


class CaptionCache:
    """An encoder with a memory. Without a folder it only keeps equal captions of one call together."""

    def __init__(self, encoder: TextEncoder, config: TextConfig) -> None:
        self.encoder, self.dtype = encoder, _DTYPES[config.dtype]
        self.encoded, self.reused = 0, 0  # captions encoded, and found in the folder, since this was opened
        name = f"{encoder.identity[:16]}-{encoder.max_length}-{config.dtype}"
        self.folder = Path(config.cache).expanduser() / name if config.cache else None
        self._packs: dict[str, Path] = {}
        self._seen: set[Path] = set()

    def key(self, caption: str) -> str:
        """Name of a caption's embedding, 64 hex digits."""
        parts = (normalised(caption), self.encoder.identity, str(self.encoder.max_length))
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()

    def encode(self, captions: Sequence[str]) -> EncodedCaptions:
        """Embeddings of the distinct ones among `captions` (as they are once normalised), sorted."""
        distinct = tuple(sorted({normalised(caption) for caption in captions}))
        keys = [self.key(caption) for caption in distinct]
        found = self._read(keys)
        missing = [i for i, key in enumerate(keys) if key not in found]
        if missing:
            embeddings, lengths = self.encoder.encode([distinct[i] for i in missing])
            fresh = {
                keys[i]: row[:length].to(self.dtype)
                for i, row, length in zip(missing, embeddings, lengths.tolist(), strict=True)
            }
            self._write(fresh)
            found.update(fresh)
        self.encoded += len(missing)
        self.reused += len(distinct) - len(missing)
        rows = [found[key] for key in keys]
        total = torch.cat(rows) if rows else torch.zeros(0, self.encoder.width, dtype=self.dtype)
        return EncodedCaptions(distinct, total, torch.tensor([len(row) for row in rows], dtype=torch.int64))

    def _read(self, keys: Sequence[str]) -> dict[str, Tensor]:
        """What the folder holds of `keys`."""
        if self.folder is None:
            return {}
        from safetensors import SafetensorError, safe_open

        self._look(self.folder)
        wanted: dict[Path, list[str]] = {}
        for key in keys:
            if key in self._packs:
                wanted.setdefault(self._packs[key], []).append(key)
        found = {}
        for path, names in wanted.items():
            try:
                with safe_open(str(path), framework="pt") as pack:
                    found.update({name: pack.get_tensor(name) for name in names})
            except (OSError, SafetensorError) as error:
                self._leave_aside(path, error)
        return found

    def _look(self, folder: Path) -> None:
        """Take in the names of packs that were not there before; their headers alone are read."""
        from safetensors import SafetensorError, safe_open

        for path in sorted(set(folder.glob("*.safetensors")) - self._seen):
            self._seen.add(path)
            try:
                with safe_open(str(path), framework="pt") as pack:
                    self._packs.update(dict.fromkeys(pack.keys(), path))
            except (OSError, SafetensorError) as error:
                self._leave_aside(path, error)

    def _leave_aside(self, path: Path, error: Exception) -> None:
        self._packs = {key: pack for key, pack in self._packs.items() if pack != path}
        get_logger("wfm.text").warning("%s cannot be read (%s): its captions are encoded again", path, error)

    def _write(self, fresh: dict[str, Tensor]) -> None:
        if self.folder is None or not fresh:
            return
        from safetensors.torch import save

        from wfm.artifacts.atomic import replace_on_disk

        name = hashlib.sha256("\n".join(sorted(fresh)).encode()).hexdigest()
        path = self.folder / f"{name}.safetensors"
        replace_on_disk(path, save({key: fresh[key].contiguous() for key in sorted(fresh)}))
        self._seen.add(path)
        self._packs.update(dict.fromkeys(fresh, path))
