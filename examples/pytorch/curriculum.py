"""What a trainer reads from a lake: manifests, probes, the validation set, and images. Uses public tables only."""

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from PIL import Image

SIDE = 16
"""Side of the grayscale images that the models see, in pixels."""


@dataclass(frozen=True)
class Rows:
    """Samples in training order, with their labels."""

    samples: list[str]
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.samples)


class Curriculum:
    """The tables of one pipeline, read again whenever they may have changed."""

    def __init__(self, tables: Path, trial: str) -> None:
        self.tables, self.trial = tables, trial
        self.images: dict[str, np.ndarray] = {}

    def manifest(self, epoch: int) -> Rows:
        """The rows of an epoch, in order; none if it does not exist yet."""
        return self._epoch("manifest", epoch)

    def probe(self, epoch: int) -> Rows:
        """The real images between the two measurements of an epoch."""
        return self._epoch("probe", epoch)

    def validation(self) -> Rows:
        """The samples to measure for feedback, each once."""
        return _rows(self._read("validation").sort("sample_id"))

    def split(self, name: str) -> Rows:
        """The real images of a split."""
        images = self._read("images").filter(pl.col("split") == name).sort("source_id")
        return _rows(images.with_columns(sample_id="source_id"))

    def pixels(self, rows: Rows) -> np.ndarray:
        """Their images as numbers from 0 to 1: [rows, SIDE * SIDE]."""
        missing = set(rows.samples) - self.images.keys()
        if missing:
            wanted = pl.DataFrame({"sample_id": sorted(missing)})
            synthetic = self._read("spectrum").join(wanted, on="sample_id").select("sample_id", "image")
            real = self._read("images").rename({"source_id": "sample_id"}).join(wanted, on="sample_id")
            pixels = self._read("pixels").select("pixel_id", "image")
            real = real.join(pixels, on="pixel_id").select("sample_id", "image")
            for sample, image in pl.concat([synthetic, real]).iter_rows():
                self.images[sample] = _grayscale(image["bytes"])
        return np.stack([self.images[sample] for sample in rows.samples])

    def _epoch(self, table: str, epoch: int) -> Rows:
        rows = self._read(table).filter(pl.col("epoch") == epoch, pl.col("trial") == self.trial)
        return _rows(rows.sort("position"))

    def _read(self, table: str) -> pl.DataFrame:
        return pl.read_delta(str(self.tables / table))


def _rows(table: pl.DataFrame) -> Rows:
    return Rows(table["sample_id"].to_list(), table["label"].to_numpy())


def _grayscale(png: bytes) -> np.ndarray:
    image = Image.open(io.BytesIO(png)).convert("L").resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    return np.asarray(image, dtype=np.float32).ravel() / 255
