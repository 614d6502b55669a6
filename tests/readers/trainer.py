"""A trainer that needs nothing but a lake or an export, `examples/pytorch/loader.py` and numpy.

`python trainer.py EXAMPLES DATA RUN [--trial 0] [--pipeline FILE --program PROGRAM] [-- ARGUMENTS]`. It does with
softmax regression what `examples/pytorch/training.py` does with PyTorch, in the same order: it may be killed at any
moment, and gives an adaptive curriculum its feedback. Each line of stdout is a batch: epoch, first position, rows; the
last line is JSON, the accuracy in percent on each split that exists.
"""

import argparse
import json
import os
import subprocess
import sys
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

sys.path.insert(0, sys.argv[1])

from loader import Export, Lake, ResumableSampler, Rows

SIDE, BATCH, WORKERS = 16, 8, 2
AHEAD = 4 * BATCH  # rows that are read ahead, as a DataLoader's workers do
SAVE_EVERY = 4  # batches between two checkpoints


def grayscale(image: Image.Image) -> np.ndarray:
    """An image as numbers from 0 to 1."""
    small = image.convert("L").resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    return np.asarray(small, dtype=np.float32).ravel() / 255


def batches(rows: Rows, sampler: ResumableSampler) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Images and labels in the sampler's order, read ahead."""
    with ThreadPoolExecutor(WORKERS) as pool:
        waiting: deque[Future] = deque()
        positions = iter(sampler)
        while True:
            while len(waiting) < AHEAD and (position := next(positions, None)) is not None:
                waiting.append(pool.submit(rows.__getitem__, position))
            batch = [waiting.popleft().result() for _ in range(min(BATCH, len(waiting)))]
            if not batch:
                return
            yield np.stack([pixels for pixels, _ in batch]), np.array([label for _, label in batch])


class Trainer:
    def __init__(self, known: argparse.Namespace, arguments: list[str]) -> None:
        self.known, self.arguments = known, arguments
        export = any(known.data.glob("_SUCCESS-*"))
        self.data = Export(known.data) if export else Lake(known.data, known.run / "images", trial=known.trial)
        self.labels = np.array([found.label for found in self.data.classes()])
        self.weights = np.random.default_rng(0).normal(0, 0.01, (SIDE * SIDE, len(self.labels)))
        self.probed, self.sampler = -1, ResumableSampler()
        if (known.run / "last.npz").exists():
            with np.load(known.run / "last.npz") as state:
                self.weights, self.probed = state["weights"], state["probed"].item()
                self.sampler.load_state_dict({name: state[name].item() for name in ("epoch", "position")})

    def save(self) -> None:
        """Replaces the checkpoint atomically."""
        partial = self.known.run / "last.partial"
        with partial.open("wb") as out:
            np.savez(out, weights=self.weights, probed=self.probed, **self.sampler.state_dict())
            out.flush()
            os.fsync(out.fileno())
        partial.replace(self.known.run / "last.npz")

    def probabilities(self, pixels: np.ndarray) -> np.ndarray:
        logits = pixels @ self.weights
        powers = np.exp(logits - logits.max(1, keepdims=True))
        return powers / powers.sum(1, keepdims=True)

    def step(self, pixels: np.ndarray, labels: np.ndarray) -> None:
        error = self.probabilities(pixels)
        error[np.arange(len(labels)), np.searchsorted(self.labels, labels)] -= 1
        self.weights -= 0.5 * pixels.T @ error / len(labels)

    def predict(self, rows: Rows) -> tuple[np.ndarray, np.ndarray]:
        images, labels = zip(*(rows[position] for position in range(len(rows))), strict=True)
        return self.probabilities(np.stack(images)), np.searchsorted(self.labels, labels)

    def measure(self) -> np.ndarray:
        found, truth = self.predict(self.data.validation(grayscale))
        return found[np.arange(len(truth)), truth]

    def submit_feedback(self, epoch: int) -> None:
        known, file, probe = self.known, self.known.run / "feedback.parquet", self.data.probe(epoch, grayscale)
        if self.probed < epoch:
            sampler = ResumableSampler()
            sampler.set_epoch(epoch, len(probe))
            before = self.measure()
            for pixels, labels in batches(probe, sampler):
                self.step(pixels, labels)
            self.data.write_feedback(file, epoch, before, self.measure())
            self.probed = epoch
            self.save()
        for command in (["feedback", known.pipeline, file], ["run", known.pipeline]):
            subprocess.run([known.program, *command, *self.arguments], check=True, stdout=sys.stderr)

    def train(self) -> None:
        for epoch in range(self.sampler.epoch, self.data.epochs()):
            if self.data.awaits(epoch):
                self.submit_feedback(epoch)
            rows = self.data.epoch(epoch, grayscale)
            self.sampler.set_epoch(epoch, len(rows))
            for number, (pixels, labels) in enumerate(batches(rows, self.sampler), 1):
                self.step(pixels, labels)
                print(f"{epoch} {self.sampler.position} {len(labels)}", flush=True)
                self.sampler.advance(len(labels))
                if number % SAVE_EVERY == 0:
                    self.save()
            self.sampler.set_epoch(epoch + 1, 0)
            self.save()

    def report(self) -> dict[str, float]:
        splits = {name: self.data.split(name, grayscale) for name in ("validation", "test", "shifted_test")}
        found = {name: self.predict(rows) for name, rows in splits.items() if len(rows)}
        return {name: 100 * float((guesses.argmax(1) == truth).mean()) for name, (guesses, truth) in found.items()}


def main() -> None:
    own, arguments = sys.argv[1:], []
    if "--" in own:
        own, arguments = own[: own.index("--")], own[own.index("--") + 1 :]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("examples")
    parser.add_argument("data", type=Path)
    parser.add_argument("run", type=Path)
    parser.add_argument("--trial", default="0")
    parser.add_argument("--pipeline")
    parser.add_argument("--program")
    known = parser.parse_args(own)
    known.run.mkdir(parents=True, exist_ok=True)
    trainer = Trainer(known, arguments)
    trainer.train()
    print(json.dumps(trainer.report()))


if __name__ == "__main__":
    main()
