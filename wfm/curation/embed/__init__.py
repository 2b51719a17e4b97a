"""Clips -> a vector, and a signature for the perceptual tier of deduplication.

In reading order:

    embed        the step, and the embedding that needs no weights (made in the pass of `measure.score`)
    embedders    trained ones from local files
    signature    what a clip looks like over time
    aesthetic    a head on the embedding
    text_tower   words in the space of a CLIP's pictures
"""

__all__ = ["aesthetic", "embed", "embedders", "signature", "text_tower"]
