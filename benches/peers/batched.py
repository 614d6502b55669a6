"""The best batched loop that one would write by hand, on ONNX Runtime.

    python batched.py JOBS [--mode steady] [--threads N] [--batch 8] [--decode-batch 1] [--workers 1] [--spin]

Prompts and sources are encoded once. Images of equal strength and size share full batches, and are scored in batches
when their strength is made; those that score too low are the next round. Nothing overlaps, unless `--workers` lets
several batches of a strength run side by side in threads (the runtime lets go of Python's lock).
"""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

import peer
from jobs import Work
from onnx_models import Clip, Diffusion, Sessions
from peer import Order, Result
from schedulers import scheduler

CLIP_ROWS = 32
"""Images in one call of the CLIP."""


class Batched:
    """Encodes each text and each source once, before the first batch."""

    def __init__(self, work: Work, sessions: Sessions, decode_batch: int) -> None:
        self.work, self.settings, self.sessions, self.decode_batch = work, work.settings, sessions, decode_batch
        bundle = Path(self.settings.diffusion)
        self.diffusion, self.clip = Diffusion(sessions, bundle), Clip(sessions, Path(self.settings.clip))
        self.scheduler = scheduler(bundle, self.settings.scheduler, self.settings.timesteps)

    def encode(self, with_scores: bool) -> None:
        """Everything that several images share; embeddings only if there will be scores."""
        images = {id: source.open() for id, source in self.work.sources.items()}
        prompts = sorted({job.prompt for job in self.work.jobs})
        self.negative = self.diffusion.encode_prompts([self.settings.negative_prompt])
        self.prompts = dict(zip(prompts, self.diffusion.encode_prompts(prompts), strict=True))
        self.posteriors = {id: self.diffusion.encode_image(image) for id, image in images.items()}
        if with_scores:
            wanted = sorted({job.filter_prompt for job in self.work.jobs})
            self.wanted = dict(zip(wanted, self.clip.embed_texts(wanted), strict=True))
            self.originals = dict(zip(images, self.embed(list(images.values())), strict=True))

    def embed(self, images: list[Image.Image]) -> np.ndarray:
        """Embeddings of images, in batches."""
        parts = [images[start : start + CLIP_ROWS] for start in range(0, len(images), CLIP_ROWS)]
        return np.concatenate([self.clip.embed_images(part) for part in parts])

    def start(self, order: Order, first: int) -> np.ndarray:
        """The noisy latents that an image starts from."""
        mean, deviation = self.posteriors[order.job.source]
        posterior, noise = order.job.draws(order.attempt, mean.shape)
        return self.scheduler.add_noise((mean + deviation * posterior) * self.diffusion.scale, noise, first)

    def make(self, orders: list[Order]) -> list[Image.Image]:
        first = self.settings.timesteps - self.work.timesteps_run(orders[0].job)
        latents = np.stack([self.start(order, first) for order in orders])
        prompts = np.stack([self.prompts[order.job.prompt] for order in orders])
        scale = self.settings.guidance_scale
        latents = self.diffusion.denoise(self.scheduler, latents, first, prompts, self.negative, scale)
        parts = [latents[start : start + self.decode_batch] for start in range(0, len(latents), self.decode_batch)]
        return [image for part in parts for image in self.diffusion.decode(part)]

    def score(self, orders: list[Order], images: list[Image.Image]) -> list[float]:
        made = self.embed(images)
        _to_source = (made * np.stack([self.originals[order.job.source] for order in orders])).sum(1)
        return (made * np.stack([self.wanted[order.job.filter_prompt] for order in orders])).sum(1).tolist()

    def figures(self) -> dict[str, float]:
        return {"model_seconds": self.sessions.seconds}


def main() -> None:
    parser = peer.parser(__doc__)
    parser.add_argument("--spin", action="store_true", help="idle threads spin, the runtime's default")
    parser.add_argument("--batch", type=int, default=8, help="samples in one call of the UNet")
    parser.add_argument("--decode-batch", type=int, default=1, help="samples in one call of the VAE's decoder")
    parser.add_argument("--workers", type=int, default=1, help="batches that run in parallel")
    arguments = parser.parse_args()
    steady = arguments.mode == "steady"

    def run(work: Work, maker: Batched) -> Result:
        maker.encode(with_scores=not steady)
        if arguments.workers == 1:
            return peer.in_rounds(work, maker, steady, arguments.batch)
        with ThreadPoolExecutor(arguments.workers) as pool:
            return peer.in_rounds(work, maker, steady, arguments.batch, pool.map)

    peer.measure(
        arguments,
        lambda work: Batched(work, Sessions(arguments.threads, arguments.spin), arguments.decode_batch),
        run,
    )


if __name__ == "__main__":
    main()
