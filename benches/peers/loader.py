"""How many images a second a trainer gets in manifest order from a lake, next to torchvision's `ImageFolder`.

    pip install torch torchvision deltalake pyarrow pillow
    python benches/peers/loader.py LAKE/NAME EXPORT/epoch_0000 CACHE [--workers 2] [--batch 64] [--rounds 3]

LAKE/NAME is a lake whose epoch 0 was exported with `--as imagefolder --epoch 0` to a local folder: both read the same
images. The lake may be in S3, with the credentials and endpoint in AWS's variables. Rounds are interleaved. `warm`
reads the cache that an earlier epoch filled; `cold` begins with an empty one, and its clock runs while it is filled.
`ImageFolder` goes in its own order, class by class.
"""

import argparse
import shutil
import statistics
import sys
import time
from pathlib import Path

import torch
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "examples" / "pytorch"))

from loader import Lake, ResumableSampler  # noqa: E402


def drain(data: torch.utils.data.Dataset, known: argparse.Namespace, sampler: ResumableSampler | None = None) -> int:
    """Reads an epoch as a trainer would; returns the number of images."""
    loader = torch.utils.data.DataLoader(data, known.batch, sampler=sampler, num_workers=known.workers)
    return sum(len(labels) for _, labels in loader)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables")
    parser.add_argument("folder", type=Path)
    parser.add_argument("cache", type=Path)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--side", type=int, default=224, help="of the crop that the trainer sees")
    known = parser.parse_args()
    crop = v2.Compose([v2.PILToTensor(), v2.CenterCrop(known.side)])
    rates: dict[str, list[float]] = {"ImageFolder": [], "warm": [], "cold": []}

    def timed(name: str, work: object) -> None:
        started = time.perf_counter()
        rows = work()
        rates[name].append(rows / (time.perf_counter() - started))
        print(f"{name}: {rows} images, {rates[name][-1]:.0f} a second", flush=True)

    def manifest() -> int:
        rows, sampler = Lake(known.tables, known.cache).epoch(0, crop), ResumableSampler()
        sampler.set_epoch(0, len(rows))
        return drain(rows, known, sampler)

    for round_ in range(known.rounds + 1):
        if round_ == 1:
            rates = {name: [] for name in rates}  # The first round loads everything into memory.
        timed("ImageFolder", lambda: drain(ImageFolder(known.folder, crop, allow_empty=True), known))
        shutil.rmtree(known.cache, ignore_errors=True)
        timed("cold", manifest)
        timed("warm", manifest)
    peer = statistics.median(rates["ImageFolder"])
    for name, found in rates.items():
        median = statistics.median(found)
        print(f"| {name} | {min(found):.0f} | {median:.0f} | {max(found):.0f} | {median / peer:.2f} |")


if __name__ == "__main__":
    main()
