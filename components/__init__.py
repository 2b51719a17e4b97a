"""One thin entry point per stage: parse, configure, one call into wfm, commit.

Every engine starts the same process, ``python -m components.<stage> --spec URL --input NAME=KEY ... --key-out PATH``
(`entrypoint.py` is that contract: `stage_attempt.py` keeps the record of the try, `make_artifact.py` does the work with a
`context.py` for the component, whole or a range of its parts (`part_range.py`); `gang.py` holds the processes of one training
together by what they say (`rank_words.py`) on a `board.py` and see of one another (`other_ranks.py`); `derivation.py` and
`meaning.py` make the keys, `image.py` refuses other code than the plan's), so resume, caching and lineage are alike on all of
them; `launch_job.py` has it run as a job on Kubernetes. In flow order:

    simulate_videos -> ingest_videos -> split_clips -> score_clips -> caption_clips -> embed_clips -> dedup_clips
      -> select_clips -> write_shards -> train_tokenizer -> encode_latents, encode_signals, encode_text -> train_world_model
      -> generate_videos -> evaluate_model -> publish_model, and write_report, which draws the page of a run

On a cluster an engine starts `launch_job.py` with a stage's own command line: it makes the stage's job and follows it.

Importing a component loads its configuration class only, never torch: keys are computed from it.
"""
