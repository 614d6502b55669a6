"""The benchmark for a machine with an NVIDIA GPU: `discl-pipe` on CUDA and diffusers, at full model size.

    python gpu.py DISCL_PIPE [--onnxruntime LIBRARY] [--models sd15 refiner] [--runs 3] [--work DIR] > table.md
    python gpu.py DISCL_PIPE [--onnxruntime LIBRARY] --oracle

It makes pipelines with the architectures of Stable Diffusion 1.5 and of the SDXL refiner and random weights (nothing
is downloaded), exports them as `optimum-cli export onnx` lays them out, and then runs, in turn and several times:

- `discl-pipe@B`: batches of B, on the graphs as exported;
- `discl-pipe-fused@B`: the same after ONNX Runtime's own fusions for UNets (attention, group norm, NHWC);
- `diffusers@B`: diffusers' pipeline on torch, B images of one strength in a call; with `--compile` a compiled UNet.

`--oracle` instead runs the recorded cases of `tests/fixtures/pipelines` and compares images with those of diffusers.
`--work` keeps the models for the next run (5 GB for sd15, 18 GB for the refiner). A contender that fails becomes a row
of the table, and the others still run. A trial without a GPU takes a few minutes:

    python gpu.py DISCL_PIPE --device cpu --scale 0.1 --pixels 64 --timesteps 4 --sources 4 --batches 1 4 --runs 1
"""

import argparse
import base64
import contextlib
import importlib.metadata
import importlib.util
import io
import json
import math
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

HERE = Path(__file__).resolve().parent
US, FUSED, PEER, COMPILED = "discl-pipe", "discl-pipe-fused", "diffusers", "diffusers-compiled"
PACKAGES = ["torch", "diffusers", "transformers", "onnxruntime-gpu", "onnxruntime", "onnx", "numpy", "pillow"]
TOKENS = 77
CLASSES = ["heron", "lynx"]
JOB_LEVELS, JOB_SEEDS = [0, 10, 30, 50], [1, 2]
STEADY_LEVEL, STEADY_SEEDS = 50, list(range(1, 9))

PEAKS = [
    ("H200", 989.4),
    ("GH200", 989.4),
    ("H100 PCIe", 756.0),
    ("H100 NVL", 835.0),
    ("H100", 989.4),
    ("A100", 312.0),
    ("L40S", 362.0),
    ("L40", 181.0),
    ("L4", 121.0),
    ("RTX 4090", 165.2),
]
"""Dense TFLOP/s in half precision with sums in single precision, by a part of the GPU's name; the first match wins."""


# --- the models: this part imports torch only when it is called ---------------------------------------


@dataclass(frozen=True)
class Kind:
    """The architecture of a pipeline. Heads of the UNet are `heads`, or one for each 64 channels."""

    name: str
    xl: bool
    unet: dict[str, Any]
    channels: tuple[int, ...]
    heads: int | None
    text_width: int
    text_layers: int
    activation: str
    pad: str
    scaling_factor: float
    guidance_scale: float

    @property
    def encoder(self) -> str:
        return "text_encoder_2" if self.xl else "text_encoder"

    @property
    def tokenizer(self) -> str:
        return "tokenizer_2" if self.xl else "tokenizer"


SD15 = Kind(
    name="sd15",
    xl=False,
    unet={"sample_size": 64},
    channels=(320, 640, 1280, 1280),
    heads=8,
    text_width=768,
    text_layers=12,
    activation="quick_gelu",
    pad="<|endoftext|>",
    scaling_factor=0.18215,
    guidance_scale=7.5,
)
REFINER = Kind(
    name="refiner",
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
    guidance_scale=5.0,
)
KINDS = {kind.name: kind for kind in [SD15, REFINER]}
TIME_IDS = 5
VAE_CHANNELS = (128, 256, 512, 512)


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


def make_text_encoder(kind: Kind, scale: float, tokenizer: Any) -> Any:
    """OpenAI's CLIP ViT-L/14 for SD 1.5, OpenCLIP's bigG for the refiner."""
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    width = scaled(kind.text_width, scale, 64)
    config = CLIPTextConfig(
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
        attn_implementation="eager",
    )
    return (CLIPTextModelWithProjection if kind.xl else CLIPTextModel)(config)


def write_tokenizer(kind: Kind, digits: Path, folder: Path) -> None:
    """The digits' tokenizer with the length and padding of the real one: few words, but all ids are in range."""
    shutil.copytree(digits / "tokenizer", folder, dirs_exist_ok=True)
    for name, changes in [
        ("tokenizer_config.json", {"model_max_length": TOKENS, "pad_token": kind.pad}),
        ("special_tokens_map.json", {"pad_token": kind.pad}),
    ]:
        text = json.loads((folder / name).read_text())
        write_json(folder / name, text | changes)


def make_scheduler(kind: Kind) -> Any:
    """DDIM for SD 1.5, since its PNDM evaluates the UNet once more than there are timesteps; the refiner's own."""
    from diffusers import DDIMScheduler, EulerDiscreteScheduler

    common = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}
    if kind.xl:
        return EulerDiscreteScheduler(**common, timestep_spacing="leading")
    return DDIMScheduler(**common, clip_sample=False, set_alpha_to_one=False)


def make_pipeline(kind: Kind, scale: float, tokenizer_folder: Path) -> Any:
    """diffusers' pipeline with seeded random weights, in single precision on the CPU."""
    import torch
    from diffusers import (
        AutoencoderKL,
        StableDiffusionImg2ImgPipeline,
        StableDiffusionXLImg2ImgPipeline,
        UNet2DConditionModel,
    )
    from transformers import CLIPTokenizer

    torch.manual_seed(0)
    tokenizer = CLIPTokenizer.from_pretrained(tokenizer_folder)
    parts = {
        "vae": AutoencoderKL(**vae_config(kind, scale)),
        kind.encoder: make_text_encoder(kind, scale, tokenizer),
        kind.tokenizer: tokenizer,
        "unet": UNet2DConditionModel(**unet_config(kind, scale)),
        "scheduler": make_scheduler(kind),
    }
    for part in parts.values():
        if isinstance(part, torch.nn.Module):
            part.eval().requires_grad_(False)
    if kind.xl:
        settings = {"requires_aesthetics_score": True, "force_zeros_for_empty_prompt": False, "add_watermarker": False}
        return StableDiffusionXLImg2ImgPipeline(text_encoder=None, tokenizer=None, **parts, **settings)
    return StableDiffusionImg2ImgPipeline(
        **parts, safety_checker=None, feature_extractor=None, requires_safety_checker=False
    )


