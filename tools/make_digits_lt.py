"""Makes `data/digits_lt`: real scans of handwritten digits as a long-tailed data set.

    pip install -r tools/requirements.txt
    python tools/make_digits_lt.py data/digits_lt

The 1797 scans (8x8 pixels, values 0..16) ship inside scikit-learn, so nothing is downloaded. With the
pinned versions a second run writes the same bytes; `SHA256SUMS` in the output folder says which.
"""

import argparse
import hashlib
import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from sklearn.datasets import load_digits

NAMES = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
SIDE = 32
"""Side of the written images in pixels; the scans have 8."""
TEST_PER_CLASS = 40
PRETRAINING_PER_CLASS = 60
TRAIN_COUNTS = {0: 70, 6: 70, 4: 65, 2: 60, 7: 25, 1: 20, 3: 15, 5: 5, 9: 4, 8: 3}
"""Training images per digit: four frequent classes, three medium, three rare."""
FEATURES = {
    "image": {"_type": "Image"},
    "label": {"names": NAMES, "_type": "ClassLabel"},
    "scan": {"dtype": "int32", "_type": "Value"},
}


def validation_count(train: int) -> int:
    """Images held out beside `train` ones: a tenth of both together, at least two."""
    return max(2, round(train / 9))


def split(labels: np.ndarray) -> dict[str, np.ndarray]:
    """Disjoint indices into the scans for each part, each part in a fixed shuffled order."""
    random = np.random.RandomState(0)
    parts: dict[str, list[int]] = {"pretraining": [], "train": [], "validation": [], "test": []}
    for digit in range(10):
        pool = random.permutation(np.flatnonzero(labels == digit)).tolist()
        train = TRAIN_COUNTS[digit]
        wanted = {
            "test": TEST_PER_CLASS,
            "pretraining": PRETRAINING_PER_CLASS,
            "validation": validation_count(train),
            "train": train,
        }
        if len(pool) < sum(wanted.values()):
            raise ValueError(f"digit {digit} has {len(pool)} scans, {sum(wanted.values())} wanted")
        for part, count in wanted.items():
            parts[part] += pool[:count]
            del pool[:count]
    return {part: random.permutation(indices) for part, indices in parts.items()}


def png(scan: np.ndarray) -> bytes:
    """An 8x8 scan (0..16) as a 32x32 RGB PNG (0..255, bicubic)."""
    grey = Image.fromarray(np.rint(scan * (255 / 16)).astype(np.uint8))
    file = io.BytesIO()
    grey.resize((SIDE, SIDE), Image.Resampling.BICUBIC).convert("RGB").save(file, "PNG")
    return file.getvalue()


def table(part: str, indices: np.ndarray, scans: np.ndarray, labels: np.ndarray) -> pa.Table:
    """One part with the columns and the metadata that Hugging Face `datasets` reads and writes."""
    schema = pa.schema(
        [
            ("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
            ("label", pa.int64()),
            ("scan", pa.int32()),
        ],
        metadata={"huggingface": json.dumps({"info": {"features": FEATURES}})},
    )
    rows = [
        {
            "image": {"bytes": png(scans[scan]), "path": f"{part}/{row:04}_digit{labels[scan]}.png"},
            "label": int(labels[scan]),
            "scan": int(scan),
        }
        for row, scan in enumerate(indices)
    ]
    return pa.Table.from_pylist(rows, schema=schema)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder for the four Parquet files and SHA256SUMS")
    out: Path = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    digits = load_digits()
    sums = []
    for part, indices in split(digits.target).items():
        file = out / f"{part}.parquet"
        pq.write_table(
            table(part, indices, digits.images, digits.target),
            file,
            row_group_size=100,
            use_dictionary=False,
            write_statistics=["label", "scan"],
            data_page_size=1 << 20,
        )
        counts = np.bincount(digits.target[indices], minlength=10).tolist()
        print(f"{file}: {len(indices)} images, per digit {counts}, {file.stat().st_size} bytes")
        sums.append(f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}\n")
    (out / "SHA256SUMS").write_text("".join(sorted(sums, key=lambda line: line.split()[1])))


if __name__ == "__main__":
    main()
