"""Memory and time of a large ingest: many images of 100 kB from Parquet files into a lake, candidates and manifest.

    pip install numpy pillow pyarrow
    python benches/ingest.py target/release/discl-pipe FOLDER [--images 100000]

FOLDER takes about 200 kB for each image, half of it for the source and half for the lake, and is emptied first. The
images are noise, so that nothing compresses; the few hard ones are kept unchanged (level 100), so that no diffusion
model runs. Queries have 1 GiB. Prints one line of JSON: the seconds of each step and the peak memory in MiB.
"""

import argparse
import io
import json
import shutil
import subprocess
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
SIDE, CLASSES, RARE, PER_FILE = 262, 60, 10, 5000
"""An image of noise with this side is about 100 kB as JPEG; each of the rare classes has ten images."""


def noise_images(count: int) -> list[bytes]:
    """Some images, which every file repeats: memory depends on their bytes, not on their variety."""
    random = np.random.default_rng(0)
    encoded = []
    for _ in range(count):
        file = io.BytesIO()
        Image.fromarray(random.integers(0, 256, (SIDE, SIDE, 3), np.uint8)).save(file, "JPEG", quality=85)
        encoded.append(file.getvalue())
    return encoded


def write_source(folder: Path, images: int) -> list[str]:
    some, files = noise_images(100), []
    for first in range(0, images, PER_FILE):
        rows = range(first, min(first + PER_FILE, images))
        labels = [row // RARE if row < RARE * RARE else RARE + row % (CLASSES - RARE) for row in rows]
        columns = {"image": [{"bytes": some[row % len(some)], "path": None} for row in rows], "label": labels}
        files.append(f"{first:08}.parquet")
        pq.write_table(pa.table(columns), folder / files[-1], row_group_size=100, compression="none", use_dictionary=False)
    return files


def peak_mib(process: subprocess.Popen) -> float:
    """The peak resident memory of a running process, as Linux reports it."""
    peak = 0.0
    while process.poll() is None:
        try:
            status = Path(f"/proc/{process.pid}/status").read_text()
            peak = max(peak, *(int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmHWM:")), 0)
        except OSError:
            pass
        time.sleep(0.1)
    return peak


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=100_000)
    arguments = parser.parse_args()
    shutil.rmtree(arguments.folder, ignore_errors=True)
    (arguments.folder / "data").mkdir(parents=True)
    files = write_source(arguments.folder / "data", arguments.images)
    edits = {
        "source.root": str(arguments.folder / "data"),
        "source.splits": "{train=" + json.dumps(files) + "}",
        "hard_samples.max_class_count": RARE + 1,
        "spectrum.image_guidance": "[100]",
        "spectrum.seeds": "[10]",
        "filter.min_text_similarity": -1,
        "experiment.strategies": "diverse_to_specific",
        "queries.memory_limit_mib": 1024,
    }
    command = [arguments.program, "run", ROOT / "pipelines/digits_lt.toml", "--format", "json"]
    command += ["--lake", arguments.folder / "lake", *(part for key, value in edits.items() for part in ("--set", f"{key}={value}"))]
    started = time.perf_counter()
    process = subprocess.Popen([str(part) for part in command], cwd=ROOT, stdout=subprocess.PIPE)
    peak = peak_mib(process)
    seconds = time.perf_counter() - started
    said = json.loads(process.stdout.read())
    if process.returncode:
        raise SystemExit(json.dumps(said))
    steps = {step["step"]: {"rows": step["rows"], "seconds": round(step["seconds"], 1)} for step in said["steps"]}
    print(json.dumps({"images": arguments.images, "seconds": round(seconds, 1), "peak_mib": round(peak), "steps": steps}))


if __name__ == "__main__":
    main()