@dataclass(frozen=True)
class Costs:
    """Floating-point operations of one row of the UNet and of one decoded image, and the UNet's parameters."""

    unet: int
    decoder: int
    parameters: int


def count_costs(kind: Kind, scale: float, pixels: int) -> Costs:
    """Counted by torch, on tensors without values."""
    import torch
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from torch.utils.flop_counter import FlopCounterMode

    config = unet_config(kind, scale)
    width = config["cross_attention_dim"]
    with torch.device("meta"), torch.no_grad():
        unet, vae = UNet2DConditionModel(**config), AutoencoderKL(**vae_config(kind, scale))
        latents = torch.empty(1, 4, pixels // 8, pixels // 8)
        added = {"text_embeds": torch.empty(1, width), "time_ids": torch.empty(1, TIME_IDS)} if kind.xl else None
        with FlopCounterMode(display=False) as of_unet:
            unet(latents, torch.empty(1), torch.empty(1, TOKENS, width), added_cond_kwargs=added)
        with FlopCounterMode(display=False) as of_decoder:
            vae.decode(latents)
        parameters = sum(parameter.numel() for parameter in unet.parameters())
    return Costs(of_unet.get_total_flops(), of_decoder.get_total_flops(), parameters)


# --- graphs ---------------------------------------------------------------------------------------------

Axes = dict[int, str]
AREA: Axes = {0: "batch_size", 2: "height", 3: "width"}
LATENT_AREA: Axes = {0: "batch_size", 2: "latent_height", 3: "latent_width"}
WORDS: Axes = {0: "batch_size", 1: "sequence_length"}
BATCH: Axes = {0: "batch_size"}
LARGEST_IN_ONE_FILE = 1_900_000_000
"""Bytes of weights; protobuf ends at 2 GiB."""


def write_json(file: Path, value: object) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(value, indent=1) + "\n")


def save_graph(model: Any, file: Path) -> None:
    """Writes a graph, with its weights in `model.onnx_data` next to it if they are too large for one file."""
    import onnx

    file.parent.mkdir(parents=True, exist_ok=True)
    for old in [file, file.with_name("model.onnx_data")]:
        old.unlink(missing_ok=True)
    bytes_of_weights = sum(len(tensor.raw_data) for tensor in model.graph.initializer)
    if bytes_of_weights <= LARGEST_IN_ONE_FILE:
        onnx.save_model(model, str(file))
    else:
        onnx.save_model(model, str(file), save_as_external_data=True, location="model.onnx_data")


def export(
    module: Any,
    run: Callable[..., Any],
    file: Path,
    inputs: dict[str, tuple[Any, Axes]],
    outputs: dict[str, Axes],
) -> None:
    """Writes the graph of `run(module, *inputs)`; a tensor comes with its dynamic axes."""
    import onnx
    import torch

    class Graph(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.module = module

        def forward(self, *tensors: Any) -> Any:
            return run(self.module, *tensors)

    axes = {name: axes for name, (_, axes) in inputs.items() if axes} | outputs
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=file.parent) as folder, warnings.catch_warnings(), torch.no_grad():
        # From the older exporter, and about size checks that tracing turns into constants.
        warnings.simplefilter("ignore")
        raw = str(Path(folder) / "model.onnx")
        torch.onnx.export(
            Graph().eval(),
            tuple(tensor for tensor, _ in inputs.values()),
            raw,
            dynamo=False,
            opset_version=17,
            input_names=list(inputs),
            output_names=list(outputs),
            dynamic_axes=axes,
        )
        # A large graph has each weight in its own file.
        model = onnx.load(raw)
    save_graph(model, file)


def export_unet(kind: Kind, unet: Any, file: Path, per_sample: bool) -> None:
    """`timestep` is optimum's scalar, or with `per_sample` one value for each row."""
    import torch

    width, dtype = unet.config.cross_attention_dim, unet.dtype
    timestep = torch.tensor([501.0, 1.0] if per_sample else 501.0, dtype=dtype)
    inputs = {
        "sample": (torch.randn(2, 4, 16, 16, dtype=dtype), AREA),
        "timestep": (timestep, BATCH if per_sample else {}),
        "encoder_hidden_states": (torch.randn(2, TOKENS, width, dtype=dtype), WORDS),
    }
    if kind.xl:
        inputs["text_embeds"] = (torch.randn(2, width, dtype=dtype), BATCH)
        inputs["time_ids"] = (torch.full((2, TIME_IDS), 8.0, dtype=dtype), BATCH)

    def run(unet: Any, sample: Any, timestep: Any, hidden: Any, *added: Any) -> Any:
        added = dict(zip(["text_embeds", "time_ids"], added, strict=False))
        return unet(sample, timestep, hidden, added_cond_kwargs=added, return_dict=False)[0]

    export(unet, run, file, inputs, {"out_sample": AREA})
    unet.save_config(file.parent)


def export_vae(vae: Any, bundle: Path) -> None:
    import torch

    image = torch.rand(1, 3, 64, 64).to(vae.dtype) * 2 - 1
    latents = torch.randn(1, 4, 8, 8).to(vae.dtype)
    export(
        vae,
        lambda vae, sample: vae.encode(sample).latent_dist.parameters,
        bundle / "vae_encoder/model.onnx",
        {"sample": (image, AREA)},
        {"latent_parameters": LATENT_AREA},
    )
    export(
        vae,
        lambda vae, latents: vae.decode(latents).sample,
        bundle / "vae_decoder/model.onnx",
        {"latent_sample": (latents, LATENT_AREA)},
        {"sample": AREA},
    )
    for part in ["vae_encoder", "vae_decoder"]:
        vae.save_config(bundle / part)


def export_text_encoder(kind: Kind, encoder: Any, tokenizer: Any, bundle: Path) -> None:
    padded = {"padding": "max_length", "truncation": True, "max_length": TOKENS, "return_tensors": "pt"}
    ids = tokenizer(["a photo of a heron", "a lynx"], **padded).input_ids

    def run(encoder: Any, ids: Any) -> tuple[Any, ...]:
        result = encoder(ids, output_hidden_states=kind.xl)
        if kind.xl:
            return (result.text_embeds, result.last_hidden_state, *result.hidden_states)
        return (result.last_hidden_state, result.pooler_output)

    outputs = {"last_hidden_state": WORDS, "pooler_output": BATCH}
    if kind.xl:
        layers = range(encoder.config.num_hidden_layers + 1)
        outputs = {"text_embeds": BATCH, "last_hidden_state": WORDS} | {f"hidden_states.{n}": WORDS for n in layers}
    export(encoder, run, bundle / kind.encoder / "model.onnx", {"input_ids": (ids, WORDS)}, outputs)
    encoder.config.save_pretrained(bundle / kind.encoder)


