"""Whether a demo's models are no worse than another's: PSNR window by window, paired, bootstrap by session.

    python -m tests.benchmarks.no_worse OLD_STORE NEW_STORE

A window is known by its file, its start and its number: ids of videos change when a byte of their files does. Prints one JSON
line a model and kind of prediction: windows that both predicted, mean difference [dB] and its 95 % interval. Ends with 1 when a
lower end is below -0.2 dB (futures under another clip's action do not count), or when they share less than half of the windows.
"""

import json
import sys

import numpy as np

from wfm.artifacts import Store

LIMIT_DB = -0.2
CONTROL = "shuffled_action"
MODELS = ("diffusion", "autoregressive")
DRAWS = 10_000


def psnr(store: Store, model: str) -> dict[tuple[str, str], tuple[str, float]]:
    """(file, start and number of the window; kind of prediction) -> (session, PSNR [dB])."""
    lineage = store.lineage(store.resolve(f"model/{model}"))
    (report,) = (a.key for a in lineage if a.stage == "evaluate_model")
    rows = store.artifact(report).table("windows").to_pylist()
    found = {}
    for row in rows:
        window = f"{row['source'].rpartition('/')[2]} {row['start_seconds']:.4f} {row['sample_id'].rpartition(':')[2]}"
        found[window, row["video"]] = row["session_id"], row["psnr_db"]
    return found


def interval(sessions: list[str], differences: np.ndarray) -> tuple[float, float]:
    """95 % of the means over sessions drawn with repetition, all windows of a session together."""
    names = sorted(set(sessions))
    of = {name: differences[[s == name for s in sessions]] for name in names}
    sums, counts = (np.array([f(of[name]) for name in names]) for f in (np.sum, len))
    drawn = np.random.default_rng(0).integers(0, len(names), (DRAWS, len(names)))
    low, high = np.quantile(sums[drawn].sum(1) / counts[drawn].sum(1), [0.025, 0.975])
    return float(low), float(high)


def main(old_url: str, new_url: str) -> int:
    """0 when nothing is worse."""
    code = 0
    for model in MODELS:
        old, new = (psnr(Store.open(url), model) for url in (old_url, new_url))
        same = sorted(old.keys() & new.keys())
        code |= 2 * len(same) < max(len(old), len(new))
        for video in sorted({video for _, video in same}):
            keys = [key for key in same if key[1] == video]
            differences = np.array([new[key][1] - old[key][1] for key in keys])
            low, high = interval([old[key][0] for key in keys], differences)
            line = {"model": model, "video": video, "windows": len(keys), "only_old": len(old) - len(same)}
            line |= {"only_new": len(new) - len(same), "mean_db": round(float(differences.mean()), 4)}
            print(json.dumps({**line, "low_db": round(low, 4), "high_db": round(high, 4)}))
            code |= low < LIMIT_DB and video != CONTROL
    return int(code)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:3]))
