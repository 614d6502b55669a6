"""A data set in manifest order over a lake, local or in a store, and a sampler that resumes in the middle of an epoch.

    pip install deltalake pyarrow pillow

Neither class imports PyTorch: they follow the protocols of `torch.utils.data.Dataset` and `Sampler`, which need no
base class. With PyTorch:

    data = ManifestDataset("s3://bucket/lake/NAME", "/local/cache", storage_options={"AWS_REGION": "us-east-1"})
    sampler = ResumableSampler()
    for epoch in range(sampler.epoch, epochs):
        data.set_epoch(epoch)
        sampler.set_epoch(epoch, len(data))
        for images, labels in torch.utils.data.DataLoader(data, 64, sampler=sampler, num_workers=4):
            ...                                 # one optimizer step
            sampler.advance(len(labels))        # only now do these rows count as consumed
            ...                                 # now and then: save both state_dict()s

`resume.py` is such a loop in full, without PyTorch.
"""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from deltalake import DeltaTable
from PIL import Image

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


class ManifestDataset:
    """The rows of an epoch in training order: `dataset[position]` is an image and its label.

    `tables` is the folder or URL of the tables, LAKE/NAME; `storage_options` are deltalake's. Images come from `cache`,
    a local folder for all epochs, which `set_epoch` fills with what the epoch needs. If the lake stores only the paths
    of real images, `source` is the folder that the paths are relative to.
    """

    def __init__(
        self,
        tables: str | Path,
        cache: str | Path,
        *,
        trial: str = "0",
        source: str | Path | None = None,
        transform: Callable[[Image.Image], Any] | None = None,
        storage_options: dict[str, str] | None = None,
    ) -> None:
        self.tables, self.trial, self.transform = str(tables).rstrip("/"), trial, transform
        self.options = storage_options
        self.cache = ImageCache(cache, source)
        self.samples: list[str] = []
        self.labels: list[int] = []
        self.images: list[str] = []

    def set_epoch(self, epoch: int) -> None:
        """Moves to an epoch. Call it before you create a DataLoader, whose workers copy this object."""
        chosen = (pc.field("epoch") == epoch) & (pc.field("trial") == self.trial)
        columns = ["position", "sample_id", "source_id", "label"]
        rows = self._table("manifest").to_table(columns=columns, filter=chosen).sort_by("position")
        if rows["position"].to_pylist() != list(range(len(rows))) or not len(rows):
            raise ValueError(f"the manifest has no epoch {epoch} of one curriculum, trial {self.trial}")
        self.samples, self.labels = rows["sample_id"].to_pylist(), rows["label"].to_pylist()
        real = pc.equal(rows["sample_id"], rows["source_id"])
        sources = rows["source_id"].filter(real).unique()
        real_images = self._table("images").to_table(["source_id", "pixel_id"], pc.field("source_id").isin(sources))
        # A real image is identified by the version of its file that was read; a changed file has another id.
        pixels = dict(zip(real_images["source_id"].to_pylist(), real_images["pixel_id"].to_pylist(), strict=True))
        self.images = [pixels.get(sample, sample) for sample in self.samples]
        self.cache.fill(lambda: self._table("pixels"), "pixel_id", list(pixels.values()))
        synthetic = rows["sample_id"].filter(pc.invert(real)).to_pylist()
        self.cache.fill(lambda: self._table("spectrum"), "sample_id", synthetic)

    def _table(self, name: str) -> ds.Dataset:
        return DeltaTable(f"{self.tables}/{name}", storage_options=self.options).to_pyarrow_dataset()

    def __len__(self) -> int:
        return len(self.labels)

    def encoded(self, position: int) -> bytes:
        """The image, byte for byte as in the lake."""
        return self.cache.path(self.images[position]).read_bytes()

    def __getitem__(self, position: int) -> tuple[Any, int]:
        with self.cache.path(self.images[position]).open("rb") as file:
            image = Image.open(file).convert("RGB")
        return (self.transform(image) if self.transform else image), self.labels[position]


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
