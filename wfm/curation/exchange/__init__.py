"""A data set in cosmos-curate's layout, out and in.

In reading order:

    cosmos_export, cosmos_import
    cosmos_metas      one clip of it; cosmos_windows: its captions
"""

__all__ = ["cosmos_export", "cosmos_import", "cosmos_metas", "cosmos_windows"]
