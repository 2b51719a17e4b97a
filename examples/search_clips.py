"""Find clips: by words (what is said of them), or by an example (how they look and move).

    python examples/search_clips.py dataset/curated 'red ball rolling'
    python examples/search_clips.py dataset/curated --like CLIP_ID

Words need `pip install 'wfm[search,text]'`, examples `'wfm[search]'`. The index is built at the first search and kept.
"""

import sys

import wfm
from wfm.curation.search.search import captions_space, looks_space, search_like, search_words


def main(name: str, *asked: str) -> None:
    store = wfm.store()
    dataset = store.opened.artifact(store.artifact(name).key)
    if asked[0] == "--like":
        hits = search_like(looks_space(store.opened, dataset), asked[1], 5)
    else:
        from wfm.models.text.config import TextConfig
        from wfm.models.text.sentences import SentenceEncoder

        encode = SentenceEncoder(TextConfig(encoder="minilm"))
        hits = search_words(captions_space(store.opened, dataset, encode), encode, asked[0], 5)
    clips = wfm.dataset(name)
    for hit in hits:
        sample = clips.clip(hit.clip_id)
        print(f"{hit.cosine:.2f} {hit.clip_id[:12]} ({hit.split}, {sample.num_frames} frames): {hit.caption}")


if __name__ == "__main__":
    main(*sys.argv[1:])