def names_before(model: Any, operators: list[str]) -> list[str]:
    """The names of nodes of some kinds, and of all that they are computed from."""
    makers = {name: node for node in model.graph.node for name in node.output}
    found: dict[str, None] = {}
    waiting = [node for node in model.graph.node if node.op_type in operators]
    while waiting:
        node = waiting.pop()
        if node.name not in found:
            found[node.name] = None
            waiting += [makers[name] for name in node.input if name in makers]
    return list(found)


def fuse_unet(kind: Kind, unet: Any, file: Path, half: bool) -> dict[str, int]:
    """Writes the UNet as ONNX Runtime's tools fuse it for CUDA; returns how many of each fused operator it has.

    They know diffusers' plain attention in single precision, so that is exported first. Angles of the time embedding
    stay in single precision, as they are in diffusers.
    """
    from diffusers.models.attention_processor import AttnProcessor
    from onnxruntime.transformers.fusion_options import FusionOptions
    from onnxruntime.transformers.optimizer import optimize_model

    processors = unet.attn_processors
    unet.set_attn_processor(AttnProcessor())
    with tempfile.TemporaryDirectory(dir=file.parent.parent) as folder:
        plain = Path(folder) / "plain/model.onnx"
        export_unet(kind, unet, plain, per_sample=True)
        unet.set_attn_processor(processors)
        options = FusionOptions("unet")
        # separate inputs, as the attention kernels for newer GPUs take them
        options.enable_packed_qkv = options.enable_packed_kv = False
        fused = optimize_model(str(plain), "unet", opt_level=0, optimization_options=options, use_gpu=True)
        if half:
            angles = names_before(fused.model, ["Sin", "Cos"])
            fused.convert_float_to_float16(keep_io_types=False, node_block_list=angles)
        counts = fused.get_fused_operator_statistics()
        save_graph(fused.model, file)
    unet.save_config(file.parent)
    return {name: count for name, count in counts.items() if count}


def link_rest(bundle: Path, other: Path) -> None:
    """Creates `other`, the bundle with another UNet."""
    for entry in bundle.iterdir():
        if entry.name != "unet" and not (other / entry.name).exists():
            (other / entry.name).symlink_to(entry.resolve())


def build(arguments: argparse.Namespace, kind: Kind) -> Path:
    """A model's folder: `onnx`, `fused` (if requested) and `torch`, each created once."""
    import torch

    folder: Path = arguments.work / f"{kind.name}-{arguments.scale:g}-{arguments.dtype}"
    bundle, fused, half = folder / "onnx", folder / "fused", arguments.dtype == "float16"
    wants_fused = arguments.fuse and not (fused / "made.json").exists()
    if (bundle / "model_index.json").exists() and not wants_fused:
        return folder
    say(f"{kind.name}: making the model")
    write_tokenizer(kind, arguments.root / "models/digits", bundle / kind.tokenizer)
    pipeline = make_pipeline(kind, arguments.scale, bundle / kind.tokenizer)
    for part in ["unet", "vae", kind.encoder]:  # weights that half precision has, also where it is single
        round_to_half(getattr(pipeline, part))
    if not (bundle / "model_index.json").exists():
        pipeline.scheduler.save_pretrained(bundle / "scheduler")
        say(f"{kind.name}: exporting")
        tokenizer = getattr(pipeline, kind.tokenizer)
        export_text_encoder(kind, pipeline_part(pipeline, kind.encoder, half), tokenizer, bundle)
        export_vae(pipeline_part(pipeline, "vae", half and not kind.xl), bundle)
        export_unet(kind, pipeline_part(pipeline, "unet", half), bundle / "unet/model.onnx", per_sample=False)
        pipeline.to(torch.float16 if half else torch.float32)
        pipeline.save_pretrained(folder / "torch")
        write_json(bundle / "model_index.json", json.loads(pipeline.to_json_string()))
    if wants_fused:
        say(f"{kind.name}: fusing, some minutes")
        try:
            (fused / "unet").mkdir(parents=True, exist_ok=True)
            counts = fuse_unet(kind, pipeline_part(pipeline, "unet", False), fused / "unet/model.onnx", half)
            link_rest(bundle, fused)
        except Exception as error:  # the tools of another package, at work on a graph that they may not know
            say(f"{kind.name}: not fused: {error!r}")
            counts = {}
        write_json(fused / "made.json", counts)
    return folder


def round_to_half(module: Any) -> None:
    for weight in module.parameters():
        weight.copy_(weight.half().float())


def pipeline_part(pipeline: Any, name: str, half: bool) -> Any:
    """A module of the pipeline, in half or single precision."""
    module = getattr(pipeline, name)
    return module.half() if half else module.float()


# --- data and pipelines ---------------------------------------------------------------------------------

PIPELINE = """\
name = "gpu"
seed = 0

[lake]
root = "{folder}/lake"

[source]
kind = "parquet"
root = "{folder}"

[source.splits]
train = "train.parquet"

[models]
diffusion = "{diffusion}"
clip      = "{clip}"

[hard_samples]
max_class_count = {hard}

[prompts]
generation = "a photo of a {{class}}"
filter     = "a photo of a {{class}}"

[spectrum]
image_guidance = {levels}
seeds          = {seeds}
timesteps      = {timesteps}
guidance_scale = {guidance_scale}
{more}
noise          = "torch"

[filter]
min_text_similarity = -1.0
max_attempts        = 1

[cuda]
tf32 = {tf32}
"""


def png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "png")
    return file.getvalue()


def make_image(random: np.random.Generator, pixels: int) -> bytes:
    """Soft random colours."""
    colours = random.integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return png(Image.fromarray(colours).resize((pixels, pixels), Image.Resampling.BICUBIC))


def write_data(folder: Path, images: list[bytes], labels: list[int], classes: list[str]) -> None:
    """`train.parquet` by the convention of Hugging Face `datasets`."""
    features = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": classes}}
    schema = pa.schema(
        [("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])), ("label", pa.int64())],
        metadata={"huggingface": json.dumps({"info": {"features": features}})},
    )
    rows = [
        {"image": {"bytes": image, "path": f"{row:04}.png"}, "label": label}
        for row, (image, label) in enumerate(zip(images, labels, strict=True))
    ]
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), folder / "train.parquet")


