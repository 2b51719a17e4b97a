"""The readers of what comes from outside, each with good samples and a way to read one: run as a process that may die.

    python -m tests.faults.fuzz_readers READER FIRST COUNT FOLDER

reads COUNT mutations of seeds FIRST, FIRST + 1, … within a limit of memory and time. Before each one its seed is written to
``FOLDER/seed``, so that whoever started the process knows which one ended it. The last line printed is JSON: how many ended
well, in each of our errors, and in anything else (with seeds), and the peak of memory.
"""

import contextlib
import io
import json
import os
import random
import resource
import shutil
import signal
import sys
import tarfile
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

from tests.faults.mutations import mutate

MEMORY = 1 << 30
"""Beyond what the libraries have mapped before the first mutation [bytes]."""
SECONDS = 20
"""Most that one mutation may take [s]."""


class Reader:
    """Good samples of one kind, and what reads one. ``folder`` is its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.samples: list[tuple[str, bytes]] = []
        "(file name, content)."

    def read(self, path: Path) -> None:
        """Read a file to its end. Raises an error of ours where it is wrong."""
        raise NotImplementedError

    def write(self, name: str, data: bytes) -> Path:
        """The file that is read."""
        path = self.folder / "in" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
        return path


class Manifests(Reader):
    """A manifest in a store, then what it names."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        from wfm.artifacts import Store

        self.store = Store.open(folder / "store")
        self.key, part = "a" * 64, "b" * 64
        with self.store.part_attempt(part) as attempt:
            (attempt.path / "x.txt").write_text("x")
            entry = attempt.commit(stage="s", kind="part", code_id="v1").entry("one")
        with self.store.attempt(self.key) as attempt:
            for name in ("y.txt", "deep/z.txt"):
                (attempt.path / name).parent.mkdir(exist_ok=True)
                (attempt.path / name).write_text("y")
            attempt.commit(
                stage="s", kind="dataset", code_id="v1", parts=[entry], counts={"inputs": 1}, config={"a": [1, 2.5]}
            )
        self.manifest = folder / "store" / "artifacts" / self.key / "manifest.json"
        self.part = folder / "store" / "parts" / part / "manifest.json"
        self.good = {"manifest.json": self.manifest.read_bytes(), "part.json": self.part.read_bytes()}
        self.samples = list(self.good.items())

    def write(self, name: str, data: bytes) -> Path:
        self.manifest.write_bytes(data if name == "manifest.json" else self.good["manifest.json"])
        self.part.write_bytes(data if name == "part.json" else self.good["part.json"])
        return self.manifest

    def read(self, path: Path) -> None:
        from wfm.artifacts import Store

        out = self.folder / "out"
        shutil.rmtree(out, ignore_errors=True)
        artifact = Store.open(self.folder / "store").artifact(self.key)
        artifact.summary()
        for entry in artifact.files():
            artifact.fetch(entry.path)
        for part in artifact.iterate_parts():
            list(artifact.part(part.name).files())
        artifact.fetch_tree("", out)
        strange = [
            name for name in os.listdir(self.folder) if name not in ("store", "out", "in", "seed", "cache", "home")
        ]
        assert not strange, f"written outside: {strange}"


class Lists(Reader):
    """A list of videos: each name of it becomes a row."""

    def __init__(self, folder: Path, ending: str) -> None:
        super().__init__(folder)
        import pyarrow as pa
        import pyarrow.parquet as pq

        rows = [
            {
                "source": f"{number}.mp4",
                "session_id": f"s{number % 7}",
                "view": "left",
                "licence": "CC0-1.0",
                "attributes": "x.json",
            }
            for number in range(20)
        ]
        table = io.BytesIO()
        pq.write_table(pa.Table.from_pylist(rows), table)
        plain = io.BytesIO()
        pq.write_table(pa.Table.from_pylist(rows), plain, use_dictionary=False, compression="zstd", row_group_size=5)
        self.samples = {
            "txt": [("l.txt", b"# names\n" + b"".join(row["source"].encode() + b"\n" for row in rows))],
            "jsonl": [("l.jsonl", b"".join(json.dumps(row).encode() + b"\n" for row in rows))],
            "parquet": [("l.parquet", table.getvalue()), ("l.parquet", plain.getvalue())],
        }[ending]
        for row in rows:
            self.write(row["source"], b"x")
        self.write("x.json", b"{}")

    def read(self, path: Path) -> None:
        from wfm.curation.source.listing import list_source

        for file in list_source(str(path)).files:
            json.dumps(file.to_json(), ensure_ascii=False).encode()  # what a table can hold
            assert len(repr(file)) < 200_000


