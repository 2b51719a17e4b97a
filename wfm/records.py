"""What moves between stages: rows of typed tables with a schema version.

A record is a frozen dataclass whose fields are plain values; ``to_table`` and ``from_table`` cross to and from Arrow. The
version is stored in the table's metadata, and a newer one than this code knows is refused with advice.
"""

import dataclasses
import hashlib
import types
import typing
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, ClassVar, Self, TypeVar

import pyarrow as pa

from wfm.errors import DataError

_ARROW: dict[Any, pa.DataType] = {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_()}
_METADATA = b"wfm"
Row = TypeVar("Row", bound="Record")


def clip_id_of(video_id: str, start_pts: int, end_pts: int) -> str:
    """A clip's id is the sha256 of its video's id and its span in presentation timestamps."""
    return hashlib.sha256(f"{video_id}:{start_pts}:{end_pts}".encode()).hexdigest()


def is_image_path(path: str) -> bool:
    """Whether a clip file of that name, which we gave it, is a still image."""
    return path.endswith((".jpg", ".png", ".webp"))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Record:
    """Base of the rows. Fields are str, int, float, bool, an optional one of these, or a list of them."""

    SCHEMA_VERSION: ClassVar[int] = 1
    column_words: ClassVar[Mapping[str, str]] = {}
    "What columns mean that are declared elsewhere (`with_columns`)."
    null_where_needed: ClassVar[Collection[str]] = ()
    """Columns that a table declares as nullable only where it holds a null: what was known of every row once need not be known
    of rows of a later kind, and tables without such rows stay what they were to the byte."""

    @classmethod
    def schema(cls) -> pa.Schema:
        """The Arrow schema, carrying the record's name and version."""
        hints = typing.get_type_hints(cls)
        fields = [_arrow_field(field.name, hints[field.name]) for field in dataclasses.fields(cls)]
        return pa.schema(fields, metadata={_METADATA: f"{cls.__name__}/{cls.SCHEMA_VERSION}".encode()})

    @classmethod
    def to_table(cls, rows: Iterable[Self]) -> pa.Table:
        """Rows -> an Arrow table."""
        names = [field.name for field in dataclasses.fields(cls)]
        plain = [{name: getattr(row, name) for name in names} for row in rows]
        schema = cls.schema()
        for name in cls.null_where_needed:
            if all(row[name] is not None for row in plain):
                place = schema.get_field_index(name)
                schema = schema.set(place, schema.field(place).with_nullable(False))
        return pa.Table.from_pylist(plain, schema=schema)

    @classmethod
    def from_table(cls, table: pa.Table) -> list[Self]:
        """An Arrow table -> rows; a column that was added later and is not there has its default. Raises `DataError` for
        another record, a newer version or a missing column that has none."""
        cls.check(table.schema)
        fields = dataclasses.fields(cls)
        names = [field.name for field in fields if field.name in table.column_names]
        missing = [f.name for f in fields if f.name not in names and f.default is dataclasses.MISSING]
        if missing:
            raise DataError(
                f"table of {cls.__name__} lacks the columns {', '.join(missing)}: another version of wfm wrote it; run the"
                " stage that makes it again"
            )
        return [cls(**row) for row in table.select(names).to_pylist()]

    @classmethod
    def check(cls, schema: pa.Schema) -> None:
        """Refuse a table that holds another record, or one written by a newer wfm."""
        stamp = (schema.metadata or {}).get(_METADATA, b"").decode()
        name, _, version = stamp.partition("/")
        if not stamp:
            return
        if name != cls.__name__:
            raise DataError(f"expected a table of {cls.__name__}, got one of {name}")
        if int(version) > cls.SCHEMA_VERSION:
            raise DataError(
                f"table of {name} has schema version {version}, this wfm reads up to {cls.SCHEMA_VERSION}: upgrade wfm"
            )


def with_columns(
    columns: Mapping[str, Any],
    *,
    after: str = "",
    optional: Collection[str] = (),
    words: Mapping[str, str] | None = None,
) -> Callable[[type[Row]], type[Row]]:
    """A record with columns (name -> type) that are declared elsewhere: a decorator below ``@dataclasses.dataclass``.

    after: the field that they follow; the last one if empty. Those that are ``optional`` default to None. ``words``: what they
    mean, kept as the class's ``column_words``. Raises ValueError for a column that the record has.
    """

    def add(record: type[Row]) -> type[Row]:
        own = list(record.__annotations__)
        if twice := sorted(set(own) & set(columns)):
            raise ValueError(f"{record.__name__} has a column {twice[0]!r} already: choose another name")
        place = own.index(after) + 1 if after else len(own)
        held = {**record.__annotations__, **columns}
        record.__annotations__ = {name: held[name] for name in (*own[:place], *columns, *own[place:])}
        for name in optional:
            if name in columns:
                setattr(record, name, None)
        record.column_words = {**record.column_words, **(words or {})}
        return record

    return add


