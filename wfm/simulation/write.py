"""Writing mp4 files and their sidecars, byte for byte the same for the same frames."""

import json
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from av.video.stream import VideoStream

from wfm.data.colour import BT601, tag
from wfm.data.x264 import STEADY

SCHEMA_VERSION = 1


class Mp4Writer:
    """Encode frames one by one into ``path``; one thread, so that the bytes do not depend on the machine's cores."""

    def __init__(
        self, path: Path, *, size: int, fps: int, codec: str = "libx264", crf: int = 18, preset: str = ""
    ) -> None:
        self._container = av.open(str(path), "w", format="mp4")
        stream = self._container.add_stream(codec, rate=Fraction(fps), options=_options(codec, crf, preset))
        assert isinstance(stream, VideoStream)
        stream.width = stream.height = size
        stream.pix_fmt = "yuv420p"
        stream.codec_context.thread_count = 1
        tag(stream.codec_context, matrix=BT601)  # what `encode` converts RGB by
        if codec == "mpeg4":
            stream.bit_rate = size * size * fps // 4
        self._stream = stream

    def write(self, picture: np.ndarray) -> None:
        """Append one frame, uint8 [H, W, 3]."""
        frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
        self._container.mux(self._stream.encode(frame))

    def close(self) -> None:
        """Write what the encoder still holds, and the file's index."""
        self._container.mux(self._stream.encode(None))
        self._container.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self._container.close()


def _options(codec: str, crf: int, preset: str) -> dict[str, str]:
    # No libx265 here: below 64 pixels of width, its block size, it writes past its buffers (seen with MALLOC_CHECK_).
    if codec == "mpeg4":
        return {}
    if codec == "libvpx-vp9":
        return {"crf": str(crf), "b": "0", "deadline": "realtime", "cpu-used": "8", "row-mt": "0"}
    options = {"crf": str(crf), "preset": preset or "veryfast"}
    if codec == "libx264":
        options |= STEADY
    return options


def reencode(source: Path, target: Path, *, codec: str, crf: int, scale: float, fps: int) -> None:
    """Decode ``source`` and encode it again at another size, codec and quality: a copy whose bytes all differ."""
    with av.open(str(source)) as container:
        stream = container.streams.video[0]
        stream.thread_type = "NONE"
        size = int(stream.width * scale) // 2 * 2
        with Mp4Writer(target, size=size, fps=fps, codec=codec, crf=crf) as writer:
            for frame in container.decode(stream):
                picture = frame.reformat(width=size, height=size, format="rgb24", interpolation="BICUBIC")
                writer.write(picture.to_ndarray())


def write_table(path: Path, table: pa.Table, metadata: dict[str, Any]) -> None:
    """A Parquet file with ``metadata`` as JSON under the schema key ``wfm``."""
    table = table.replace_schema_metadata({b"wfm": json.dumps(metadata, sort_keys=True).encode()})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, compression="zstd")


def write_json(path: Path, values: dict[str, Any]) -> None:
    """A JSON file with sorted keys."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(values, sort_keys=True, indent=1) + "\n")
