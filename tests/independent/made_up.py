"""Writes inputs that a trainer or a classifier would: made-up feedback and made-up confidences.

`python made_up.py feedback LAKE FILE CURRICULUM TRIAL EPOCH KIND`: both phases of an epoch, for every sample of the
table `validation`. KIND is `random` (gains of every size, some of them outliers) or `equal` (all gain the same).
`python made_up.py confidences DATA FILE`: a probability for each image of the Parquet file DATA; many are equal.
"""

import sys
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow.parquet as pq
from deltalake import DeltaTable

from method import draw


def feedback(lake: str, file: str, curriculum: str, trial: str, epoch: str, kind: str) -> None:
    table = pl.scan_delta(DeltaTable(Path(lake) / "validation"))
    samples = table.select("sample_id", "image_guidance").collect().sort("sample_id")
    random = np.random.default_rng(draw(2**32, curriculum, trial, int(epoch)))
    before = random.uniform(0.3, 0.5, samples.height)
    if kind == "equal":
        # Sixteenths, so that every difference is exactly the same.
        before = np.round(before * 16) / 16
        gains = np.full(samples.height, 0.125)
    else:
        levels = samples["image_guidance"].to_numpy()
        favourite = random.choice(np.unique(levels))
        gains = random.normal(np.where(levels == favourite, 0.1, 0.07), 0.02)
        gains[random.random(samples.height) < 0.2] += 0.3
    phases = [
        samples.select("sample_id", phase=pl.lit(phase), probability=pl.Series(values))
        for phase, values in (("before", before), ("after", before + gains))
    ]
    named = dict(curriculum=pl.lit(curriculum), trial=pl.lit(trial), epoch=pl.lit(int(epoch), dtype=pl.Int64))
    pl.concat(phases).with_columns(**named).write_parquet(file)


def confidences(data: str, file: str) -> None:
    paths = [f"{Path(data).name}#{number}" for number in range(pq.read_metadata(data).num_rows)]
    probabilities = [draw(10, "made up", path) / 10 for path in paths]
    pl.DataFrame(dict(path=paths, probability=probabilities)).write_parquet(file)


if __name__ == "__main__":
    {"feedback": feedback, "confidences": confidences}[sys.argv[1]](*sys.argv[2:])