def _arrow_field(name: str, hint: Any) -> pa.Field:
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        inner = [arg for arg in typing.get_args(hint) if arg is not type(None)]
        return pa.field(name, _arrow_field(name, inner[0]).type, nullable=True)
    if origin in (list, Sequence):
        return pa.field(name, pa.list_(_arrow_field(name, typing.get_args(hint)[0]).type), nullable=False)
    return pa.field(name, _ARROW[hint], nullable=False)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Video(Record):
    """One row per input file, readable or not. A still image has one frame, no duration, and a rate of 0."""

    source: str
    "Path or URL as given, or ``wfm://<artifact key>/<path>`` for a file in the store."
    name: str
    "File name without folder."
    video_id: str = ""
    "sha256 of the bytes; empty when they could not be read."
    size_bytes: int = 0
    "Size of the file [bytes]."
    status: str = "ok"
    "``ok``, ``duplicate`` (same bytes as another file) or ``failed``."
    reason: str = ""
    "Why the status is not ok: a stable code, then words."
    session_id: str = ""
    "Recording the video belongs to; its own id unless a sidecar says otherwise."
    view: str = ""
    "Which camera of the recording, where a sidecar or list says so."
    duration_seconds: float = 0.0
    "From the first frame to the end of the last [s]."
    width: int = 0
    "As shown: after the rotation that the file asks for [pixels]."
    height: int = 0
    "Likewise [pixels]."
    rotation_degrees: int = 0
    "Turn that the file asks for."
    fps: float = 0.0
    "Average frames a second."
    num_frames: int = 0
    "Frames of its video stream."
    codec: str = ""
    "Of its video stream, by FFmpeg's name."
    pixel_format: str = ""
    "Of its video stream, by FFmpeg's name."
    has_audio: bool = False
    "Whether there is a sound stream."
    variable_frame_rate: bool = False
    "Frames come unevenly; single holes in an even video do not count."
    notes: str = ""
    """What was noticed and is no reason to refuse the file: other video tracks, damaged or missing frames, frames without a
    time of their own, gaps."""
    actions: str = ""
    "Source of the actions sidecar, or empty."
    attributes: str = ""
    "Source of the attributes sidecar, or empty."

    @property
    def is_image(self) -> bool:
        """Whether the file is a still image, which has one frame and no rate."""
        return self.num_frames == 1 and self.fps == 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rights(Record):
    """What a list stated of who may do what with a file, and where it came from. Apart from `Video`, so that a licence that
    was corrected cuts no clip again."""

    source: str
    video_id: str
    licence: str = ""
    "As a list or a sidecar states it; ``unknown`` where nobody did, ``simulated`` where nothing was filmed."
    consent: str = ""
    "Likewise: of the people in it."
    rights_holder: str = ""
    "Likewise."
    url: str = ""
    "Where it came from, as a list states it."


@dataclasses.dataclass(frozen=True, kw_only=True)
class Clip(Record):
    """A span of a video that was cut out; or a still image: one frame at 0 s, an empty span, a rate of 0."""

    clip_id: str
    "Hash of the video id and the span: the same cut has the same id."
    clip_sha256: str
    "sha256 of the clip file's own bytes: what caches go by."
    video_id: str
    "sha256 of the bytes of its video."
    source: str
    "Path or URL of the video, as given."
    session_id: str
    "The recording it belongs to: its views are never duplicates of each other, nor on two sides of a split."
    view: str = ""
    "Which camera of the recording, where known."
    start_seconds: float
    "In the source, from the start of its video stream [s]."
    end_seconds: float
    "Likewise; the end of the last frame [s]."
    start_pts: int
    end_pts: int
    time_base: str
    "Seconds per pts tick, such as ``1/12288``."
    num_frames: int
    "Frames of the clip."
    fps: float
    "Frames over seconds."
    width: int
    "[pixels]"
    height: int
    "[pixels]"
    path: str
    "Clip file inside its part, ``clips/<clip_id>.mp4``; of a still image ``.jpg``, ``.png`` or ``.webp``."
    transcode: str
    "``copy`` (stream copy; of a still image its own bytes) or ``encode``."
    action_path: str = ""
    "Actions cut to the clip, inside its part, or empty."
    attributes_json: str = ""
    "The overlapping shot's attributes as JSON, or empty."
    audio: str = ""
    """What became of the sound: empty (not asked for), ``none`` (the video has none), ``copy``, ``encode`` or ``lost``; after a
    colon, why it is not the first track as it is."""
    interlaced: str = ""
    """``deinterlaced``; ``combed`` (interlaced, and kept as it is); ``flagged`` (the video says it is interlaced, but its
    frames are whole); empty for the rest."""
    uncommon: str = ""
    "Why decoders of graphics cards and browsers refuse the clip file, as ``vp9: pixels of yuv444p``; empty: they take it."

    @property
    def is_image(self) -> bool:
        """Whether it is a still image: one frame, no time."""
        return is_image_path(self.path)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Caption(Record):
    """A sentence about a clip."""

    clip_id: str
    clip_sha256: str
    "The clip bytes the caption was made from."
    caption: str
    "The sentence."
    caption_source: str
    "``attributes`` (what a simulator knows), ``measured`` (from pixels), ``endpoint:<model>``, ``local:<hash>`` (a model)."
