"""A data set in manifest order over a lake, local or in a store, and a sampler that resumes in the middle of an epoch.

    pip install deltalake pyarrow pillow

Neither class imports PyTorch: they keep the protocols of `torch.utils.data.Dataset` and `Sampler`, which ask for no
base class. With PyTorch:

    data = ManifestDataset("s3://bucket/lake/NAME", "/local/cache", storage_options={"AWS_REGION": "us-east-1"})
    sampler = ResumableSampler()
    for epoch in range(sampler.epoch, epochs):
        data.set_epoch(epoch)
        sampler.set_epoch(epoch, len(data))
        for pictures, labels in torch.utils.data.DataLoader(data, 64, sampler=sampler, num_workers=4):
            ...                                 # a step of the optimizer
            sampler.advance(len(labels))        # only now these rows are behind us
            ...                                 # now and then: save model.state_dict() and sampler.state_dict()

`resume.py` beside this is such a loop in full, without PyTorch.
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
"""Data files that are read at once while the cache is filled; of each a row group is in memory."""
BATCH = 32
"""Pictures that are decoded from Parquet at once."""


class PictureCache:
    """Encoded pictures as local files, named by what they are: an id that never stands for other bytes."""

    def __init__(self, folder: str | Path, source: str | Path | None = None) -> None:
        self.folder, self.source = Path(folder), source

    def path(self, picture: str) -> Path:
        """Where a picture is, or will be."""
        return self.folder / picture[:2] / picture

    def fill(self, table: Callable[[], ds.Dataset], key: str, wanted: list[str]) -> None:
        """Copies those of `wanted` that are not there from a table, which is opened where any is not. Of each data file
        the column `key` is read, and of its row groups those that hold something wanted, once."""
        missing = {picture for picture in wanted if not self.path(picture).exists()}
        if missing:
            for part in {picture[:2] for picture in missing}:
                (self.folder / part).mkdir(parents=True, exist_ok=True)
            with ThreadPoolExecutor(STREAMS) as pool:
                list(pool.map(lambda fragment: self._copy(fragment, key, missing), table().get_fragments()))

    def _copy(self, fragment: ds.ParquetFileFragment, key: str, missing: set[str]) -> None:
        here = [picture in missing for picture in fragment.to_table(columns=[key])[key].to_pylist()]
        start, groups = 0, []
        for group in fragment.row_groups:
            if any(here[start : start + group.num_rows]):
                groups.append(group.id)
            start += group.num_rows
        for group in groups:
            rows = fragment.subset(row_group_ids=[group])
            for batch in rows.to_batches(columns=[key, "image"], batch_size=BATCH):
                images = zip(batch["image"].field("bytes"), batch["image"].field("path").to_pylist(), strict=True)
                for picture, (image, path) in zip(batch[key].to_pylist(), images, strict=True):
                    if picture in missing:
                        self._put(picture, image.as_buffer() if image.is_valid else self._referred(path))

    def _referred(self, path: str) -> bytes:
        if self.source is None:
            raise ValueError(f"the lake only refers to {path}: give `source`, the root of the images, or use an export")
        return (Path(self.source) / path).read_bytes()

    def _put(self, picture: str, data: pa.Buffer | bytes) -> None:
        # under another name first: a file that is there is whole, also where several processes fill
        path = self.path(picture)
        partial = path.with_name(f".{picture}.{os.getpid()}")
        partial.write_bytes(data)
        partial.replace(path)


class ManifestDataset:
    """The rows of an epoch in training order: `dataset[position]` is a picture and its label.

    `tables` is the folder or URL of the tables, LAKE/NAME; `storage_options` are deltalake's. Pictures come from
    `cache`, a local folder for all epochs, which `set_epoch` fills with what the epoch needs. Where the lake only refers
    to images that are files, `source` is the folder that their paths are relative to.
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
        self.cache = PictureCache(cache, source)
        self.samples: list[str] = []
        self.labels: list[int] = []
        self.pictures: list[str] = []

    def set_epoch(self, epoch: int) -> None:
        """Goes to an epoch. Call it before a DataLoader is made for it, whose workers copy what is here."""
        chosen = (pc.field("epoch") == epoch) & (pc.field("trial") == self.trial)
        columns = ["position", "sample_id", "source_id", "label"]
        rows = self._table("manifest").to_table(columns=columns, filter=chosen).sort_by("position")
        if rows["position"].to_pylist() != list(range(len(rows))) or not len(rows):
            raise ValueError(f"the manifest has not the epoch {epoch} of one curriculum, trial {self.trial}")
        self.samples, self.labels = rows["sample_id"].to_pylist(), rows["label"].to_pylist()
        real = pc.equal(rows["sample_id"], rows["source_id"])
        sources = rows["source_id"].filter(real).unique()
        images = self._table("images").to_table(["source_id", "pixel_id"], pc.field("source_id").isin(sources))
        # a real image by the version of its file that was read: a changed one has another id
        pixels = dict(zip(images["source_id"].to_pylist(), images["pixel_id"].to_pylist(), strict=True))
        self.pictures = [pixels.get(sample, sample) for sample in self.samples]
        self.cache.fill(lambda: self._table("pixels"), "pixel_id", list(pixels.values()))
        synthetic = rows["sample_id"].filter(pc.invert(real)).to_pylist()
        self.cache.fill(lambda: self._table("spectrum"), "sample_id", synthetic)

    def _table(self, name: str) -> ds.Dataset:
        return DeltaTable(f"{self.tables}/{name}", storage_options=self.options).to_pyarrow_dataset()

    def __len__(self) -> int:
        return len(self.labels)

    def encoded(self, position: int) -> bytes:
        """The picture as it is in the lake."""
        return self.cache.path(self.pictures[position]).read_bytes()

    def __getitem__(self, position: int) -> tuple[Any, int]:
        with self.cache.path(self.pictures[position]).open("rb") as file:
            picture = Image.open(file).convert("RGB")
        return (self.transform(picture) if self.transform else picture), self.labels[position]


class ResumableSampler:
    """The positions of an epoch in order, from the first that was not consumed.

    A DataLoader asks for positions long before their rows are trained on. So a row counts when the trainer says so, by
    `advance` after its step, and the state is that of the model after that step, however far the workers are ahead.
    """

    def __init__(self) -> None:
        self.epoch, self.position, self.length = 0, 0, 0

    def set_epoch(self, epoch: int, length: int) -> None:
        """Goes to an epoch of `length` rows: to its beginning, unless it is the one that a state was loaded for."""
        if epoch != self.epoch:
            self.epoch, self.position = epoch, 0
        self.length = length

    def advance(self, rows: int) -> None:
        """The next `rows` are consumed."""
        self.position += rows

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.position, self.length))

    def __len__(self) -> int:
        return self.length - self.position

    def state_dict(self) -> dict[str, int]:
        """Where a trainer that starts again goes on."""
        return {"epoch": self.epoch, "position": self.position}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Goes on there."""
        self.epoch, self.position = int(state["epoch"]), int(state["position"])
