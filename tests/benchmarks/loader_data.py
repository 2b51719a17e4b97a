"""Samples for the benchmarks of the loader: written once with our own writer, with what Energon reads beside the shards, and
where each lies (`places/`), as our reader is told by the table of a part: a column a file, which is mapped.

A sample has one member: `bin`, 16 KiB that nobody decodes, or `mp4`, a real clip of about that size (128 x 128, 12 frames of
noise over a moving picture, H.264), which all decode to the same uint8 [12, 128, 128, 3] by the one function here.
"""

import hashlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import google_crc32c
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from av.video.reformatter import VideoReformatter

from wfm.data.energon import MEMBERS, write_energon
from wfm.data.lengths_index import write_index
from wfm.data.order import sample_keys
from wfm.data.record_table import INDEX_FILE
from wfm.data.records import LENGTHS
from wfm.data.shards import ShardWriter

SIZE, FRAMES, SIDE = 16 * 1024, 12, 128
PLACES = "places"
NOISE = 11.5
DISTINCT = 64
"Contents that are made; the samples repeat them, and decoding knows nothing of it."


def write_shards(folder: Path, kind: str, samples: int, shards: int, size: int = SIZE) -> list[str]:
    """`samples` of `kind` (`bin` or `mp4`) in so many shards of split `train`, once; paths of the shards within `folder`."""
    made = sorted(str(path.relative_to(folder)) for path in folder.glob("shards/train/*.tar"))
    if (folder / PLACES / "order_keys.npy").exists():
        return made
    rng = np.random.default_rng(0)
    contents = [clip(seed) for seed in range(DISTINCT)] if kind == "mp4" else [rng.bytes(size) for _ in range(DISTINCT)]

    hashes: list[bytes] = []
    sums: list[int] = []

    def tables() -> Iterator[pa.Table]:
        for shard in range(shards):
            with ShardWriter(folder / "shards/train", f"{shard:04d}", maximum_bytes=1 << 40) as writer:
                for number in range(shard, samples, shards):
                    writer.write(f"s{number:07d}", {kind: contents[number % DISTINCT]})
            rows = [{**row, "shard": f"shards/train/{row['shard']}"} for row in writer.members]
            data = writer.shards[0].path.read_bytes()
            for start, size in ((int(row["sample_offset"]), int(row["sample_size"])) for row in rows):
                hashes.append(hashlib.sha256(data[start : start + size]).digest())
                sums.append(google_crc32c.value(data[start : start + size]))
            table = pa.Table.from_pylist(rows, schema=MEMBERS)
            written.append(table)
            yield table

    written: list[pa.Table] = []
    made = sorted(write_energon(tables(), ("train",), folder))
    table = pa.concat_tables(written)
    ids = table["sample_key"].to_pylist()
    save_places(
        folder,
        shards=np.array(made),
        shard=np.searchsorted(made, table["shard"].to_pylist()).astype(np.int32),
        offset=table["sample_offset"].to_numpy(),
        size=table["sample_size"].to_numpy(),
        sha256=np.frombuffer(b"".join(hashes), np.uint8).reshape(-1, 32),
        crc32c=np.array(sums, np.uint32),
        ids=np.array(ids, "S"),
        order_keys=sample_keys(ids),
    )
    return made


def save_places(folder: Path, **columns: np.ndarray) -> None:
    """Each into a file of its own."""
    (folder / PLACES).mkdir()
    for name, column in columns.items():
        np.save(folder / PLACES / f"{name}.npy", column)


def read_places(folder: Path) -> dict[str, np.ndarray]:
    """Mapped: what nobody looks at is not read."""
    return {path.stem: np.asarray(np.load(path, mmap_mode="r")) for path in sorted((folder / PLACES).glob("*.npy"))}


def write_lengths(folder: Path) -> None:
    """The table of lengths of such samples, a part a shard, as encode_latents leaves one of videos with five clips of four
    windows; once."""
    held, out = read_places(folder), folder / "samples.parquet"
    if out.exists():
        return
    out.mkdir()
    for number, shard in enumerate(held["shards"].tolist()):
        rows = np.flatnonzero(held["shard"] == number)
        ids = [each.decode() for each in held["ids"][rows].tolist()]
        videos = [hashlib.sha256(f"{number} {nth // 20}".encode()).hexdigest()[:16] for nth in range(len(rows))]
        columns: dict[str, Any] = {
            "sample_id": ids, "clip_id": [f"{video}-{nth // 4 % 5:03d}" for nth, video in enumerate(videos)],
            "session_id": videos, "video_id": videos, "source": [f"recordings/{video}.mp4" for video in videos],
            "key": ids, "offset": held["offset"][rows], "bytes": held["size"][rows],
            "sha256": list(map(bytes, held["sha256"][rows])), "crc32c": held["crc32c"][rows],
            "order_key": held["order_keys"][rows], "start_frame": 33 * (np.arange(len(rows)) % 4),
        }  # fmt: skip
        alike = {
            "start_seconds": 0.5, "fps": 24.0, "num_frames": 33, "mirrored": False, "split": "train", "kind": "video",
            "channels": 4, "latent_frames": 1, "latent_height": 1, "latent_width": 1, "extrapolated": False, "shard": shard,
        }  # fmt: skip
        columns |= {name: [value] * len(rows) for name, value in alike.items()}
        table = pa.table([pa.array(columns[field.name], field.type) for field in LENGTHS], schema=LENGTHS)
        pq.write_table(table, out / f"{number:04d}.parquet", compression="zstd")
        index = folder / "parts" / f"{number:04d}" / INDEX_FILE
        index.parent.mkdir(parents=True)
        write_index(table, out / f"{number:04d}.parquet", index)


def clip(seed: int) -> bytes:
    """An mp4 of about `SIZE` bytes."""
    rng = np.random.default_rng(seed)
    file = io.BytesIO()
    rows, columns = np.mgrid[:SIDE, :SIDE]
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=24, options={"crf": "20", "preset": "fast", "threads": "1"})
        stream.width, stream.height, stream.pix_fmt = SIDE, SIDE, "yuv420p"
        for frame in range(FRAMES):
            picture = 128 + 60 * np.sin((rows + 3 * frame) / 9)[..., None] + 40 * np.cos(columns / 5)[..., None]
            noisy = picture + rng.normal(0, NOISE, (SIDE, SIDE, 3))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(noisy.clip(0, 255).astype(np.uint8), "rgb24")))
        container.mux(stream.encode())
    return file.getvalue()


def decode(data: bytes | memoryview) -> np.ndarray:
    """uint8 [FRAMES, SIDE, SIDE, 3]: every frame, one thread (by default colours are converted by as many as there are
    processors, which takes twice as long for small frames), each copied once."""
    found, scaler = np.empty((FRAMES, SIDE, SIDE, 3), np.uint8), VideoReformatter()
    with av.open(io.BytesIO(data)) as container:
        stream = container.streams.video[0]
        stream.thread_type, stream.codec_context.thread_count = "NONE", 1
        for number, frame in enumerate(list(container.decode(stream))):
            picture = scaler.reformat(frame, format="rgb24", threads=1)
            found[number] = np.frombuffer(picture.planes[0], np.uint8).reshape(SIDE, SIDE, 3)
    return found
