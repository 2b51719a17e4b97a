"""Which files of a folder, a bucket or an archive are taken for videos or still images: by their ending, or else by their first
bytes. What a file is, its bytes say alone, whatever it is called (`ingest`)."""

import os
import re
from collections.abc import Callable

from wfm.data.signatures import image_format, is_text, is_video

EXTENSIONS = (
    *(".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".m2ts", ".mts", ".wmv", ".asf", ".flv"),
    *(".ogv", ".ogm", ".3gp", ".3g2", ".f4v", ".qt", ".divx", ".dv", ".mxf", ".nut", ".rm", ".rmvb", ".wtv", ".gif"),
    *(".y4m", ".vob", ".evo", ".mod", ".tod", ".m2t", ".m2p", ".mpe", ".mpv", ".m1v", ".m2v", ".mp2v", ".mp4v"),
    *(".264", ".h264", ".avc", ".265", ".h265", ".hevc", ".ivf", ".obu"),
)
"""Endings taken for videos when a folder is read, in any case; of other files the first bytes decide. A file that is named
itself, in a list or a glob, may have any."""

IMAGES = (".jpg", ".jpeg", ".png", ".webp")
"""Endings taken for still images, likewise."""

NO_VIDEO = {
    *(".txt", ".md", ".json", ".jsonl", ".csv", ".tsv", ".parquet", ".yaml", ".yml", ".xml", ".html", ".log", ".py"),
    *(".srt", ".vtt", ".pdf", ".npy", ".npz", ".h5", ".hdf5", ".pt", ".safetensors", ".bmp"),
    *(".tif", ".tiff", ".heic", ".avif", ".wav", ".mp3", ".flac", ".aac", ".m4a", ".opus", ".db", ".ini"),
    *(".exe", ".7z", ".rar", ".gz"),
}
"""Endings of files that are not even looked into: a folder may hold millions of them."""

_ENDING = re.compile(r"\.[A-Za-z][A-Za-z0-9_]{0,11}$")


def is_wanted(name: str, head: Callable[[], bytes], *, any_ending: bool = True) -> bool:
    """Whether a file of a folder is taken for a video or an image. ``head`` gives its first bytes and is called only where they
    decide.

    Of a file without an ending all is taken but text: probing says what it is. ``any_ending``: look into foreign endings too.
    """
    ending = os.path.splitext(name)[1].lower()
    if ending in EXTENSIONS or ending in IMAGES or ending in NO_VIDEO:
        return ending not in NO_VIDEO
    foreign = _ENDING.search(name) is not None
    if foreign and not any_ending:
        return False
    first = head()
    return is_video(first) or bool(image_format(first)) or not (foreign or is_text(first))
