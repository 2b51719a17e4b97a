"""Clips of a finished data set, found by words or by an example.

In reading order:

    search          an index for each way of looking, built once
    search_index    nearest neighbours on disk
    search_page     a page of hits that plays
"""

__all__ = ["search", "search_index", "search_page"]
