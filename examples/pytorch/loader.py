"""Reads what discl-pipe writes: a lake, on a disk or in a store, or an export as image folders.

    pip install deltalake pyarrow pillow

Nothing here imports PyTorch: data sets and sampler follow the protocols of `torch.utils.data.Dataset` and `Sampler`,
which need no base class. With PyTorch:

    data = Lake("s3://bucket/lake/NAME", "/local/cache", storage_options={"AWS_REGION": "us-east-1"})
    sampler = ResumableSampler()
    for epoch in range(sampler.epoch, data.epochs()):
        rows = data.epoch(epoch, transform)     # copies the images that the cache lacks
        sampler.set_epoch(epoch, len(rows))
        for images, labels in torch.utils.data.DataLoader(rows, 64, sampler=sampler, num_workers=4):
            ...                                 # one optimizer step
            sampler.advance(len(labels))        # only now do these rows count as consumed
            ...                                 # now and then: save the model and `sampler.state_dict()`
"""

import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from deltalake import DeltaTable
from PIL import Image

Transform = Callable[[Image.Image], Any]

STREAMS = 4
"""Data files that are read at once while the cache fills; one row group of each is in memory."""
BATCH = 32
"""Images that are decoded from Parquet at once."""


class ImageCache:
    """Encoded images as local files, named by ids that never stand for other bytes."""

    def __init__(self, folder: str | Path, source: str | Path | None = None) -> None:
        self.folder, self.source = Path(folder), source

    def path(self, image_id: str) -> Path:
        """Where an image is, or will be."""
        return self.folder / image_id[:2] / image_id

    def fill(self, table: Callable[[], ds.Dataset], key: str, wanted: list[str]) -> None:
        """Copies the missing ones of `wanted` from a table, which is opened only if any is missing. Reads the column
        `key` of each data file, and then, once, the row groups that hold a wanted image."""
        missing = {image_id for image_id in wanted if not self.path(image_id).exists()}
        if missing:
            for part in {image_id[:2] for image_id in missing}:
                (self.folder / part).mkdir(parents=True, exist_ok=True)
            with ThreadPoolExecutor(STREAMS) as pool:
                list(pool.map(lambda fragment: self._copy(fragment, key, missing), table().get_fragments()))

    def _copy(self, fragment: ds.ParquetFileFragment, key: str, missing: set[str]) -> None:
        here = [image_id in missing for image_id in fragment.to_table(columns=[key])[key].to_pylist()]
        start, groups = 0, []
        for group in fragment.row_groups:
            if any(here[start : start + group.num_rows]):
                groups.append(group.id)
            start += group.num_rows
        for group in groups:
            rows = fragment.subset(row_group_ids=[group])
            for batch in rows.to_batches(columns=[key, "image"], batch_size=BATCH):
                images = zip(batch["image"].field("bytes"), batch["image"].field("path").to_pylist(), strict=True)
                for image_id, (image, path) in zip(batch[key].to_pylist(), images, strict=True):
                    if image_id in missing:
                        self._put(image_id, image.as_buffer() if image.is_valid else self._referred(path))

    def _referred(self, path: str) -> bytes:
        if self.source is None:
            raise ValueError(f"the lake stores only the path {path}: pass `source`, the root of the images, or export")
        return (Path(self.source) / path).read_bytes()

    def _put(self, image_id: str, data: pa.Buffer | bytes) -> None:
        # Written under another name first: a file that exists is whole, even if several processes fill the cache.
        path = self.path(image_id)
        partial = path.with_name(f".{image_id}.{os.getpid()}")
        partial.write_bytes(data)
        partial.replace(path)


@dataclass(frozen=True)
class Class:
    """A class of the data set, and how many real images of it there are to train on."""

    label: int
    name: str
    captions: tuple[str, ...]
    images: int


@dataclass(frozen=True)
class Rows:
    """Images with their labels, in training order: `rows[position]` is an image and its label."""

    samples: list[str]
    labels: list[int]
    files: list[Path]
    transform: Transform | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def encoded(self, position: int) -> bytes:
        """The image, byte for byte as in the lake."""
        return self.files[position].read_bytes()

    def __getitem__(self, position: int) -> tuple[Any, int]:
        with self.files[position].open("rb") as file:
            image = Image.open(file).convert("RGB")
        return (self.transform(image) if self.transform else image), self.labels[position]


