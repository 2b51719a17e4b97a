"""Raw video -> a data set that is worth training on. One file per step, in flow order:

    ingest    files from outside -> one row each, readable or not (listing, listing_remote, listing_archive: what lies outside;
              listing_rows: what a list says, outside_rows: what JSON says; endings: which files are taken; sidecars; rights:
              who may do what with it; partitions: which part a video belongs to)
    split     videos -> clips, true to pts (shots, shots_gradual, shots_transnet: where to cut; timeline: gaps and damage; cut:
              how, cut_ahead: while still looking; interlaced, combing: film woven of two moments; uncommon: what few decoders
              take; decoded: what decoding found beside what packets promised)
    score     clips -> numbers: motion, sharpness, stillness, burned-in text (signals, motion, sharpness, static, overlay),
              camera moves (block_flow, camera_moves), faults of the picture (quality), kind of video (video_type); by models:
              text (overlay_tracks, text_detector), safety. The second table: measures; small_frames: numbers from every frame
    caption   clips -> a sentence, from what a simulator knows, from what was measured, or from a model (caption_by_model: the
              step; caption_endpoint, caption_local: whom it asks; caption_windows, caption_prompts: what is shown and asked;
              caption_cache: what was said; caption_expected: how much)
    embed     clips -> a vector (embed_models: trained embedders from local files; aesthetic: a head on it), and signatures
              (signature) for the perceptual tier; in the pass of score where it needs no weights
    dedup     bytes, signatures, vectors -> groups of the same thing (perceptual; neighbours: pairs; partition: overlapping
              cells; projection: fewer directions first; keepers: who stays; dedup_trial: what each threshold would drop)
    select    scores and groups -> kept or not, with a reason each (measured_filters: limits on measures; drops: the figure
              that decided; threshold_report: a page of what each threshold would drop)
    cluster   kept clips -> what belongs together, named; taxonomy: categories and their weights (kept_clips: their vectors)
    dataset   what was kept -> shards and tables (clip_table: the public table of clips; bins: which shard; dataset_card,
              dataset_readme and column_words: what is said of it)
    exclude   clips leave a finished data set, no shard is written again
    search    clips of a finished data set by words or by example (search_index: neighbours on disk; search_page: a page;
              text_tower: words in the space of a CLIP's pictures)
    cosmos_export, cosmos_import   a data set in cosmos-curate's layout, out and in (cosmos_metas: one clip; cosmos_windows)

`one_pass` feeds whoever looks at a video from one decode (one_pass_consumers, prefetch). `transcode` turns frames of any kind
into a clip (tone_map: HDR to SDR; alpha: on a ground; sound, sound_in_step). `rows` holds the tables between them, `part`,
`per_clip` and `by_part` what steps over parts share, `arrays` numpy or cupy, `poison` keeps the list of videos and clips that
crash whoever opens them.

Read `step` first (a Step makes rows or skips with a reason, a Filter keeps or says why not), then `split`. `run` says where the
work happens: in this process or on Dask. Nothing is dropped without a reason that is counted.
"""

__all__ = [
    "caption",
    "cluster",
    "dataset",
    "dedup",
    "embed",
    "exclude",
    "ingest",
    "run",
    "score",
    "search",
    "select",
    "split",
    "step",
    "taxonomy",
]
