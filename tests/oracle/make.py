"""Records what diffusers' img2img pipelines compute, so that another engine can be compared number by number.

    pip install torch==2.15.0 diffusers==0.42.1 transformers==5.23.0 onnx==1.23.2 onnxruntime==1.32.0
    python tests/oracle/make.py [--out FOLDER] [--tokenizer FOLDER]

For maintainers: the tests need only the recorded files. Creates four small pipelines with seeded random weights
(`sd1`, `sd2`, `sdxl_base`, `sdxl_refiner`; nothing is downloaded) and writes for each of them, by default to
`tests/fixtures/pipelines/NAME`:

- the folder that `optimum-cli export onnx` would write: graphs, their configurations, tokenizers, scheduler;
- for `sd1`, the UNet in f16 as well (`unet_f16`; nothing is recorded of it);
- `golden.json`: token ids, text embeddings, and for every case the random draws, the timesteps, the latents
  before and after each step, and the image, as diffusers computed them from the same weights.

Every graph is compared with torch as it is written. A second run on the same machine writes the same bytes.
"""

import argparse
import base64
import io
import json
import os
import warnings
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

os.environ |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}

import diffusers
import numpy as np
import onnx
import onnxruntime
import torch
import transformers
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    LCMScheduler,
    PNDMScheduler,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionXLImg2ImgPipeline,
    UNet2DConditionModel,
)
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from PIL import Image
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

HERE = Path(__file__).resolve()
OUT = HERE.parents[1] / "fixtures" / "pipelines"
TOKENIZER = HERE.parents[2] / "models" / "digits" / "tokenizer"

LENGTH = 16
"""Tokens per text."""
LATENT = 8
"""Side of the latents of the square source."""
SCALE = 5.0
"""Guidance scale of the cases that have guidance."""
TOLERANCE = 2e-5
"""Largest difference between a graph and torch, relative to the largest output (or to 1)."""
F16_TOLERANCE = 1e-2
"""The same, if the graph computes in f16 (and torch in f32)."""
PROMPTS = ["a photo of a handwritten five", "Déjà vu! 数字 and Zwölf naïve cafés 🙂 it's too long"]
NEGATIVE = "a blurry scan, don't!"
TEXTS = [*PROMPTS, NEGATIVE, "", "It's 5!!! 🙂"]
"""Texts whose ids and embeddings are recorded."""

Pipeline = StableDiffusionImg2ImgPipeline | StableDiffusionXLImg2ImgPipeline


# --- what is recorded ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """One run of a pipeline. `scheduler` and `spacing` are keys of `make_scheduler`."""

    scheduler: str
    spacing: str
    strength: str
    source: str = "square"
    prompt: int = 0
    negative: str | None = ""
    guidance: float = SCALE
    n: int = 10
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Spec:
    """One pipeline: its parts, and what is recorded of it."""

    name: str
    sdxl: bool
    index_class: str
    """The class in model_index.json, which is that of the text-to-image pipeline for most models."""
    unet: dict[str, Any]
    vae_channels: tuple[int, ...]
    scaling_factor: float
    cases: list[Case]
    encoders: tuple[str, ...] = ("text_encoder",)
    """Names of the text encoders that the pipeline has."""
    activation: str = "quick_gelu"
    pad: str = "<|endoftext|>"
    """Padding of the first tokenizer; the second one pads with "!"."""
    prediction: str = "epsilon"
    old_graphs: bool = False
    """As old diffusers exported: int64 timesteps of rank 1, and an encoder that returns the posterior's mode."""
    refiner: bool = False
    unet_channels: tuple[int, int] = (12, 20)
    text_sizes: tuple[tuple[int, int], tuple[int, int]] = ((24, 2), (32, 3))
    """Hidden size and layers, of the first and of the second text encoder."""
    f16_unet: bool = False
    """Whether `unet_f16` is written too: the UNet of an export with `--dtype fp16`, f16 from input to output."""

    @property
    def factor(self) -> int:
        return 2 ** (len(self.vae_channels) - 1)

    def text_size(self, encoder: str) -> tuple[int, int]:
        return self.text_sizes[encoder == "text_encoder_2"]


KARRAS = {"use_karras_sigmas": True}
ZERO_SNR = {"rescale_betas_zero_snr": True}

