"""Exports a diffusion pipeline or a CLIP to ONNX for `discl-pipe`, and compares each graph with torch.

    pip install -r tools/requirements-export.txt
    python tools/export_models.py sd15         models/sd15     [--dtype fp16]
    python tools/export_models.py sdxl-refiner models/refiner  [--dtype fp16]
    python tools/export_models.py clip-vit-b32 models/clip

SOURCE is one of the names below, `ORG/REPO` or `ORG/REPO@REVISION` on the Hugging Face hub, or a directory that
diffusers or transformers saved. The output has the layout, the inputs and the outputs of `optimum-cli export onnx`, but:

- Graphs are of opset 23, with attention as one operator.
- The UNet takes images of any size, and a `timestep` for each row, in single precision.
- The UNet has two graphs with the same weights: `model.onnx`, whose results are the same in every run, and
  `model.cuda.onnx`, which is faster and for CUDA only.
- `unet/config.json` says what an evaluation costs: see `flops`.
- A VAE that overflows in half precision stays in single precision, and no pickle is ever downloaded or opened.

Exit code 0 if every file exists and every comparison holds, else 1. They are, on random inputs: each graph on ONNX
Runtime's CPU with torch in single precision; `model.cuda.onnx` with `model.onnx` by onnx's own evaluator; and a row of
the UNet alone with the same row in a batch, which must be equal in every bit.
"""

import argparse
import json
import logging
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from diffusers import DiffusionPipeline, UNet2DConditionModel
from huggingface_hub import ModelCard, snapshot_download
from onnx_graphs import (
    OPSET,
    Arrays,
    deterministic_norms,
    evaluated,
    fused_norms,
    nodes_of,
    places,
    relative,
    three_dimensional_attention,
    tidied,
    write_graph,
    write_layout,
    write_weights,
)
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from transformers import CLIPModel, CLIPProcessor

KNOWN = {
    "sd15": "stable-diffusion-v1-5/stable-diffusion-v1-5",
    "sdxl": "stabilityai/stable-diffusion-xl-base-1.0",
    "sdxl-refiner": "stabilityai/stable-diffusion-xl-refiner-1.0",
    "clip-vit-b32": "openai/clip-vit-base-patch32@refs/pr/15",
}
"""For the last one, the branch with safetensors: the main branch has pickles."""
WANTED = ["*.json", "*.txt", "README.md", "model*.safetensors", "*/*.safetensors"]
UNWANTED = ["*.fp16.*", "*.non_ema.*", "safety_checker/*", "vae_1_0/*"]
"""Other copies of the same weights, and what is not exported."""
PIPELINES = {
    "StableDiffusionPipeline",
    "StableDiffusionImg2ImgPipeline",
    "StableDiffusionXLPipeline",
    "StableDiffusionXLImg2ImgPipeline",
}
TOLERANCES = {"fp32": 1e-5, "fp16": 2e-2}
"""Largest difference between a graph's output and torch in single precision, relative to the largest output."""
VARIANTS_TOLERANCE = 1e-5
"""The same between the two graphs of a UNet, both in single precision."""
FLOATS = {"fp32": torch.float32, "fp16": torch.float16}
VAE = ["vae_encoder", "vae_decoder"]
FAST = "model.cuda.onnx"
WEIGHTS = "model.onnx_data"
MAX_IN_GRAPH = 1 << 30
"""Bytes of weights that a graph other than the UNet keeps in its own file; protobuf ends at 2 GiB."""

Tensors = dict[str, Tensor]
Axes = Mapping[int, str]
BATCH: Axes = {0: "batch_size"}
AREA: Axes = {0: "batch_size", 2: "height", 3: "width"}
LATENT_AREA: Axes = {0: "batch_size", 2: "latent_height", 3: "latent_width"}
TOKENS: Axes = {0: "batch_size", 1: "sequence_length"}


class Unfit(Exception):
    """The source cannot be exported; the message says why."""