class Sidecars(Reader):
    """Actions, attributes, and metas of cosmos-curate."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        import pyarrow as pa
        import pyarrow.parquet as pq

        from wfm.actions import ActionSpec

        spec = ActionSpec(names=("turn", "push"), units=("deg/s", "m/s"), mean=(0.0, 0.0), scale=(1.0, 1.0))
        known = {"schema_version": 1, "action_spec": spec.resolved(), "session_id": "s", "view": 0}
        columns = {
            "pts_seconds": pa.array([number / 24 for number in range(48)]),
            "action": pa.array([[1.0, 2.0]] * 48, pa.list_(pa.float32())),
            "note": pa.array(["a note"] * 48),
        }
        table = pa.table(columns).replace_schema_metadata({b"wfm": json.dumps(known).encode()})
        actions = io.BytesIO()
        pq.write_table(table, actions)
        shots = [
            {"start_seconds": 0.0, "end_seconds": 2.5, "caption": "A street."},
            {"start_seconds": 2.5, "end_seconds": 4},
        ]
        meta = {
            "span_uuid": "6a5f6c9e-0d4b-4f43-9a55-0d4e2f9b3c11", "source_video": "a.mp4", "duration_span": [0.0, 2.0],
            "num_frames": 48, "framerate": "24000/1001", "width": 64, "height": 48,
            "windows": [{"start_frame": 0, "end_frame": 47, "q_caption": "A."}],
        }  # fmt: skip
        self.samples = [
            ("a.parquet", actions.getvalue()),
            (
                "a.attributes.json",
                json.dumps({"schema_version": 1, "session_id": "s", "view": "v", "shots": shots}).encode(),
            ),
            ("a.meta.json", json.dumps(meta).encode()),
        ]

    def read(self, path: Path) -> None:
        from wfm.curation.exchange.cosmos_metas import from_meta
        from wfm.curation.source.sidecars import (
            action_spec,
            check_actions,
            check_attributes,
            overlapping_shot,
            read_actions,
            read_attributes,
        )

        if path.name.endswith(".meta.json"):
            type(from_meta(path).row).to_table([from_meta(path).row])
        elif path.name.endswith(".json"):
            check_attributes(path)
            overlapping_shot(read_attributes(path), 0.0, 1.0)
        else:
            check_actions(path)
            action_spec(read_actions(path), path.name)


class Archives(Reader):
    """What lies in an archive, then each member of it."""

    def __init__(self, folder: Path, ending: str) -> None:
        super().__init__(folder)
        from wfm.artifacts import Store

        self.store = Store.open(folder / "store")
        members = {f"deep/{number}.mp4": random.Random(number).randbytes(3000) + bytes(3000) for number in range(6)}
        members |= {"deep/0.attributes.json": b'{"shots": []}', "deep/1.actions.parquet": b"x", "readme.txt": b"hello"}
        packed = io.BytesIO()
        if ending == "zip":
            with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as opened:
                for name, data in members.items():
                    opened.writestr(name, data, zipfile.ZIP_STORED if name.endswith("2.mp4") else None)
        else:
            with tarfile.open(
                fileobj=packed, mode="w:gz" if ending.endswith("gz") else "w", format=tarfile.PAX_FORMAT
            ) as tar:
                for name, data in (*members.items(), ("ü" * 120 + ".mp4", b"long")):
                    info = tarfile.TarInfo(name)
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))
        self.samples = [(f"a.{ending}", packed.getvalue())]

    def read(self, path: Path) -> None:
        from wfm.curation.source.listing import list_source
        from wfm.data import archive
        from wfm.data.source import open_source
        from wfm.errors import WfmError

        archive._indexes.clear()
        shutil.rmtree(self.folder / "cache", ignore_errors=True)
        wrong: WfmError | None = None
        for file in list_source(str(path), self.store).files:
            json.dumps(file.to_json(), ensure_ascii=False).encode()
            if not file.problem:
                try:
                    open_source(self.store, file.source)
                except WfmError as error:
                    wrong = error
        if wrong is not None:
            raise wrong


class Videos(Reader):
    """A film: what it holds, then every frame and what is sound in it."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        import av

        kinds = (
            ("mp4", "libx264", "yuv420p", {}), ("mov", "libx264", "yuv420p", {"movflags": "frag_keyframe+empty_moov"}),
            ("mkv", "libx265", "yuv420p", {}), ("webm", "libvpx-vp9", "yuv420p", {}), ("avi", "mpeg4", "yuv420p", {}),
            ("mpg", "mpeg2video", "yuv420p", {}), ("ts", "libx264", "yuv420p", {}), ("flv", "flv1", "yuv420p", {}),
            ("gif", "gif", "rgb8", {}), ("mov", "png", "rgb24", {}), ("mkv", "ffv1", "yuv420p", {}),
            ("mov", "prores_ks", "yuv422p10le", {}), ("ogv", "libtheora", "yuv420p", {}), ("wmv", "wmv2", "yuv420p", {}),
            ("y4m", "wrapped_avframe", "yuv420p", {}),
            ("h264", "libx264", "yuv420p", {}), ("mxf", "mpeg2video", "yuv420p", {}), ("avi", "mjpeg", "yuvj420p", {}),
            ("ivf", "libaom-av1", "yuv420p", {}),
        )  # fmt: skip
        for number, (ending, codec, form, options) in enumerate(kinds):
            with contextlib.suppress(av.error.FFmpegError, ValueError):  # not every build has every encoder
                path = folder / f"sample.{ending}"
                _film(path, codec, form, options)
                self.samples.append((f"{number}.{ending}", path.read_bytes()))
                path.unlink()
        assert len(self.samples) >= 10, [name for name, _ in self.samples]

    def read(self, path: Path) -> None:
        from wfm.data.decode import open_video, to_array
        from wfm.data.probe import probe

        probe(path, maximum_pixels=2**22)
        with open_video(path) as video:
            for number, frame in enumerate(video.frames()):
                to_array(frame, size=(32, 32))
                if number > 300:
                    break