SD1_CASES = [
    Case("ddim", "leading", "0.5", "square", 0, NEGATIVE),
    Case("ddim", "trailing", "1.0", "wide", 1),
    Case("ddim", "leading", "0.1", "odd", 0, None),
    Case("pndm", "leading", "0.5", "wide", 0, NEGATIVE),
    Case("pndm", "trailing", "1.0", "square", 1),
    Case("pndm", "leading", "0.1", "square", 0),
    Case("euler", "leading", "0.3", "square", 1, NEGATIVE),
    Case("euler", "trailing", "1.0", "odd", 0),
    Case("euler", "linspace", "0.5", "square", 1, NEGATIVE, n=12),
    Case("euler", "leading", "0.5", "wide", 0, options=KARRAS),
    Case("euler_ancestral", "leading", "0.5", "square", 1, NEGATIVE),
    Case("euler_ancestral", "trailing", "1.0", "square", 0),
    Case("dpm++", "leading", "1.0", "square", 0, NEGATIVE),
    Case("dpm++", "trailing", "0.3", "wide", 1),
    Case("dpm++", "linspace", "0.5", "square", 0, guidance=1.0),
    Case("dpm++", "leading", "0.5", "square", 1, NEGATIVE, options=KARRAS),
    Case("lcm", "leading", "0.5", "square", 0),
    Case("lcm", "leading", "1.0", "wide", 1, NEGATIVE),
]
SD2_CASES = [
    Case("ddim", "leading", "0.3", "square", 1, NEGATIVE),
    Case("ddim", "trailing", "1.0", "wide", 0, options=ZERO_SNR),
    Case("ddim", "trailing", "0.5", "square", 0, guidance=1.0),
    Case("pndm", "leading", "1.0", "square", 0, NEGATIVE),
    Case("pndm", "trailing", "0.3", "odd", 1),
    Case("euler", "leading", "0.5", "wide", 0, NEGATIVE),
    Case("euler", "trailing", "1.0", "square", 1, options=ZERO_SNR),
    Case("euler", "linspace", "0.3", "square", 0),
    Case("euler_ancestral", "trailing", "0.3", "wide", 1, NEGATIVE),
    Case("dpm++", "leading", "0.1", "square", 0),
    Case("dpm++", "trailing", "0.5", "square", 1, None),
    Case("dpm++", "linspace", "1.0", "square", 0, NEGATIVE),
    Case("dpm++", "leading", "0.5", "wide", 1, options=KARRAS),
    Case("lcm", "leading", "0.3", "square", 0, NEGATIVE),
]
BASE_CASES = [
    Case("ddim", "leading", "1.0", "square", 0, None),
    Case("ddim", "trailing", "0.3", "wide", 1, NEGATIVE),
    Case("pndm", "leading", "0.3", "square", 0),
    Case("pndm", "trailing", "0.5", "wide", 1, NEGATIVE),
    Case("euler", "leading", "0.5", "odd", 1, NEGATIVE),
    Case("euler", "trailing", "0.1", "square", 0),
    Case("euler", "linspace", "1.0", "square", 0, NEGATIVE),
    Case("euler", "leading", "0.3", "square", 1, options=KARRAS),
    Case("euler_ancestral", "leading", "0.3", "wide", 0),
    Case("euler_ancestral", "trailing", "0.1", "square", 1, NEGATIVE),
    Case("dpm++", "leading", "0.5", "square", 0, NEGATIVE),
    Case("dpm++", "trailing", "0.5", "wide", 1, guidance=1.0),
    Case("dpm++", "linspace", "0.3", "square", 1),
    Case("dpm++", "leading", "1.0", "square", 0, NEGATIVE, options=KARRAS),
    Case("lcm", "leading", "0.5", "square", 1),
]
REFINER_CASES = [
    Case("ddim", "leading", "0.5", "square", 0, None),
    Case("ddim", "trailing", "0.3", "wide", 1, NEGATIVE),
    Case("pndm", "leading", "0.5", "square", 1),
    Case("euler", "leading", "0.3", "wide", 0),
    Case("euler", "trailing", "0.5", "square", 1, NEGATIVE),
    Case("euler", "linspace", "0.1", "square", 0),
    Case("euler", "leading", "1.0", "square", 0, guidance=1.0),
    Case("euler_ancestral", "leading", "0.5", "odd", 1, NEGATIVE),
    Case("dpm++", "leading", "0.3", "wide", 0, NEGATIVE),
    Case("dpm++", "trailing", "1.0", "square", 1),
    Case("dpm++", "linspace", "0.5", "odd", 0),
    Case("dpm++", "linspace", "0.3", "square", 0, NEGATIVE, options=KARRAS),
    Case("lcm", "leading", "1.0", "square", 1, NEGATIVE),
]

PROJECTION = 20
"""Size of the second text encoder's text_embeds."""
TIME_ID_SIZE = 8
CROSS_FIRST = {
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
}
CROSS_LAST = {
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
}


def added_conditions(time_ids: int) -> dict[str, Any]:
    """The part of an SDXL UNet's configuration that depends on the sizes of text_embeds and time_ids."""
    return {
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": TIME_ID_SIZE,
        "projection_class_embeddings_input_dim": time_ids * TIME_ID_SIZE + PROJECTION,
        "use_linear_projection": True,
    }


