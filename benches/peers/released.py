"""The procedure of the method's released code, on ONNX Runtime: one image at a time.

    python released.py JOBS [--mode steady] [--threads N] [--spin]

For each image the prompt, the negative prompt and the source are encoded again; the UNet runs on two rows, without
and with the prompt; the image is scored by itself, which embeds its text and the real image again, and is at once
made again while it scores too low.
"""

from pathlib import Path

from PIL import Image

import peer
from jobs import Work
from onnx_models import Clip, Diffusion, Sessions
from peer import Order, Result
from schedulers import scheduler


class Released:
    """Keeps nothing from one image to the next."""

    def __init__(self, work: Work, sessions: Sessions) -> None:
        self.work, self.settings, self.sessions = work, work.settings, sessions
        bundle = Path(self.settings.diffusion)
        self.diffusion, self.clip = Diffusion(sessions, bundle), Clip(sessions, Path(self.settings.clip))
        self.scheduler = scheduler(bundle, self.settings.scheduler, self.settings.timesteps)

    def make(self, orders: list[Order]) -> list[Image.Image]:
        (order,) = orders
        job, settings, diffusion = order.job, self.settings, self.diffusion
        prompt = diffusion.encode_prompts([job.prompt])
        negative = diffusion.encode_prompts([settings.negative_prompt])
        mean, deviation = diffusion.encode_image(self.work.sources[job.source].open())
        posterior, noise = job.draws(order.attempt, mean.shape)
        first = settings.timesteps - self.work.timesteps_run(job)
        latents = self.scheduler.add_noise((mean + deviation * posterior) * diffusion.scale, noise, first)[None]
        latents = diffusion.denoise(self.scheduler, latents, first, prompt, negative, settings.guidance_scale)
        return diffusion.decode(latents)

    def score(self, orders: list[Order], images: list[Image.Image]) -> list[float]:
        (order,) = orders
        text = self.clip.embed_texts([order.job.filter_prompt])[0]
        made = self.clip.embed_images(images)[0]
        _to_source = made @ self.clip.embed_images([self.work.sources[order.job.source].open()])[0]
        return [float(made @ text)]

    def figures(self) -> dict[str, float]:
        return {"model_seconds": self.sessions.seconds}


def main() -> None:
    parser = peer.parser(__doc__)
    parser.add_argument("--spin", action="store_true", help="idle threads spin, the runtime's default")
    arguments = parser.parse_args()

    def run(work: Work, maker: Released) -> Result:
        return peer.one_by_one(work, maker, arguments.mode == "steady")

    peer.measure(
        arguments,
        lambda work: Released(work, Sessions(arguments.threads, arguments.spin)),
        run,
    )


if __name__ == "__main__":
    main()
