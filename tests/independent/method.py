"""The method a second time: which images are hard, which are generated and kept, and what each epoch trains on.

Pure functions on frames of polars, written from docs/curricula.md, docs/reference.md, docs/sql.md and the method's
paper, not from the program's queries. They are slow and plain on purpose. `compare.py` compares them with a lake.

Frames have the columns of the lake's tables. A level is `image_guidance`, in percent; 100 is the real image itself.
"""

import hashlib
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import polars as pl

REAL = 100  # the level of real images

# The format: what is digested, beside the values that docs/sql.md lists, so that two implementations draw the same.
ID_DIGITS = 32
EASY, HARD_ONCE = 0, -1  # `draw` in a position of an image that was not drawn from a pool
MILLION = 1_000_000  # an epoch explores if a draw below this is below its share
GAIN_DIGITS = 9  # gains are rounded, so that the order of a sum decides nothing


def digest_bytes(domain: str, values: Iterable[object]) -> bytes:
    """SHA-256 of the domain and the values as text, each after its length in eight bytes, the lowest first."""
    sha = hashlib.sha256()
    for part in [domain.encode(), *map(as_bytes, values)]:
        sha.update(len(part).to_bytes(8, "little"))
        sha.update(part)
    return sha.digest()


def as_bytes(value: object) -> bytes:
    """A value as it is digested: NULL, an integer in decimal, or a string."""
    if value is None:
        return b"\0null"
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise TypeError(f"{value!r} is not digested anywhere")
    return str(value).encode()


def digest(*values: object) -> str:
    """The SQL function `digest`."""
    return digest_bytes("digest", values).hex()[:ID_DIGITS]


def draw(n: int, *values: object) -> int:
    """The SQL function `draw`: a number from 0 to n - 1."""
    word = int.from_bytes(digest_bytes("draw", values)[:8], "little")
    return word * n >> 64


def source_id(path: str) -> str:
    """The id of a real image, by its path."""
    return digest_bytes("source", [path]).hex()[:ID_DIGITS]


def exact(number: float) -> Fraction:
    """A number of the pipeline's file as it is written there: 0.29, not the nearest binary fraction."""
    return Fraction(repr(number))


@dataclass(frozen=True)
class Epoch:
    """A level of an epoch; `label` says for which class, None for all."""

    epoch: int
    stage: int
    level: int
    label: int | None = None


# ---------------------------------------------------------------------------------------------------------------------
# Classes and hard samples


def classes(
    images: pl.DataFrame, common_names: dict[str, str], filter_template: str, captions: list[str]
) -> pl.DataFrame:
    """The texts of each class that has an image."""
    rows = []
    for label, name in images.select("label", "class_name").unique().sort("label").iter_rows():
        common = common_names.get(name, name)
        texts = [template.replace("{class}", common) for template in [filter_template, *captions]]
        rows.append((label, name, common, texts[0], texts[1:]))
    schema = dict(label=pl.Int64, class_name=pl.String, common_name=pl.String, filter_prompt=pl.String)
    schema["captions"] = pl.List(pl.String)
    return pl.DataFrame(rows, schema=schema, orient="row")


def few_shot(train: pl.DataFrame, max_class_count: int, excluded: list[str]) -> pl.DataFrame:
    """Every training image of a class with fewer than `max_class_count` of them."""
    hard = train.with_columns(count=pl.len().over("label")).filter(
        pl.col("count") < max_class_count, ~pl.col("class_name").is_in(excluded)
    )
    return hard.select("source_id", "label", "class_name", reason=pl.format("its class has {} images", "count"))


def low_confidence(
    train: pl.DataFrame, confidences: pl.DataFrame, max_probability: float, fraction: float, excluded: list[str]
) -> pl.DataFrame:
    """The least probable images below `max_probability`, at most a `fraction` of the training images.

    Among equally probable images the lower `source_id` goes first. Images of excluded classes take nobody's place.
    """
    places = math.floor(exact(fraction) * train.height)
    hard = (
        train.join(confidences, on="path")
        .filter(pl.col("probability") < max_probability, ~pl.col("class_name").is_in(excluded))
        .sort("probability", "source_id")
        .head(places)
    )
    reason = pl.format("its class has the probability {}", "probability")
    return hard.select("source_id", "label", "class_name", reason=reason)


# ---------------------------------------------------------------------------------------------------------------------
# Candidates, kept images and the validation set


