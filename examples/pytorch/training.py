"""What the two trainers share: the loop over epochs, checkpoints, seeded augmentation, mixed precision, and scores."""

import argparse
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from loader import Class, Export, Lake, ResumableSampler, Rows
from torch import nn
from torch.utils.data import DataLoader, Dataset


def arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of every trainer."""
    parser.add_argument("data", help="the folder or URL of the tables, LAKE/NAME; or an export as image folders")
    parser.add_argument("run", type=Path, help="the folder of this training run: checkpoints, and images of the lake")
    parser.add_argument("--trial", default="0", help="of the curriculum, in a lake")
    parser.add_argument("--source", type=Path, help="the root of the images, if the lake stores only their paths")
    for split in ("validation", "test"):
        parser.add_argument(f"--{split}", type=Path, help=f"class folders of the split {split}, for an export")
    parser.add_argument("--workers", type=int, default=2, help="processes that decode images")
    parser.add_argument("--save-every", type=int, default=500, help="steps between two checkpoints")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")


def open_data(known: argparse.Namespace) -> Lake | Export:
    """An export if the folder has a complete epoch of one, and a lake otherwise."""
    if any(Path(known.data).glob("_SUCCESS-epoch_*.json")):
        folders = {"validation": known.validation, "test": known.test}
        return Export(known.data, {split: folder for split, folder in folders.items() if folder})
    return Lake(known.data, known.run / "images", trial=known.trial, source=known.source)


class Views(Dataset):
    """Rows as tensors, with the index of each class in `classes`. The draws of an augmentation depend on the seed, the
    epoch and the position alone, so a resumed epoch is the same as one that was never interrupted."""

    def __init__(self, rows: Rows, classes: list[Class], transform: Callable[..., Any], *seed: int) -> None:
        self.rows, self.transform, self.seed = rows, transform, seed
        self.index = {found.label: index for index, found in enumerate(classes)}

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, position: int) -> tuple[torch.Tensor, int]:
        image, label = self.rows[position]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(hash((*self.seed, position)))  # Python hashes numbers alike in every process
            return self.transform(image), self.index[label]


def save(file: Path, state: dict[str, Any]) -> None:
    """Replaces a checkpoint at once: a run that is killed, or a machine that loses power, leaves the old or the new."""
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(".partial")
    with partial.open("wb") as out:
        torch.save(state, out)
        out.flush()
        os.fsync(out.fileno())
    partial.replace(file)


def load(file: Path, device: str) -> dict[str, Any]:
    """Reads a checkpoint: tensors, numbers and text, never code."""
    return torch.load(file, map_location=device, weights_only=True)


def scores(truth: torch.Tensor, predicted: torch.Tensor, classes: list[Class]) -> dict[str, float]:
    """In percent: accuracy, also over the images of classes with many (100 or more), medium and few (under 20) images
    to train on; and the mean F1 over the classes that `truth` has, as WILDS computes it."""
    images = torch.tensor([found.images for found in classes])[truth]
    groups = {"accuracy": images >= 0, "many": images >= 100, "medium": (images >= 20) & (images < 100)}
    groups["few"] = images < 20
    right = truth == predicted
    found = {name: right[group].float().mean().item() for name, group in groups.items() if group.any()}
    count = torch.bincount(truth, minlength=len(classes))
    hits = torch.bincount(truth[right], minlength=len(classes))
    f1 = 2 * hits / (count + torch.bincount(predicted, minlength=len(classes))).clamp(min=1)
    found["macro_f1"] = f1[count > 0].mean().item()
    return {name: round(100 * score, 2) for name, score in found.items()}


class Trainer:
    """A model with its optimizer and its place in the curriculum. A subclass makes the model and the optimizer, calls
    `resume`, and says how an epoch is trained and how images are evaluated."""

    score: str
    """The one of `scores` by which the best epoch is chosen."""
    model: nn.Module
    optimizer: torch.optim.Optimizer

    def __init__(self, known: argparse.Namespace) -> None:
        self.known, self.device = known, torch.device(known.device)
        self.data, self.sampler = open_data(known), ResumableSampler()
        self.classes, self.epochs = self.data.classes(), self.data.epochs()
        self.half = torch.autocast(self.device.type, torch.float16, enabled=self.device.type == "cuda")
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.device.type == "cuda")
        self.numbers = {"steps": 0, "probed": -1, "best": -1.0}
        """Steps of the optimizer, the last epoch whose feedback is written, and the best score."""
        torch.manual_seed(known.seed)

    def train_epoch(self, epoch: int) -> None:
        """Trains on the rows of an epoch that the sampler has left."""
        raise NotImplementedError

    def evaluate(self, rows: Rows) -> dict[str, float]:
        """The scores of the model on these images."""
        raise NotImplementedError

    def final(self, weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The weights to report, of the best epoch's."""
        return weights

    def batches(self, views: Views, sampler: ResumableSampler | None = None) -> DataLoader:
        """Batches in order, from the sampler's position on."""
        workers, pinned = self.known.workers, self.device.type == "cuda"
        return DataLoader(views, self.known.batch, sampler=sampler, num_workers=workers, pin_memory=pinned)

    def step(self, loss: torch.Tensor, rate: float) -> None:
        """One step of the optimizer, at this learning rate."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad()
        self.scaler.scale(loss).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.numbers["steps"] += 1

    def save(self) -> None:
        """Writes the checkpoint. Nothing random is in it, because `Views` needs no history."""
        parts = {name: getattr(self, name).state_dict() for name in ("model", "optimizer", "scaler", "sampler")}
        save(self.known.run / "last.pt", {**parts, "numbers": self.numbers})

    def resume(self) -> None:
        """Continues at the checkpoint, if there is one."""
        if (last := self.known.run / "last.pt").exists():
            state = load(last, self.known.device)
            for name in ("model", "optimizer", "scaler", "sampler"):
                getattr(self, name).load_state_dict(state[name])
            self.numbers = state["numbers"]

    def run(self) -> None:
        """Trains all epochs that are left, and prints the scores of the best weights on each split that exists."""
        validation = self.data.split("validation")
        for epoch in range(self.sampler.epoch, self.epochs):
            self.train_epoch(epoch)
            found = self.evaluate(validation) if len(validation) else {}
            print(f"epoch {epoch}: {self.sampler.length} rows, {json.dumps(found)}", file=sys.stderr, flush=True)
            score = found.get(self.score, float(epoch))  # without validation images the last epoch is the best
            if score > self.numbers["best"]:
                self.numbers["best"] = score
                save(self.known.run / "best.pt", self.model.state_dict())
            self.sampler.set_epoch(epoch + 1, 0)
            self.save()
        self.model.load_state_dict(self.final(load(self.known.run / "best.pt", self.known.device)))
        splits = {name: self.data.split(name) for name in ("validation", "test", "shifted_test")}
        print(json.dumps({name: self.evaluate(rows) for name, rows in splits.items() if len(rows)}))
