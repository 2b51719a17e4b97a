"""Raw video -> a data set that is worth training on. One file per step, in flow order:

    ingest    files from outside -> one row each, readable or not (listing, listing_remote: what lies outside; sidecars)
    split     videos -> clips (shots, shots_gradual, shots_transnet: where to cut, cut: how; true to pts)
    score     clips -> numbers: motion, sharpness, stillness, burned-in text (signals, motion, sharpness, static, overlay),
              camera moves (block_flow, camera_moves), faults of the picture (quality), kind of video (video_type); by models:
              text (overlay_tracks, text_detector), safety, aesthetic. The second table: measures
    caption   clips -> a sentence, from what a simulator knows, from what was measured, or from a model (caption_endpoint)
    embed     clips -> a vector (embed_models: trained embedders from local files), and signatures (perceptual)
    dedup     bytes, signatures, vectors -> groups of the same thing (neighbours: pairs; partition: overlapping cells; keepers:
              who stays)
    select    scores and groups -> kept or not, with a reason each (measured_filters: limits on measures; threshold_report:
              a page of what each threshold would drop)
    dataset   what was kept -> shards and tables (clip_table: the public table of clips; bins: which shard; dataset_card and
              dataset_readme: what is said of it)
    exclude   clips leave a finished data set, no shard is written again
    search    clips of a finished data set by words or by example (search_index: neighbours on disk; search_page: a page);
              cluster names what belongs together, taxonomy gives categories and their weights
    cosmos_export, cosmos_import   a data set in cosmos-curate's layout, out and in (cosmos_metas: one clip)

`one_pass` feeds whoever looks at a video from one decode (one_pass_consumers, prefetch). `transcode` turns frames of any kind
into a clip (tone_map: HDR to SDR; sound). `rows` holds the tables between them, `part`, `per_clip` and `by_part` what steps
over parts share, `arrays` numpy or cupy, `poison` keeps the list of videos that crash whoever opens them.

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