@dataclass(frozen=True)
class Generation:
    """What decides a generated image and its score, in addition to the hard image."""

    levels: list[int]
    seeds: list[int]
    seed: int
    timesteps: int
    guidance_scale: float
    generator: str
    clip: str
    template: str
    descriptions: dict[str, list[str]]
    min_text_similarity: float
    max_attempts: int

    def passes(self, similarity: float) -> bool:
        """Similarities are 32-bit numbers, so the threshold is one too: a shown score is its own threshold."""
        return np.float32(similarity) >= np.float32(self.min_text_similarity)


def candidates(
    hard: pl.DataFrame, images: pl.DataFrame, texts: pl.DataFrame, scores: dict[str, float], how: Generation
) -> pl.DataFrame:
    """The images to generate: of each hard image, level and seed the first attempt, and another one after each failure.

    `scores` is the text similarity by `score_id` of what has been generated. An attempt without a score has not failed.
    """
    columns = images.select("source_id", "pixel_id", "digest")
    sources = hard.join(columns, on="source_id").join(texts.select("label", "common_name", "filter_prompt"), on="label")
    rows = []
    for source in sources.iter_rows(named=True):
        for level in how.levels:
            for seed in how.seeds:
                for attempt in range(how.max_attempts):
                    row = candidate(source, level, seed, attempt, how)
                    rows.append(row)
                    score = scores.get(row["score_id"])
                    if score is None or how.passes(score):
                        break
    return pl.DataFrame(rows, infer_schema_length=None)


def candidate(source: dict, level: int, seed: int, attempt: int, how: Generation) -> dict:
    """One image to generate."""
    slot = (source["source_id"], level, seed, attempt)
    texts = how.descriptions.get(source["class_name"], [])
    description = texts[draw(len(texts), "prompt", how.seed, *slot)] if texts else ""
    prompt = how.template.replace("{description}", description).replace("{class}", source["common_name"])
    noise_seed = draw(2**63 - 1, "noise", how.seed, *slot)
    content = (source["source_id"], source["digest"], level, seed, attempt, prompt, noise_seed)
    sample_id = digest("sample", how.generator, *content)
    timesteps = how.timesteps * (100 - level) // 100
    return dict(
        sample_id=sample_id,
        score_id=digest("score", how.clip, sample_id, source["filter_prompt"]),
        source_id=source["source_id"],
        pixel_id=source["pixel_id"],
        label=source["label"],
        class_name=source["class_name"],
        image_guidance=level,
        seed=seed,
        attempt=attempt,
        prompt=prompt,
        filter_prompt=source["filter_prompt"],
        noise_seed=noise_seed,
        timesteps=timesteps,
        # Each timestep is evaluated with and without the prompt, unless a scale of 1 or less leaves the latter out.
        unet_evaluations=timesteps * (2 if how.guidance_scale > 1 else 1),
    )


def kept(asked: pl.DataFrame, scores: pl.DataFrame, how: Generation) -> pl.DataFrame:
    """The candidates that passed."""
    threshold = pl.lit(how.min_text_similarity, dtype=pl.Float32)
    columns = ["sample_id", "source_id", "label", "class_name", "image_guidance", "seed", "attempt", "prompt"]
    passed = asked.join(scores.drop("sample_id"), on="score_id").filter(pl.col("text_similarity") >= threshold)
    return passed.select(*columns, "text_similarity", "image_similarity")


def validation(hard: pl.DataFrame, passed: pl.DataFrame, levels: list[int], sources: int, seed: int) -> pl.DataFrame:
    """`sources` hard images that have a kept image at each level, with one of each; the image itself is level 100."""
    by_slot: dict[tuple[str, int], list[str]] = {}
    for sample, source, level in passed.select("sample_id", "source_id", "image_guidance").iter_rows():
        by_slot.setdefault((source, level), []).append(sample)
    eligible = [source for source in hard["source_id"] if all((source, level) in by_slot for level in levels)]
    chosen = sorted(eligible, key=lambda source: digest("validation", seed, source))[:sources]
    rows = [(source, source, REAL) for source in chosen]
    for source in chosen:
        for level in levels:
            first = min(by_slot[source, level], key=lambda sample: digest("validation", seed, sample))
            rows.append((first, source, level))
    schema = dict(sample_id=pl.String, source_id=pl.String, image_guidance=pl.Int64)
    frame = pl.DataFrame(rows, schema=schema, orient="row").join(hard, on="source_id")
    return frame.select("sample_id", "source_id", "label", "class_name", "image_guidance")


