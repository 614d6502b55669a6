"""What all peers share: the command line, the two ways to process a job file, and the result.

Not a script: `released.py`, `batched.py` and `torch_diffusers.py` use it.
"""

import argparse
import io
import json
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from PIL import Image

from jobs import Job, Work, read


@dataclass(frozen=True)
class Order:
    """One image: a job, and how often it was tried before."""

    job: Job
    attempt: int = 0


class Maker(Protocol):
    """A way to generate and score images."""

    def make(self, orders: list[Order]) -> list[Image.Image]:
        """Images; orders given together are of one strength."""

    def score(self, orders: list[Order], images: list[Image.Image]) -> list[float]:
        """The similarity of each image to its filter prompt."""

    def figures(self) -> dict[str, float]:
        """Further figures of the result."""


@dataclass
class Result:
    """What a run did and how long it took."""

    images: int = 0
    accepted: int = 0
    unet_evaluations: int = 0
    load_seconds: float = 0.0
    seconds: float = 0.0
    files: dict[str, bytes] = field(default_factory=dict, repr=False)

    def keep(self, work: Work, order: Order, image: Image.Image) -> None:
        """Counts an image, and keeps its PNG in memory."""
        file = io.BytesIO()
        image.save(file, "png")
        job = order.job
        name = f"{Path(job.source).stem}_{job.image_guidance}_{job.seed}_{order.attempt}.png"
        self.files[name] = file.getvalue()
        self.images += 1
        self.unet_evaluations += work.evaluations(job)


def one_by_one(work: Work, maker: Maker, steady: bool) -> Result:
    """One image at a time: scored immediately, and generated again for as long as it scores too low."""
    result = Result()
    for job in work.jobs:
        for attempt in range(1 if steady else work.settings.max_attempts):
            order = Order(job, attempt)
            images = maker.make([order])
            result.keep(work, order, images[0])
            if not steady and maker.score([order], images)[0] >= work.settings.min_text_similarity:
                result.accepted += 1
                break
    return result


def buckets(work: Work, orders: list[Order]) -> Iterator[list[Order]]:
    """Orders whose samples may share a batch: of equal strength and equal size."""
    sizes = {id: source.open().size for id, source in work.sources.items()}
    together = defaultdict(list)
    for order in orders:
        together[work.timesteps_run(order.job), sizes[order.job.source]].append(order)
    yield from together.values()


Batches = list[list[Order]]
Over = Callable[[Callable[[list[Order]], list[Image.Image]], Batches], Iterable[list[Image.Image]]]


def in_rounds(work: Work, maker: Maker, steady: bool, batch: int, over: Over = map) -> Result:
    """Full batches of equal strength; each strength is scored when it is made; what failed is the next round.

    `over` applies a function to all batches, in order: `map`, or that of a pool of threads.
    """
    result = Result()
    orders = [Order(job) for job in work.jobs]
    while orders:
        again = []
        for bucket in buckets(work, orders):
            batches = [bucket[start : start + batch] for start in range(0, len(bucket), batch)]
            images = [image for made in over(maker.make, batches) for image in made]
            for order, image in zip(bucket, images, strict=True):
                result.keep(work, order, image)
            if steady:
                continue
            for order, score in zip(bucket, maker.score(bucket, images), strict=True):
                if score >= work.settings.min_text_similarity:
                    result.accepted += 1
                elif order.attempt + 1 < work.settings.max_attempts:
                    again.append(Order(order.job, order.attempt + 1))
        orders = again
    return result


def parser(description: str) -> argparse.ArgumentParser:
    """The arguments of all peers."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("jobs", type=Path, help="a file by jobs.py")
    parser.add_argument("--mode", choices=["job", "steady"], default="job", help="steady: no scores and no retries")
    parser.add_argument("--threads", type=int, default=1, help="cores that one operator may use")
    parser.add_argument("--keep", type=Path, help="a folder for the images")
    return parser


def measure(arguments: argparse.Namespace, load: Callable[[Work], Maker], run: Callable[[Work, Maker], Result]) -> None:
    """Loads, runs, and prints the result as a line of JSON."""
    work = read(arguments.jobs)
    start = time.perf_counter()
    maker = load(work)
    loaded = time.perf_counter()
    result = run(work, maker)
    result.seconds = time.perf_counter() - loaded
    result.load_seconds = loaded - start
    if arguments.keep:
        arguments.keep.mkdir(parents=True, exist_ok=True)
        for name, file in result.files.items():
            (arguments.keep / name).write_bytes(file)
    figures = {name: value for name, value in vars(result).items() if name != "files"}
    print(json.dumps(figures | maker.figures()))
