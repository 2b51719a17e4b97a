"""What was kept -> shards that trainers open, public tables, and a card.

In reading order:

    dataset         the step (bins: which shard a clip goes to)
    clip_table      the public table of clips; column_words: what each column means
    dataset_card, dataset_readme    what is said of the whole
    exclude         clips leave a finished data set, no shard is written again
"""

__all__ = ["bins", "clip_table", "column_words", "dataset", "dataset_card", "dataset_readme", "exclude"]
