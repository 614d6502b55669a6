"""Creates `data/digits_lt`: real scans of handwritten digits as a long-tailed data set, split five times.

    pip install -r tools/requirements.txt
    python tools/make_digits_lt.py data/digits_lt

The 1797 scans (8x8 pixels, values 0..16) ship inside scikit-learn, so nothing is downloaded. With the
pinned versions a second run writes the same bytes; `SHA256SUMS` in the output folder has their digests. Split 0 is
at the top of the folder. `split_1` to `split_4` draw again, to tell a result from a lucky split.
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
REPEATS = range(1, 5)
"""The splits other than split 0. The number of a split is its seed."""
ENCODINGS = {"png": {}, "webp": {"lossless": True}}
"""How Pillow writes an image, by suffix. Both keep every pixel; WebP does so in 0.4 of the bytes."""
FEATURES = {
    "image": {"_type": "Image"},
    "label": {"names": NAMES, "_type": "ClassLabel"},
    "scan": {"dtype": "int32", "_type": "Value"},
}


def validation_count(train: int) -> int:
    """Images held out in addition to `train` ones: a tenth of both together, at least two."""
    return max(2, round(train / 9))


def draw(
    pool: np.ndarray, labels: np.ndarray, counts: dict[str, list[int]], rows: list[str], seed: int
) -> dict[str, np.ndarray]:
    """Disjoint indices into the scans for each part, taken from `pool`, each part in a fixed shuffled order.

    `counts` has the images per digit of each part, in the order in which parts take theirs; `rows` names the
    parts in the order in which they are shuffled. Both orders decide what is drawn.
    """
    random = np.random.RandomState(seed)
    parts: dict[str, list[int]] = {part: [] for part in rows}
    for digit in range(10):
        scans = random.permutation(pool[labels[pool] == digit]).tolist()
        wanted = sum(per_digit[digit] for per_digit in counts.values())
        if len(scans) < wanted:
            raise ValueError(f"digit {digit} has {len(scans)} scans, {wanted} wanted")
        for part, per_digit in counts.items():
            parts[part] += scans[: per_digit[digit]]
            del scans[: per_digit[digit]]
    return {part: random.permutation(indices) for part, indices in parts.items()}


def split(labels: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """A long-tailed split; only split 0 has `pretraining`, which no other split touches."""
    train = [TRAIN_COUNTS[digit] for digit in range(10)]
    counts = {
        "test": [TEST_PER_CLASS] * 10,
        "pretraining": [PRETRAINING_PER_CLASS] * 10,
        "validation": [validation_count(count) for count in train],
        "train": train,
    }
    rows = ["pretraining", "train", "validation", "test"]
    if seed == 0:
        return draw(np.arange(len(labels)), labels, counts, rows, seed)
    del counts["pretraining"]
    return draw(unseen(labels), labels, counts, rows[1:], seed)


def unseen(labels: np.ndarray) -> np.ndarray:
    """The scans that the models in `models/digits` were not trained on."""
    return np.setdiff1d(np.arange(len(labels)), split(labels, 0)["pretraining"])


def place(part: str, seed: int) -> str:
    """The path of a part of the split with this seed, in the output folder."""
    return f"split_{seed}/{part}" if seed else part


def enlarged(scan: np.ndarray) -> Image.Image:
    """An 8x8 scan (0..16) as a 32x32 grayscale image (0..255, bicubic)."""
    grey = Image.fromarray(np.rint(scan * (255 / 16)).astype(np.uint8))
    return grey.resize((SIDE, SIDE), Image.Resampling.BICUBIC)


def row(part: str, index: int, label: int, scan: int, image: Image.Image, suffix: str) -> dict[str, object]:
    """A row with the columns of `FEATURES`; the image is written as RGB."""
    file = io.BytesIO()
    image.convert("RGB").save(file, suffix, **ENCODINGS[suffix])
    path = f"{part}/{index:04}_digit{label}.{suffix}"
    return {"image": {"bytes": file.getvalue(), "path": path}, "label": int(label), "scan": int(scan)}


def table(rows: list[dict[str, object]], features: dict[str, dict]) -> pa.Table:
    """Rows with the columns and the metadata that Hugging Face `datasets` reads and writes."""
    types = {"Image": pa.struct([("bytes", pa.binary()), ("path", pa.string())]), "ClassLabel": pa.int64()}
    schema = pa.schema(
        [(name, types.get(feature["_type"]) or feature["dtype"]) for name, feature in features.items()],
        metadata={"huggingface": json.dumps({"info": {"features": features}})},
    )
    return pa.Table.from_pylist(rows, schema=schema)


def write(out: Path, parts: dict[str, pa.Table]) -> None:
    """Each part as `out/<part>.parquet`, and the sums of all of them."""
    sums = []
    for part, rows in parts.items():
        file = out / f"{part}.parquet"
        file.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(
            rows,
            file,
            row_group_size=100,
            use_dictionary=False,
            write_statistics=["label", "scan"],
            data_page_size=1 << 20,
        )
        counts = np.bincount(rows["label"], minlength=10).tolist()
        print(f"{file}: {len(rows)} images, per digit {counts}, {file.stat().st_size} bytes")
        sums.append(f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {part}.parquet\n")
    (out / "SHA256SUMS").write_text("".join(sorted(sums, key=lambda line: line.split()[1])))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path, help="folder for the Parquet files and SHA256SUMS")
    out: Path = parser.parse_args().out
    digits = load_digits()
    parts = {}
    for seed in [0, *REPEATS]:
        suffix = "webp" if seed else "png"
        for part, scans in split(digits.target, seed).items():
            name = place(part, seed)
            rows = [
                row(name, index, digits.target[scan], scan, enlarged(digits.images[scan]), suffix)
                for index, scan in enumerate(scans)
            ]
            parts[name] = table(rows, FEATURES)
    write(out, parts)


if __name__ == "__main__":
    main()