class Lake:
    """The tables of one pipeline, read again by each call, because an adaptive curriculum adds epochs.

    `tables` is their folder or URL, LAKE/NAME; `storage_options` are deltalake's. Images come from `cache`, a local
    folder, which each call fills with what its rows need. If the lake stores only the paths of real images, `source` is
    the folder that the paths are relative to.
    """

    def __init__(
        self,
        tables: str | Path,
        cache: str | Path,
        *,
        trial: str = "0",
        source: str | Path | None = None,
        storage_options: dict[str, str] | None = None,
    ) -> None:
        self.tables, self.trial, self.options = str(tables).rstrip("/"), trial, storage_options
        self.cache = ImageCache(cache, source)

    def classes(self) -> list[Class]:
        """All classes, by label."""
        train = self._table("images").to_table(["label"], pc.field("split") == "train")["label"].to_pylist()
        columns = ["label", "class_name", "captions"]
        rows = self._table("classes").to_table(columns).sort_by("label").to_pylist()
        images = Counter(train)
        return [Class(row["label"], row["class_name"], tuple(row["captions"]), images[row["label"]]) for row in rows]

    def epochs(self) -> int:
        """The number of epochs, those included that wait for feedback."""
        epochs = [self._of_trial(table, ["epoch"])["epoch"] for table in ("manifest", "probe")]
        return max((pc.max(column).as_py() for column in epochs if len(column)), default=-1) + 1

    def awaits(self, epoch: int) -> bool:
        """Whether an epoch has no rows yet, because its curriculum is adaptive and waits for feedback."""
        return len(self._of_trial("manifest", ["epoch"], epoch)) == 0

    def epoch(self, epoch: int, transform: Transform | None = None) -> Rows:
        """The rows of an epoch in the order of the manifest."""
        return self._in_order("manifest", epoch, transform)

    def probe(self, epoch: int, transform: Transform | None = None) -> Rows:
        """The real images to train on between the two measurements of an epoch."""
        return self._in_order("probe", epoch, transform)

    def validation(self, transform: Transform | None = None) -> Rows:
        """The samples of the spectrum validation set, to measure for feedback."""
        rows = self._table("validation").to_table(["sample_id", "source_id", "label"]).sort_by("sample_id")
        return self._rows(rows, transform)

    def split(self, name: str, transform: Transform | None = None) -> Rows:
        """The real images of a split; none if the data set does not have it."""
        rows = self._table("images").to_table(["source_id", "label"], pc.field("split") == name).sort_by("source_id")
        return self._rows(rows.append_column("sample_id", rows["source_id"]), transform)

    def write_feedback(self, file: Path, epoch: int, before: Sequence[float], after: Sequence[float]) -> None:
        """Writes what `discl-pipe feedback` takes: the probability of the own class of each row of `validation`, before
        and after training on the probe."""
        curriculum = self._of_trial("probe", ["curriculum"], epoch)["curriculum"][0].as_py()
        samples = self._table("validation").to_table(["sample_id"]).sort_by("sample_id")["sample_id"].to_pylist()
        same = {"curriculum": curriculum, "trial": self.trial, "epoch": epoch}
        rows = [
            {**same, "phase": phase, "sample_id": sample, "probability": float(probability)}
            for phase, measured in {"before": before, "after": after}.items()
            for sample, probability in zip(samples, measured, strict=True)
        ]
        pq.write_table(pa.Table.from_pylist(rows), file)

    def _in_order(self, table: str, epoch: int, transform: Transform | None) -> Rows:
        columns = ["position", "sample_id", "source_id", "label"]
        rows = self._of_trial(table, columns, epoch).sort_by("position")
        if rows["position"].to_pylist() != list(range(len(rows))) or not len(rows):
            raise ValueError(f"`{table}` has no epoch {epoch} of one curriculum, trial {self.trial}")
        return self._rows(rows, transform)

    def _rows(self, rows: pa.Table, transform: Transform | None) -> Rows:
        real = pc.equal(rows["sample_id"], rows["source_id"])
        sources = rows["source_id"].filter(real).unique()
        real_images = self._table("images").to_table(["source_id", "pixel_id"], pc.field("source_id").isin(sources))
        # A real image is identified by the version of its file that was read; a changed file has another id.
        pixels = dict(zip(real_images["source_id"].to_pylist(), real_images["pixel_id"].to_pylist(), strict=True))
        self.cache.fill(lambda: self._table("pixels"), "pixel_id", list(pixels.values()))
        synthetic = rows["sample_id"].filter(pc.invert(real)).to_pylist()
        self.cache.fill(lambda: self._table("spectrum"), "sample_id", synthetic)
        samples = rows["sample_id"].to_pylist()
        files = [self.cache.path(pixels.get(sample, sample)) for sample in samples]
        return Rows(samples, rows["label"].to_pylist(), files, transform)

    def _of_trial(self, table: str, columns: list[str], epoch: int | None = None) -> pa.Table:
        chosen = pc.field("trial") == self.trial
        if epoch is not None:
            chosen &= pc.field("epoch") == epoch
        return self._table(table).to_table(columns, chosen)

    def _table(self, name: str) -> ds.Dataset:
        return DeltaTable(f"{self.tables}/{name}", storage_options=self.options).to_pyarrow_dataset()