SPECS = [
    Spec(
        name="sd1",
        sdxl=False,
        index_class="StableDiffusionPipeline",
        unet={**CROSS_FIRST, "attention_head_dim": 4},
        vae_channels=(8, 16),
        scaling_factor=0.18215,
        cases=SD1_CASES,
        f16_unet=True,
    ),
    Spec(
        name="sd2",
        sdxl=False,
        index_class="StableDiffusionPipeline",
        unet={**CROSS_FIRST, "attention_head_dim": (2, 4), "use_linear_projection": True},
        vae_channels=(8, 8, 16),
        scaling_factor=0.18215,
        cases=SD2_CASES,
        activation="gelu",
        pad="!",
        prediction="v_prediction",
        old_graphs=True,
    ),
    Spec(
        name="sdxl_base",
        sdxl=True,
        index_class="StableDiffusionXLPipeline",
        unet={**CROSS_LAST, "attention_head_dim": (2, 4), **added_conditions(6)},
        vae_channels=(8, 16),
        scaling_factor=0.13025,
        cases=BASE_CASES,
        encoders=("text_encoder", "text_encoder_2"),
    ),
    Spec(
        name="sdxl_refiner",
        sdxl=True,
        index_class="StableDiffusionXLImg2ImgPipeline",
        unet={**CROSS_LAST, "attention_head_dim": (2, 4), **added_conditions(5)},
        vae_channels=(8, 16),
        scaling_factor=0.13025,
        cases=REFINER_CASES,
        encoders=("text_encoder_2",),
        refiner=True,
    ),
]


def make_scheduler(case: Case, prediction: str) -> Any:
    """The scheduler of a case, with the noise schedule of Stable Diffusion."""
    kinds: dict[str, tuple[type, dict[str, Any]]] = {
        "ddim": (DDIMScheduler, {"clip_sample": False, "set_alpha_to_one": False}),
        "pndm": (PNDMScheduler, {"skip_prk_steps": True, "set_alpha_to_one": False}),
        "euler": (EulerDiscreteScheduler, {}),
        "euler_ancestral": (EulerAncestralDiscreteScheduler, {}),
        "dpm++": (DPMSolverMultistepScheduler, {"algorithm_type": "dpmsolver++", "solver_order": 2}),
        "lcm": (LCMScheduler, {"clip_sample": False, "set_alpha_to_one": True}),
    }
    kind, own = kinds[case.scheduler]
    return kind(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        steps_offset=1,
        timestep_spacing=case.spacing,
        prediction_type=prediction,
        **own,
        **case.options,
    )


# --- images -------------------------------------------------------------------------------------------


def make_image(width: int, height: int, random: np.random.RandomState) -> Image.Image:
    """A disc and stripes on a colour gradient, with noise."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    x, y = x / (width - 1), y / (height - 1)
    corners = random.uniform(30, 220, (3, 3))
    image = corners[0] + (corners[1] - corners[0]) * x[..., None] + (corners[2] - corners[0]) * y[..., None]
    stripes = np.sin(random.uniform(6, 14) * (x + random.uniform(-1, 1) * y))
    image += 25 * stripes[..., None] * random.uniform(-1, 1, 3)
    centre, radius = random.uniform(0.3, 0.7, 2), random.uniform(0.15, 0.3)
    disc = (x - centre[0]) ** 2 + (y - centre[1]) ** 2 < radius**2
    image[disc] = random.uniform(0, 255, 3)
    image += random.normal(0, 8, image.shape)
    return Image.fromarray(image.round().clip(0, 255).astype(np.uint8))


def make_sources(factor: int) -> dict[str, Image.Image]:
    """A square, one that is wider than high, and one (higher than wide) that diffusers must resize first."""
    short, long = LATENT * factor, LATENT * factor * 3 // 2
    sizes = {"square": (short, short), "wide": (long, short), "odd": (short + factor - 1, long + 1)}
    random = np.random.RandomState(factor)
    return {name: make_image(*size, random) for name, size in sizes.items()}


def as_tensor(images: list[Image.Image]) -> Tensor:
    """f32 [n, 3, height, width] in -1..1."""
    return torch.tensor(np.stack([np.asarray(image) for image in images])).permute(0, 3, 1, 2) / 127.5 - 1


# --- models -------------------------------------------------------------------------------------------


def make_tokenizer(folder: Path, pad: str) -> CLIPTokenizer:
    return CLIPTokenizer.from_pretrained(folder, pad_token=pad, model_max_length=LENGTH)


def make_text_encoder(
    name: str, tokenizer: CLIPTokenizer, activation: str, size: int, layers: int
) -> CLIPTextModel | CLIPTextModelWithProjection:
    """The first of a pipeline's text encoders gives hidden states only, the second has a projection too."""
    kind = CLIPTextModelWithProjection if name == "text_encoder_2" else CLIPTextModel
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=size,
        intermediate_size=2 * size,
        projection_dim=PROJECTION,
        num_hidden_layers=layers,
        num_attention_heads=4,
        max_position_embeddings=LENGTH,
        hidden_act=activation,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        architectures=[kind.__name__],
        attn_implementation="eager",
    )
    return kind(config)


