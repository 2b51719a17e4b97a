"""Read a data set in an environment without wfm: the standard library and pyarrow do (webdataset opens the shards, too).

wfm artifacts pull dataset/curated OUT --what all        # where wfm is
python examples/read_dataset_without_wfm.py OUT train
"""

import io
import json
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq


def samples(root: Path, split: str) -> Iterator[dict[str, Any]]:
    """Samples as webdataset has them: `__key__`, and the bytes of each member by its suffix."""
    splits = json.loads((root / ".nv-meta" / "split.yaml").read_text())  # YAML, and JSON too
    excluded = set(splits["exclude"])  # shards, and samples as SHARD/KEY: readers leave them out themselves
    for shard in splits["split_parts"][split]:
        if shard in excluded:
            continue
        sample: dict[str, Any] = {}
        with tarfile.open(root / shard) as tar:
            for member in tar:
                key, _, suffix = member.name.partition(".")  # the key ends at the first dot
                if sample and sample["__key__"] != key:
                    yield sample
                    sample = {}
                if f"{shard}/{key}" in excluded:
                    continue
                file = tar.extractfile(member)
                assert file is not None
                sample = {**sample, "__key__": key, suffix: file.read()}
        if sample:
            yield sample


def main(root: str, split: str = "train") -> None:
    clips = pq.read_table(Path(root) / "clips.parquet", columns=["clip_id", "kept", "reason", "split", "caption"])
    print(f"{clips.num_rows} clips were cut, {sum(clips.column('kept').to_pylist())} kept")
    count = 0
    for sample in samples(Path(root), split):
        facts = json.loads(sample["json"])
        caption = sample["txt"].decode()
        line = f"{sample['__key__'][:12]} {len(sample['mp4'])} bytes of mp4, {facts['fps']:g} frames/s: {caption}"
        if "actions.parquet" in sample:
            table = pq.read_table(io.BytesIO(sample["actions.parquet"]))
            spec = json.loads(table.schema.metadata[b"wfm"])["action_spec"]  # names, units, frame, rate
            line += f" ({table.num_rows} rows of {', '.join(spec['names'])})"
        count += 1
        print(line)
    print(f"{count} samples in split {split}")


if __name__ == "__main__":
    main(*sys.argv[1:])
