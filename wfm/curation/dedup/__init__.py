"""Which clips are the same thing: bytes, signatures, vectors -> groups, and who of each stays.

In reading order:

    dedup               the step; trial: what each threshold would drop
    perceptual_pairs    copies that were re-encoded, scaled, cropped or trimmed
    neighbours          pairs of vectors that are nearly parallel (cells: k-means, to compare within; projection: fewer
                        directions first)
    keepers             who stays
"""

__all__ = ["cells", "dedup", "keepers", "neighbours", "perceptual_pairs", "projection", "trial"]