def make_modules(spec: Spec, tokenizer_folder: Path) -> dict[str, Any]:
    """A pipeline's modules and tokenizers, by diffusers' names."""
    modules: dict[str, Any] = {}
    for encoder in spec.encoders:
        second = encoder == "text_encoder_2"
        tokenizer = make_tokenizer(tokenizer_folder, "!" if second else spec.pad)
        modules[encoder.replace("text_encoder", "tokenizer")] = tokenizer
        activation = "gelu" if second else spec.activation
        modules[encoder] = make_text_encoder(encoder, tokenizer, activation, *spec.text_size(encoder))
    modules["unet"] = UNet2DConditionModel(
        sample_size=LATENT,
        block_out_channels=spec.unet_channels,
        layers_per_block=1,
        cross_attention_dim=sum(spec.text_size(encoder)[0] for encoder in spec.encoders),
        norm_num_groups=4,
        **spec.unet,
    )
    blocks = len(spec.vae_channels)
    modules["vae"] = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * blocks,
        up_block_types=("UpDecoderBlock2D",) * blocks,
        block_out_channels=spec.vae_channels,
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=LATENT * spec.factor,
        scaling_factor=spec.scaling_factor,
        latents_mean=None,
        latents_std=None,
        force_upcast=spec.sdxl,
    )
    return modules


def randomize(module: nn.Module) -> None:
    """Random weights that give every part an effect: biases, norms and embeddings are random too."""
    for name, weight in module.named_parameters():
        if weight.ndim == 1:
            nn.init.normal_(weight, float("norm" in name and name.endswith("weight")), 0.1)
        elif "embedding" in name and "time" not in name and "add" not in name:
            nn.init.normal_(weight, 0, 0.5)
        else:
            nn.init.normal_(weight, 0, weight[0].numel() ** -0.5)


def round_to_f16(module: nn.Module) -> None:
    """Rounds every weight to f16, as the graphs store it."""
    for weight in module.parameters():
        weight.copy_(weight.half().float())


def make_pipeline(spec: Spec, scheduler: Any, modules: dict[str, Any]) -> Pipeline:
    """diffusers' own pipeline with these modules."""
    if spec.sdxl:
        absent = {"text_encoder": None, "tokenizer": None} | modules
        pipeline: Pipeline = StableDiffusionXLImg2ImgPipeline(
            **absent,
            scheduler=scheduler,
            requires_aesthetics_score=spec.refiner,
            force_zeros_for_empty_prompt=not spec.refiner,
            add_watermarker=False,
        )
    else:
        pipeline = StableDiffusionImg2ImgPipeline(
            **modules, scheduler=scheduler, safety_checker=None, feature_extractor=None, requires_safety_checker=False
        )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def embed(pipeline: Pipeline, text: str) -> tuple[Tensor, Tensor | None]:
    """Prompt embeddings [1, 16, d], and for SDXL the pooled ones, [1, p]."""
    if isinstance(pipeline, StableDiffusionXLImg2ImgPipeline):
        hidden, _, pooled, _ = pipeline.encode_prompt(text, do_classifier_free_guidance=False)
        return hidden, pooled
    hidden, _ = pipeline.encode_prompt(text, "cpu", 1, False)
    return hidden, None


# --- sensible weights ---------------------------------------------------------------------------------
#
# A random UNet lets the latents explode, and a random decoder returns noise for any latents. So the last layers are
# solved for: that of the UNet to predict the noise, that of the decoder to reconstruct the image.


def fit_last_layer(layer: nn.Conv2d, run: Callable[[], Tensor], target: Tensor) -> None:
    """Sets the weights of the 3x3 convolution by ridge regression, so that its output `run()` approaches the target."""
    seen: list[Tensor] = []
    hook = layer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    run()
    hook.remove()
    patches = nn.functional.unfold(seen[0].double(), 3, padding=1).transpose(1, 2).flatten(0, 1)
    patches = torch.cat([patches, torch.ones(len(patches), 1, dtype=torch.float64)], 1)
    values = target.double().permute(0, 2, 3, 1).flatten(0, 2)
    ridge = 1e-3 * len(patches) * torch.eye(patches.shape[1], dtype=torch.float64)
    solution = torch.linalg.solve(patches.T @ patches + ridge, patches.T @ values).float()
    layer.weight.copy_(solution[:-1].T.reshape(layer.weight.shape))
    layer.bias.copy_(solution[-1])


def fit_vae(vae: AutoencoderKL, images: Tensor) -> None:
    """Gives scaled latents mean 0 and deviation 1 and a posterior whose draw matters, and reconstructs the images."""
    moments = vae.encode(images).latent_dist.parameters
    mean, deviation = moments.mean((0, 2, 3)), moments.std((0, 2, 3))
    latents = torch.arange(len(mean)) < len(mean) // 2
    gain = torch.where(latents, 1 / vae.config.scaling_factor, torch.tensor(0.5)) / deviation
    bias = (vae.quant_conv.bias - mean) * gain + torch.where(latents, 0.0, 1.0)
    vae.quant_conv.weight.mul_(gain.view(-1, 1, 1, 1))
    vae.quant_conv.bias.copy_(bias)
    z = vae.encode(images).latent_dist.mean
    fit_last_layer(vae.decoder.conv_out, lambda: vae.decode(z).sample, images)


