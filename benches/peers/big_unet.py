"""Creates an untrained diffusion model of about 60 M parameters, to measure with one that keeps a CPU busy.

    python big_unet.py OUT [--digits models/digits] [--data data/digits_lt] [--pixels 256]

OUT gets `big/`, in the layout of `models/digits`; `data/`, the data set's training images enlarged; and `big.toml`, a
pipeline over both, with a few sources and levels. The UNet has the shape of Stable Diffusion 1.5 (four levels, two
layers each, cross attention in the upper three) with 80 to 336 channels in the place of 320 to 1280, and random
weights. The VAE, random as well, has a factor of 8. Text encoder, tokenizer, scheduler and CLIP are those of the
digits. It takes a quarter of a minute.
"""

import argparse
import io
import json
import os
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from PIL import Image
from torch import Tensor, nn

PROMPT_TOKENS, PROMPT_WIDTH = 16, 64
"""The width of the digits' text encoder."""

PIPELINE = """\
# Written by benches/peers/big_unet.py: few images by a UNet that keeps the processor busy.
name = "big"
seed = 0

[lake]
root = "{out}/lake"

[source]
kind = "parquet"
root = "{out}/data"

[source.splits]
train = "train.parquet"

[models]
diffusion = "{out}/big"
clip      = "{digits}/clip"

[hard_samples]
max_class_count = 15          # twelve sources

[prompts]
generation = "a photo of {{class}}"
filter     = "a photo of {{class}}"

[spectrum]
image_guidance = [0, 50]
seeds          = [10, 20]
timesteps      = 10
guidance_scale = 4.0
scheduler      = "ddim"

[filter]
min_text_similarity = 0.0
max_attempts        = 1       # the images show nothing, so further attempts are pointless
"""


def make_unet() -> UNet2DConditionModel:
    """The shape of Stable Diffusion 1.5, a quarter as wide."""
    return UNet2DConditionModel(
        sample_size=32,
        block_out_channels=(80, 160, 336, 336),
        norm_num_groups=16,
        attention_head_dim=8,
        cross_attention_dim=PROMPT_WIDTH,
    )


def make_vae() -> AutoencoderKL:
    """Eight pixels for each latent."""
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(32, 64, 128, 128),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=16,
        sample_size=256,
    )


class Graph(nn.Module):
    """The exported part of a module: the tensor that `run(module, *inputs)` returns."""

    def __init__(self, module: nn.Module, run: Callable[..., Tensor]) -> None:
        super().__init__()
        self.module, self.run = module, run

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.run(self.module, *inputs)


def export(graph: Graph, folder: Path, inputs: dict[str, Tensor], output: str) -> None:
    """Writes `model.onnx` and `config.json`; batch and sides stay free."""
    folder.mkdir(parents=True, exist_ok=True)
    axes = {name: {0: "batch"} for name in [*inputs, output]}
    for name, tensor in [*inputs.items(), (output, torch.empty(1, 1, 1, 1))]:
        if tensor.dim() == 4:
            axes[name] |= {2: f"{name}_height", 3: f"{name}_width"}
    with warnings.catch_warnings():
        # From the older exporter, and about size checks that tracing turns into constants.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            graph.eval(),
            tuple(inputs.values()),
            folder / "model.onnx",
            dynamo=False,
            opset_version=17,
            input_names=list(inputs),
            output_names=[output],
            dynamic_axes=axes,
        )
    config = {name: value for name, value in graph.module.config.items() if not name.startswith("_")}
    config = {"_class_name": type(graph.module).__name__, **config}
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")


@torch.no_grad()
def write_bundle(out: Path, digits: Path) -> int:
    """Writes `big/` and returns how many parameters its UNet has."""
    torch.manual_seed(0)
    unet, vae = make_unet(), make_vae()
    latents, timestep = torch.randn(1, 4, 32, 32), torch.tensor([501.0])
    hidden = torch.randn(1, PROMPT_TOKENS, PROMPT_WIDTH)
    export(
        Graph(unet, lambda unet, *inputs: unet(*inputs).sample),
        out / "big/unet",
        {"sample": latents, "timestep": timestep, "encoder_hidden_states": hidden},
        "out_sample",
    )
    export(
        Graph(vae, lambda vae, sample: vae.encode(sample).latent_dist.parameters),
        out / "big/vae_encoder",
        {"sample": torch.randn(1, 3, 256, 256)},
        "latent_parameters",
    )
    export(
        Graph(vae, lambda vae, latents: vae.decode(latents).sample),
        out / "big/vae_decoder",
        {"latent_sample": latents},
        "sample",
    )
    for part in ["text_encoder", "tokenizer", "scheduler"]:
        shutil.copytree(digits / part, out / "big" / part, dirs_exist_ok=True)
    shutil.copy(digits / "model_index.json", out / "big")
    return sum(parameter.numel() for parameter in unet.parameters())


def enlarged(file: bytes, pixels: int) -> bytes:
    """An image as a PNG of another size."""
    large = io.BytesIO()
    Image.open(io.BytesIO(file)).convert("RGB").resize((pixels, pixels), Image.Resampling.BICUBIC).save(large, "png")
    return large.getvalue()


def write_data(out: Path, data: Path, pixels: int, most: int) -> None:
    """Writes the training images of classes with fewer than `most` of them, enlarged."""
    table = pq.read_table(data / "train.parquet").select(["image", "label"])
    rows = table.to_pylist()
    labels = [row["label"] for row in rows]
    kept = [row for row in rows if labels.count(row["label"]) < most]
    for row in kept:
        row["image"]["bytes"] = enlarged(row["image"]["bytes"], pixels)
    (out / "data").mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(kept, schema=table.schema), out / "data/train.parquet")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--digits", type=Path, default=Path("models/digits"))
    parser.add_argument("--data", type=Path, default=Path("data/digits_lt"))
    parser.add_argument("--pixels", type=int, default=256, help="side of a source")
    arguments = parser.parse_args()
    out, digits = arguments.out.resolve(), arguments.digits.resolve()
    parameters = write_bundle(out, digits)
    write_data(out, arguments.data, arguments.pixels, most=20)
    (out / "big.toml").write_text(PIPELINE.format(out=out, digits=digits))
    print(f"{out}/big.toml: a UNet of {parameters / 1e6:.1f} M parameters")


if __name__ == "__main__":
    main()
