"""Models of true size without their weights: graphs of a few megabytes, and the places of weights to be drawn.

    pip install -r tools/requirements-export.txt
    python benches/gpu/weightless.py sd15    OUT [--scale 0.1] [--dtype fp32]
    python benches/gpu/weightless.py refiner OUT

OUT becomes a model directory as `tools/export_models.py` writes it, of the architecture of Stable Diffusion 1.5 or of
the SDXL refiner, except that `layout.json` stands next to each graph in the place of `model.onnx_data`. How fast a
model is does not depend on its weights, so `check.py` draws them where it runs. `--scale` multiplies all widths.
"""

import argparse
import json
import logging
import resource
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))

import diffusers
import export_models
import onnx_graphs
import torch
import transformers
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DiffusionPipeline,
    EulerDiscreteScheduler,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionXLImg2ImgPipeline,
    UNet2DConditionModel,
)
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

TOKENS = 77
TIME_IDS = 5
DEVIATION = 0.02
VAE_CHANNELS = (128, 256, 512, 512)
NOISE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}


@dataclass(frozen=True)
class Kind:
    """An architecture. The UNet has `heads` heads in each attention, or one for each 64 channels."""

    xl: bool
    unet: dict[str, Any]
    channels: tuple[int, ...]
    heads: int | None
    text_width: int
    text_layers: int
    activation: str
    pad: str
    scaling_factor: float


KINDS = {
    "sd15": Kind(
        xl=False,
        unet={"sample_size": 64},
        channels=(320, 640, 1280, 1280),
        heads=8,
        text_width=768,
        text_layers=12,
        activation="quick_gelu",
        pad="<|endoftext|>",
        scaling_factor=0.18215,
    ),
    "refiner": Kind(
        xl=True,
        unet={
            "sample_size": 128,
            "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
            "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            "transformer_layers_per_block": 4,
            "use_linear_projection": True,
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 256,
        },
        channels=(384, 768, 1536, 1536),
        heads=None,
        text_width=1280,
        text_layers=32,
        activation="gelu",
        pad="!",
        scaling_factor=0.13025,
    ),
}


def scaled(width: int, scale: float, multiple: int) -> int:
    """A width times `scale`, as a multiple of what group norms and heads divide it by."""
    return max(1, round(width * scale / multiple)) * multiple


