"""Trains a small classifier along a curriculum, and writes feedback if the curriculum is adaptive.

    pip install deltalake polars pillow numpy torch
    discl-pipe run PIPELINE
    python examples/pytorch/train.py PIPELINE LAKE/NAME [--trial 0] [--model pytorch] [-- --set KEY=VALUE ...]

It reads tables and writes one Parquet file of feedback for each epoch that an adaptive curriculum waits for. It submits
the file with `discl-pipe feedback` and continues with `discl-pipe run`; arguments after `--` are passed to both. The
last line of stdout is JSON: accuracy on the split `test`, in percent, overall and by class.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import polars as pl

from curriculum import SIDE, Curriculum, Rows
from models import MODELS, Model

BATCH = 64


def train(model: Model, curriculum: Curriculum, rows: Rows, passes: int = 1) -> None:
    """Trains on rows in order."""
    pixels = curriculum.pixels(rows)
    for _ in range(passes):
        for start in range(0, len(rows), BATCH):
            model.step(pixels[start : start + BATCH], rows.labels[start : start + BATCH])


def measure(model: Model, curriculum: Curriculum, rows: Rows) -> np.ndarray:
    """The probability of each row's own class."""
    return model.probabilities(curriculum.pixels(rows))[np.arange(len(rows)), rows.labels].astype(np.float64)


def feedback(model: Model, curriculum: Curriculum, strategy: str, epoch: int) -> pl.DataFrame:
    """Measures, trains on the probe, and measures again."""
    validation = curriculum.validation()
    measured = {"before": measure(model, curriculum, validation)}
    train(model, curriculum, curriculum.probe(epoch))
    measured["after"] = measure(model, curriculum, validation)
    phases = [
        pl.DataFrame({"sample_id": validation.samples, "probability": values}).with_columns(phase=pl.lit(phase))
        for phase, values in measured.items()
    ]
    return pl.concat(phases).with_columns(
        curriculum=pl.lit(strategy), trial=pl.lit(curriculum.trial), epoch=pl.lit(epoch, pl.Int64)
    )


def submit(rows: pl.DataFrame, program: str, pipeline: Path, arguments: list[str]) -> None:
    """Submits feedback to the pipeline, and runs it to get the next epoch."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "feedback.parquet"
        rows.write_parquet(file)
        subprocess.run([program, "feedback", str(pipeline), str(file), *arguments], check=True, stdout=sys.stderr)
    subprocess.run([program, "run", str(pipeline), *arguments], check=True, stdout=sys.stderr)


def accuracy(model: Model, curriculum: Curriculum) -> dict[str, float]:
    test = curriculum.split("test")
    right = model.probabilities(curriculum.pixels(test)).argmax(1) == test.labels
    by_class = {str(label): 100 * float(right[test.labels == label].mean()) for label in np.unique(test.labels)}
    return {"overall": 100 * float(right.mean()), **by_class}


def main() -> None:
    own, arguments = sys.argv[1:], []
    if "--" in own:
        own, arguments = own[: own.index("--")], own[own.index("--") + 1 :]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pipeline", type=Path, help="the pipeline's TOML file")
    parser.add_argument("tables", type=Path, help="the folder of its tables, LAKE/NAME")
    parser.add_argument("--trial", default="0")
    parser.add_argument("--strategy", default="adaptive", help="the name of the curriculum, for feedback")
    parser.add_argument("--epochs", type=int, required=True, help="as in the pipeline")
    parser.add_argument("--passes", type=int, default=1, help="over each epoch's rows")
    parser.add_argument("--model", choices=MODELS, default="pytorch")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--program", default="discl-pipe")
    known = parser.parse_args(own)
    curriculum = Curriculum(known.tables, known.trial)
    classes = int(curriculum.split("train").labels.max()) + 1
    model = MODELS[known.model](SIDE * SIDE, classes, known.seed)
    for epoch in range(known.epochs):
        rows = curriculum.manifest(epoch)
        if not rows:
            measured = feedback(model, curriculum, known.strategy, epoch)
            submit(measured, known.program, known.pipeline, arguments)
            rows = curriculum.manifest(epoch)
        train(model, curriculum, rows, known.passes)
        print(f"epoch {epoch}: {len(rows)} rows", file=sys.stderr)
    print(json.dumps(accuracy(model, curriculum)))


if __name__ == "__main__":
    main()
