"""Files from outside -> one row each: a readable video with its facts, or the reason why not.

In reading order:

    ingest          the step
    listing         what lies outside, seen without reading it (listing_local; listing_remote: buckets; listing_archive: inside
                    archives; source_files: what is found; extensions: which files are taken)
    listing_rows    what a list says; untrusted_rows: what JSON says
    sidecars        actions and attributes beside a video, checked, cut by time
    rights          who may do what with it
"""

__all__ = [
    "extensions",
    "ingest",
    "listing",
    "listing_archive",
    "listing_local",
    "listing_remote",
    "listing_rows",
    "rights",
    "sidecars",
    "source_files",
    "untrusted_rows",
]
