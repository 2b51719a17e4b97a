"""Make a data set of your own videos, and say what became of each of them.

python examples/curate_videos.py ~/videos films            # a folder, archive, list or URL; the data set's name
python examples/curate_videos.py ~/videos films smoke      # by the smallest recipe: seconds, to see that it works
"""

import sys
from collections import Counter

import wfm


def main(videos: str, name: str, profile: str = "demo") -> None:
    run = wfm.run("curate", videos=videos, dataset=name, profile=profile)
    print(f"run {run.id}: {run.status().state}")
    store = wfm.store()
    clips = store.artifact(f"dataset/{name}").table("clips", ["kept", "reason"]).to_pylist()
    print(f"{sum(clip['kept'] for clip in clips)} of {len(clips)} clips are in dataset/{name}")
    for reason, count in Counter(clip["reason"] for clip in clips if not clip["kept"]).most_common():
        print(f"    {count} left out: {reason}")
    for video in store.artifact(f"dataset/{name}").table("videos", ["name", "status", "reason"]).to_pylist():
        if video["status"] == "failed":
            print(f"    {video['name']} could not be used: {video['reason']}")


if __name__ == "__main__":
    main(*sys.argv[1:])
