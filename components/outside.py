"""What a planner saw of the outside (the files of a folder, say), kept in the run: its stages take that for what there is,
however late they begin, and what comes later belongs to the next run.

    runs/<id>/seen/<node>.json                the first word stands: the hash of what was seen, and its pieces
                  /<node>/<hash>/<n>          JSON in pieces: it grows with the corpus
"""

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from wfm.artifacts import schema
from wfm.errors import DataError, InputError

if TYPE_CHECKING:
    from wfm.artifacts import Store
    from wfm.artifacts.runs import Run

PIECE_BYTES = 16 * 2**20
MOST_PIECES = 1024
MOST_BYTES = 2**30
"""Of names outside: some millions of files. They are held at once."""
SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Seen:
    """Where it is found."""

    run_id: schema.Word
    node: schema.Word
    sha256: schema.Key
    pieces: schema.Number


def keep(run: "Run", node: str, seen: Any) -> dict[str, Any]:
    """Write down what was seen, unless an earlier planner of this run did; returns what stands in the spec for it."""
    data = json.dumps(seen, separators=(",", ":"), sort_keys=True).encode()
    pieces = [data[start : start + PIECE_BYTES] for start in range(0, len(data), PIECE_BYTES)]
    if len(pieces) > MOST_PIECES or len(data) > MOST_BYTES:
        most = min(MOST_PIECES * PIECE_BYTES, MOST_BYTES)
        raise InputError(f"{node} sees more than {most} bytes of names outside: divide the source")
    told = {"run_id": run.id, "node": node, "sha256": hashlib.sha256(data).hexdigest(), "pieces": len(pieces)}
    if run.read(f"seen/{node}.json") is None:
        for number, piece in enumerate(pieces):
            run.write(f"seen/{node}/{told['sha256']}/{number}", piece, private=True)
        run.create(f"seen/{node}.json", schema.encode({"schema_version": SCHEMA_VERSION, **told}))
    found = schema.decode(run.read(f"seen/{node}.json") or b"", run.path_of("seen", f"{node}.json"), SCHEMA_VERSION)
    return {name: value for name, value in found.items() if name in told}


def recall(told: Any, store: "Store") -> Any:
    """What was seen. Raises DataError where it is not what was written down, or not there any more."""
    where = schema.fit(Seen, told, "what the spec says of the outside")
    run = store.runs.of(where.run_id)
    if where.pieces > MOST_PIECES:
        raise DataError(
            f"what run {run.id} saw of the outside has {where.pieces} pieces: at most {MOST_PIECES} are read"
        )
    data = bytearray()
    for number in range(where.pieces):
        data += run.read(f"seen/{where.node}/{where.sha256}/{number}") or b""
        if len(data) > MOST_BYTES:
            raise DataError(
                f"what run {run.id} saw of the outside has more than {MOST_BYTES} bytes in {number + 1} of {where.pieces} "
                "pieces: it was not written by wfm; plan a new run"
            )
    if hashlib.sha256(data).hexdigest() != where.sha256:
        raise DataError(
            f"{run.path_of('seen', where.node)} is damaged: it is not what was written down; plan a new run"
        )
    return json.loads(data)
