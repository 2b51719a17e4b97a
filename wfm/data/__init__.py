"""Video bytes and data sets: everything between a file and a tensor.

Read in this order:

    decode    video files -> frames, true to presentation timestamps; `VideoError` says why a file is unusable
    shards    WebDataset tars with an index: what curation leaves behind and trainers open
    windows   fixed-length windows of frames and actions over a data set's clips

Nothing here knows a model or a curation step.
"""

__all__ = ["decode", "shards", "windows"]
