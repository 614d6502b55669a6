"""Records how transformers' image processors prepare an image, so that another implementation can be compared.

    pip install transformers==5.24.0 pillow==12.3.0 numpy==2.4.6
    python tests/oracle/make_processors.py [--out FILE]

For maintainers: the tests need only the recorded file, by default `tests/fixtures/processors/processors.json`. For each
configuration it has the keys as a model's folder has them, and for each image the shape of the tensor, its sum, and values
at fixed positions. Images are computed from a formula that the test repeats.
"""

import argparse
import json
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

OUT = Path(__file__).resolve().parents[1] / "fixtures" / "processors" / "processors.json"

HALF = [0.5, 0.5, 0.5]
SIZES = [(60, 40), (33, 77), (16, 16)]

# Each is written as some version of transformers writes it.
CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "clip_nulls": {"image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 24}, "crop_size": 24}
    | dict.fromkeys(["do_resize", "do_center_crop", "do_rescale", "do_normalize", "do_convert_rgb", "resample"])
    | dict.fromkeys(["image_mean", "image_std", "rescale_factor", "do_pad", "pad_size", "device"]),
    "clip_integers": {"feature_extractor_type": "CLIPFeatureExtractor", "size": 24, "crop_size": 20, "resample": 3},
    "bit_other_crop": {
        "image_processor_type": "BitImageProcessor",
        "size": {"shortest_edge": 30},
        "crop_size": {"height": 24, "width": 20},
    },
    "vit_fast_nulls": {
        "image_processor_type": "ViTImageProcessorFast",
        "size": {"height": 24, "width": 20},
        "crop_size": None,
        "do_center_crop": None,
        "resample": None,
    },
    "vit_integer": {
        "feature_extractor_type": "ViTFeatureExtractor",
        "size": 24,
        "resample": 2,
        "image_mean": HALF,
        "image_std": HALF,
    },
    "deit": {
        "image_processor_type": "DeiTImageProcessor",
        "size": {"height": 28, "width": 28},
        "crop_size": {"height": 24, "width": 24},
        "resample": 3,
    },
    "siglip": {"image_processor_type": "SiglipImageProcessor", "size": {"height": 24, "width": 24}},
    "convnext": {"image_processor_type": "ConvNextImageProcessor", "size": {"shortest_edge": 24}, "crop_pct": 0.875},
    "convnext_odd": {"feature_extractor_type": "ConvNextFeatureExtractor", "size": 25, "crop_pct": 0.95, "resample": 3},
    "convnext_null": {
        "image_processor_type": "ConvNextImageProcessorFast",
        "size": {"shortest_edge": 21},
        "crop_pct": None,
        "do_center_crop": None,
    },
    "convnext_384": {
        "image_processor_type": "ConvNextImageProcessor",
        "size": {"shortest_edge": 384},
        "crop_pct": 0.95,
    },
}


def image(width: int, height: int) -> Image.Image:
    y, x = np.mgrid[:height, :width]
    planes = [(x * scale + y * y * (channel + 1)) % 256 for channel, scale in enumerate((7, 5, 3))]
    return Image.fromarray(np.stack(planes, axis=-1).astype(np.uint8))


def processor(keys: dict[str, Any]) -> Any:
    name = keys.get("image_processor_type") or keys["feature_extractor_type"]
    name = name.removesuffix("Fast").removesuffix("ImageProcessor").removesuffix("FeatureExtractor")
    module = import_module(f"transformers.models.{name.lower()}.image_processing_pil_{name.lower()}")
    # Some versions write null for a key that has the default of its class, and others fail on it.
    return getattr(module, f"{name}ImageProcessorPil").from_dict({k: v for k, v in keys.items() if v is not None})


def record(keys: dict[str, Any], size: tuple[int, int]) -> dict[str, Any]:
    pixels = np.asarray(processor(keys)(image(*size), return_tensors="np")["pixel_values"][0])
    flat = pixels.reshape(-1)
    positions = [index * (len(flat) - 1) // 39 for index in range(40)]
    return {
        "image": size,
        "shape": pixels.shape,
        "sum": round(float(flat.astype(np.float64).sum()), 3),
        "values": [round(float(flat[position]), 6) for position in positions],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=OUT)
    out = parser.parse_args().out
    recorded = {
        name: {"keys": keys, "images": [record(keys, size) for size in SIZES]} for name, keys in CONFIGURATIONS.items()
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(recorded) + "\n")


if __name__ == "__main__":
    main()