def fit_unet(pipeline: Pipeline, spec: Spec, images: Tensor) -> None:
    """Fits the UNet to its target for noisy latents of the images, whatever the prompt."""
    schedule = make_scheduler(Case("ddim", "leading", "1.0"), spec.prediction)
    z0 = pipeline.vae.encode(images).latent_dist.mean * spec.scaling_factor
    noise, t = torch.randn(z0.shape), (1000 * torch.rand(len(z0)).sqrt()).long()
    texts = [embed(pipeline, text) for text in [*PROMPTS, NEGATIVE, ""]]
    picked = [texts[i % len(texts)] for i in range(len(z0))]
    noisy, hidden = schedule.add_noise(z0, noise, t), torch.cat([hidden for hidden, _ in picked])
    target = noise if spec.prediction == "epsilon" else schedule.get_velocity(z0, noise, t)
    added = {}
    if spec.sdxl:
        side = float(LATENT * spec.factor)
        ids = [side, side, 0.0, 0.0, 6.0] if spec.refiner else [side, side, 0.0, 0.0, side, side]
        added = {
            "text_embeds": torch.cat([pooled for _, pooled in picked]),
            "time_ids": torch.tensor([ids] * len(z0)),
        }
    unet = pipeline.unet
    fit_last_layer(unet.conv_out, lambda: unet(noisy, t, hidden, added_cond_kwargs=added).sample, target)


def build(spec: Spec, tokenizer_folder: Path, number: int) -> Pipeline:
    """The pipeline with its final weights, which depend on its number."""
    torch.manual_seed(number)
    random = np.random.RandomState(number)
    modules = make_modules(spec, tokenizer_folder)
    networks = [module for module in modules.values() if isinstance(module, nn.Module)]
    for network in networks:
        network.eval().requires_grad_(False)
        randomize(network)
    pipeline = make_pipeline(spec, make_scheduler(spec.cases[0], spec.prediction), modules)
    side = LATENT * spec.factor
    images = as_tensor([make_image(side, side, random) for _ in range(128)])
    fit_vae(pipeline.vae, images)
    fit_unet(pipeline, spec, images)
    for network in networks:
        round_to_f16(network)
    return pipeline


# --- export -------------------------------------------------------------------------------------------


class Graph(nn.Module):
    """A module with the signature of its ONNX graph: tensors in, tensors out."""

    def __init__(self, module: nn.Module, forward: Callable[..., tuple[Tensor, ...]]) -> None:
        super().__init__()
        self.module, self.call = module, forward

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        return self.call(self.module, *inputs)


Axes = dict[int, str]
AREA: Axes = {0: "batch_size", 2: "height", 3: "width"}
LATENT_AREA: Axes = {0: "batch_size", 2: "latent_height", 3: "latent_width"}
TOKENS: Axes = {0: "batch_size", 1: "sequence_length"}
BATCH: Axes = {0: "batch_size"}


@dataclass(frozen=True)
class Input:
    """An input of a graph: the tensor to trace with, another one (other sizes) to compare with, dynamic axes."""

    traced: Tensor
    compared: Tensor
    axes: Axes


def unet_forward(unet: UNet2DConditionModel, sample: Tensor, timestep: Tensor, hidden: Tensor, *added: Tensor) -> Any:
    names = ["text_embeds", "time_ids"]
    return unet(sample, timestep, hidden, added_cond_kwargs=dict(zip(names, added, strict=False)), return_dict=False)


def text_forward(encoder: nn.Module, ids: Tensor, hidden_states: bool) -> tuple[Tensor, ...]:
    """last_hidden_state and pooler_output, or text_embeds and last_hidden_state; then every layer's states."""
    result = encoder(ids, output_hidden_states=hidden_states)
    if isinstance(encoder, CLIPTextModelWithProjection):
        first = (result.text_embeds, result.last_hidden_state)
    else:
        first = (result.last_hidden_state, result.pooler_output)
    return first + tuple(result.hidden_states or ())


def store_weights_as_f16(model: onnx.ModelProto) -> None:
    """Replaces f32 weights with f16 ones and a cast, which runtimes fold: half the size, the same results."""
    weights, casts = [], []
    for weight in model.graph.initializer:
        values = onnx.numpy_helper.to_array(weight)
        if values.dtype == np.float32 and values.size >= 64:
            half = values.astype(np.float16)
            if not np.array_equal(half.astype(np.float32), values):
                raise ValueError(f"{weight.name} is not an f16 weight")
            short = f"{weight.name}_f16"
            casts.append(onnx.helper.make_node("Cast", [short], [weight.name], to=onnx.TensorProto.FLOAT))
            weight = onnx.numpy_helper.from_array(half, short)
        weights.append(weight)
    nodes = casts + list(model.graph.node)
    model.graph.ClearField("initializer")
    model.graph.initializer.extend(weights)
    model.graph.ClearField("node")
    model.graph.node.extend(nodes)


