"""A video file opened as a container, and its one video stream; or a `VideoError` that says why not.

Playlists and other formats that make the library open further files are refused: a name from outside must not reach another
file.
"""

from pathlib import Path
from typing import Any

import av

from wfm.data import tracks
from wfm.data.claims import mp4_claims, pixel_options
from wfm.data.codec_names import KNOWN, MissingDecoder, codec_tag
from wfm.errors import DataError

FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,m4v,h264,hevc,obu,ivf,flv,asf,ogg,gif,yuv4mpegpipe,"
    "mxf,rm,nut,wtv,dv,vc1"
)
"""Containers that hold their own data. Playlists (hls, dash, concat), images and devices are not among them."""

ERRORS = (av.error.FFmpegError, OSError, ValueError, EOFError, MemoryError, ArithmeticError)


class VideoError(DataError):
    """A file that is not a usable video: ``code`` is stable, the message names the file and what was wrong."""

    def __init__(self, path: str | Path, code: str, words: str) -> None:
        super().__init__(f"{code}: {words} (file {Path(path).name!r})")
        self.path = Path(path)
        self.code = code
        self.words = words

    def __reduce__(self) -> tuple[Any, ...]:
        return VideoError, (self.path, self.code, self.words)  # crosses process borders

    @property
    def reason(self) -> str:
        """``code: words``, as tables of skipped items hold it."""
        return f"{self.code}: {self.words}"


def open_container(path: Path) -> Any:
    try:
        with path.open("rb") as file:  # a clear reason for what cannot be read at all, before the codec library sees it
            head = file.read(16)
    except OSError as error:
        raise VideoError(path, "unreadable", f"{error.strerror or error}") from error
    if not head:
        raise VideoError(path, "empty_file", "the file has no bytes")
    try:
        claims = mp4_claims(path, head)
    except OSError as error:
        raise VideoError(path, "unreadable", f"{error.strerror or error}") from error
    if claims:
        raise VideoError(path, "truncated", claims)
    options = {"format_whitelist": FORMATS, "protocol_whitelist": "file", **pixel_options()}
    try:
        # "file:" keeps a name with a colon from being taken for a protocol.
        container = av.open(f"file:{path}", options=options)
    except ERRORS as error:
        if head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free"):
            raise VideoError(path, "truncated", f"{_no_index(path)}: {words_of(error)}") from error
        raise VideoError(path, "not_a_video", f"no video container recognised: {words_of(error)}") from error
    if not container.streams and head[4:8] == b"ftyp":
        container.close()
        raise VideoError(path, "truncated", _no_index(path))
    return container


def _no_index(path: Path) -> str:
    """Which of the two ways it fails in hangs on what lies in the codec library's memory: the words are the same."""
    return f"an mp4 of {path.stat().st_size} bytes without its index (moov)"


def video_stream(path: Path, container: Any) -> tuple[Any, tuple[str, ...]]:
    streams = tracks.moving(container)
    if not streams:
        kinds = sorted({str(s.type) for s in container.streams})
        raise VideoError(path, "no_video_stream", f"the file holds {', '.join(kinds) or 'no stream'} only")
    stream = streams[0]
    if len(streams) > 1:
        again = open_container(path)  # counting reads on
        try:
            stream = container.streams[tracks.best(again).index]
        finally:
            again.close()
    if stream.codec_context is None:
        raise _no_decoder(path)
    if stream.time_base is None:
        raise VideoError(path, "not_a_video", "its video stream has no time base")
    return stream, tuple(tracks.words(other) for other in container.streams.video if other.index != stream.index)


def _no_decoder(path: Path) -> DataError:
    """A codec that is known elsewhere is missing here, which ends the run; a tag that nobody knows, or a damaged header, is the
    file's own fault."""
    tag = codec_tag(path)
    if tag in KNOWN:
        try:
            av.codec.Codec(KNOWN[tag], "r")
        except ValueError:
            return MissingDecoder(KNOWN[tag], tag, path.name)
        return VideoError(
            path, "decode_error", f"its header names {KNOWN[tag]}, but is damaged: no codec can be told from it"
        )
    return VideoError(path, f"no_decoder:{tag or 'unknown'}", "the codec of its video stream is not known")


def words_of(error: BaseException) -> str:
    """An error's text without the path that the codec library appends."""
    return str(getattr(error, "strerror", None) or error) or type(error).__name__