class Graph(nn.Module):
    """A module with the signature of its graph: tensors by name in, a tuple of tensors out."""

    def __init__(self, module: nn.Module, names: list[str], call: Callable[[nn.Module, Tensors], tuple]) -> None:
        super().__init__()
        self.module, self.names, self.call = module, names, call

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        return self.call(self.module, dict(zip(self.names, tensors, strict=True)))


@dataclass(frozen=True)
class Part:
    """What becomes a graph: the folder (none for a CLIP), the module, inputs to trace and compare with, names of axes."""

    folder: str
    graph: Graph
    inputs: Tensors
    axes: Mapping[str, Axes]
    outputs: list[str]
    single: frozenset[str] = frozenset()
    """Inputs in single precision whatever the graph's."""

    def run(self) -> Tensors:
        """What torch makes of the inputs."""
        with torch.no_grad():
            return dict(zip(self.outputs, self.graph(*self.inputs.values()), strict=True))

    def traced(self, dtype: torch.dtype) -> tuple[Tensor, ...]:
        """The inputs in a precision."""
        return tuple(
            value.to(dtype) if value.is_floating_point() and name not in self.single else value
            for name, value in self.inputs.items()
        )


@dataclass(frozen=True)
class Row:
    """A line of the closing table: what was compared, in which precision, and how far apart it is at most."""

    what: str
    precision: str
    absolute: float
    relative: float
    limit: float

    @property
    def holds(self) -> bool:
        return self.relative <= self.limit


@dataclass
class Exported:
    """What was written: the parts, and what torch computed in single precision."""

    parts: list[Part] = field(default_factory=list)
    expected: dict[str, Tensors] = field(default_factory=dict)


# --- source -------------------------------------------------------------------------------------------


def fetch(source: str) -> Path:
    """The local directory of a source; missing files of a hub repository are downloaded into the hub's cache."""
    if Path(source).is_dir():
        return Path(source)
    repository, _, revision = KNOWN.get(source, source).partition("@")
    if repository.count("/") != 1:
        names = ", ".join(KNOWN)
        raise Unfit(f"`{source}` is not a directory, not `ORG/REPO` on the hub, and not one of {names}")
    options = {"allow_patterns": WANTED, "ignore_patterns": UNWANTED}
    return Path(snapshot_download(repository, revision=revision or None, **options))


def licence(source: Path) -> str:
    """What the model's card says about its license."""
    card = source / "README.md"
    name = ModelCard.load(card, ignore_metadata_errors=True).data.get("license") if card.is_file() else None
    return f"license: {name or 'not stated'}; read the model's card before you use or share it or its images"


