"""Records which labels torchvision and datasets give to the images of 200 random data sets.

    pip install torch==2.15.0 torchvision==0.29.2 datasets==5.2.0 pillow==12.3.0
    python tests/oracle/make_layouts.py [--out FILE]

For maintainers: the test needs only the recorded file, by default `tests/fixtures/layouts.json`. Draws 140 data sets
with class folders and 60 with a `metadata.csv` for each split from a seed, writes them to a temporary folder (every image
is the same PNG of one pixel), and reads them with `torchvision.datasets.ImageFolder`, split by split, and with
`datasets.load_dataset("imagefolder", data_dir=…)`. A second run writes the same bytes.

The file is a list of objects, one for each data set:

- `splits`: the folder of each split; `.` is the data set itself
- `folders`: folders without files
- `files`: images and other files, relative to the data set
- `tables`: the content of each `metadata.csv`, by path
- `torchvision`, by split: `classes`, and `refused`, the exception without `allow_empty=True`, or null
- `datasets`: `classes`, and `unlabelled`: whether only `drop_labels=False` gives every image a label; or `refused`, the
  exception. With tables there are no classes
- `labels`: for each file what torchvision and what datasets give to it; null if it is not read. With tables, datasets'
  values of the column `label`
"""

import argparse
import csv
import io
import json
import os
import random
import tempfile
from pathlib import Path
from typing import Any

os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}

import datasets
from PIL import Image
from torchvision.datasets import ImageFolder

OUT = Path(__file__).resolve().parents[1] / "fixtures" / "layouts.json"
SEED = 20
FOLDERS = 140
TABLES = 60

Layout = dict[str, Any]

WORDS = [
    "cat", "dog", "Zebra", "ape", "Ape", "bird of prey", "n01440764", "n02119789", "_other", "a.b", "50%", "c#", "it's",
    "x-1", "x-10", "x-2", "a%20b", "owl, barn", "scan.png", "~old", "(new)", "a&b", "10 m",
]  # fmt: skip
NUMERALS = [str(number) for number in range(12)]
FAR = ["1", "7", "10", "20", "100", "3000"]
CODES = ["007", "010", "100", "0100", "01", "1", "00", "2"]
MIXED = ["1", "2", "10", "A", "B", "C"]
DECIMALS = ["0.0", "1.0", "2.0", "10.0", "11.0"]
FRACTIONS = ["0.5", "1.5", "2.0", "10"]
NEGATIVE = ["-1", "0", "1", "2"]
UNICODE = [
    "\u00e9clair", "e\u0301clair", "eel", "fox", "\u00dcbung", "U\u0308bung", "zebra", "Stra\u00dfe", "\u6570\u5b57",
    "\ufb01sh", "fish", "\U0001f642", "n\u0303andu\u0301",
]  # fmt: skip
EXPONENTS = ["1e3", "1000", "2e1", "20"]
MISSING = ["NA", "None", "nan", "cat", "dog"]
BOOLEANS = ["True", "False"]
SPACES = ["cat", "dog", "cat ", " dog", "ape"]
TABLE_LABELS = [WORDS] * 5 + [NUMERALS] * 6 + [UNICODE] * 3 + [MIXED] * 4 + [CODES, DECIMALS, MISSING] * 2
TABLE_LABELS += [FAR, FRACTIONS, NEGATIVE, EXPONENTS, BOOLEANS, SPACES]
HIDDEN = [".git", ".ipynb_checkpoints", ".trash", "@eaDir", "__MACOSX", "__pycache__", "lost+found", "$RECYCLE.BIN"]
HIDDEN_FILES = ["._{}.png", ".{}.jpg", ".DS_Store", "Thumbs.db", "desktop.ini"]
ENDINGS = ["png", "PNG", "jpg", "JPG", "jpeg", "webp", "bmp", "tif", "tiff"]
"""Endings that everybody reads."""
OTHER_ENDINGS = ["jpe", "jfif", "gif", "ppm", "pgm", "apng", "jp2", "ico", "txt", "heic", "svg", "png.txt", "xml"]


# --- drawing -----------------------------------------------------------------------------------------


def draw_splits(rng: random.Random) -> dict[str, str]:
    """The folder of each split."""
    flat = {"train": "."}
    two = {"train": "train", "validation": "validation"}
    return rng.choice([flat, {"train": "train"}, two, two, {**two, "test": "test"}])


