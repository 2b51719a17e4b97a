"""Names made short enough to be read."""

import re


def short_source(source: str) -> str:
    """A source whose 64-digit keys are cut to ten: `wfm://0123456789…/videos/x.mp4`."""
    return re.sub(r"\b([0-9a-f]{10})[0-9a-f]{54}\b", r"\1…", source)
