"""Take a model elsewhere: the bundle as it is (safetensors and JSON), and, where it can be, as diffusers opens it.

python examples/export_weights.py model/diffusion OUT_FOLDER
"""

import sys
from pathlib import Path

import wfm
from wfm.models.convert.command import export_weights, inspect_weights


def main(reference: str, out: str) -> None:
    bundle = Path(out) / "bundle"
    wfm.store().artifact(reference).pull(bundle)
    for part in ("tokenizer", "model"):
        for found in inspect_weights(bundle / part):
            print(f"{part}: {len(found.entries)} tensors, {found.count:,} numbers, {found.nbytes / 2**20:.1f} MiB")
        try:
            left_out = export_weights(bundle / part, Path(out) / f"{part}_diffusers", to="diffusers")
            print(f"{part}: written for diffusers" + "".join(f"; left out {line}" for line in left_out))
        except wfm.InputError as error:  # what diffusers' classes cannot hold
            print(f"{part}: stays as it is: {error}")


if __name__ == "__main__":
    main(*sys.argv[1:])