def _film(path: Path, codec: str, form: str, options: dict[str, str]) -> None:
    import av
    import numpy as np

    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream(codec, rate=24)
        stream.width, stream.height, stream.pix_fmt = 64, 48, form
        if codec in ("libx264", "libx265"):
            stream.options = {"preset": "ultrafast", "x265-params": "log-level=none"}
        for number in range(12):
            picture = np.full((48, 64, 3), 20 * number, np.uint8)
            picture[number : number + 20, 10:40] = 200
            frame = av.VideoFrame.from_ndarray(picture).reformat(format=form)
            frame.pts, frame.time_base = number, Fraction(1, 24)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


class Weights(Reader):
    """Files of tensors, with all that is in them."""

    def __init__(self, folder: Path, ending: str) -> None:
        super().__init__(folder)
        import torch

        from wfm.models.convert.writing import save_tensors

        tensors = {
            "a.weight": torch.arange(60.0).reshape(5, 12),
            "a.bias": torch.ones(5, dtype=torch.bfloat16),
            "b": torch.arange(7),
        }
        path = folder / f"sample.{ending}"
        if ending == "safetensors":
            save_tensors(tensors, path)
        elif ending == "pt":
            torch.save({"model": tensors}, path)
        else:
            module = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Conv2d(4, 6, 3))
            torch.jit.save(torch.jit.script(module), str(path))
        self.samples = [(path.name, path.read_bytes())]

    def read(self, path: Path) -> None:
        from wfm.models.convert.reading import open_tensors

        with open_tensors(path, allow_pickle_file=True, mapped=False) as file:
            for name, entry in file.entries.items():
                if entry.nbytes < 1 << 20:
                    file.read(name)


