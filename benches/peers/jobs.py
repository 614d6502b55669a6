"""Writes the images that a pipeline needs to a job file, which every peer reads.

    python jobs.py PIPELINE OUT [--set KEY=VALUE ...]

Run it where `discl-pipe` would be run: relative paths in the pipeline start there. `--set` edits the pipeline as
`discl-pipe --set` does. The file has one JSON object per line: the settings, then the sources, then the jobs.
A source is a training image of a class with fewer than `hard_samples.max_class_count` of them.
"""

import argparse
import base64
import dataclasses
import hashlib
import io
import json
import tomllib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from PIL import Image


@dataclass(frozen=True)
class Settings:
    """What is the same for all jobs."""

    diffusion: str
    clip: str
    timesteps: int
    guidance_scale: float
    scheduler: str
    negative_prompt: str
    min_text_similarity: float
    max_attempts: int


@dataclass(frozen=True)
class Source:
    """A real image: its file, in base64."""

    id: str
    class_name: str
    file: str

    def open(self) -> Image.Image:
        return Image.open(io.BytesIO(base64.b64decode(self.file))).convert("RGB")


@dataclass(frozen=True)
class Job:
    """An image to generate, again for as long as it scores too low."""

    source: str
    image_guidance: int
    seed: int
    prompt: str
    filter_prompt: str

    def noise_seed(self, attempt: int) -> int:
        """A noise seed below 2^63, different for each attempt."""
        text = f"{self.source}/{self.image_guidance}/{self.seed}/{attempt}"
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]) >> 1

    def draws(self, attempt: int, shape: tuple[int, ...]) -> np.ndarray:
        """Standard normals, [2, *shape]: for the posterior of the VAE, and the noise that is mixed in."""
        random = np.random.Generator(np.random.Philox(self.noise_seed(attempt)))
        return random.standard_normal((2, *shape), dtype=np.float32)


@dataclass(frozen=True)
class Work:
    """A job file."""

    settings: Settings
    sources: dict[str, Source]
    jobs: list[Job]

    def timesteps_run(self, job: Job) -> int:
        """The strength of a job, in timesteps."""
        return self.settings.timesteps * (100 - job.image_guidance) // 100

    def evaluations(self, job: Job) -> int:
        """Rows of the UNet for one image of a job."""
        return self.timesteps_run(job) * (2 if self.settings.guidance_scale > 1 else 1)


def read(file: Path) -> Work:
    """Reads a job file."""
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    sources = [Source(**line["source"]) for line in lines if "source" in line]
    jobs = [Job(**line["job"]) for line in lines if "job" in line]
    return Work(Settings(**lines[0]["settings"]), {source.id: source for source in sources}, jobs)


def pipeline(file: Path, edits: list[str]) -> dict:
    """A pipeline's TOML, edited."""
    tree = tomllib.loads(file.read_text())
    for edit in edits:
        key, value = edit.split("=", 1)
        *parents, last = key.split(".")
        section = tree
        for parent in parents:
            section = section.setdefault(parent, {})
        section[last] = tomllib.loads(f"value = {value}")["value"]
    return tree


def hard_sources(tree: dict) -> Iterator[Source]:
    """The training images of rare classes, in the order of the files."""
    source = tree["source"]
    splits = source["splits"]["train"]
    for name in [splits] if isinstance(splits, str) else splits:
        table = pq.read_table(Path(source["root"]) / name)
        names = json.loads(table.schema.metadata[b"huggingface"])["info"]["features"]["label"]["names"]
        rows = table.to_pylist()
        counts = Counter(row["label"] for row in rows)
        for row in rows:
            if counts[row["label"]] < tree["hard_samples"]["max_class_count"]:
                file = base64.b64encode(row["image"]["bytes"]).decode()
                yield Source(row["image"]["path"], names[row["label"]], file)


def scheduler_of(bundle: Path) -> str:
    """The name of the model's own scheduler."""
    kind = json.loads((bundle / "scheduler/scheduler_config.json").read_text())["_class_name"]
    return {"DDIMScheduler": "ddim", "EulerDiscreteScheduler": "euler"}[kind]


def work_of(tree: dict) -> Work:
    """Everything that a pipeline needs."""
    spectrum, prompts = tree["spectrum"], tree["prompts"]
    diffusion, clip = (Path(tree["models"][kind]).resolve() for kind in ["diffusion", "clip"])
    if "{description}" in prompts["generation"]:
        raise ValueError("prompts with a {description} are not supported here")
    settings = Settings(
        diffusion=str(diffusion),
        clip=str(clip),
        timesteps=spectrum["timesteps"],
        guidance_scale=spectrum["guidance_scale"],
        scheduler=spectrum.get("scheduler") or scheduler_of(diffusion),
        negative_prompt=spectrum.get("negative_prompt", ""),
        min_text_similarity=tree["filter"]["min_text_similarity"],
        max_attempts=tree["filter"]["max_attempts"],
    )
    sources = list(hard_sources(tree))
    jobs = [
        Job(
            source.id,
            image_guidance,
            seed,
            prompts["generation"].replace("{class}", source.class_name),
            prompts["filter"].replace("{class}", source.class_name),
        )
        for source in sources
        for image_guidance in spectrum["image_guidance"]
        for seed in spectrum["seeds"]
    ]
    return Work(settings, {source.id: source for source in sources}, jobs)


def write(work: Work, file: Path) -> None:
    """Writes a job file."""
    lines = [{"settings": dataclasses.asdict(work.settings)}]
    lines += [{"source": dataclasses.asdict(source)} for source in work.sources.values()]
    lines += [{"job": dataclasses.asdict(job)} for job in work.jobs]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pipeline", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="edits")
    arguments = parser.parse_args()
    work = work_of(pipeline(arguments.pipeline, arguments.edits))
    write(work, arguments.out)
    rows = sum(work.evaluations(job) for job in work.jobs)
    print(f"{arguments.out}: {len(work.sources)} sources, {len(work.jobs)} jobs, {rows} UNet evaluations at least")


if __name__ == "__main__":
    main()