# ---------------------------------------------------------------------------------------------------------------------
# Progress


def complete_epochs(feedback: pl.DataFrame, samples: set[str], trial: str, epochs: int) -> dict[int, dict[str, float]]:
    """The gain of each validation sample, in the epochs that have all of them and so do all epochs before.

    `feedback` is that of one curriculum. Nothing is complete if there is nothing to measure.
    """
    measured: dict[tuple[int, str], dict[str, float]] = {}
    rows = feedback.filter(pl.col("trial") == trial).select("epoch", "phase", "sample_id", "probability")
    for epoch, phase, sample, probability in rows.iter_rows():
        measured.setdefault((epoch, phase), {})[sample] = probability
    gains: dict[int, dict[str, float]] = {}
    for epoch in range(epochs if samples else 0):
        before, after = (measured.get((epoch, phase), {}) for phase in ("before", "after"))
        if not samples <= before.keys() & after.keys():
            break
        gains[epoch] = {sample: after[sample] - before[sample] for sample in samples}
    return gains


def gain_of(differences: list[float]) -> tuple[int, int, float, float | None]:
    """How many there are, how many of them are outliers, and the mean of the others with its standard error.

    Outliers are more than 1.5 interquartile ranges outside of the quartiles. A single number has no standard error.
    """
    values = np.array(differences)
    low, high = np.percentile(values, [25, 75])
    reach = 1.5 * (high - low)
    inside = values[(values >= low - reach) & (values <= high + reach)]
    error = round(inside.std(ddof=1) / math.sqrt(inside.size), GAIN_DIGITS) if inside.size > 1 else None
    return values.size, values.size - inside.size, round(float(inside.mean()), GAIN_DIGITS), error


def most(gains: dict[int, float]) -> int:
    """The level that gained most; of equal ones the lowest."""
    return max(gains, key=lambda level: (gains[level], -level))


def least(gains: dict[int, float]) -> int:
    """The level that gained least; of equal ones the lowest."""
    return min(gains, key=lambda level: (gains[level], level))


def progress(
    feedback: pl.DataFrame,
    measured_on: pl.DataFrame,
    curriculum: str,
    trials: list[str],
    epochs: int,
    levels: list[int],
) -> pl.DataFrame:
    """What each level gained, over all classes (`label` NULL) and for each class, and which one is chosen."""
    compared = measured_on.filter(pl.col("image_guidance").is_in(levels))
    samples = compared.select("sample_id", "label", "image_guidance").rows()
    everything = set(measured_on["sample_id"])
    ours, rows = feedback.filter(pl.col("curriculum") == curriculum), []
    for trial in trials:
        for epoch, gains in complete_epochs(ours, everything, trial, epochs).items():
            for label in [None, *sorted({label for _, label, _ in samples})]:
                of_level: dict[int, list[float]] = {}
                for sample, its_label, level in samples:
                    if label is None or label == its_label:
                        of_level.setdefault(level, []).append(gains[sample])
                results = {level: gain_of(found) for level, found in sorted(of_level.items())}
                chosen = most({level: found[2] for level, found in results.items()})
                key = (curriculum, trial, epoch, label)
                rows += [(*key, level, *found, level == chosen) for level, found in results.items()]
    schema = dict(
        curriculum=pl.String, trial=pl.String, epoch=pl.Int64, label=pl.Int64, image_guidance=pl.Int64,
        samples=pl.Int64, outliers=pl.Int64, gain=pl.Float64, standard_error=pl.Float64, chosen=pl.Boolean,
    )  # fmt: skip
    return pl.DataFrame(rows, schema=schema, orient="row")


# ---------------------------------------------------------------------------------------------------------------------
# Schedules


