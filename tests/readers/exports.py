"""Opens exports of a lake with the readers that they are for, and compares what these find with the lake's own SQL.

`python exports.py EXPORTS EXPECTED LAKE EXAMPLES`: EXPORTS holds the folders `webdataset`, `imagefolder` and `parquet`;
EXPECTED is JSON, the rows of the manifest with the SHA-256 of each picture; LAKE holds the tables; EXAMPLES the loader.
One line per check; exit code 1 where any failed.
"""

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from pathlib import Path

SCRATCH = tempfile.TemporaryDirectory()  # for the cache of `datasets`, which reads these as it is imported
OFFLINE = dict.fromkeys(["HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "HF_DATASETS_DISABLE_PROGRESS_BARS"], "1")
os.environ.update(OFFLINE, HF_HOME=SCRATCH.name)

import datasets  # noqa: E402
import duckdb  # noqa: E402
import numpy as np  # noqa: E402
import polars as pl  # noqa: E402
import webdataset  # noqa: E402
from PIL import Image  # noqa: E402

EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")  # torchvision's
EXPORTS, EXPECTED, LAKE, EXAMPLES = (Path(argument).resolve() for argument in sys.argv[1:])
ROWS: list[dict] = json.loads(EXPECTED.read_text())
BY_EPOCH = {epoch: list(rows) for epoch, rows in groupby(ROWS, key=lambda row: row["epoch"])}
CLASSES = dict(sorted({row["label"]: row["class_name"] for row in ROWS}.items()))


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def same(found: list[tuple], expected: list[tuple], what: str) -> None:
    """Two lists are equal, row for row; else the first difference is said."""
    assert len(found) == len(expected), f"{what}: {len(found)} rows, not {len(expected)}"
    for place, (mine, theirs) in enumerate(zip(found, expected, strict=True)):
        assert mine == theirs, f"{what}, row {place}: {mine}, not {theirs}"


def of(rows: list[dict], *columns: str) -> list[tuple]:
    return [tuple(row.get(column) for column in columns) for row in rows]


def seals() -> str:
    """The seals list every file with its size and digest, and the rows of each epoch."""
    total = 0
    for form in EXPORTS.iterdir():
        listed = {}
        for path in form.glob("_SUCCESS-*.json"):
            seal = json.loads(path.read_text())
            rows = sum(file["rows"] for file in seal["files"])
            assert seal["rows"] == rows == len(BY_EPOCH[seal["epoch"]]), f"{path}: {rows} rows"
            assert (seal["format"], seal["pipeline"]) == (form.name, "digits_lt"), path
            listed |= {file["name"]: (file["bytes"], file["sha256"]) for file in seal["files"]}
        found = {path.relative_to(form): path.read_bytes() for path in form.rglob("*") if path.is_file()}
        found = {str(name): (len(data), digest(data)) for name, data in found.items() if name.parts[0][0] != "_"}
        found.pop("classes.json", None)
        assert found == listed, f"{form.name}: {found.keys() ^ listed.keys()}"
        assert not list(form.glob("_INCOMPLETE-*")), form
        total += len(listed)
    return f"{total} files in {len(BY_EPOCH)} epochs of 3 forms"


def shards() -> str:
    """WebDataset gives the samples of the shards in manifest order."""
    urls = sorted(map(str, (EXPORTS / "webdataset").glob("*.tar")))
    assert len(urls) > len(BY_EPOCH), f"{len(urls)} shards: no epoch has two"
    plain = list(webdataset.WebDataset(urls, shardshuffle=False))
    found = []
    for sample in plain:
        about, [picture] = json.loads(sample["json"]), [sample[key] for key in ("png", "jpg", "webp") if key in sample]
        assert sample["__key__"] == f"{about['epoch']:04}-{about['position']:08}", sample["__key__"]
        names = ["epoch", "position", "sample_id", "class_name", "image_guidance", "seed"]
        found.append((*(about[name] for name in names), int(sample["cls"]), digest(picture)))
    columns = ["epoch", "position", "sample_id", "class_name", "image_guidance", "seed", "label", "digest"]
    same(found, of(ROWS, *columns), "shards")
    decoded = webdataset.WebDataset(urls, shardshuffle=False).decode("pil").to_tuple("png;jpg;webp", "cls")
    for (picture, label), row in zip(decoded, ROWS, strict=True):
        assert (picture.mode, label) == ("RGB", row["label"])
    return f"{len(found)} samples in {len(urls)} shards"


def image_folder() -> str:
    """torchvision's rule: folders in sorted order are the classes, and a class without pictures is allowed."""
    names = json.loads((EXPORTS / "imagefolder" / "classes.json").read_text())
    assert {int(label): name for label, name in names.items()}.items() >= CLASSES.items(), names
    total = 0
    for epoch, rows in BY_EPOCH.items():
        folder = EXPORTS / "imagefolder" / f"epoch_{epoch:04}"
        classes = sorted(entry.name for entry in os.scandir(folder) if entry.is_dir())
        assert len(classes) == len(names) and [int(name) for name in classes] == list(range(len(classes))), classes
        found = []
        for index, name in enumerate(classes):
            for root, _, files in sorted(os.walk(folder / name, followlinks=True)):
                for file in sorted(files):
                    if file.lower().endswith(EXTENSIONS):
                        path = Path(root) / file
                        Image.open(path).convert("RGB").load()
                        found.append((int(path.stem), index, digest(path.read_bytes())))
        same(sorted(found), of(rows, "position", "label", "digest"), f"epoch {epoch}")
        total += len(found)
    return f"{total} pictures of {len(names)} classes"


def hugging_face_folder() -> str:
    """`datasets` reads `metadata.jsonl`: labels, and the order of the manifest."""
    for epoch, rows in BY_EPOCH.items():
        folder = EXPORTS / "imagefolder" / f"epoch_{epoch:04}"
        found = datasets.load_dataset("imagefolder", data_dir=str(folder), split="train", cache_dir=SCRATCH.name)
        assert isinstance(found[0]["image"], Image.Image)
        found = found.cast_column("image", datasets.Image(decode=False))
        columns = ["position", "sample_id", "label", "class_name"]
        found = [(*of([row], *columns)[0], digest(bytes_of(row))) for row in found]
        same(found, of(rows, *columns, "digest"), f"epoch {epoch}")
    return f"{len(BY_EPOCH)} epochs"


def bytes_of(row: dict) -> bytes:
    image = row["image"]
    return image["bytes"] if image["bytes"] is not None else Path(image["path"]).read_bytes()


def parquet() -> str:
    """`datasets`, polars and DuckDB read the same rows in manifest order, and `datasets` knows the classes."""
    columns, parts = ["position", "sample_id", "label", "class_name", "image_guidance", "seed"], 0
    for epoch, rows in BY_EPOCH.items():
        files = str(EXPORTS / "parquet" / f"epoch_{epoch:04}" / "*.parquet")
        parts += len(list(Path(files).parent.iterdir()))
        loaded = datasets.load_dataset("parquet", data_files=files, split="train", cache_dir=SCRATCH.name)
        assert loaded.features["label"].names == list(CLASSES.values()), loaded.features["label"]
        assert isinstance(loaded[0]["image"], Image.Image)
        query = duckdb.sql(f"SELECT * FROM read_parquet('{files}') ORDER BY position")
        found = {
            "datasets": loaded.cast_column("image", datasets.Image(decode=False)).to_list(),
            "polars": pl.scan_parquet(files).collect().to_dicts(),
            "duckdb": query.to_arrow_table().to_pylist(),
        }
        for reader, read in found.items():
            read = [(*of([row], *columns)[0], digest(row["image"]["bytes"])) for row in read]
            same(read, of(rows, *columns, "digest"), f"{reader}, epoch {epoch}")
    assert parts > len(BY_EPOCH), f"{parts} files: no epoch has two"
    return f"{parts} files"


def loader() -> str:
    """The example's loader has the manifest's rows of lake and export, and reads each picture of the lake once."""
    sys.path.insert(0, str(EXAMPLES))
    from loader import Export, Lake

    cache = Path(SCRATCH.name) / "cache"
    lake, export = Lake(LAKE, cache), Export(EXPORTS / "imagefolder")
    assert (lake.epochs(), export.epochs()) == (5, len(BY_EPOCH)), (lake.epochs(), export.epochs())
    assert not any(lake.awaits(epoch) for epoch in range(5)) and export.awaits(len(BY_EPOCH))
    for epoch, rows in BY_EPOCH.items():
        for where, data in (("lake", lake), ("export", export)):
            found = data.epoch(epoch)
            read = [(found.samples[at], found[at][1], digest(found.encoded(at))) for at in range(len(found))]
            same(read, of(rows, "sample_id", "label", "digest"), f"epoch {epoch} of the {where}")
    files = [path for path in cache.rglob("*") if path.is_file()]
    assert len(files) == len({row["sample_id"] for row in ROWS}), f"{len(files)} pictures"
    times = {path: path.stat().st_mtime_ns for path in files}
    lake.epoch(0)
    assert times == {path: path.stat().st_mtime_ns for path in files}, "a picture was fetched again"
    texts = {found.label: (found.name, found.captions) for found in lake.classes()}
    assert texts == {label: (name, (f"a photo of {name}.",)) for label, name in CLASSES.items()}, texts
    assert texts == {found.label: (found.name, found.captions) for found in export.classes()}
    train = pl.read_delta(str(LAKE / "images")).filter(pl.col("split") == "train")["label"].value_counts()
    assert {found.label: found.images for found in lake.classes()} == dict(train.rows())
    return f"{len(ROWS)} rows, {len(files)} pictures"


def splits() -> str:
    """The example's loader has the images of each split: of the lake, and of folders named by class or label."""
    from loader import Export, Lake

    images = pl.read_delta(str(LAKE / "images")).join(pl.read_delta(str(LAKE / "pixels")), on="pixel_id")
    lake, folders = Lake(LAKE, Path(SCRATCH.name) / "cache"), Path(SCRATCH.name) / "splits"
    for row in images.filter(pl.col("split") != "train").rows(named=True):
        folder = row["class_name"] if row["split"] == "test" else f"{row['label']:03}"
        file = folders / row["split"] / folder / f"{row['source_id']}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(row["image"]["bytes"])
    export = Export(EXPORTS / "imagefolder", {split: folders / split for split in ("validation", "test")})
    total = 0
    for split in ("validation", "test"):
        wanted = images.filter(pl.col("split") == split)
        expected = sorted((label, digest(image["bytes"])) for label, image in wanted.select("label", "image").rows())
        for data in (lake, export):
            found = data.split(split)
            assert sorted((found[at][1], digest(found.encoded(at))) for at in range(len(found))) == expected, split
        total += len(expected)
    assert len(lake.split("shifted_test")) == len(export.split("shifted_test")) == 0
    return f"{total} pictures"


def train(name: str, data: Path, kill_after: int | None = None) -> list[tuple[int, int, int]] | None:
    """The batches that a trainer says it has trained on; it is killed after so many of them. None if it came to its end
    before the signal, because this process was slow to read what it said."""
    trainer, run = Path(__file__).with_name("trainer.py"), Path(SCRATCH.name) / name
    said = []
    command = [sys.executable, "-B", trainer, EXAMPLES, data, run]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout or []:  # also what it said before the signal came
            if line.startswith("{") or not line.endswith("\n"):  # the signal may come in the middle of a line
                break
            said.append(tuple(map(int, line.split())))
            if len(said) == kill_after:
                process.send_signal(signal.SIGKILL)
    if kill_after is None:
        assert process.returncode == 0, f"{name}: {process.returncode}"
        return said
    assert process.returncode in (0, -signal.SIGKILL), f"{name}: {process.returncode}"
    return None if process.returncode == 0 else said


def weights(name: str) -> bytes:
    with np.load(Path(SCRATCH.name) / name / "last.npz") as state:
        return state["weights"].tobytes()


def resumed() -> str:
    """A trainer that is killed goes on at the next row of its checkpoint, and ends with the same model. An export gives
    the same rows."""
    whole = train("whole", EXPORTS / "imagefolder")
    rows = [(epoch, at) for epoch, start, count in whole for at in range(start, start + count)]
    assert rows == [(row["epoch"], row["position"]) for row in ROWS], "the run without a kill"
    lake = train("lake", LAKE)
    assert lake[: len(whole)] == whole and len(lake) > len(whole), "the run over the lake"

    def killed(point: int) -> None:
        name, random_point = f"killed{point}", random.Random(point).randrange(1, len(lake))
        while (first := train(name, LAKE, random_point)) is None:
            random_point = max(random_point // 2, 1)
            shutil.rmtree(Path(SCRATCH.name) / name)
        # what the first life has trained since its checkpoint went with it: the second begins there
        second = train(name, LAKE)
        start = (second[0][0], second[0][1])
        kept = [batch for batch in first if batch[:2] < start]
        assert kept + second == lake, f"killed after {first[-1]}, resumed at {start}"
        assert weights(name) == weights("lake"), f"killed after {first[-1]}: another model"

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(killed, range(4)))
    return f"4 kills in {len(lake)} batches"


def main() -> int:
    forms = [seals, shards, image_folder, hugging_face_folder, parquet]
    checks: list[Callable[[], str]] = [*forms, loader, splits, resumed]
    failures = 0
    for check in checks:
        try:
            print(f"ok      {check.__name__}: {check()}", flush=True)
        except Exception as error:  # whatever a reader raises is a finding
            failures += 1
            print(f"FAILED  {check.__name__}: {type(error).__name__}: {error}", flush=True)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
