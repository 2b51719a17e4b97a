"""Sessions on both sides of a split. One data set has none; blended ones may have been split each in its own way."""

from collections.abc import Mapping

import pyarrow as pa
import pyarrow.compute as pc

from wfm.data.lengths import Lengths
from wfm.errors import ConfigError

_SHOWN = 3


def require_apart(train: Mapping[str, pa.Table | Lengths], val: Mapping[str, pa.Table | Lengths]) -> None:
    """Raise ConfigError, with sources, sessions and counts, where the validation of one source watches a session that another
    source trains on. Tables by source, with the column session_id; samples without a session are nobody's."""
    found = []
    for watched, held in val.items():
        sessions = _named(held)
        for name, table in train.items():
            if name == watched:
                continue
            both = pc.unique(sessions.filter(pc.is_in(sessions, value_set=pc.unique(_named(table)))))
            if len(both):
                found.append(_words(name, table, watched, held, both))
    if found:
        raise ConfigError(
            f"{'; '.join(found)}: the validation would watch what was trained on. Split the data sets alike (select_clips, "
            "with the same seed and shares), leave one out, or, where these are other recordings of the same names, set "
            "training.data.shared_sessions to 'allow'"
        )


def _named(table: pa.Table | Lengths) -> pa.ChunkedArray:
    sessions = table.column("session_id")
    return sessions.filter(pc.not_equal(sessions, ""))


def _words(name: str, table: pa.Table | Lengths, watched: str, held: pa.Table | Lengths, both: pa.Array) -> str:
    samples = [pc.sum(pc.is_in(of.column("session_id"), value_set=both)).as_py() for of in (table, held)]
    shown = ", ".join(sorted(both.to_pylist())[:_SHOWN]) + (", ..." if len(both) > _SHOWN else "")
    sessions = "1 session stands" if len(both) == 1 else f"{len(both)} sessions stand"
    return (
        f"{sessions} in train of {name} ({samples[0]} samples) and in val of {watched} ({samples[1]} samples): {shown}"
    )
