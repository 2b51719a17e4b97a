"""A page of hits that plays: one HTML file with the clips inside it, no network, no script.

Everything that comes from the data is escaped; a content security policy allows nothing but the page's own style and videos.
"""

import base64
import html
from collections.abc import Callable, Sequence
from pathlib import Path

from wfm.artifacts.atomic import require_free, write_new
from wfm.curation.search.search import Hit
from wfm.data.signatures import image_format

MOST_BYTES = 64 * 2**20
"""Bytes of video in one page; hits beyond are shown without their picture, and counted."""

_STYLE = """
:root { color-scheme: light dark; --page: #f6f7f9; --card: #fff; --ink: #14171c; --soft: #5b6472; --line: #dfe3e9;
  --accent: #2456d6; }
@media (prefers-color-scheme: dark) { :root { --page: #0f1217; --card: #181c23; --ink: #e9ecf1; --soft: #9aa4b2;
  --line: #2b313b; --accent: #86a8ff; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
main { max-width: 1160px; margin: 0 auto; padding: 24px 16px 48px; }
h1 { font-size: 1.45rem; margin: 0; overflow-wrap: anywhere; }
.lede { color: var(--soft); margin: 4px 0 20px; overflow-wrap: anywhere; }
ol { list-style: none; margin: 0; padding: 0; display: grid; gap: 16px;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 260px), 1fr)); }
li { background: var(--card); border: 1px solid var(--line); border-radius: 10px; overflow: hidden; }
video, img, .absent { display: block; width: 100%; aspect-ratio: 4 / 3; object-fit: contain; background: #000; }
.absent { color: #ccc; padding: 16px; }
.words { padding: 12px 14px 14px; }
.words p { margin: 0 0 8px; overflow-wrap: anywhere; }
.rank { color: var(--accent); font-weight: 650; }
small { color: var(--soft); font-size: .82rem; display: block; overflow-wrap: anywhere; }
"""


def write_page(
    path: Path,
    title: str,
    about: str,
    hits: Sequence[Hit],
    fetch: Callable[[Hit], bytes],
    *,
    most: int = MOST_BYTES,
    force: bool = False,
) -> int:
    """Write the page whole or not at all; returns how many hits had no room for their video.

    fetch: the bytes of a hit's mp4 or image. ``most``: bytes of them in the page. Raises InputError where a file is and
    ``force`` is not.
    """
    require_free(path, force=force)
    cards, used, left_out = [], 0, 0
    for rank, hit in enumerate(hits, 1):
        video = fetch(hit)
        if used + len(video) > most:
            left_out += 1
            video = b""
        used += len(video)
        cards.append(_card(rank, hit, video))
    note = f" {left_out} videos had no room in this page." if left_out else ""
    body = "\n".join(cards) or "<li class='words'>Nothing was found.</li>"
    text = (
        "<!doctype html>\n<html lang='en'>\n<head>\n<meta charset='utf-8'>\n"
        "<meta name='viewport' content='width=device-width, initial-scale=1'>\n"
        "<meta http-equiv='Content-Security-Policy' content=\"default-src 'none'; media-src data:; img-src data:; "
        "style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'\">\n"
        f"<title>{html.escape(title)}</title>\n<link rel='icon' href='data:,'>\n<style>{_STYLE}</style>\n</head>\n"
        f"<body>\n<main>\n<h1>{html.escape(title)}</h1>\n<p class='lede'>{html.escape(about + note)}</p>\n<ol>\n{body}\n</ol>\n"
        "</main>\n</body>\n</html>\n"
    )
    write_new(path, text.encode("utf-8", "replace"), force=force)
    return left_out


def _card(rank: int, hit: Hit, video: bytes) -> str:
    data = base64.b64encode(video).decode()
    image = {"jpg": "jpeg"}.get(found := image_format(video), found)
    shown = (
        f"<img alt='' src='data:image/{image};base64,{data}'>"
        if image
        else f"<video controls loop muted playsinline preload='auto' src='data:video/mp4;base64,{data}'></video>"
        if video
        else "<div class='absent'>no room for this video</div>"
    )
    size = f"{hit.end_seconds - hit.start_seconds:.1f} s, {hit.width}x{hit.height}, {hit.fps:.3g} fps, {hit.split}"
    if not hit.fps:
        size = f"still image, {hit.width}x{hit.height}, {hit.split}"
    source = (
        hit.source.rpartition("/")[2] if hit.source.startswith("wfm://") else hit.source
    )  # a key says nothing to people
    origin = f"{source} at {hit.start_seconds:.2f} s"
    return (
        f"<li>{shown}<div class='words'><p><span class='rank'>{rank}</span> {html.escape(hit.caption or 'no caption')}</p>"
        f"<small>cosine {hit.cosine:.3f} · {html.escape(size)}</small><small>clip {html.escape(hit.clip_id[:16])}</small>"
        f"<small>{html.escape(origin)}</small></div></li>"
    )
