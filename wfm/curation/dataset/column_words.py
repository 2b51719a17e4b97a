"""What each column of the public tables means: the words beside the fields of the records, found where they are written; of a
measurement, those of its row."""

import ast
import dataclasses
import functools
import inspect
from collections.abc import Iterable

from wfm.curation.dataset.clip_table import MORE, ClipRow
from wfm.curation.rows import Score, Selection
from wfm.curation.step import SkippedRow
from wfm.records import Caption, Clip, Record, Rights, Video

_FROM = (Rights, Caption, *MORE.values(), Score, Selection, Clip)
"""Records whose columns the table of clips and that of videos take over; the words of a later one count."""

PUBLIC: dict[str, type[Record]] = {"clips.parquet": ClipRow, "videos.parquet": Video, "skips.parquet": SkippedRow}
"""Tables of a data set -> the record of their rows. The table of videos has the columns of `Rights` too."""


def columns_of(table: str) -> dict[str, str]:
    """Column -> what it means, in order, of a table of `PUBLIC`."""
    record = PUBLIC[table]
    known = {name: words for each in (*_FROM, record) for name, words in _words(each).items()}
    names: Iterable[str] = [field.name for field in dataclasses.fields(record)]
    if record is Video:
        names = [*names, *(field.name for field in dataclasses.fields(Rights) if field.name not in names)]
    return {name: known.get(name, "") for name in names}


@functools.cache
def _words(record: type[Record]) -> dict[str, str]:
    """Field -> the string that stands below it in the source, or in the row that declares it."""
    (tree,) = ast.parse(inspect.getsource(record)).body
    assert isinstance(tree, ast.ClassDef)
    found = {}
    for field, below in zip(tree.body, tree.body[1:], strict=False):
        if (
            isinstance(field, ast.AnnAssign)
            and isinstance(field.target, ast.Name)
            and isinstance(below, ast.Expr)
            and isinstance(below.value, ast.Constant)
        ):
            found[field.target.id] = _plain(str(below.value.value))
    return found | {name: _plain(words) for name, words in record.column_words.items()}


def _plain(words: str) -> str:
    return " ".join(words.replace("``", "").split())
