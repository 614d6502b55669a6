"""The method a second time, continued: which images an epoch trains on, and in which order."""

import math
from dataclasses import dataclass, replace

import polars as pl

from method import EASY, HARD_ONCE, REAL, Epoch, digest, exact


@dataclass(frozen=True)
class Mix:
    """The settings of an epoch's images."""

    seed: int
    non_hard_fraction: float
    hard_share: float | None
    synthetic_per_hard: float | None
    class_balanced: bool

    def non_hard(self, easy: int) -> int:
        return math.floor(exact(self.non_hard_fraction) * easy)

    def drawn(self, hard: int, easy: int) -> int:
        """How many images an epoch draws from its pool, when it has each of `hard` images once."""
        if self.synthetic_per_hard is not None:
            return math.floor(exact(self.synthetic_per_hard) * hard)
        share = exact(self.hard_share)
        return max(math.floor(share / (1 - share) * self.non_hard(easy)) - hard, 0)


@dataclass(frozen=True)
class Row:
    """A row of an epoch; `repeat` tells apart the rows of one image, and has a part in its position."""

    sample_id: str
    source_id: str
    label: int
    origin: str
    level: int = REAL
    seed: int | None = None
    attempt: int | None = None
    prompt: str | None = None
    repeat: int = EASY


@dataclass(frozen=True)
class Images:
    """What epochs are made of: nothing of the validation set is among it."""

    hard: list[Row]
    easy: list[Row]
    kept: list[Row]

    def of(self, level: int) -> list[Row]:
        return self.hard if level == REAL else [row for row in self.kept if row.level == level]


def trainable(train: pl.DataFrame, hard: pl.DataFrame, kept: pl.DataFrame, held_out: pl.DataFrame) -> Images:
    """The training images, hard or not, and the kept ones, without every image of a source that is held out."""
    hard_ids, out = set(hard["source_id"]), set(held_out["source_id"])
    real = [row for row in train.select("source_id", "label").iter_rows() if row[0] not in out]
    columns = ["sample_id", "source_id", "label", "image_guidance", "seed", "attempt", "prompt"]
    synthetic = [row for row in kept.select(columns).iter_rows() if row[1] not in out]
    return Images(
        hard=[Row(source, source, label, "hard") for source, label in real if source in hard_ids],
        easy=[Row(source, source, label, "non_hard") for source, label in real if source not in hard_ids],
        kept=[Row(sample, source, label, "synthetic", *rest) for sample, source, label, *rest in synthetic],
    )


def non_hard_of(images: Images, mix: Mix, trial: str, epoch: int) -> list[Row]:
    """The easy images of an epoch, drawn anew for each, none of them twice."""
    order = sorted(images.easy, key=lambda row: digest("non_hard", mix.seed, trial, epoch, row.source_id))
    return order[: mix.non_hard(len(images.easy))]


def pool_of(images: Images, levels: list[Epoch]) -> list[Row]:
    """The images that an epoch draws from: of its levels, and of the classes for which it has them."""
    return [row for at in levels for row in images.of(at.level) if at.label in (None, row.label)]


def repeated(pool: list[Row], wanted: int, mix: Mix, trial: str, epoch: int) -> list[Row]:
    """`wanted` draws: the whole pool over and over, then a part of it."""
    order = sorted(pool, key=lambda row: digest("synthetic", mix.seed, trial, epoch, row.sample_id))
    return [replace(order[i % len(order)], repeat=i // len(order)) for i in range(wanted)]


def drawn_of(images: Images, mix: Mix, trial: str, epoch: int, levels: list[Epoch]) -> list[Row]:
    """What an epoch draws: from its whole pool, or equally from each class in it.

    What cannot be divided equally goes to other classes in each epoch, in turn. A pool without images gives nothing.
    """
    pool = pool_of(images, levels)
    wanted = mix.drawn(len(images.hard), len(images.easy))
    labels = sorted({row.label for row in pool}) if mix.class_balanced else [None]
    if not pool:
        return []
    share, rest = divmod(wanted, len(labels))
    rows = []
    for number, label in enumerate(labels):
        extra = (number - epoch * rest) % len(labels) < rest
        part = [row for row in pool if label in (None, row.label)]
        rows += repeated(part, share + extra, mix, trial, epoch)
    return rows


def mixed(images: Images, mix: Mix, trial: str, epoch: int, levels: list[Epoch]) -> list[Row]:
    """`manifest/mixed.sql`: easy images, every hard one once, and draws up to the share of hard ones; in order."""
    once = [replace(row, repeat=HARD_ONCE) for row in images.hard]
    rows = non_hard_of(images, mix, trial, epoch) + once + drawn_of(images, mix, trial, epoch, levels)
    return sorted(rows, key=lambda row: digest("position", mix.seed, trial, epoch, row.sample_id, row.repeat))


def low_quality(images: Images, mix: Mix, trial: str, epoch: int, levels: list[Epoch]) -> list[Row]:
    """`manifest/low_quality.sql`: easy images, and every image of the epoch's levels once; in order."""
    rows = non_hard_of(images, mix, trial, epoch) + pool_of(images, levels)
    return sorted(rows, key=lambda row: digest("position", mix.seed, trial, epoch, row.sample_id))


MANIFESTS = {"manifest/mixed.sql": mixed, "manifest/low_quality.sql": low_quality}


def probe(images: Images, size: int, seed: int, trial: str, epoch: int) -> list[Row]:
    """Real images to train on between two measurements: `size` of all that may be trained on, in order."""
    order = sorted(images.hard + images.easy, key=lambda row: digest("probe", seed, trial, epoch, row.source_id))
    return order[:size]
