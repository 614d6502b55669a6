"""A trainer that may be killed at any moment, and resumes at the next row.

    pip install deltalake pyarrow pillow numpy
    discl-pipe run PIPELINE
    python examples/pytorch/resume.py LAKE/NAME CACHE CHECKPOINT --epochs N

It trains softmax regression in numpy, so that it runs anywhere. With PyTorch, replace `batches` by a DataLoader and
`np.savez` by `torch.save`. The checkpoint holds the model and the sampler in one file, which replaces the last one
atomically, so both belong to the same step. Each line of stdout is a batch: epoch, first position, rows.
"""

import argparse
import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from loader import ManifestDataset, ResumableSampler
from models import SoftmaxRegression

SIDE, BATCH, WORKERS = 16, 8, 2
AHEAD = 4 * BATCH
"""Rows that are read ahead, as a DataLoader's workers do."""


def grayscale(image: Image.Image) -> np.ndarray:
    """An image as numbers from 0 to 1."""
    small = image.convert("L").resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    return np.asarray(small, dtype=np.float32).ravel() / 255


def batches(data: ManifestDataset, sampler: ResumableSampler) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Images and labels in the sampler's order, read ahead."""
    with ThreadPoolExecutor(WORKERS) as pool:
        waiting: deque[Future] = deque()
        positions = iter(sampler)
        while True:
            while len(waiting) < AHEAD and (position := next(positions, None)) is not None:
                waiting.append(pool.submit(data.__getitem__, position))
            rows = [waiting.popleft().result() for _ in range(min(BATCH, len(waiting)))]
            if not rows:
                return
            yield np.stack([pixels for pixels, _ in rows]), np.array([label for _, label in rows])


def save(file: Path, model: SoftmaxRegression, sampler: ResumableSampler) -> None:
    """Replaces the checkpoint atomically."""
    partial = file.with_suffix(".partial")
    with partial.open("wb") as out:
        np.savez(out, weights=model.weights, bias=model.bias, **sampler.state_dict())
        out.flush()
        os.fsync(out.fileno())
    partial.replace(file)


def load(file: Path, model: SoftmaxRegression, sampler: ResumableSampler) -> None:
    """Resumes from the checkpoint."""
    with np.load(file) as state:
        model.weights, model.bias = state["weights"], state["bias"]
        sampler.load_state_dict({name: state[name].item() for name in ("epoch", "position")})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", help="the folder or URL of the tables, LAKE/NAME")
    parser.add_argument("cache", type=Path, help="a local folder for images")
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--epochs", type=int, required=True)
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--every", type=int, default=4, help="batches between two checkpoints")
    known = parser.parse_args()
    data, sampler = ManifestDataset(known.tables, known.cache, transform=grayscale), ResumableSampler()
    model = SoftmaxRegression(SIDE * SIDE, known.classes, seed=0)
    if known.checkpoint.exists():
        load(known.checkpoint, model, sampler)
    for epoch in range(sampler.epoch, known.epochs):
        data.set_epoch(epoch)
        sampler.set_epoch(epoch, len(data))
        for step, (pixels, labels) in enumerate(batches(data, sampler)):
            model.step(pixels, labels)
            print(epoch, sampler.position, len(labels), flush=True)
            sampler.advance(len(labels))
            if step % known.every == 0:
                save(known.checkpoint, model, sampler)
        save(known.checkpoint, model, sampler)


if __name__ == "__main__":
    main()