def load_pipeline(source: Path) -> DiffusionPipeline:
    """The pipeline in single precision, without its safety checker."""
    name = json.loads((source / "model_index.json").read_text())["_class_name"]
    if name not in PIPELINES:
        raise Unfit(f"`{source}/model_index.json` has the class `{name}`; supported are {', '.join(sorted(PIPELINES))}")
    absent = (
        {} if "XL" in name else {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    )
    pipeline = DiffusionPipeline.from_pretrained(source, dtype=torch.float32, use_safetensors=True, **absent)
    if pipeline.unet.config.time_cond_proj_dim is not None:
        raise Unfit("the UNet takes `timestep_cond` (a distilled LCM), which `discl-pipe` does not support")
    return pipeline


# --- parts, with random inputs ------------------------------------------------------------------------


def text_part(encoder: nn.Module, folder: str) -> Part:
    """A text encoder, with two random prompts."""
    config = encoder.config
    ids = torch.randint(0, config.vocab_size, (2, config.max_position_embeddings))
    first = ["last_hidden_state", "pooler_output"]
    if folder == "text_encoder_2":
        first = ["text_embeds", "last_hidden_state"]
    layers = [f"hidden_states.{layer}" for layer in range(config.num_hidden_layers + 1)]

    def call(module: nn.Module, inputs: Tensors) -> tuple[Tensor, ...]:
        made = module(**inputs, output_hidden_states=True)
        return (*(made[name] for name in first), *made.hidden_states)

    axes = {"input_ids": BATCH} | dict.fromkeys([*first, *layers], BATCH)
    return Part(folder, Graph(encoder, ["input_ids"], call), {"input_ids": ids}, axes, [*first, *layers])


def unet_part(unet: UNet2DConditionModel, tokens: int, pooled: int | None) -> Part:
    """The UNet, with two random latents that do not halve evenly: of others, diffusers' UNet takes no measure, and the
    graph would accept only sizes that halve evenly, too. `pooled` is the width of `text_embeds`, where it has them.
    """
    config, rows = unet.config, 2
    levels = 2 ** (len(config.block_out_channels) - 1)
    inputs = {
        "sample": torch.randn(rows, config.in_channels, 2 * levels + 1, 3 * levels - 1),
        "timestep": torch.tensor([501.0, 7.0]),
        "encoder_hidden_states": torch.randn(rows, tokens, config.cross_attention_dim),
    }
    axes = {"sample": AREA, "timestep": BATCH, "encoder_hidden_states": TOKENS, "out_sample": AREA}
    if config.addition_embed_type == "text_time":
        ids = (config.projection_class_embeddings_input_dim - pooled) // config.addition_time_embed_dim
        inputs["text_embeds"] = torch.randn(rows, pooled)
        inputs["time_ids"] = torch.randint(0, 1024, (rows, ids)).float()
        axes |= {"text_embeds": BATCH, "time_ids": BATCH}

    def call(module: nn.Module, inputs: Tensors) -> tuple[Tensor, ...]:
        added = {name: inputs[name] for name in ["text_embeds", "time_ids"] if name in inputs}
        if "text_embeds" in added:  # Which torch would do by itself, but ONNX does not.
            added["text_embeds"] = added["text_embeds"].float()
        first = [inputs[name] for name in ["sample", "timestep", "encoder_hidden_states"]]
        return module(*first, added_cond_kwargs=added, return_dict=False)

    graph = Graph(unet, list(inputs), call)
    return Part("unet", graph, inputs, axes, ["out_sample"], frozenset({"timestep", "time_ids"}))


def vae_parts(vae: nn.Module) -> list[Part]:
    """The two sides of the VAE, with two smooth random images and two random latents, wider than high."""
    factor = 2 ** (len(vae.config.block_out_channels) - 1)
    small = torch.rand(2, 3, 8, 12) * 2 - 1
    image = nn.functional.interpolate(small, scale_factor=factor, mode="bicubic").clamp(-1, 1)
    latents = torch.randn(2, vae.config.latent_channels, 8, 12)

    def encode(module: nn.Module, inputs: Tensors) -> tuple[Tensor]:
        return (module.encode(inputs["sample"]).latent_dist.parameters,)

    def decode(module: nn.Module, inputs: Tensors) -> tuple[Tensor]:
        return (module.decode(inputs["latent_sample"]).sample,)

    encoder, decoder = Graph(vae, ["sample"], encode), Graph(vae, ["latent_sample"], decode)
    encoder_axes = {"sample": AREA, "latent_parameters": LATENT_AREA}
    decoder_axes = {"latent_sample": LATENT_AREA, "sample": AREA}
    return [
        Part("vae_encoder", encoder, {"sample": image}, encoder_axes, ["latent_parameters"]),
        Part("vae_decoder", decoder, {"latent_sample": latents}, decoder_axes, ["sample"]),
    ]


def clip_part(model: CLIPModel) -> Part:
    """A CLIP, with three random prompts, one of them padded, and two random images."""
    texts, images = model.config.text_config, model.config.vision_config
    mask = torch.ones(3, texts.max_position_embeddings, dtype=torch.int64)
    mask[0, 9:] = 0
    inputs = {
        "input_ids": torch.randint(0, texts.vocab_size, mask.shape),
        "pixel_values": torch.randn(2, 3, images.image_size, images.image_size),
        "attention_mask": mask,
    }
    outputs = ["logits_per_image", "logits_per_text", "text_embeds", "image_embeds"]

    def call(module: nn.Module, inputs: Tensors) -> tuple[Tensor, ...]:
        made = module(**inputs)
        return tuple(made[name] for name in outputs)

    text, image = {0: "text_batch_size"}, {0: "image_batch_size"}
    axes = {
        "input_ids": text,
        "attention_mask": text,
        "pixel_values": image,
        "logits_per_image": {0: "image_batch_size", 1: "text_batch_size"},
        "logits_per_text": {0: "text_batch_size", 1: "image_batch_size"},
        "text_embeds": text,
        "image_embeds": image,
    }
    return Part("", Graph(model, list(inputs), call), inputs, axes, outputs)


# --- export -------------------------------------------------------------------------------------------


def export(part: Part, out: Path, dtype: torch.dtype, weightless: bool = False) -> str:
    """Writes the graph of a part, and of a UNet both; returns how many operators of which kind it has.

    `weightless` writes the places of all weights to `layout.json` in the place of the weights.
    """
    part.graph.to(dtype)
    free = {name: dict.fromkeys(axes, torch.export.Dim.DYNAMIC) for name, axes in part.axes.items()}
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # About deprecated parts of torch's own.
        program = torch.onnx.export(
            part.graph.eval(),
            part.traced(dtype),
            dynamo=True,
            opset_version=OPSET,
            input_names=list(part.inputs),
            output_names=part.outputs,
            dynamic_shapes=(tuple(free[name] for name in part.inputs),),
            verbose=False,
        )
    model, folder = program.model, out / part.folder
    folder.mkdir(parents=True, exist_ok=True)
    attentions, of = three_dimensional_attention(model), len(nodes_of(model, "Attention"))
    found = places(model)
    apart = part.folder == "unet" or weightless or sum(place.length for place in found) > MAX_IN_GRAPH
    if weightless:
        write_layout(found, folder / "layout.json")
    elif apart:
        write_weights(model, found, folder / WEIGHTS)
    said = f"{part.folder or 'clip'}: {attentions} of {of} attentions on three dimensions"
    if part.folder == "unet":
        fast = model.clone()
        norms, silus = fused_norms(fast)
        deterministic_norms(fast)
        tidied(fast, part.axes)
        write_graph(fast, found, folder / FAST, WEIGHTS)
        said += f"; {norms} group norms fused in `{FAST}`, {silus} with SiLU"
    deterministic_norms(model)
    tidied(model, part.axes)
    write_graph(model, found if apart else [], folder / "model.onnx", WEIGHTS)
    return said


def flops(unet: UNet2DConditionModel, tokens: int, pooled: int | None) -> dict[str, Any]:
    """What an evaluation of one row of the UNet costs, for `flops_per_evaluation` in its `config.json`.

    - `flops`: floating-point operations of one row at the size of the training, two for a multiplication and addition,
      counted by torch over convolutions, products and attention;
    - `latents`: width times height of the latents there; `tokens`: of the prompt;
    - `polynomial`: [a, b, c], with which a row of n latents costs a + b·n + c·n². It is exact where the sides halve
      evenly. The square is that of attention among latents.
    """
    trained = unet.config.sample_size
    width, height = trained if isinstance(trained, list | tuple) else (trained, trained)
    multiple = 2 ** (len(unet.config.block_out_channels) - 1)
    with torch.device("meta"):
        empty = UNet2DConditionModel.from_config(unet.config)
        costs = [count(empty, tokens, pooled, multiple * times) for times in [1, 2, 4]]
    sizes = [(multiple * times) ** 2 for times in [1, 2, 4]]
    polynomial = through(sizes, costs)
    latents = width * height
    cost = sum(factor * latents**power for power, factor in enumerate(polynomial))
    return {"flops": int(cost), "latents": latents, "tokens": tokens, "polynomial": polynomial}


def write_unet_config(unet: UNet2DConditionModel, folder: Path, tokens: int, pooled: int | None) -> None:
    """`config.json` as diffusers saves it, with what an evaluation costs."""
    unet.save_config(folder)
    config = json.loads((folder / "config.json").read_text())
    config["flops_per_evaluation"] = flops(unet, tokens, pooled)
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")


def count(empty: UNet2DConditionModel, tokens: int, pooled: int | None, side: int) -> int:
    """The operations for one row of square latents, by torch, on tensors without values."""
    part = unet_part(empty, tokens, pooled)
    inputs = {name: value[:1] for name, value in part.inputs.items()}
    inputs["sample"] = torch.empty(1, empty.config.in_channels, side, side)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        part.graph(*inputs.values())
    return counter.get_total_flops()


def through(x: list[int], y: list[int]) -> list[float]:
    """The coefficients, from the constant on, of the polynomial of second degree through three points. They are multiples
    of a power of two, so that floats hold them.
    """
    (x0, x1, x2), (y0, y1, y2) = x, y
    slope, next_slope = Fraction(y1 - y0, x1 - x0), Fraction(y2 - y1, x2 - x1)
    square = (next_slope - slope) / (x2 - x0)
    linear = slope - square * (x0 + x1)
    return [float(value) for value in [y0 - linear * x0 - square * x0 * x0, linear, square]]


def text_parts(pipeline: DiffusionPipeline) -> list[str]:
    return [part for part in ["text_encoder", "text_encoder_2"] if getattr(pipeline, part, None) is not None]


def pipeline_parts(pipeline: DiffusionPipeline) -> list[Part]:
    texts = text_parts(pipeline)
    config = getattr(pipeline, texts[-1]).config
    return [
        *(text_part(getattr(pipeline, name), name) for name in texts),
        unet_part(pipeline.unet, config.max_position_embeddings, config.projection_dim),
        *vae_parts(pipeline.vae),
    ]


def export_pipeline(pipeline: DiffusionPipeline, out: Path, dtype: str, weightless: bool = False) -> Exported:
    """Writes a diffusion pipeline. Diffusers respects `force_upcast` only for SDXL, and so does this."""
    done = Exported(pipeline_parts(pipeline))
    if not weightless:
        done.expected = {part.folder: part.run() for part in done.parts}
    vae_dtype = dtype
    if dtype == "fp16" and "XL" in type(pipeline).__name__ and pipeline.vae.config.force_upcast:
        print("the VAE stays in single precision because its values overflow in half precision (`force_upcast`)")
        vae_dtype = "fp32"
    elif dtype == "fp16":
        # In other pipelines it is a meaningless default, because of which `discl-pipe` would refuse the graphs.
        pipeline.vae.register_to_config(force_upcast=False)
    for part in done.parts:
        print(export(part, out, FLOATS[vae_dtype if part.folder in VAE else dtype], weightless), flush=True)
        if part.folder in VAE:
            pipeline.vae.save_config(out / part.folder)
        elif part.folder != "unet":
            part.graph.module.config.save_pretrained(out / part.folder)
    text = getattr(pipeline, text_parts(pipeline)[-1]).config
    write_unet_config(pipeline.unet, out / "unet", text.max_position_embeddings, text.projection_dim)
    for name in ["scheduler", *(name.replace("text_encoder", "tokenizer") for name in text_parts(pipeline))]:
        getattr(pipeline, name).save_pretrained(out / name)
    pipeline.save_config(out)
    return done


def export_clip(source: Path, out: Path, dtype: str) -> Exported:
    """Writes a CLIP with its tokenizer and preprocessing."""
    model = CLIPModel.from_pretrained(source, dtype=torch.float32, use_safetensors=True).eval()
    part = clip_part(model)
    done = Exported([part], {part.folder: part.run()})
    print(export(part, out, FLOATS[dtype]), flush=True)
    model.config.save_pretrained(out)
    CLIPProcessor.from_pretrained(source).save_pretrained(out)
    return done


# --- checks -------------------------------------------------------------------------------------------


def missing(out: Path, parts: list[Part]) -> list[str]:
    """Files that `discl-pipe` needs and that are missing."""
    wanted = [out / part.folder / name for part in parts for name in ["model.onnx", "config.json"]]
    if parts[0].folder:
        wanted += [out / "model_index.json", out / "scheduler/scheduler_config.json"]
    else:
        wanted.append(out / "processor_config.json")
    for part in [part for part in parts if "input_ids" in part.inputs]:
        folder = out / part.folder.replace("text_encoder", "tokenizer")
        vocabulary = ["tokenizer.json"] if (folder / "tokenizer.json").exists() else ["vocab.json", "merges.txt"]
        wanted += [folder / name for name in ["tokenizer_config.json", *vocabulary]]
    return [str(path) for path in wanted if not path.exists()]


def open_graph(file: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])