def compare(file: Path, expected: tuple[Tensor, ...], inputs: dict[str, Input], tolerance: float) -> None:
    """Fails unless ONNX Runtime returns what torch returned, for a batch of three that is not square."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    actual = session.run(None, {name: entry.compared.numpy() for name, entry in inputs.items()})
    worst = 0.0
    for name, a, tensor in zip((output.name for output in session.get_outputs()), actual, expected, strict=True):
        e = tensor.numpy()
        difference = float(np.abs(a - e).max() / max(1.0, np.abs(e).max()))
        if a.shape != e.shape or not difference <= tolerance:
            raise ValueError(f"{file}: {name} differs by {difference:.1e}")
        worst = max(worst, difference)
    print(f"  {file.parent.name}: {file.stat().st_size} bytes, within {worst:.1e} of torch", flush=True)


def write_graph(file: Path, graph: Graph, inputs: dict[str, Input], outputs: dict[str, Axes]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    axes = {name: entry.axes for name, entry in inputs.items()} | outputs
    buffer = io.BytesIO()
    torch.onnx.export(
        graph.eval(),
        tuple(entry.traced for entry in inputs.values()),
        buffer,
        dynamo=False,
        opset_version=18,
        input_names=list(inputs),
        output_names=list(outputs),
        dynamic_axes={name: value for name, value in axes.items() if value},
    )
    model = onnx.load_from_string(buffer.getvalue())
    for node in model.graph.node:  # Nothing needs names, and they are a tenth of the file.
        node.ClearField("doc_string")
        node.ClearField("name")
    store_weights_as_f16(model)
    onnx.checker.check_model(model, full_check=True)
    file.write_bytes(model.SerializeToString(deterministic=True))


def export(file: Path, graph: Graph, inputs: dict[str, Input], outputs: dict[str, Axes]) -> None:
    """Writes a graph, and compares it with torch."""
    write_graph(file, graph, inputs, outputs)
    compare(file, graph(*(entry.compared for entry in inputs.values())), inputs, TOLERANCE)


def random_input(axes: Axes, *shape: int) -> Input:
    """Two square ones to trace with, three that are wider to compare with (if it is an image)."""
    wider = [*shape[:-1], shape[-1] * 3 // 2] if 3 in axes else shape
    return Input(torch.randn(2, *shape), torch.randn(3, *wider), axes)


def export_unet(folder: Path, spec: Spec, unet: UNet2DConditionModel) -> None:
    if spec.old_graphs:
        timestep = Input(torch.tensor([501, 1]), torch.tensor([981, 41, 7]), BATCH)
    else:
        timestep = Input(torch.tensor(501.0), torch.tensor(41.625), {})
    inputs = {
        "sample": random_input(AREA, 4, LATENT, LATENT),
        "timestep": timestep,
        "encoder_hidden_states": random_input(TOKENS, LENGTH, unet.config.cross_attention_dim),
    }
    if spec.sdxl:
        time_ids = 5 if spec.refiner else 6
        inputs["text_embeds"] = random_input(BATCH, PROJECTION)
        inputs["time_ids"] = Input(torch.rand(2, time_ids) * 16, torch.rand(3, time_ids) * 16, BATCH)
    outputs = {"out_sample": AREA}
    export(folder / "unet/model.onnx", Graph(unet, unet_forward), inputs, outputs)
    unet.save_config(folder / "unet")
    if spec.f16_unet:
        expected = unet_forward(unet, *(entry.compared for entry in inputs.values()))
        halves = {name: Input(entry.traced.half(), entry.compared.half(), entry.axes) for name, entry in inputs.items()}
        file = folder / "unet_f16/model.onnx"
        write_graph(file, Graph(deepcopy(unet).half(), unet_forward), halves, outputs)
        compare(file, expected, halves, F16_TOLERANCE)
        unet.save_config(folder / "unet_f16")


def export_vae(folder: Path, spec: Spec, vae: AutoencoderKL) -> None:
    side = LATENT * spec.factor
    if spec.old_graphs:
        name, encode = "latent_sample", lambda vae, sample: (vae.encode(sample).latent_dist.mode(),)
    else:
        name, encode = "latent_parameters", lambda vae, sample: (vae.encode(sample).latent_dist.parameters,)
    image = {"sample": random_input(AREA, 3, side, side)}
    export(folder / "vae_encoder/model.onnx", Graph(vae, encode), image, {name: LATENT_AREA})
    latents = {"latent_sample": random_input(LATENT_AREA, 4, LATENT, LATENT)}
    decode = Graph(vae, lambda vae, latents: (vae.decode(latents).sample,))
    export(folder / "vae_decoder/model.onnx", decode, latents, {"sample": AREA})
    for part in ["vae_encoder", "vae_decoder"]:
        vae.save_config(folder / part)


def export_text_encoder(folder: Path, spec: Spec, name: str, encoder: Any, tokenizer: CLIPTokenizer) -> None:
    def ids(texts: list[str], length: int) -> Tensor:
        return tokenizer(texts, padding="max_length", truncation=True, max_length=length, return_tensors="pt").input_ids

    inputs = {"input_ids": Input(ids(PROMPTS, LENGTH), ids([*PROMPTS, ""], LENGTH - 5), TOKENS)}
    outputs: dict[str, Axes] = {"last_hidden_state": TOKENS, "pooler_output": BATCH}
    if isinstance(encoder, CLIPTextModelWithProjection):
        outputs = {"text_embeds": BATCH, "last_hidden_state": TOKENS}
    if spec.sdxl:
        outputs |= {f"hidden_states.{layer}": TOKENS for layer in range(encoder.config.num_hidden_layers + 1)}
    graph = Graph(encoder, lambda encoder, ids: text_forward(encoder, ids, spec.sdxl))
    export(folder / name / "model.onnx", graph, inputs, outputs)
    encoder.config.save_pretrained(folder / name)


def write_json(file: Path, value: object) -> None:
    file.write_text(json.dumps(value, ensure_ascii=False, indent=1) + "\n")


def save_tokenizer(folder: Path, tokenizer: CLIPTokenizer) -> None:
    """The files of transformers 5, without padding and truncation, and the vocabulary files of its predecessors."""
    tokenizer.backend_tokenizer.no_padding()
    tokenizer.backend_tokenizer.no_truncation()
    tokenizer.save_pretrained(folder)
    tokenizer.backend_tokenizer.model.save(str(folder))
    config = json.loads((folder / "tokenizer_config.json").read_text())
    loading = {"is_local", "local_files_only"}
    write_json(folder / "tokenizer_config.json", {key: config[key] for key in config if key not in loading})
    write_json(folder / "special_tokens_map.json", tokenizer.special_tokens_map)


def export_pipeline(folder: Path, spec: Spec, pipeline: Pipeline) -> None:
    """The folder that `optimum-cli export onnx` writes."""
    export_unet(folder, spec, pipeline.unet)
    export_vae(folder, spec, pipeline.vae)
    for name in spec.encoders:
        tokenizer_name = name.replace("text_encoder", "tokenizer")
        tokenizer = getattr(pipeline, tokenizer_name)
        export_text_encoder(folder, spec, name, getattr(pipeline, name), tokenizer)
        save_tokenizer(folder / tokenizer_name, tokenizer)
    pipeline.scheduler.save_pretrained(folder / "scheduler")
    index = json.loads(pipeline.to_json_string())
    write_json(folder / "model_index.json", index | {"_class_name": spec.index_class})


# --- recording ----------------------------------------------------------------------------------------


def packed(values: Tensor | np.ndarray) -> str:
    """base64 of the numbers, as little-endian f32 or (an image's) as bytes."""
    array = np.asarray(values)
    return base64.b64encode(array.astype("u1" if array.dtype == np.uint8 else "<f4").tobytes()).decode()


def png(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return base64.b64encode(buffer.getvalue()).decode()


class Recorder:
    """Records a pipeline while it runs: its draws, the latents, and the time ids."""

    def __init__(self, pipeline: Pipeline, scheduler: Any) -> None:
        self.draws: list[Tensor] = []
        self.noising: list[tuple[Tensor, Tensor]] = []
        self.time_ids: list[tuple[Tensor, Tensor]] = []
        self.timesteps: list[int | float] = []
        self.latents: list[Tensor] = []
        self._randn, self._add_noise = torch.randn, scheduler.add_noise
        self._get_time_ids = getattr(pipeline, "_get_add_time_ids", None)

    def randn(self, *arguments: Any, **named: Any) -> Tensor:
        self.draws.append(self._randn(*arguments, **named))
        return self.draws[-1]

    def add_noise(self, original: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        noisy = self._add_noise(original, noise, timesteps)
        self.noising.append((original, noisy))
        return noisy

    def get_time_ids(self, *arguments: Any, **named: Any) -> tuple[Tensor, Tensor]:
        self.time_ids.append(self._get_time_ids(*arguments, **named))
        return self.time_ids[-1]

    def after_step(self, _pipeline: Pipeline, _step: int, timestep: Tensor, tensors: dict[str, Tensor]) -> dict:
        self.timesteps.append(timestep.item())
        self.latents.append(tensors["latents"])
        return tensors


def run(pipeline: Pipeline, spec: Spec, case: Case, source: Image.Image, seed: int) -> tuple[Recorder, np.ndarray]:
    """Runs diffusers' pipeline unchanged; for old graphs only, the posterior's mode replaces its draw."""
    recorder = Recorder(pipeline, pipeline.scheduler)
    draw = DiagonalGaussianDistribution.sample
    if spec.old_graphs:
        draw = lambda posterior, generator=None: posterior.mode()  # noqa: E731
    with (
        mock.patch("torch.randn", recorder.randn),
        mock.patch.object(pipeline.scheduler, "add_noise", recorder.add_noise),
        mock.patch.object(pipeline, "_get_add_time_ids", recorder.get_time_ids, create=not spec.sdxl),
        mock.patch.object(DiagonalGaussianDistribution, "sample", draw),
    ):
        result = pipeline(
            prompt=PROMPTS[case.prompt],
            negative_prompt=case.negative,
            image=source,
            strength=float(case.strength),
            num_inference_steps=case.n,
            guidance_scale=case.guidance,
            generator=torch.Generator("cpu").manual_seed(seed),
            callback_on_step_end=recorder.after_step,
        )
    return recorder, np.asarray(result.images[0])


def record_case(
    pipeline: Pipeline, spec: Spec, case: Case, sources: dict[str, Image.Image], seed: int
) -> dict[str, Any]:
    pipeline.scheduler = make_scheduler(case, spec.prediction)
    recorder, image = run(pipeline, spec, case, sources[case.source], seed)
    draws = [packed(draw) for draw in recorder.draws]
    ((z0, noisy),) = recorder.noising
    config = dict(pipeline.scheduler.config)
    name = "_".join([case.scheduler, case.spacing, *case.options, case.strength, case.source])
    steps, saturated = len(recorder.latents), float(np.isin(image, [0, 255]).mean())
    largest = max(latents.abs().max().item() for latents in recorder.latents)
    print(f"  {name}: {steps} steps, latents up to {largest:.1f}, {saturated:.0%} saturated", flush=True)
    record: dict[str, Any] = {
        "name": name,
        "scheduler": {"_class_name": type(pipeline.scheduler).__name__}
        | {key: value for key, value in config.items() if not key.startswith("_")},
        "num_inference_steps": case.n,
        "strength": case.strength,
        "guidance_scale": case.guidance,
        "prompt": PROMPTS[case.prompt],
        "negative_prompt": case.negative,
        "source": case.source,
        "seed": seed,
        "latent_shape": list(z0.shape[1:]),
        "posterior_draw": None if spec.old_graphs else draws.pop(0),
        "noise": draws.pop(0),
        "step_draws": draws,
        "z0": packed(z0),
        "initial": packed(noisy),
        "timesteps": recorder.timesteps,
        "after_step": [packed(latents) for latents in recorder.latents],
        "image": {"width": image.shape[1], "height": image.shape[0], "rgb": packed(image)},
    }
    if spec.sdxl:
        ((cond, uncond),) = recorder.time_ids
        record |= {"time_ids": cond[0].tolist(), "negative_time_ids": uncond[0].tolist()}
    return record


def record_text(pipeline: Pipeline, spec: Spec, text: str) -> dict[str, Any]:
    """A text's ids by tokenizer, and the UNet's inputs for it."""
    names = [encoder.replace("text_encoder", "tokenizer") for encoder in spec.encoders]
    ids = {
        name: getattr(pipeline, name)(text, padding="max_length", truncation=True, max_length=LENGTH).input_ids
        for name in names
    }
    hidden, pooled = embed(pipeline, text)
    record = {"text": text, "ids": ids, "shape": list(hidden.shape[1:]), "prompt_embeds": packed(hidden)}
    return record if pooled is None else record | {"pooled_prompt_embeds": packed(pooled)}


def record(pipeline: Pipeline, spec: Spec, number: int) -> dict[str, Any]:
    """The contents of golden.json."""
    sources = make_sources(spec.factor)
    first_seed = 1000 * (1 + number)
    return {
        "made_by": f"tests/oracle/make.py: diffusers {diffusers.__version__}, transformers {transformers.__version__}, "
        f"torch {torch.__version__.split('+')[0]}, f32 on the CPU",
        "pipeline": type(pipeline).__name__,
        "vae_scale_factor": pipeline.vae_scale_factor,
        "scaling_factor": spec.scaling_factor,
        "posterior": "mode" if spec.old_graphs else "sample",
        "sources": {
            name: {"width": image.width, "height": image.height, "png": png(image)}
            for name, image in sources.items()
        },
        "texts": [record_text(pipeline, spec, text) for text in TEXTS],
        "cases": [
            record_case(pipeline, spec, case, sources, first_seed + index) for index, case in enumerate(spec.cases)
        ],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=OUT, help="folder for the pipelines' folders")
    parser.add_argument("--tokenizer", type=Path, default=TOKENIZER, help="folder of the CLIP tokenizer to reuse")
    arguments = parser.parse_args()
    out: Path = arguments.out
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    warnings.simplefilter("ignore")
    diffusers.utils.logging.set_verbosity_error()
    transformers.logging.set_verbosity_error()
    with torch.no_grad():
        for number, spec in enumerate(SPECS):
            print(spec.name, flush=True)
            pipeline = build(spec, arguments.tokenizer, number)
            export_pipeline(out / spec.name, spec, pipeline)
            write_json(out / spec.name / "golden.json", record(pipeline, spec, number))
    size = sum(file.stat().st_size for file in out.rglob("*") if file.is_file())
    print(f"{out}: {size} bytes in all")


if __name__ == "__main__":
    main()
