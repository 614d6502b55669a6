"""Computes every table that a query decides a second time, and compares it with a lake, row for row.

`python compare.py PIPELINE LAKE [--set KEY=VALUE]...`: the pipeline's file, with the edits of the run that made the
lake; LAKE holds one folder per Delta table. Run it where the program runs, because the pipeline's paths start there. It
prints how many rows each table has, or the first row that differs, and then its exit code is 1.

What cannot be computed again comes from the lake: `pixel_id` (the version of a file), the digests of the models, the
scores of the CLIP, and feedback.
"""

import argparse
import sys
from pathlib import Path

import polars as pl
from deltalake import DeltaTable

import method
import mixing
import settings as read_settings

TOLERANCE = 1e-12  # of sums of at most a few hundred probabilities in another order
EPOCH = ["curriculum", "trial", "epoch"]
# The columns that name a row. Within an epoch, the order of rows is the column `position`.
KEYS: dict[str, list[str]] = dict(
    images=["source_id"], classes=["label"], hard_samples=["source_id"], candidates=["sample_id"], kept=["sample_id"],
    validation=["source_id", "image_guidance"], probe=[*EPOCH, "position"],
    progress=[*EPOCH, "label", "image_guidance"], schedule=[*EPOCH, "label", "image_guidance"],
    manifest=[*EPOCH, "position"],
)  # fmt: skip


class Lake:
    """The tables of a pipeline, without their images."""

    def __init__(self, folder: Path):
        self.folder = folder

    def table(self, name: str) -> pl.DataFrame | None:
        if not (self.folder / name / "_delta_log").is_dir():
            return None
        frame = pl.scan_delta(DeltaTable(self.folder / name))
        return frame.select(pl.exclude("image")).collect()

    def only(self, table: str, column: str) -> str:
        """The one value of a column."""
        values = self.table(table)[column].unique().to_list()
        assert len(values) == 1, f"`{column}` of `{table}` has {len(values)} values: the lake needs to be of one model"
        return values[0]


def compute(of: dict[str, object], lake: Lake) -> dict[str, pl.DataFrame]:
    """Every table by name."""
    pixels = lake.table("pixels").select("source_id", "pixel_id")
    images = read_settings.images(of).join(pixels, on="source_id")
    train = images.filter(pl.col("split") == "train")
    texts = method.classes(
        images, read_settings.texts(of["prompts.common_names"]), of["prompts.filter"], of["prompts.captions"]
    )
    hard = hard_samples(of, train)
    how = generation(of, lake)
    scores = lake.table("scores").select("score_id", "sample_id", "text_similarity", "image_similarity")
    by_id = dict(scores.select("score_id", "text_similarity").iter_rows())
    asked = method.candidates(hard, images, texts, by_id, how)
    kept = method.kept(asked, scores, how)
    held_out = method.validation(hard, kept, how.levels, of["validation.sources"], of["seed"])
    tables = dict(images=images, classes=texts, hard_samples=hard, candidates=asked, kept=kept, validation=held_out)
    return tables | curriculum(of, lake, train, tables)


def hard_samples(of: dict[str, object], train: pl.DataFrame) -> pl.DataFrame:
    excluded = of["hard_samples.exclude_classes"]
    match of["hard_samples.sql"]:
        case "hard_samples/few_shot.sql":
            return method.few_shot(train, of["hard_samples.max_class_count"], excluded)
        case "hard_samples/low_confidence.sql":
            confidences = pl.read_parquet(of["hard_samples.confidences"]).select("path", "probability")
            most, fraction = of["hard_samples.max_probability"], of["hard_samples.hard_fraction"]
            return method.low_confidence(train, confidences, most, fraction, excluded)
        case other:
            raise ValueError(f"{other} is not known here")


def generation(of: dict[str, object], lake: Lake) -> method.Generation:
    assert of["spectrum.scheduler"] == "ddim", "the evaluations of other schedulers are not known here"
    assert of["filter.sql"] == "kept/text_similarity.sql", "other filters are not known here"
    return method.Generation(
        levels=of["spectrum.image_guidance"],
        seeds=of["spectrum.seeds"],
        seed=of["seed"],
        timesteps=of["spectrum.timesteps"],
        guidance_scale=of["spectrum.guidance_scale"],
        generator=lake.only("spectrum", "generator"),
        clip=lake.only("scores", "clip"),
        template=of["prompts.generation"],
        descriptions=read_settings.texts(of["prompts.descriptions"]),
        min_text_similarity=of["filter.min_text_similarity"],
        max_attempts=of["filter.max_attempts"],
    )


