"""The files of the page that are not Python."""

from pathlib import Path

HERE = Path(__file__).parent
NAMES = ("page.html.j2", "macros.html.j2", "style.css", "script.js")


def template_parts() -> list[Path]:
    """Their paths, in a fixed order."""
    return [HERE / name for name in NAMES]