class Folders(Reader):
    """A configuration beside weights: of diffusers, and of ours."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        from wfm.models.convert.diffusers_folder import to_diffusers
        from wfm.models.diffusion.config import DenoiserConfig, DiffusionConfig
        from wfm.models.diffusion.denoiser import Denoiser
        from wfm.models.diffusion.network import DiffusionTransformer
        from wfm.models.folder import save_model
        from wfm.models.tokenizer import Tokenizer, TokenizerConfig

        small = DiffusionConfig.parse(
            {"num_layers": 1, "num_attention_heads": 1, "attention_head_dim": 6, "text_embed_dim": 4, "adaln_lora_dim": 4,
             "max_size": [2, 4, 4], "qk_norm_eps": 1e-5}
        )  # fmt: skip
        ours = DenoiserConfig.parse({"network": small.resolved()})
        code = TokenizerConfig(
            latent_channels=4, z_channels=4, channels=(8, 8, 8, 8), encoder_blocks=1, decoder_blocks=2
        )
        to_diffusers(DiffusionTransformer(small), folder / "transformer")
        to_diffusers(Tokenizer(code), folder / "autoencoder")
        save_model(Denoiser(ours), ours, folder / "denoiser")
        save_model(Tokenizer(code), code, folder / "tokenizer")
        names = ("transformer", "autoencoder", "denoiser", "tokenizer")
        self.samples = [(name, (folder / name / "config.json").read_bytes()) for name in names]

    def write(self, name: str, data: bytes) -> Path:
        (self.folder / name / "config.json").write_bytes(data)
        return self.folder / name

    def read(self, path: Path) -> None:
        from wfm.models.convert.diffusers_folder import from_diffusers
        from wfm.models.folder import load_model

        _ = from_diffusers(path) if path.name in ("transformer", "autoencoder") else load_model(path)


READERS: dict[str, Callable[[Path], Reader]] = {
    "manifests": Manifests,
    **{f"lists-{ending}": lambda folder, ending=ending: Lists(folder, ending) for ending in ("txt", "jsonl", "parquet")},
    "sidecars": Sidecars,
    **{f"archives-{ending}": lambda folder, ending=ending: Archives(folder, ending) for ending in ("zip", "tar", "tar.gz")},
    "videos": Videos,
    **{f"weights-{ending}": lambda folder, ending=ending: Weights(folder, ending) for ending in ("safetensors", "pt", "jit")},
    "weights-folders": Folders,
}  # fmt: skip


class TookTooLong(BaseException):
    """No `Exception`, so that nothing takes it for an answer."""


@contextlib.contextmanager
def within(seconds: int) -> Iterator[None]:
    """Raises `TookTooLong` in Python; a library that never comes back is ended by the second alarm."""

    def late(*_: Any) -> None:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(seconds)
        raise TookTooLong

    signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)


def run(name: str, first: int, count: int, folder: Path) -> dict[str, Any]:
    """Read mutations; what the last line printed holds."""
    from wfm.errors import WfmError

    reader = READERS[name](folder)
    for sample, data in reader.samples:
        reader.read(reader.write(sample, data))  # whole ones are read, and all libraries are there
    with open("/proc/self/statm") as pages:
        mapped = int(pages.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (mapped + MEMORY, mapped + MEMORY))
    ends: Counter[str] = Counter()
    strange: dict[str, list[Any]] = {}
    slowest, seed_of_it = 0.0, -1
    for seed in range(first, first + count):
        (folder / "seed").write_text(str(seed))
        sample, data = reader.samples[seed % len(reader.samples)]
        started = time.monotonic()
        try:
            with within(SECONDS):
                reader.read(reader.write(sample, mutate(data, seed)))
            ends["read"] += 1
        except WfmError as error:
            ends[getattr(error, "code", type(error).__name__).partition(":")[0]] += 1
        except BaseException as error:
            ends["strange"] += 1
            strange.setdefault(type(error).__name__, [str(error)[:200]]).append(seed)
        if time.monotonic() - started > slowest:
            slowest, seed_of_it = time.monotonic() - started, seed
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
    return {
        "ends": dict(ends), "strange": {kind: found[:10] for kind, found in strange.items()}, "peak": peak,
        "slowest": [round(slowest, 2), seed_of_it],
    }  # fmt: skip


if __name__ == "__main__":
    print(json.dumps(run(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))))
