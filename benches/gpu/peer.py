"""What torch reaches on the same GPU, for `check.py`; prints one line of JSON.

python peer.py ceilings                # large products and copies in half precision
python peer.py unet FOLDER PIXELS      # diffusers' UNet with the config.json of FOLDER and random weights
"""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

ROWS = 16
"""A batch of eight images with guidance."""


def seconds(run: Callable[[], object], repeats: int) -> float:
    """Of one call, after three that do not count."""
    for _ in range(3):
        run()
    torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(repeats):
        run()
    torch.cuda.synchronize()
    return (time.perf_counter() - start) / repeats


def ceilings() -> dict[str, Any]:
    side, options = 8192, {"device": "cuda", "dtype": torch.float16}
    a, b = torch.randn(side, side, **options), torch.randn(side, side, **options)
    source = torch.empty(1 << 30, dtype=torch.uint8, device="cuda")
    return {
        "TFLOP/s of products": round(2 * side**3 / seconds(lambda: a @ b, 20) / 1e12, 1),
        "GB/s of copies": round(2 * source.nbytes / seconds(source.clone, 10) / 1e9),
        "torch": torch.__version__,
    }


def unet(folder: Path, pixels: int) -> dict[str, Any]:
    from diffusers import UNet2DConditionModel

    config = json.loads((folder / "config.json").read_text())
    costs = config.pop("flops_per_evaluation")
    with torch.device("meta"):
        model = UNet2DConditionModel.from_config(config)
    model = model.half().to_empty(device="cuda").to(memory_format=torch.channels_last).eval()
    for weight in model.parameters():
        weight.normal_(0, 0.02)
    options = {"device": "cuda", "dtype": torch.float16}
    sample = torch.randn(ROWS, config["in_channels"], pixels // 8, pixels // 8, **options)
    hidden = torch.randn(ROWS, costs["tokens"], config["cross_attention_dim"], **options)
    added = {}
    if config.get("addition_embed_type") == "text_time":
        pooled = config["cross_attention_dim"]
        ids = (config["projection_class_embeddings_input_dim"] - pooled) // config["addition_time_embed_dim"]
        added = {
            "text_embeds": torch.randn(ROWS, pooled, **options),
            "time_ids": torch.full((ROWS, ids), 8.0, **options),
        }
    steps = torch.full((ROWS,), 501.0, device="cuda")
    taken = seconds(lambda: model(sample, steps, hidden, added_cond_kwargs=added), 10)
    constant, linear, square = costs["polynomial"]
    latents = (pixels // 8) ** 2
    flops = ROWS * (constant + linear * latents + square * latents**2)
    return {
        "rows": ROWS,
        "ms": round(1000 * taken, 1),
        "UNet rows/s": round(ROWS / taken, 1),
        "TFLOP/s": round(flops / taken / 1e12, 1),
        "peak MiB": torch.cuda.max_memory_allocated() >> 20,
    }


if __name__ == "__main__":
    with torch.no_grad():
        made = ceilings() if sys.argv[1] == "ceilings" else unet(Path(sys.argv[2]), int(sys.argv[3]))
    print(json.dumps(made))