def write_pipeline(arguments: argparse.Namespace, kind: Kind, folder: Path) -> Path:
    """The data set and the pipeline of the steady part; the job's values are set at the command line."""
    random = np.random.default_rng(0)
    count = arguments.sources
    images = [make_image(random, arguments.pixels) for _ in range(count)]
    data = folder / f"data-{arguments.pixels}-{count}"
    write_data(data, images, [row % len(CLASSES) for row in range(count)], CLASSES)
    toml = data / "gpu.toml"
    toml.write_text(
        PIPELINE.format(
            folder=data,
            diffusion=folder / "onnx",
            clip=arguments.root / "models/digits/clip",
            hard=count + 1,
            levels=[STEADY_LEVEL],
            seeds=STEADY_SEEDS,
            timesteps=arguments.timesteps,
            guidance_scale=kind.guidance_scale,
            more="",
            tf32="true",  # what diffusers has for convolutions, and here for products too, on both sides
        )
    )
    return toml


# --- running ------------------------------------------------------------------------------------------


class Failed(Exception):
    """A program that failed."""


@dataclass(frozen=True)
class Contender:
    """Who generates the images, and how many at once."""

    name: str
    batch: int

    def __str__(self) -> str:
        return f"{self.name}@{self.batch}"


@dataclass(frozen=True)
class Part:
    """What to measure."""

    name: str
    levels: list[int]
    seeds: list[int]


PARTS = [Part("steady", [STEADY_LEVEL], STEADY_SEEDS), Part("job", JOB_LEVELS, JOB_SEEDS)]


@dataclass(frozen=True)
class Sample:
    """One run of one contender. Rates leave out loading and the first images; `seconds` has all of it."""

    model: str
    part: str
    contender: str
    images_per_second: float
    evaluations_per_second: float
    seconds: float
    peak_mib: int | None
    clock_mhz: float | None
    figures: dict[str, Any]


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def library_folders() -> list[str]:
    """The library folders of pip's CUDA and cuDNN packages, which ONNX Runtime needs to find."""
    spec = importlib.util.find_spec("nvidia")
    roots = list(spec.submodule_search_locations or []) if spec else []
    return sorted({str(file.parent) for root in roots for file in Path(root).glob("**/lib/*.so*")})


def environment() -> dict[str, str]:
    folders = [os.environ.get("LD_LIBRARY_PATH", ""), *library_folders()]
    return os.environ | {"LD_LIBRARY_PATH": ":".join(filter(None, folders)), "PYTHONDONTWRITEBYTECODE": "1"}


def call(command: list[Any], timeout: float) -> str:
    """Runs a program and returns its standard output; a failure carries its error output."""
    words = [str(word) for word in command]
    try:
        done = subprocess.run(words, env=environment(), capture_output=True, text=True, timeout=timeout)
    except subprocess.TimeoutExpired:
        raise Failed(f"stopped after {timeout:.0f} s") from None
    if done.returncode != 0:
        say(f"{' '.join(words)}\n{done.stdout[-2000:]}\n{done.stderr[-6000:]}")
        lines = [line for line in (done.stdout + "\n" + done.stderr).splitlines() if line.strip(" {}[]")]
        raise Failed(f"exit code {done.returncode}: {lines[-1].strip()[:200] if lines else 'no output'}")
    return done.stdout


def smi(fields: str, gpu: str) -> list[str]:
    return ["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader,nounits", "-i", gpu]


class Monitor:
    """Reads memory and clock of the GPU while something runs; memory is of all programs on it."""

    def __init__(self, gpu: str | None) -> None:
        self.memory: list[int] = []
        self.clocks: list[float] = []
        self.process: subprocess.Popen[str] | None = None
        if gpu is not None and shutil.which("nvidia-smi"):
            command = [*smi("memory.used,clocks.sm", gpu), "-lms", "100"]
            self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
            self.thread = threading.Thread(target=self.read, daemon=True)

    def read(self) -> None:
        assert self.process and self.process.stdout
        for line in self.process.stdout:
            with contextlib.suppress(ValueError):
                memory, clock = line.split(",")
                self.memory.append(int(memory))
                self.clocks.append(float(clock))

    def __enter__(self) -> "Monitor":
        if self.process:
            self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.process:
            self.process.terminate()
            self.process.wait()
            self.thread.join(2)

    @property
    def peak(self) -> int | None:
        return max(self.memory, default=None)

    @property
    def clock(self) -> float | None:
        """The upper quartile: the clock while it was busy."""
        return statistics.quantiles(self.clocks, n=4)[2] if len(self.clocks) > 3 else None


def rows_of(table: Path) -> list[dict[str, Any]]:
    """The rows of a table in a fresh lake, in which every file is live."""
    return [row for file in sorted(table.glob("*.parquet")) for row in pq.read_table(file).to_pylist()]