def curriculum(
    of: dict[str, object], lake: Lake, train: pl.DataFrame, tables: dict[str, pl.DataFrame]
) -> dict[str, pl.DataFrame]:
    """The tables that say what to train on."""
    strategy, trials, seed = of["curriculum.strategy"], of["curriculum.trials"], of["curriculum.seed"]
    epochs, curriculum_epochs = of["curriculum.epochs"], of["curriculum.curriculum_epochs"]
    feedback = lake.table("feedback")
    if feedback is None:
        names = dict(curriculum=pl.String, trial=pl.String, epoch=pl.Int64, phase=pl.String, sample_id=pl.String)
        feedback = pl.DataFrame(schema=names | dict(probability=pl.Float64))
    levels = of["curriculum.levels"]
    progress = method.progress(feedback, tables["validation"], strategy, trials, curriculum_epochs, levels)
    images = mixing.trainable(train, tables["hard_samples"], tables["kept"], tables["validation"])
    mix = mixing.Mix(
        seed=seed,
        non_hard_fraction=of["curriculum.non_hard_fraction"],
        hard_share=of["curriculum.hard_share"],
        synthetic_per_hard=of["curriculum.synthetic_per_hard"],
        class_balanced=of["curriculum.class_balanced"],
    )
    mixed = mixing.MANIFESTS[of["curriculum.manifest"]]
    scheduled, manifest, probe = [], [], []
    for trial in trials:
        course = method.Course(
            levels=levels,
            epochs=epochs,
            curriculum_epochs=curriculum_epochs,
            seed=seed,
            trial=trial,
            level=of["curriculum.level"],
            exploration=of["curriculum.exploration"],
            hard_labels=sorted(set(tables["hard_samples"]["label"])),
            progress=progress.filter(pl.col("trial") == trial),
        )
        rows = method.schedule(strategy, course)
        scheduled += [(strategy, trial, row.epoch, row.stage, row.level, row.label) for row in rows]
        for epoch in sorted({row.epoch for row in rows}):
            epoch_rows = mixed(images, mix, trial, epoch, [row for row in rows if row.epoch == epoch])
            manifest += [
                (strategy, trial, epoch, position, row.sample_id, row.source_id, row.label, row.origin)
                + (row.level, row.seed, row.attempt, row.prompt)
                for position, row in enumerate(epoch_rows)
            ]
        for epoch in range(curriculum_epochs if of["curriculum.probe_size"] > 0 else 0):
            epoch_rows = mixing.probe(images, of["curriculum.probe_size"], seed, trial, epoch)
            found = enumerate(epoch_rows)
            probe += [(strategy, trial, epoch, at, row.sample_id, row.source_id, row.label) for at, row in found]
    texts = tables["classes"].select("label", "filter_prompt", "common_name", "captions")
    return dict(
        progress=progress,
        schedule=frame(scheduled, lake.table("schedule")),
        manifest=frame(manifest, lake.table("manifest").drop(texts.columns[1:])).join(texts, on="label"),
        probe=frame(probe, lake.table("probe")),
    )


def frame(rows: list[tuple], like: pl.DataFrame) -> pl.DataFrame:
    """Rows with the columns of another frame."""
    return pl.DataFrame(rows, schema=like.schema, orient="row")


def difference(name: str, mine: pl.DataFrame, found: pl.DataFrame) -> str | None:
    """The first row that differs, in words."""
    if set(mine.columns) != set(found.columns):
        return f"has the columns {sorted(found.columns)}, expected {sorted(mine.columns)}"
    mine, found = (rows.select(sorted(found.columns)).sort(KEYS[name], nulls_last=True) for rows in (mine, found))
    for one, other in zip(mine.iter_rows(named=True), found.iter_rows(named=True)):
        wrong = [column for column in one if not equal(one[column], other[column])]
        if wrong:
            return f"differs in {', '.join(wrong)}:\nexpected {one}\nfound    {other}"
    if mine.height != found.height:
        return f"has {found.height} rows, expected {mine.height}"
    return None


def equal(one: object, other: object) -> bool:
    if isinstance(one, float) and isinstance(other, float):
        return abs(one - other) <= TOLERANCE
    return one == other


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("pipeline", type=Path)
    parser.add_argument("lake", type=Path)
    parser.add_argument("--set", action="append", default=[])
    arguments = parser.parse_args()
    lake = Lake(arguments.lake)
    counts, failures = [], []
    for name, rows in compute(read_settings.read(arguments.pipeline, arguments.set), lake).items():
        wrong = difference(name, rows, lake.table(name))
        counts.append(f"{name} {rows.height}")
        failures += [f"`{name}` {wrong}"] if wrong else []
    print("\n".join(failures) if failures else f"equal: {', '.join(counts)}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