def below(folder: str, name: str) -> str:
    return name if folder == "." else f"{folder}/{name}"


def draw_classes(rng: random.Random, pool: list[str], splits: dict[str, str]) -> dict[str, list[str]]:
    """The classes of each split: mostly the same."""
    classes = rng.sample(pool, rng.randint(min(2, len(pool)), min(len(pool), 12 if pool is NUMERALS else 5)))
    drawn = {"train": classes}
    for split in list(splits)[1:]:
        kind = rng.random()
        few = rng.sample(classes, rng.randint(1, len(classes)))
        drawn[split] = classes if kind < 0.7 else few if kind < 0.85 else [*few, rng.choice(pool)]
    return {split: sorted(set(classes)) for split, classes in drawn.items()}


def draw_folders(rng: random.Random) -> Layout:
    """A data set with a folder for each class."""
    pools = [WORDS] * 8 + [NUMERALS] * 3 + [FAR, CODES, CODES, MIXED, MIXED, DECIMALS, FRACTIONS, NEGATIVE] + [UNICODE] * 4
    splits = draw_splits(rng)
    classes = draw_classes(rng, rng.choice(pools), splits)
    if rng.random() < 0.04:
        classes = {split: classes["train"][:1] for split in splits}
    troubles = {"hidden", "hidden files", "endings", "nested", "wrapped", "stray", "empty"}
    trouble = rng.choice(sorted(troubles)) if rng.random() < 0.4 else "none"
    more = rng.choice(sorted(troubles)) if rng.random() < 0.15 else "none"
    files, folders = [], []
    for split, folder in splits.items():
        for name in classes[split]:
            for image in range(rng.randint(1, 3)):
                inner = ""
                if trouble == "wrapped" or (trouble == "nested" and rng.random() < 0.4):
                    inner = rng.choice(["images/", "a/", "b/c/" if trouble == "nested" else "b/"])
                files.append(below(folder, f"{name}/{inner}{image}.{rng.choice(ENDINGS)}"))
        for kind in (trouble, more):
            add_trouble(rng, kind, folder, classes[split], files, folders)
    return {"splits": splits, "folders": sorted(set(folders)), "files": sorted(set(files)), "tables": {}}


def add_trouble(rng: random.Random, kind: str, folder: str, classes: list[str], files: list[str], folders: list[str]) -> None:
    name = rng.choice(classes)
    if kind == "hidden":
        for hidden in rng.sample(HIDDEN, 2):
            where = hidden if rng.random() < 0.7 else f"{name}/{hidden}"
            files.extend(below(folder, f"{where}/{image}.png") for image in range(rng.randint(1, 2)))
    elif kind == "hidden files":
        files.append(below(folder, f"{name}/{rng.choice(HIDDEN_FILES).format(0)}"))
    elif kind == "endings":
        files.extend(below(folder, f"{name}/other.{ending}") for ending in rng.sample(OTHER_ENDINGS, 3))
        if rng.random() < 0.3:
            # datasets ends with an error if a folder has nothing but `.png.txt`.
            others = [ending for ending in OTHER_ENDINGS if ending != "png.txt"]
            files.append(below(folder, f"{rng.choice(['new', 'old'])}/1.{rng.choice(others)}"))
    elif kind == "stray":
        files.append(below(folder, rng.choice(["stray.png", "notes.txt"])))
    elif kind == "empty":
        folders.append(below(folder, rng.choice(["bare", "Empty", "zzz"])))


def draw_tables(rng: random.Random, pool: list[str]) -> Layout:
    """A data set with a `metadata.csv` for each split, and labels from `pool`."""
    splits = draw_splits(rng)
    classes = draw_classes(rng, pool, splits)
    if pool is MIXED and rng.random() < 0.8:
        # A table whose labels are numbers next to one whose labels are not.
        numbers = [name for name in pool if name.isdigit()]
        classes = {split: names if split == "train" else numbers for split, names in classes.items()}
    files, tables = [], {}
    extra = rng.random() < 0.3
    reverse = rng.random() < 0.3
    for split, folder in splits.items():
        rows = []
        for label in classes[split] * rng.randint(1, 2):
            name = f"{'sub/' if rng.random() < 0.2 else ''}{len(rows)}.{rng.choice(ENDINGS)}"
            files.append(below(folder, name))
            row = {"file_name": name, "label": label}
            rows.append({**row, "text": f'a "photo", number {len(rows)}'} if extra else row)
        rng.shuffle(rows)
        if rng.random() < 0.2:
            files.append(below(folder, "unnamed.png"))
        columns = sorted(rows[0], reverse=reverse)
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        tables[below(folder, "metadata.csv")] = text.getvalue()
    return {"splits": splits, "folders": [], "files": sorted(set(files)), "tables": tables}


