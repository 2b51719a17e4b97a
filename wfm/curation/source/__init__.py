"""Files from outside -> one row each: a readable video with its facts, or the reason why not.

ingest          the step
listing         what lies outside, seen without reading it (listing_remote: buckets; listing_archive: inside archives;
                listing_rows: what a list says; untrusted_rows: what JSON says; endings: which files are taken)
sidecars        actions and attributes beside a video, checked, cut by time
rights          who may do what with it
"""

__all__ = [
    "endings",
    "ingest",
    "listing",
    "listing_archive",
    "listing_remote",
    "listing_rows",
    "rights",
    "sidecars",
    "untrusted_rows",
]