@dataclass(frozen=True)
class Course:
    """What a strategy decides on, for one trial."""

    levels: list[int]  # ascending
    epochs: int
    curriculum_epochs: int
    seed: int
    trial: str
    level: int | None  # of the strategy `fixed`
    exploration: float
    hard_labels: list[int]
    progress: pl.DataFrame  # of this trial

    def stages(self, count: int) -> list[range]:
        """The curriculum's epochs in equal parts; the first ones have one more where there is a remainder."""
        size, rest = divmod(self.curriculum_epochs, count)
        borders = [size * stage + min(stage, rest) for stage in range(count + 1)]
        return [range(a, b) for a, b in zip(borders, borders[1:])]

    def measured_epochs(self) -> list[int]:
        return sorted(self.progress["epoch"].unique())

    def gains(self, epoch: int, label: int | None) -> dict[int, float]:
        """The gain of each level in an epoch, over all classes or in one."""
        rows = self.progress.filter(pl.col("epoch") == epoch, pl.col("label").eq_missing(label))
        return dict(rows.select("image_guidance", "gain").sort("image_guidance").iter_rows())

    def drawn(self, tag: str, epoch: int, *label: int) -> int:
        return self.levels[draw(len(self.levels), tag, self.seed, self.trial, epoch, *label)]

    def explored(self, epoch: int, *label: int) -> int | None:
        """The drawn level of an epoch that explores."""
        drawn = draw(MILLION, "explore", self.seed, self.trial, epoch, *label)
        return self.drawn("explored", epoch, *label) if drawn < MILLION * exact(self.exploration) else None

    def each(self, level_of: Callable[[int], int]) -> list[Epoch]:
        """A level for each epoch of the curriculum; each epoch is its own stage."""
        return [Epoch(epoch, epoch, level_of(epoch)) for epoch in range(self.curriculum_epochs)]

    def always(self, levels: list[int]) -> list[Epoch]:
        return [Epoch(epoch, 0, level) for epoch in range(self.curriculum_epochs) for level in levels]


def one_by_one(course: Course, levels: list[int]) -> list[Epoch]:
    spans = course.stages(len(levels))
    return [Epoch(epoch, stage, levels[stage]) for stage, span in enumerate(spans) for epoch in span]


def shrink(course: Course) -> list[Epoch]:
    spans = course.stages(len(course.levels))
    return [
        Epoch(epoch, stage, level)
        for stage, span in enumerate(spans)
        for epoch in span
        for level in course.levels[stage:]
    ]


def recursive(course: Course) -> list[Epoch]:
    there_and_back = course.levels + course.levels[-2:0:-1]
    return course.each(lambda epoch: there_and_back[epoch % len(there_and_back)])


def adaptive(course: Course) -> list[Epoch]:
    rows = []
    for epoch in course.measured_epochs():
        explored = course.explored(epoch)
        rows.append(Epoch(epoch, epoch, most(course.gains(epoch, None)) if explored is None else explored))
    return rows


def adaptive_by_class(course: Course) -> list[Epoch]:
    rows = []
    for epoch in course.measured_epochs():
        for label in course.hard_labels:
            explored = course.explored(epoch, label)
            gains = course.gains(epoch, label) or course.gains(epoch, None)
            rows.append(Epoch(epoch, epoch, most(gains) if explored is None else explored, label))
    return rows


def random_choice(course: Course) -> list[Epoch]:
    return [Epoch(epoch, epoch, course.drawn("random_choice", epoch)) for epoch in course.measured_epochs()]


def least_gain(course: Course) -> list[Epoch]:
    return [Epoch(epoch, epoch, least(course.gains(epoch, None))) for epoch in course.measured_epochs()]


# The epochs of the curriculum, and the number of the stage after them.
STRATEGIES: dict[str, Callable[[Course], tuple[list[Epoch], int]]] = {
    "diverse_to_specific": lambda c: (one_by_one(c, c.levels), len(c.levels)),
    "specific_to_diverse": lambda c: (one_by_one(c, c.levels[::-1]), len(c.levels)),
    "shrink": lambda c: (shrink(c), len(c.levels)),
    "recursive": lambda c: (recursive(c), c.curriculum_epochs),
    "random": lambda c: (c.each(lambda epoch: c.drawn("level", epoch)), c.curriculum_epochs),
    "all_levels": lambda c: (c.always(c.levels), 1),
    "fixed": lambda c: (c.always([c.level]), 1),
    "text_only": lambda c: (c.always([0]), 1),
    "real_only": lambda c: (c.always([REAL]), 0),
    "adaptive": lambda c: (adaptive(c), c.curriculum_epochs),
    "adaptive_by_class": lambda c: (adaptive_by_class(c), c.curriculum_epochs),
    "random_choice": lambda c: (random_choice(c), c.curriculum_epochs),
    "least_gain": lambda c: (least_gain(c), c.curriculum_epochs),
}


def schedule(strategy: str, course: Course) -> list[Epoch]:
    """The levels of every epoch that is decided. After the curriculum there are real images alone."""
    rows, last_stage = STRATEGIES[strategy](course)
    return rows + [Epoch(epoch, last_stage, REAL) for epoch in range(course.curriculum_epochs, course.epochs)]