def unet_config(kind: Kind, scale: float) -> dict[str, Any]:
    channels = tuple(scaled(width, scale, 64) for width in kind.channels)
    text = scaled(kind.text_width, scale, 64)
    config = {
        **kind.unet,
        "block_out_channels": channels,
        "attention_head_dim": kind.heads or tuple(width // 64 for width in channels),
        "cross_attention_dim": text,
    }
    if kind.xl:
        config["projection_class_embeddings_input_dim"] = text + TIME_IDS * kind.unet["addition_time_embed_dim"]
    return config


def vae_config(kind: Kind, scale: float) -> dict[str, Any]:
    return {
        "down_block_types": ("DownEncoderBlock2D",) * 4,
        "up_block_types": ("UpDecoderBlock2D",) * 4,
        "block_out_channels": tuple(scaled(width, scale, 32) for width in VAE_CHANNELS),
        "layers_per_block": 2,
        "latent_channels": 4,
        "sample_size": 1024 if kind.xl else 512,
        "scaling_factor": kind.scaling_factor,
        "force_upcast": kind.xl,
    }


def text_config(kind: Kind, scale: float, tokenizer: CLIPTokenizer) -> CLIPTextConfig:
    """OpenAI's CLIP ViT-L/14 for SD 1.5, OpenCLIP's bigG for the refiner."""
    width = scaled(kind.text_width, scale, 64)
    return CLIPTextConfig(
        vocab_size=49408,
        hidden_size=width,
        intermediate_size=4 * width,
        projection_dim=width,
        num_hidden_layers=max(2, round(kind.text_layers * scale)),
        num_attention_heads=width // 64,
        max_position_embeddings=TOKENS,
        hidden_act=kind.activation,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def tokenizer_of(kind: Kind) -> CLIPTokenizer:
    """That of the digits with the length and padding of the real one: few words, but all ids are in range."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(ROOT / "models/digits/tokenizer", folder, dirs_exist_ok=True)
        return CLIPTokenizer.from_pretrained(folder, pad_token=kind.pad, model_max_length=TOKENS)


def allocated(module: nn.Module, dtype: torch.dtype) -> nn.Module:
    """A module that was built without values: memory for them that nothing has written, so that it costs none. Only
    small weights, which stay in the graph, are drawn here.
    """
    module = module.eval().requires_grad_(False).to(dtype).to_empty(device="cpu")
    for weight in module.parameters():
        if weight.nbytes < onnx_graphs.EXTERNAL_BYTES:
            weight.normal_(0, DEVIATION)
    for name, buffer in module.named_buffers():
        if name.endswith("position_ids"):
            buffer.copy_(torch.arange(buffer.shape[-1]).expand(buffer.shape))
    return module


def pipeline_of(kind: Kind, scale: float, dtype: torch.dtype) -> DiffusionPipeline:
    tokenizer = tokenizer_of(kind)
    text = text_config(kind, scale, tokenizer)
    with torch.device("meta"):
        unet = UNet2DConditionModel(**unet_config(kind, scale))
        vae = AutoencoderKL(**vae_config(kind, scale))
        encoder = (CLIPTextModelWithProjection if kind.xl else CLIPTextModel)(text)
    unet, encoder = allocated(unet, dtype), allocated(encoder, dtype)
    vae = allocated(vae, torch.float32 if kind.xl else dtype)
    if kind.xl:
        return StableDiffusionXLImg2ImgPipeline(
            vae=vae,
            text_encoder=None,
            text_encoder_2=encoder,
            tokenizer=None,
            tokenizer_2=tokenizer,
            unet=unet,
            scheduler=EulerDiscreteScheduler(**NOISE, timestep_spacing="leading"),
            requires_aesthetics_score=True,
            force_zeros_for_empty_prompt=False,
            add_watermarker=False,
        )
    # DDIM, since SD 1.5's own PNDM evaluates the UNet once more than there are timesteps.
    return StableDiffusionImg2ImgPipeline(
        vae=vae,
        text_encoder=encoder,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=DDIMScheduler(**NOISE, clip_sample=False, set_alpha_to_one=False),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def make(name: str, out: Path, scale: float, dtype: str) -> None:
    """Writes the model directory."""
    logging.getLogger("torch").setLevel(logging.ERROR)
    diffusers.utils.logging.set_verbosity_error()
    transformers.logging.set_verbosity_error()
    pipeline = pipeline_of(KINDS[name], scale, export_models.FLOATS[dtype])
    export_models.export_pipeline(pipeline, out, dtype, weightless=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=KINDS)
    parser.add_argument("out", type=Path, help="a new folder")
    parser.add_argument("--scale", type=float, default=1.0, help="factor for all widths; 1 is the true model")
    parser.add_argument("--dtype", choices=export_models.FLOATS, default="fp16")
    arguments = parser.parse_args()
    start = time.perf_counter()
    make(arguments.model, arguments.out, arguments.scale, arguments.dtype)
    size = sum(file.stat().st_size for file in arguments.out.rglob("*") if file.is_file())
    layouts = [json.loads(file.read_text()) for file in arguments.out.rglob("layout.json")]
    weights = sum(place["length"] for layout in layouts for place in layout)
    usage = resource.getrusage(resource.RUSAGE_SELF)
    print(
        f"{arguments.out}: {size / 1e6:.1f} MB, weights of {weights / 1e9:.2f} GB to be drawn; "
        f"{time.perf_counter() - start:.0f} s, {usage.ru_utime + usage.ru_stime:.0f} s of CPU, "
        f"{usage.ru_maxrss / 1e6:.1f} GB of memory"
    )


if __name__ == "__main__":
    main()
