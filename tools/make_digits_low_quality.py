"""Creates `data/digits_low_quality`: real scans of handwritten digits, many of them of poor quality.

    pip install -r tools/requirements.txt
    python tools/make_digits_low_quality.py data/digits_low_quality

The scans are those of `make_digits_lt.py` without the ones that the models in `models/digits` were trained
on. Classes are balanced. Hard images are blurred, noisy, pale or covered, and most are
worse in `shifted_test`. Split 0 is at the top of the folder, `split_1` to `split_4` draw again. With the
pinned versions a second run writes the same bytes; `SHA256SUMS` in the output folder has their digests.

Everything random about an image comes from its own `RandomState([split, scan])`, in this order: its lot,
the kinds, the strength, and what the kinds draw. Neither the order of images nor that of parts matters.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter
from sklearn.datasets import load_digits

from make_digits_lt import FEATURES as PLAIN_FEATURES
from make_digits_lt import REPEATS, SIDE, draw, enlarged, place, row, table, unseen, write

PER_CLASS = {"train": 20, "validation": 10, "test": 20, "shifted_test": 20}
DEGRADED_SHARE = {"train": 0.4, "validation": 0.4, "test": 0.4, "shifted_test": 1.0}
"""The share of degraded images in each class."""
MODERATE = (0.4, 0.7)
"""Strengths are drawn from here, where a person can still read most images."""
STRONG = (0.7, 0.85)
"""Strengths in `shifted_test`."""
PAIR_SHARE = 0.2
"""The share of images in `shifted_test` with two kinds together, of one moderate strength."""
BLUR = 4.5
"""What strength 1 means: the standard deviation in pixels."""
NOISE = 200.0
"""What strength 1 means: the standard deviation in gray levels, where white is 255."""
CONTRAST = 1.1
"""What strength 1 would mean: the share of the contrast that is lost."""
OCCLUSION = 0.5
"""What strength 1 means: the share of the image that is covered."""
FEATURES = PLAIN_FEATURES | {
    "degradation": {"dtype": "string", "_type": "Value"},
    "strength": {"dtype": "float64", "_type": "Value"},
}


def to_image(grey: np.ndarray) -> Image.Image:
    """Grey levels as an image; those beyond black and white are cut off."""
    return Image.fromarray(np.rint(np.clip(grey, 0, 255)).astype(np.uint8))


def blur(image: Image.Image, strength: float, _: np.random.RandomState) -> Image.Image:
    return image.filter(ImageFilter.GaussianBlur(BLUR * strength))


def noise(image: Image.Image, strength: float, random: np.random.RandomState) -> Image.Image:
    return to_image(np.asarray(image) + random.normal(0, NOISE * strength, (SIDE, SIDE)))


def contrast(image: Image.Image, strength: float, random: np.random.RandomState) -> Image.Image:
    """Compresses the gray levels and brightens all of them equally, never beyond white."""
    lost = CONTRAST * strength
    return to_image(np.asarray(image) * (1 - lost) + random.uniform(0, 255 * lost))


def occlusion(image: Image.Image, strength: float, random: np.random.RandomState) -> Image.Image:
    """Covers a rectangle anywhere, at most twice as long as wide or wide as long, in black or some grey."""
    stretch = 2 ** random.uniform(-0.5, 0.5)
    side = SIDE * (OCCLUSION * strength) ** 0.5
    width, height = round(side * stretch), round(side / stretch)
    left, top = random.randint(SIDE - width + 1), random.randint(SIDE - height + 1)
    shade = random.randint(64, 193) * random.randint(2)
    covered = image.copy()
    covered.paste(shade, (left, top, left + width, top + height))
    return covered


KINDS = {"blur": blur, "noise": noise, "contrast": contrast, "occlusion": occlusion}
"""In a pair, the earlier one is applied first."""


def degrade(
    image: Image.Image, shifted: bool, random: np.random.RandomState
) -> tuple[Image.Image, str, float]:
    """The degraded image, what was done to it, and how strongly."""
    pair = shifted and random.uniform() < PAIR_SHARE
    drawn = random.permutation(len(KINDS))[: 2 if pair else 1]
    kinds = [list(KINDS)[kind] for kind in sorted(drawn)]
    strength = random.uniform(*(STRONG if shifted and not pair else MODERATE))
    for kind in kinds:
        image = KINDS[kind](image, strength, random)
    return image, "+".join(kinds), strength


def split(labels: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """A balanced split of the scans that the models were not trained on."""
    counts = {part: [count] * 10 for part, count in PER_CLASS.items()}
    return draw(unseen(labels), labels, counts, list(counts), seed)


def poorest(scans: np.ndarray, labels: np.ndarray, share: float, lots: np.ndarray) -> set[int]:
    """The scans to degrade: of each digit the `share` with the lowest lots."""
    chosen: set[int] = set()
    for digit in range(10):
        own = np.flatnonzero(labels == digit)
        by_lot = own[np.argsort(lots[own])]
        chosen.update(scans[by_lot[: round(share * len(own))]].tolist())
    return chosen


def rows(
    part: str, seed: int, scans: np.ndarray, images: np.ndarray, labels: np.ndarray
) -> Iterator[dict[str, object]]:
    """The rows of one part of one split."""
    streams = [np.random.RandomState([seed, scan]) for scan in scans]
    lots = np.array([random.uniform() for random in streams])
    chosen = poorest(scans, labels[scans], DEGRADED_SHARE[part], lots)
    for index, (scan, random) in enumerate(zip(scans, streams, strict=True)):
        image, degradation, strength = enlarged(images[scan]), "none", None
        if scan in chosen:
            image, degradation, strength = degrade(image, part == "shifted_test", random)
        plain = row(place(part, seed), index, labels[scan], scan, image, "webp")
        yield plain | {"degradation": degradation, "strength": strength}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path, help="folder for the Parquet files and SHA256SUMS")
    out: Path = parser.parse_args().out
    digits = load_digits()
    parts = {}
    for seed in [0, *REPEATS]:
        for part, scans in split(digits.target, seed).items():
            made = rows(part, seed, scans, digits.images, digits.target)
            parts[place(part, seed)] = table(list(made), FEATURES)
    write(out, parts)


if __name__ == "__main__":
    main()