def feeds(session: onnxruntime.InferenceSession, inputs: Tensors) -> Arrays:
    """The inputs in the graph's precision."""
    half = {port.name for port in session.get_inputs() if port.type == "tensor(float16)"}
    arrays = {port.name: inputs[port.name].numpy() for port in session.get_inputs()}
    return {name: value.astype(np.float16) if name in half else value for name, value in arrays.items()}


def compare(out: Path, part: Part, expected: Tensors, dtype: str) -> Iterator[Row]:
    """Each output of a graph with torch's."""
    session = open_graph(out / part.folder / "model.onnx")
    kinds = {port.name: port.type for port in session.get_outputs()}
    made = session.run(list(kinds), feeds(session, part.inputs))
    for (name, kind), actual in zip(kinds.items(), made, strict=True):
        precision = "fp16" if kind == "tensor(float16)" else "fp32"
        limit = TOLERANCES["fp32" if part.folder in VAE and precision == "fp32" else dtype]
        distance = relative(actual, expected[name].numpy())
        yield Row(f"{part.folder or 'clip'}.{name} with torch", precision, *distance, limit)


def compare_unet(out: Path, part: Part) -> Iterator[Row]:
    """The two graphs of a UNet, and a row alone with the same row in a batch."""
    folder = out / part.folder
    arrays = {name: value.numpy() for name, value in part.inputs.items()}
    fast, deterministic = (evaluated(folder / name, arrays) for name in [FAST, "model.onnx"])
    yield Row(f"unet/{FAST} with unet/model.onnx", "fp32", *relative(fast, deterministic), VARIANTS_TOLERANCE)
    session = open_graph(folder / "model.onnx")
    given = feeds(session, part.inputs)
    (together,) = session.run(None, given)
    (alone,) = session.run(None, {name: value[:1] for name, value in given.items()})
    precision = f"fp{8 * together.itemsize}"
    yield Row("unet: a row alone with the same in a batch", precision, *relative(alone, together[:1]), 0.0)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", metavar="SOURCE", help=f"{', '.join(KNOWN)}, ORG/REPO[@REVISION] or a directory")
    parser.add_argument("out", metavar="OUT", type=Path, help="a new or empty folder")
    parser.add_argument("--dtype", choices=TOLERANCES, default="fp32", help="precision of the graphs")
    arguments = parser.parse_args()
    out: Path = arguments.out
    if out.exists() and any(out.iterdir()):
        parser.error(f"`{out}` is not empty")
    torch.manual_seed(0)
    logging.getLogger("torch").setLevel(logging.ERROR)  # It warns of its own parts.
    try:
        source = fetch(arguments.source)
        if (source / "model_index.json").is_file():
            done = export_pipeline(load_pipeline(source), out, arguments.dtype)
        else:
            done = export_clip(source, out, arguments.dtype)
    except (Unfit, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    for part in done.parts:
        part.graph.to("meta")  # Gives its memory back; what torch computed is in `done.expected`.
    absent = missing(out, done.parts)
    rows = [row for part in done.parts for row in compare(out, part, done.expected[part.folder], arguments.dtype)]
    rows += [row for part in done.parts if part.folder == "unet" for row in compare_unet(out, part)]
    print(f"{'compared':<48}{'precision':>10}{'max abs':>10}{'max rel':>10}")
    for row in rows:
        verdict = "" if row.holds else f"  more than {row.limit:g}"
        print(f"{row.what:<48}{row.precision:>10}{row.absolute:>10.1e}{row.relative:>10.1e}{verdict}")
    for name in absent:
        print(f"error: `{name}` is missing", file=sys.stderr)
    print(licence(source))
    return int(bool(absent) or not all(row.holds for row in rows))


if __name__ == "__main__":
    sys.exit(main())
