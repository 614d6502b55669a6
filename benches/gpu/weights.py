"""Draws the weights of a model without weights, as `weightless.py` writes it: N(0, 0.02), which is fast enough to do where
the model runs. Only numpy is needed.

    python weights.py MODEL
"""

import json
import sys
import time
from pathlib import Path

import numpy as np

DEVIATION = 0.02
BLOCK = 1 << 22
"""So many numbers are drawn, and repeated as often as a weight needs; speed does not depend on them."""
DTYPES = {"FLOAT16": np.float16, "FLOAT": np.float32}


def draw(model: Path) -> int:
    """Writes the weights next to each `layout.json` of a model, unless they are there; returns their bytes."""
    normals = np.random.default_rng(0).standard_normal(BLOCK, np.float32) * np.float32(DEVIATION)
    blocks = {name: normals.astype(dtype).tobytes() for name, dtype in DTYPES.items()}
    written = 0
    for layout in sorted(model.rglob("layout.json")):
        places = json.loads(layout.read_text())
        file, size = layout.with_name("model.onnx_data"), sum(place["length"] for place in places)
        if not file.exists():
            partial = file.with_suffix(".partial")
            with partial.open("wb") as out:
                for place in places:
                    out.seek(place["offset"])
                    write(out, blocks[place["dtype"]], place["length"])
            partial.rename(file)
        written += size
    return written


def write(out, block: bytes, length: int) -> None:  # noqa: ANN001
    """Writes the block again and again, `length` bytes in all."""
    whole, rest = divmod(length, len(block))
    for _ in range(whole):
        out.write(block)
    out.write(block[:rest])


if __name__ == "__main__":
    start = time.perf_counter()
    drawn = draw(Path(sys.argv[1]))
    print(f"{drawn / 1e9:.2f} GB in {time.perf_counter() - start:.1f} s")
