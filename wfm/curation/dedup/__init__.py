"""Which clips are the same thing: bytes, signatures, vectors -> groups, and who of each stays.

In reading order:

    dedup               the step; trial: what each threshold would drop
    perceptual_pairs    copies that were re-encoded, scaled, cropped or trimmed
    neighbours          pairs of vectors that are nearly parallel (cells: k-means, to compare within; projection: fewer
                        directions first)
    keepers             who stays
    earlier             what an earlier run found, so that only new clips are compared
"""

__all__ = ["cells", "dedup", "earlier", "keepers", "neighbours", "perceptual_pairs", "projection", "trial"]