def steady_rates(ledger: list[dict[str, Any]], batch: int) -> tuple[float, float]:
    """Images and UNet evaluations per second after the first units: past loading and choosing of kernels.

    A unit is a source. Those that hold the first two batches are left out, and at most half of all.
    """
    units = sorted((row for row in ledger if row["step"] == "spectrum" and row["unit"]), key=lambda r: r["finished_ms"])
    if len(units) < 2:
        raise Failed("the ledger has too few units")
    first = min(max(1, math.ceil(2 * batch / units[0]["rows"])), len(units) // 2)
    seconds = max(units[-1]["finished_ms"] - units[first - 1]["finished_ms"], 1) / 1000
    counted = units[first:]
    return sum(u["rows"] for u in counted) / seconds, sum(u["unet_evaluations"] for u in counted) / seconds


def discl_pipe(arguments: argparse.Namespace, command: str, toml: Path, lake: Path, *more: Any) -> str:
    words = [arguments.binary, command, toml, "--lake", lake, "--format", "json", "--device", arguments.device]
    if arguments.onnxruntime:
        words += ["--onnxruntime", arguments.onnxruntime]
    return call([*words, *more], arguments.timeout)


def edits(*values: str) -> list[str]:
    return [word for value in values for word in ["--set", value]]


def run_us(arguments: argparse.Namespace, kind: Kind, part: Part, contender: Contender, toml: Path) -> Sample:
    """`discl-pipe` on a fresh lake."""
    folder = "fused" if contender.name == FUSED else "onnx"
    bundle = toml.parents[1] / folder
    changes = edits(
        f'models.diffusion="{bundle}"', f"spectrum.image_guidance={part.levels}", f"spectrum.seeds={part.seeds}"
    )
    with tempfile.TemporaryDirectory(dir=arguments.work) as lake, Monitor(arguments.gpu) as monitor:
        options = ["--until", "spectrum", "--model-batch", contender.batch, *changes]
        said = json.loads(discl_pipe(arguments, "run", toml, Path(lake), *options))
        images, evaluations = steady_rates(rows_of(Path(lake) / "gpu/ledger"), contender.batch)
        if part.name == "steady":
            keep_images(Path(lake) / "gpu", arguments.work / f"{kind.name}-{contender.name}.json")
    spectrum = next(step for step in said["steps"] if step["step"] == "spectrum")
    figures = said["engine"] | {"provider": said["provider"], "images": spectrum["rows"]}
    seconds, memory = spectrum["seconds"], monitor.peak
    return Sample(kind.name, part.name, str(contender), images, evaluations, seconds, memory, monitor.clock, figures)


def run_peer(arguments: argparse.Namespace, kind: Kind, part: Part, contender: Contender, toml: Path) -> Sample:
    """diffusers in its own process."""
    order = {
        "what": "measure",
        "torch": str(toml.parents[1] / "torch"),
        "data": str(toml.parent / "train.parquet"),
        "device": arguments.device,
        "dtype": arguments.dtype,
        "timesteps": arguments.timesteps,
        "guidance_scale": kind.guidance_scale,
        "batch": contender.batch,
        "compile": contender.name == COMPILED,
        "levels": part.levels,
        "seeds": part.seeds,
    }
    with Monitor(arguments.gpu) as monitor:
        said = ask_peer(arguments, order)
    images, evaluations = said["images"] / said["seconds"], said["unet_evaluations"] / said["seconds"]
    seconds, memory = said["load_seconds"] + said["seconds"], monitor.peak
    return Sample(kind.name, part.name, str(contender), images, evaluations, seconds, memory, monitor.clock, said)


def ask_peer(arguments: argparse.Namespace, order: dict[str, Any]) -> dict[str, Any]:
    with tempfile.NamedTemporaryFile("w", suffix=".json", dir=arguments.work) as file:
        json.dump(order, file)
        file.flush()
        # Libraries print warnings to standard output too.
        return json.loads(call([sys.executable, __file__, "--peer", file.name], arguments.timeout).splitlines()[-1])


def keep_images(tables: Path, file: Path) -> None:
    """Keeps four images and their inputs, to compare them with diffusers' own."""
    sources = {row["source_id"]: row["image"]["bytes"] for row in rows_of(tables / "pixels")}
    made = sorted(rows_of(tables / "spectrum"), key=lambda row: row["sample_id"])[:4]
    kept = [
        {
            "prompt": row["prompt"],
            "image_guidance": row["image_guidance"],
            "noise_seed": row["noise_seed"],
            "source": base64.b64encode(sources[row["source_id"]]).decode(),
            "made": base64.b64encode(row["image"]["bytes"]).decode(),
        }
        for row in made
    ]
    write_json(file, kept)


# --- diffusers, in its own process ----------------------------------------------------------------------


def peer(order: dict[str, Any]) -> dict[str, Any]:
    """Executes an order."""
    import torch
    from diffusers import DiffusionPipeline, StableDiffusionImg2ImgPipeline
    from diffusers.utils import logging

    logging.set_verbosity_error()
    warnings.simplefilter("ignore")
    torch.set_float32_matmul_precision("highest" if order["what"] == "compare" else "high")
    torch.backends.cudnn.allow_tf32 = order["what"] != "compare"
    start = time.perf_counter()
    kind = DiffusionPipeline
    if "StableDiffusionImg2Img" in (Path(order["torch"]) / "model_index.json").read_text():
        kind = StableDiffusionImg2ImgPipeline
    dtype = torch.float32 if order["what"] == "compare" else getattr(torch, order["dtype"])
    pipeline = kind.from_pretrained(order["torch"], torch_dtype=dtype, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.to(order["device"])
    if order["what"] == "compare":
        return compare(pipeline, order)
    pipeline.unet.to(memory_format=torch.channels_last)
    pipeline.vae.to(memory_format=torch.channels_last)
    if order["compile"]:
        pipeline.unet = torch.compile(pipeline.unet)
    return measure_peer(pipeline, order, start)


def ask(
    pipeline: Any,
    order: dict[str, Any],
    sources: list[Image.Image],
    prompts: list[str],
    level: int,
    seeds: list[int],
) -> list[Image.Image]:
    """Images of one strength, in one call."""
    import torch

    return pipeline(
        prompt=prompts,
        image=sources,
        strength=(100 - level) / 100,
        num_inference_steps=order["timesteps"],
        guidance_scale=order["guidance_scale"],
        generator=[torch.Generator("cpu").manual_seed(seed) for seed in seeds],
    ).images


def measure_peer(pipeline: Any, order: dict[str, Any], start: float) -> dict[str, Any]:
    """Generates everything, level by level; PNG files are written in parallel to the GPU's work, as ours are."""
    import torch

    rows = pq.read_table(order["data"]).to_pylist()
    jobs = [(open_image(row["image"]["bytes"]), row["label"], seed) for row in rows for seed in order["seeds"]]
    batches = [jobs[first : first + order["batch"]] for first in range(0, len(jobs), order["batch"])]

    def make(batch: list[tuple[Image.Image, int, int]], level: int) -> list[Image.Image]:
        prompts = [f"a photo of a {CLASSES[label]}" for _, label, _ in batch]
        return ask(pipeline, order, [source for source, _, _ in batch], prompts, level, [seed for _, _, seed in batch])

    for _ in range(2):
        make(batches[0], STEADY_LEVEL)
    loaded = time.perf_counter()
    with ThreadPoolExecutor(8) as pool:
        made = [pool.map(png, make(batch, level)) for level in order["levels"] for batch in batches]
        files = [file for images in made for file in images]
    seconds = time.perf_counter() - loaded
    steps = [int(order["timesteps"] * (100 - level) // 100) for level in order["levels"]]
    cuda = order["device"].startswith("cuda")
    return {
        "images": len(files),
        "unet_evaluations": 2 * len(jobs) * sum(steps),
        "seconds": seconds,
        "load_seconds": loaded - start,
        "torch_peak_mib": torch.cuda.max_memory_allocated() >> 20 if cuda else None,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version() if cuda else None,
    }


def open_image(file: bytes) -> Image.Image:
    return Image.open(io.BytesIO(file)).convert("RGB")


def compare(pipeline: Any, order: dict[str, Any]) -> dict[str, Any]:
    """The kept images, generated by diffusers in single precision from the same seeds."""
    differences = []
    for row in json.loads(Path(order["kept"]).read_text()):
        source = open_image(base64.b64decode(row["source"]))
        (theirs,) = ask(pipeline, order, [source], [row["prompt"]], row["image_guidance"], [row["noise_seed"]])
        ours = open_image(base64.b64decode(row["made"]))
        differences.append(np.abs(np.asarray(ours).astype(int) - np.asarray(theirs).astype(int)))
    all_of_them = np.stack(differences)
    return {
        "images": len(differences),
        "mean": float(all_of_them.mean()),
        "largest": int(all_of_them.max()),
        "within_two": float((all_of_them <= 2).mean()),
    }


# --- tables -------------------------------------------------------------------------------------------


def contenders(arguments: argparse.Namespace, fused: bool) -> list[Contender]:
    known = [Contender(US, batch) for batch in arguments.batches]
    known += [Contender(FUSED, batch) for batch in arguments.batches if fused]
    known += [Contender(PEER, batch) for batch in arguments.peer_batches]
    return known + [Contender(COMPILED, batch) for batch in arguments.peer_batches if arguments.compile]


Samples = dict[Contender, list[Sample]]
Failures = dict[Contender, str]


def measure(arguments: argparse.Namespace, kind: Kind, part: Part, toml: Path, fused: bool) -> tuple[Samples, Failures]:
    """All contenders in turn, several times, beginning with another one each time."""
    samples: Samples = {contender: [] for contender in contenders(arguments, fused)}
    failures: Failures = {}
    for run in range(arguments.runs):
        turns = list(samples)
        first = run * 3 % len(turns)
        for contender in turns[first:] + turns[:first]:
            if contender in failures:
                continue
            runner = run_us if contender.name in [US, FUSED] else run_peer
            try:
                sample = runner(arguments, kind, part, contender, toml)
            except Failed as failure:
                failures[contender] = str(failure)
                say(f"{kind.name} {part.name} {run + 1}: {contender} failed: {failure}")
                continue
            samples[contender].append(sample)
            say(f"{kind.name} {part.name} {run + 1}: {contender} {sample.images_per_second:.2f} images/s")
            if arguments.raw:
                with arguments.raw.open("a") as raw:
                    raw.write(json.dumps({"run": run, **asdict(sample)}) + "\n")
    return samples, failures


def median(samples: list[Sample], of: Callable[[Sample], float]) -> float:
    return statistics.median(of(sample) for sample in samples)


def row(samples: list[Sample], costs: Costs, peak: float | None) -> str:
    """The cells of a contender, medians unless stated otherwise."""
    images = [sample.images_per_second for sample in samples]
    evaluations = median(samples, lambda sample: sample.evaluations_per_second)
    teraflops = (evaluations * costs.unet + statistics.median(images) * costs.decoder) / 1e12
    share = f"{teraflops / peak:.1%}" if peak else "–"
    memory = max((sample.peak_mib or 0 for sample in samples), default=0)
    clock = [sample.clock_mhz for sample in samples if sample.clock_mhz]
    cells = [
        f"{min(images):.2f}",
        f"{statistics.median(images):.2f}",
        f"{max(images):.2f}",
        f"{evaluations:.1f}",
        f"{teraflops:.4g}",
        share,
        f"{memory}" if memory else "–",
        f"{statistics.median(clock):.0f}" if clock else "–",
        f"{median(samples, lambda sample: sample.seconds):.1f}",
    ]
    return " | ".join(cells)


HEAD = """\
| contender | images/s, minimum | median | maximum | UNet rows/s | TFLOP/s | of peak | peak MiB | SM MHz | s in all |
|---|---|---|---|---|---|---|---|---|---|"""


def ratios(samples: Samples) -> Iterator[str]:
    """Our medians as shares of diffusers' medians."""

    def images(contender: Contender) -> float:
        return median(samples[contender], lambda sample: sample.images_per_second)

    ran = [contender for contender, runs in samples.items() if runs]
    ours = [contender for contender in ran if contender.name in [US, FUSED]]
    theirs = [contender for contender in ran if contender not in ours]
    if not ours or not theirs:
        return
    best_of_ours, best_of_theirs = max(ours, key=images), max(theirs, key=images)
    ratio = images(best_of_ours) / images(best_of_theirs)
    yield f"Best of each: {best_of_ours} makes {ratio:.2f} times the images of {best_of_theirs}. Ratios of medians:\n"
    yield "| | " + " | ".join(map(str, theirs)) + " |"
    yield "|---" * (len(theirs) + 1) + "|"
    for our in ours:
        yield f"| {our} | " + " | ".join(f"{images(our) / images(their):.2f}" for their in theirs) + " |"


def table(kind: Kind, part: Part, samples: Samples, failures: Failures, costs: Costs, peak: float | None) -> str:
    lines = [f"### {kind.name}, {part.name}: levels {part.levels}, {len(part.seeds)} seeds\n", HEAD]
    for contender, runs in samples.items():
        failure = failures.get(contender, "").replace("|", "/")
        if runs:
            lines.append(f"| {contender} | {row(runs, costs, peak)} |")
        if failure:
            lines.append(f"| {contender} | failed: {failure} | | | | | | | | |")
    return "\n".join([*lines, "", *ratios(samples)])


def output_of(command: list[Any]) -> str:
    try:
        done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    except OSError:
        return ""
    return done.stdout.strip().partition("\n")[0] if done.returncode == 0 else ""


def gpu_name(arguments: argparse.Namespace) -> str:
    return output_of(smi("name", arguments.gpu)) if arguments.gpu is not None else ""


def peak_of(name: str) -> float | None:
    return next((peak for key, peak in PEAKS if key in name), None)


def setting(arguments: argparse.Namespace) -> str:
    """Machine and versions, in Markdown."""
    packages = []
    for package in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            packages.append(f"{package} {importlib.metadata.version(package)}")
    name = gpu_name(arguments)
    device = f"{name or 'no GPU'}, {arguments.device}"
    if name:
        fields = "driver_version,memory.total,power.limit"
        device += f"; driver, MiB and watts: {output_of(smi(fields, arguments.gpu))}"
        peak = peak_of(name)
        device += f"; dense half-precision peak taken as {peak} TFLOP/s" if peak else "; its peak is not known here"
    commit = output_of(["git", "--no-optional-locks", "-C", arguments.root, "describe", "--always", "--dirty"])
    library = arguments.onnxruntime.name if arguments.onnxruntime else "as discl-pipe finds it"
    return "\n".join(
        [
            f"- {device}",
            f"- {output_of([arguments.binary, '--version'])} of commit {commit}; ONNX Runtime: {library}",
            f"- Python {platform.python_version()}, {', '.join(packages)}; {os.cpu_count()} cores",
            f"- {arguments.runs} rounds, {time.strftime('%Y-%m-%d')}; {arguments.dtype}, {arguments.sources} sources "
            f"of {arguments.pixels} pixels, {arguments.timesteps} timesteps, widths times {arguments.scale:g}",
        ]
    )


def about(kind: Kind, costs: Costs, folder: Path) -> str:
    lines = [
        f"## {kind.name}\n",
        f"UNet of {costs.parameters / 1e6:.1f} M parameters, {costs.unet / 1e12:.4g} TFLOP for an evaluation; VAE "
        f"decoder {costs.decoder / 1e12:.4g} TFLOP for an image; guidance scale {kind.guidance_scale:g}.",
    ]
    if (folder / "fused/made.json").exists():
        counts = json.loads((folder / "fused/made.json").read_text())
        lines.append(f"Fused: {', '.join(f'{count} {name}' for name, count in counts.items()) or 'nothing'}.")
    return "\n".join(lines)


def compared(arguments: argparse.Namespace, kind: Kind, folder: Path) -> Iterator[str]:
    """How far the kept images are from diffusers' in single precision."""
    for name in [US, FUSED]:
        kept = arguments.work / f"{kind.name}-{name}.json"
        if not kept.exists():
            continue
        order = {
            "what": "compare",
            "torch": str(folder / "torch"),
            "kept": str(kept),
            "device": arguments.device,
            "timesteps": arguments.timesteps,
            "guidance_scale": kind.guidance_scale,
        }
        try:
            said = ask_peer(arguments, order)
        except Failed as failure:
            yield f"{name}: not compared with diffusers: {failure}"
            continue
        yield (
            f"{name}: {said['images']} images of equal seeds against diffusers in float32: mean difference "
            f"{said['mean']:.2f} of 255, largest {said['largest']}, {said['within_two']:.2%} of values within 2."
        )


def check(arguments: argparse.Namespace, folder: Path, toml: Path) -> bool:
    """Checks that `discl-pipe` accepts the model and its fused UNet."""
    discl_pipe(arguments, "check", toml, toml.parent / "lake")
    fused = folder / "fused"
    if not arguments.fuse:
        return False
    try:
        if not json.loads((fused / "made.json").read_text()):
            raise Failed("nothing was fused")
        discl_pipe(arguments, "check", toml, toml.parent / "lake", *edits(f'models.diffusion="{fused}"'))
    except Failed as failure:
        say(f"{fused}: left out: {failure}")
        return False
    return True


def bench(arguments: argparse.Namespace) -> None:
    print(setting(arguments), flush=True)
    peak = peak_of(gpu_name(arguments))
    for name in arguments.models:
        kind = KINDS[name]
        for old in arguments.work.glob(f"{name}-{US}*.json"):
            old.unlink()
        costs = count_costs(kind, arguments.scale, arguments.pixels)
        folder = build(arguments, kind)
        toml = write_pipeline(arguments, kind, folder)
        takes_fused = check(arguments, folder, toml)
        print(f"\n{about(kind, costs, folder)}", flush=True)
        for part in PARTS:
            if part.name in arguments.parts:
                samples, failures = measure(arguments, kind, part, toml, takes_fused)
                print(f"\n{table(kind, part, samples, failures, costs, peak)}", flush=True)
        for line in compared(arguments, kind, folder):
            print(f"\n{line}", flush=True)


# --- the recorded cases ---------------------------------------------------------------------------------

QUERY = """\
SELECT encode(img2img(p.image, '{prompt}', {image_guidance}, {seed})['bytes'], 'base64') AS png, i.path
FROM images i JOIN pixels p USING (pixel_id)
WHERE i.path = 'train.parquet#{row}'
"""


@dataclass(frozen=True)
class Compared:
    """A recorded case, and how far our image is from it."""

    pipeline: str
    case: str
    largest: int
    within_two: float


def oracle_pipeline(arguments: argparse.Namespace, fixture: Path, unet: str, case: dict, folder: Path) -> Path:
    """A model directory with the case's scheduler, and the pipeline that goes with it."""
    bundle = folder / "model"
    (bundle / "scheduler").mkdir(parents=True)
    for entry in fixture.iterdir():
        if entry.name not in ["scheduler", "unet", "unet_f16", "golden.json"]:
            (bundle / entry.name).symlink_to(entry.resolve())
    (bundle / "unet").symlink_to((fixture / unet).resolve())
    # Only Python's JSON has infinities, and diffusers' own files contain them.
    scheduler = {key: None if value == -math.inf else value for key, value in case["scheduler"].items()}
    write_json(bundle / "scheduler/scheduler_config.json", scheduler)
    negative = case["negative_prompt"]
    toml = folder / "gpu.toml"
    toml.write_text(
        PIPELINE.format(
            folder=folder.parent,
            diffusion=bundle,
            clip=arguments.root / "models/digits/clip",
            hard=2,
            levels=[50],
            seeds=[1],
            timesteps=case["num_inference_steps"],
            guidance_scale=float(case["guidance_scale"]),
            more="" if negative is None else f"negative_prompt = {json.dumps(negative, ensure_ascii=False)}",
            tf32="false",
        )
    )
    return toml


def oracle_case(
    arguments: argparse.Namespace, fixture: Path, unet: str, golden: dict, number: int, work: Path
) -> Compared:
    """Generates a recorded image again."""
    case = golden["cases"][number]
    folder = work / f"case{number}"
    toml = oracle_pipeline(arguments, fixture, unet, case, folder)
    query = QUERY.format(
        prompt=case["prompt"].replace("'", "''"),
        image_guidance=100 - round(100 * float(case["strength"])),
        seed=case["seed"],
        row=list(golden["sources"]).index(case["source"]),
    )
    (folder / "query.sql").write_text(query)
    options = ["--model-batch", 2, "--file", folder / "query.sql"]
    (made,) = json.loads(discl_pipe(arguments, "sql", toml, work / "lake", *options))
    if not made["png"]:
        raise Failed(f"{fixture.name} {case['name']}: no image")
    text = made["png"]
    ours = np.asarray(open_image(base64.b64decode(text + "=" * (-len(text) % 4)))).astype(int)
    image = case["image"]
    theirs = np.frombuffer(base64.b64decode(image["rgb"]), np.uint8).reshape(image["height"], image["width"], 3)
    difference = np.abs(ours - theirs)
    name = fixture.name if unet == "unet" else f"{fixture.name}, {unet}"
    return Compared(name, case["name"], int(difference.max()), float((difference <= 2).mean()))


def oracle_of(arguments: argparse.Namespace, fixture: Path, unet: str, work: Path) -> list[Compared]:
    """All cases of a recorded pipeline."""
    golden = json.loads((fixture / "golden.json").read_text())
    sources = list(golden["sources"].values())
    images = [base64.b64decode(source["png"]) for source in sources]
    write_data(work, images, list(range(len(sources))), list(golden["sources"]))
    toml = oracle_pipeline(arguments, fixture, unet, golden["cases"][0], work / "first")
    discl_pipe(arguments, "run", toml, work / "lake", "--until", "images")
    with ThreadPoolExecutor(arguments.jobs) as pool:
        numbers = range(len(golden["cases"]))
        return list(pool.map(lambda number: oracle_case(arguments, fixture, unet, golden, number, work), numbers))


def oracle(arguments: argparse.Namespace) -> bool:
    """Prints how far each recorded pipeline's images are; whether those in single precision are as recorded."""
    fixtures = arguments.root / "tests/fixtures/pipelines"
    runs = [("sd1", "unet"), ("sd2", "unet"), ("sdxl_base", "unet"), ("sdxl_refiner", "unet"), ("sd1", "unet_f16")]
    print(setting(arguments).rpartition("\n")[0])  # The last line is about rounds.
    print("\n| pipeline | cases | largest difference | smallest share within 2/255 | worst case | |")
    print("|---|---|---|---|---|---|")
    sound = True
    for name, unet in runs:
        with tempfile.TemporaryDirectory(dir=arguments.work) as work:
            try:
                cases = oracle_of(arguments, fixtures / name, unet, Path(work))
            except Failed as failure:
                sound = False
                print(f"| {name}, {unet} | failed: {failure} | | | | |", flush=True)
                continue
        worst = min(cases, key=lambda case: (case.within_two, -case.largest))
        verdict = "for comparison" if unet != "unet" else "passes" if worst.within_two >= 0.999 else "FAILS"
        sound &= verdict != "FAILS"
        largest = max(case.largest for case in cases)
        cells = [worst.pipeline, len(cases), largest, f"{worst.within_two:.2%}", worst.case, verdict]
        print(f"| {' | '.join(map(str, cells))} |", flush=True)
    return sound


# --- the command line -----------------------------------------------------------------------------------


def cuda_library() -> Path | None:
    """The library of the Python package onnxruntime-gpu, if it is installed."""
    spec = importlib.util.find_spec("onnxruntime")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        capi = Path(folder) / "capi"
        if (capi / "libonnxruntime_providers_cuda.so").exists():
            return next(capi.glob("libonnxruntime.so.*"), None)
    return None


def visible_gpu(device: str) -> str | None:
    """The GPU that nvidia-smi watches: the first that CUDA shows to programs."""
    if not device.startswith("cuda"):
        return None
    number = int(device.partition(":")[2] or 0)
    os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    shown = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    return shown[number] if number < len(shown) and shown[number] else str(number)


def command_line() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary", type=Path, help="discl-pipe, a release build")
    parser.add_argument("--onnxruntime", type=Path, help="a library built with CUDA; else that of onnxruntime-gpu")
    parser.add_argument("--root", type=Path, default=HERE.parents[1], help="the repository")
    parser.add_argument("--work", type=Path, help="folder in which the models are kept")
    parser.add_argument("--models", nargs="+", choices=list(KINDS), default=list(KINDS))
    parser.add_argument(
        "--parts", nargs="*", choices=["steady", "job"], default=["steady", "job"], help="none: only creates the models"
    )
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 4, 8, 16], help="of discl-pipe")
    parser.add_argument("--peer-batches", nargs="*", type=int, default=[1, 8], help="of diffusers")
    parser.add_argument("--compile", action="store_true", help="also diffusers with a compiled UNet")
    parser.add_argument(
        "--fuse", action=argparse.BooleanOptionalAction, help="also fused graphs; by default only with a GPU"
    )
    parser.add_argument("--sources", type=int, default=12, help="real images; eight are generated from each")
    parser.add_argument("--pixels", type=int, default=512, help="side of an image")
    parser.add_argument("--timesteps", type=int, default=50, help="of the whole schedule")
    parser.add_argument("--scale", type=float, default=1.0, help="factor for all widths; 1 is the true model")
    parser.add_argument("--dtype", choices=["float16", "float32"], default="float16")
    parser.add_argument("--device", default="cuda", help="cuda, cuda:N or cpu")
    parser.add_argument("--timeout", type=float, default=1800, help="seconds for one run of one contender")
    parser.add_argument("--raw", type=Path, help="a file for each run's figures, as JSON lines")
    parser.add_argument("--oracle", action="store_true", help="only the recorded cases")
    parser.add_argument("--jobs", type=int, default=2, help="recorded cases at a time")
    known = parser.parse_args()
    if known.fuse is None:
        known.fuse = known.device != "cpu"  # Some fused operators have no CPU kernel.
    if known.device != "cpu":
        known.onnxruntime = known.onnxruntime or cuda_library()
        if known.onnxruntime is None:
            parser.error("--onnxruntime is needed: no onnxruntime-gpu package is installed")
    for name in ["binary", "onnxruntime", "root", "work", "raw"]:
        if path := getattr(known, name):
            setattr(known, name, path.resolve())
    known.gpu = visible_gpu(known.device)
    return known


def main() -> None:
    if sys.argv[1:2] == ["--peer"]:
        print(json.dumps(peer(json.loads(Path(sys.argv[2]).read_text()))))
        return
    arguments = command_line()
    with tempfile.TemporaryDirectory() as folder:
        arguments.work = arguments.work or Path(folder)
        arguments.work.mkdir(parents=True, exist_ok=True)
        if arguments.oracle:
            sys.exit(0 if oracle(arguments) else 1)
        bench(arguments)


if __name__ == "__main__":
    main()
