"""Video bytes and data sets: everything between a file and a tensor.

Read in this order:

    source      where a video's bytes are -> a local file whose bytes are known (local: what may be opened, and the cache;
                remote: buckets and the web; archive: members of one; places: what may be asked at all)
    signatures  what a file is by its first bytes: video without a telling name, a still image
    decode      video files -> frames, true to presentation timestamps; `VideoError` says why not (containers: what is
                opened at all; tracks: which one is the
                film; frame_order: each frame in its place, damage known; transport, nal_units: lost data; claims: what a
                file may cost; orientation, aspect, codec_names, alpha_decoder)
    probe       what a video file holds, decided by reading every packet of it (holes: when time is missing)
    images      still images: one picture each, checked before it is decoded
    colour      what colours an mp4 that we write says it has (x264: the same bytes each time)
    shards      WebDataset tars with an index: what curation leaves behind and trainers open
    reading     one sample out of a shard by its byte range, from a disk or a bucket, with retries, hashes and a cache
    energon     what Megatron-Energon reads beside them (.nv-meta), made in the same pass
    exclusions  what is left out of a data set without writing its shards again
    windows     fixed-length windows of frames and actions over a data set's clips
    clip_frames frames of one sample by number, no more of them decoded than are asked for
    own_shape   the same clips, and still images, whole: at their own length, size, aspect and rate
    records     samples that a tokenizer encoded, each of its own shape: shards and a table of lengths (record_table: where
                both lie; lengths: read as arrays, from its index (lengths_index) where there is one; encoded_samples: as
                samples for a training)
    dataset_parts  a data set's parts as the inputs of stages that encode it
    captions    text embeddings of samples, each distinct caption held once
    signals     what lies beside the frames of clips, as named tracks that windows are cut from
    mixture     how often a sample stands in an epoch, by the weights that a taxonomy gave
    passes      samples read once and not kept: for closed forms, and the few that are watched
    order       which sample comes when, a pure function of lengths: blended, in batches of one shape or packs of any lengths
    loader      batches in that order, read ahead of use from samples of any kind (samples: what those are; pixels: uint8 frames
                as float video)

Nothing here knows a model or a curation step.
"""

__all__ = [
    "captions",
    "clip_frames",
    "dataset_parts",
    "decode",
    "encoded_samples",
    "energon",
    "exclusions",
    "images",
    "lengths",
    "lengths_index",
    "loader",
    "local",
    "mixture",
    "order",
    "orientation",
    "own_shape",
    "passes",
    "pixels",
    "probe",
    "reading",
    "record_table",
    "records",
    "remote",
    "samples",
    "shards",
    "signals",
    "source",
    "windows",
]
