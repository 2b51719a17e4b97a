"""Read a published model in an environment without wfm: safetensors and JSON.

    wfm artifacts pull model/diffusion OUT                   # where wfm is
    python examples/read_model_without_wfm.py OUT

What the tensors mean, the network's code says: `wfm/models/<family>/`, whose configuration is `config` of the JSON beside them.
"""

import json
import sys
from pathlib import Path

from safetensors.numpy import load_file


def main(folder: str) -> None:
    root = Path(folder)
    card = json.loads((root / "card.json").read_text())
    given, window = card["past_frames"], card["num_frames"]
    print(
        f"{card['name']} ({card['family']}): {given} frames of {card['size']} at {card['fps']:g}/s -> {window - given} more"
    )
    for part in ("tokenizer", "model"):
        said = json.loads((root / part / "config.json").read_text())
        tensors = load_file(root / part / "model.safetensors")
        numbers = sum(tensor.size for tensor in tensors.values())
        print(f"{part}: family {said['family']}, {len(tensors)} tensors, {numbers:,} numbers")
        spec = said["action_spec"]
        for name, unit, mean, scale in zip(spec["names"], spec["units"], spec["mean"], spec["scale"], strict=True):
            print(f"    action {name} [{unit}]: the network sees (value - {mean:g}) / {scale:g}")
    print(f"made from {', '.join(f'{role} {key[:12]}' for role, key in sorted(card['inputs'].items()))}")


if __name__ == "__main__":
    main(*sys.argv[1:])