class Export:
    """An export as image folders: `discl-pipe export PIPELINE FOLDER --as imagefolder`. Only its complete epochs count.

    An export has no images to validate on. `splits` names folders of them by split, each with a folder per class, named
    by the class or its label.
    """

    def __init__(self, folder: str | Path, splits: dict[str, Path] | None = None) -> None:
        self.folder, self.splits = Path(folder), splits or {}

    def classes(self) -> list[Class]:
        """All classes, by label. Their images are those of all epochs here, so it reads each epoch's metadata."""
        names = json.loads((self.folder / "classes.json").read_text())
        captions: dict[int, tuple[str, ...]] = {}
        sources: dict[int, set[str]] = {int(label): set() for label in names}
        for epoch in self._complete():
            for row in self._metadata(epoch):
                captions[row["label"]] = tuple(row["captions"])
                sources[row["label"]].add(row["source_id"])
        numbered = sorted((int(label), name) for label, name in names.items())
        return [Class(label, name, captions.get(label, ()), len(sources[label])) for label, name in numbered]

    def epochs(self) -> int:
        """One more than the last epoch."""
        return max(self._complete(), default=-1) + 1

    def awaits(self, epoch: int) -> bool:
        """Whether an epoch has yet to be exported."""
        return epoch not in self._complete()

    def epoch(self, epoch: int, transform: Transform | None = None) -> Rows:
        """The rows of an epoch in the order of the manifest."""
        if self.awaits(epoch):
            raise ValueError(f"{self.folder} has no complete epoch {epoch}")
        rows = sorted(self._metadata(epoch), key=lambda row: row["position"])
        files = [self.folder / f"epoch_{epoch:04}" / row["file_name"] for row in rows]
        return Rows([row["sample_id"] for row in rows], [row["label"] for row in rows], files, transform)

    def split(self, name: str, transform: Transform | None = None) -> Rows:
        """The images of a split's folder; none if none was named."""
        labels = {found.name: found.label for found in self.classes()} if name in self.splits else {}
        folders = sorted(self.splits[name].iterdir()) if name in self.splits else []
        files = [file for folder in folders if folder.is_dir() for file in sorted(folder.iterdir())]
        found = [int(parent) if parent.isdigit() else labels[parent] for parent in (file.parent.name for file in files)]
        return Rows([str(file) for file in files], found, files, transform)

    def _complete(self) -> set[int]:
        return {int(seal.stem.rsplit("_", 1)[1]) for seal in self.folder.glob("_SUCCESS-epoch_*.json")}

    def _metadata(self, epoch: int) -> list[dict[str, Any]]:
        with (self.folder / f"epoch_{epoch:04}" / "metadata.jsonl").open(encoding="utf-8") as lines:
            return [json.loads(line) for line in lines]


class ResumableSampler:
    """The positions of an epoch in order, from the first one that was not consumed.

    A DataLoader requests positions long before their rows are trained on. So the trainer calls `advance` after each
    step, and the state matches the model after that step, however far ahead the workers are.
    """

    def __init__(self) -> None:
        self.epoch, self.position, self.length = 0, 0, 0

    def set_epoch(self, epoch: int, length: int) -> None:
        """Moves to an epoch of `length` rows: to its beginning, unless a state was loaded for this epoch."""
        if epoch != self.epoch:
            self.epoch, self.position = epoch, 0
        self.length = length

    def advance(self, rows: int) -> None:
        """Marks the next `rows` as consumed."""
        self.position += rows

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.position, self.length))

    def __len__(self) -> int:
        return self.length - self.position

    def state_dict(self) -> dict[str, int]:
        """Where a restarted trainer resumes."""
        return {"epoch": self.epoch, "position": self.position}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Resumes there."""
        self.epoch, self.position = int(state["epoch"]), int(state["position"])