# --- reading -----------------------------------------------------------------------------------------


def write(layout: Layout, root: Path, image: bytes) -> None:
    for folder in layout["folders"]:
        (root / folder).mkdir(parents=True)
    contents = {**dict.fromkeys(layout["files"], image), **{name: text.encode() for name, text in layout["tables"].items()}}
    for name, content in contents.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)


def relative(path: str, root: Path) -> str:
    return Path(path).relative_to(root).as_posix()


def by_torchvision(layout: Layout, root: Path) -> tuple[dict[str, Any], dict[str, int]]:
    """What torchvision says of each split, and the labels by file."""
    answer, labels = {}, {}
    for split, folder in layout["splits"].items():
        refused = None
        try:
            found = ImageFolder(str(root / folder))
        except FileNotFoundError as error:
            refused = type(error).__name__
            found = ImageFolder(str(root / folder), allow_empty=True)
        answer[split] = {"classes": found.classes, "refused": refused}
        labels |= {relative(path, root): label for path, label in found.samples}
    return answer, labels


def load(root: Path, cache: Path, **options: Any) -> tuple[list[str] | None, dict[str, Any]]:
    """The names of classes, and the labels by file, as datasets has them."""
    found = datasets.load_dataset("imagefolder", data_dir=str(root), cache_dir=str(cache), **options)
    features = next(iter(found.values())).features
    names = getattr(features.get("label"), "names", None)
    labels = {}
    for split in found.values():
        split = split.cast_column("image", datasets.Image(decode=False))
        values = split["label"] if "label" in split.features else [None] * len(split)
        labels |= {relative(row["path"], root): value for row, value in zip(split["image"], values, strict=True)}
    return names, labels


def by_datasets(layout: Layout, root: Path, cache: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """What datasets says of the data set, and the labels by file."""
    try:
        names, labels = load(root, cache)
    except (ValueError, datasets.exceptions.DatasetGenerationError) as error:
        if layout["tables"]:
            return {"refused": type(error).__name__}, {}
        names, labels = None, {}
    if layout["tables"]:
        assert names is None
        return {}, labels
    unlabelled = names is None or None in labels.values()
    if unlabelled:
        names, labels = load(root, cache, drop_labels=False)
    return {"classes": names, "unlabelled": unlabelled}, labels


def read(layout: Layout, root: Path, cache: Path) -> Layout:
    """Adds the answers of both libraries to a layout that is below `root`."""
    answers = {}
    pairs: list[dict[str, Any]] = [{}, {}]
    if not layout["tables"]:
        answers["torchvision"], pairs[0] = by_torchvision(layout, root)
    answers["datasets"], pairs[1] = by_datasets(layout, root, cache)
    unknown = {*pairs[0], *pairs[1]} - set(layout["files"])
    assert not unknown, unknown
    return {**layout, **answers, "labels": [[pair.get(name) for pair in pairs] for name in layout["files"]]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=OUT)
    out = parser.parse_args().out
    datasets.disable_progress_bars()
    image = io.BytesIO()
    Image.new("RGB", (1, 1), (1, 2, 3)).save(image, "PNG")
    rng = random.Random(SEED)
    layouts = [draw_folders(rng) for _ in range(FOLDERS)]
    layouts += [draw_tables(rng, TABLE_LABELS[number % len(TABLE_LABELS)]) for number in range(TABLES)]
    recorded = []
    for layout in layouts:
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder).resolve() / "data"
            write(layout, root, image.getvalue())
            recorded.append(read(layout, root, Path(folder) / "cache"))
    lines = [json.dumps(layout, ensure_ascii=True, separators=(",", ":"), allow_nan=False) for layout in recorded]
    out.write_text("[\n" + ",\n".join(lines) + "\n]\n")


if __name__ == "__main__":
    main()
