"""Raw video -> a data set that is worth training on. A wing for each thing that is done, in flow order:

    source/     files from outside -> one row each, readable or not
    cut/        videos -> clips, true to pts
    measure/    clips -> numbers, in one decode
    caption/    clips -> a sentence, and where it comes from
    embed/      clips -> a vector and a signature
    dedup/      bytes, signatures, vectors -> groups of the same thing
    select/     numbers and groups -> kept or not, with a reason each; clusters and categories of what was kept
    dataset/    what was kept -> shards and tables; clips that leave again
    search/     clips of a finished data set by words or by example
    exchange/   a data set in cosmos-curate's layout, out and in

What the wings share lies here. `step`: a Step makes rows or skips with a reason, a Filter keeps or says why not. `rows`: the
tables between the wings. `per_clip`: a step over the clips of a part. `one_pass` feeds whoever looks at a video from one decode
(one_pass_consumers, prefetch). `arrays`: numpy or cupy. `poison` keeps the list of videos and clips that crash whoever opens
them, by what a `trial` and a `witness` say. Parts and their workers: `wfm.parts`.

Read `step` first, then `cut/split`. Nothing is dropped without a reason that is counted.
"""

__all__ = [
    "arrays",
    "caption",
    "cut",
    "dataset",
    "dedup",
    "embed",
    "exchange",
    "measure",
    "one_pass",
    "one_pass_consumers",
    "per_clip",
    "poison",
    "prefetch",
    "rows",
    "search",
    "select",
    "source",
    "step",
    "trial",
    "witness",
]
