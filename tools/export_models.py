"""Exports a diffusion pipeline or a CLIP to ONNX for `discl-pipe`, and compares each graph with torch.

    pip install -r tools/requirements-export.txt
    python tools/export_models.py sd15         models/sd15     [--dtype fp16]
    python tools/export_models.py sdxl-refiner models/refiner  [--dtype fp16]
    python tools/export_models.py clip-vit-b32 models/clip

SOURCE is one of the names below, `ORG/REPO` or `ORG/REPO@REVISION` on the Hugging Face hub, or a directory that
diffusers or transformers saved. The output is that of `optimum-cli export onnx`, by the same library, with three
differences: the UNet takes images of any size, a VAE that overflows in half precision stays in single precision, and
no pickle is ever downloaded or opened. Exit code 0 if every file exists and every graph is close to torch, else 1.

Each graph's outputs on random inputs are compared: ONNX Runtime on the CPU with torch in single precision.
"""

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from diffusers import DiffusionPipeline
from huggingface_hub import ModelCard, snapshot_download
from optimum.exporters.onnx import export_models, onnx_export_from_model
from optimum.exporters.utils import get_diffusion_models_for_export
from torch import Tensor
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
TOLERANCES = {"fp32": 1e-4, "fp16": 2e-2}
"""Largest difference between a graph's output and torch in single precision, relative to the largest output."""
FLOATS = {"fp32": torch.float32, "fp16": torch.float16}
VAE = ["vae_encoder", "vae_decoder"]

Tensors = dict[str, Tensor]


class Unfit(Exception):
    """The source cannot be exported; the message says why."""


@dataclass(frozen=True)
class Case:
    """Inputs of a graph and torch's outputs in single precision, by the graph's names."""

    graph: str
    inputs: Tensors
    expected: Tensors


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
    pipeline = DiffusionPipeline.from_pretrained(source, torch_dtype=torch.float32, use_safetensors=True, **absent)
    if pipeline.unet.config.time_cond_proj_dim is not None:
        raise Unfit("the UNet takes `timestep_cond` (a distilled LCM), which `discl-pipe` does not support")
    return pipeline


# --- torch on random inputs ---------------------------------------------------------------------------


def text_case(pipeline: DiffusionPipeline, part: str) -> Case:
    """Two random prompts through a text encoder."""
    encoder = getattr(pipeline, part)
    length = encoder.config.max_position_embeddings
    ids = {"input_ids": torch.randint(0, encoder.config.vocab_size, (2, length))}
    made = encoder(**ids, output_hidden_states=True)
    expected = {name: made[name] for name in ["last_hidden_state", "pooler_output", "text_embeds"] if name in made}
    expected |= {f"hidden_states.{layer}": states for layer, states in enumerate(made.hidden_states)}
    return Case(part, ids, expected)


def unet_case(pipeline: DiffusionPipeline) -> Case:
    """Two random latents, wider than high, and of a height that does not halve evenly."""
    unet, rows, side = pipeline.unet, 2, halvable(pipeline)
    text = getattr(pipeline, text_parts(pipeline)[-1]).config
    inputs = {
        "sample": torch.randn(rows, unet.config.in_channels, 2 * side + 1, 3 * side),
        "timestep": torch.tensor(501.0),
        "encoder_hidden_states": torch.randn(rows, text.max_position_embeddings, unet.config.cross_attention_dim),
    }
    added = {}
    if unet.config.addition_embed_type == "text_time":
        width = text.projection_dim
        ids = (unet.config.projection_class_embeddings_input_dim - width) // unet.config.addition_time_embed_dim
        added = {"text_embeds": torch.randn(rows, width), "time_ids": torch.randint(0, 1024, (rows, ids)).float()}
    made = unet(**inputs, added_cond_kwargs=added).sample
    return Case("unet", inputs | added, {"out_sample": made})


def vae_cases(pipeline: DiffusionPipeline) -> list[Case]:
    """Two smooth random images and two random latents, wider than high."""
    vae, small = pipeline.vae, torch.rand(2, 3, 8, 12) * 2 - 1
    image = torch.nn.functional.interpolate(small, scale_factor=8, mode="bicubic").clamp(-1, 1)
    latents = torch.randn(2, vae.config.latent_channels, 8, 12)
    moments = vae.encode(image).latent_dist.parameters
    return [
        Case("vae_encoder", {"sample": image}, {"latent_parameters": moments}),
        Case("vae_decoder", {"latent_sample": latents}, {"sample": vae.decode(latents).sample}),
    ]


def clip_case(model: CLIPModel) -> Case:
    """Three random prompts, one of them padded, and two random images."""
    texts, images = model.config.text_config, model.config.vision_config
    mask = torch.ones(3, texts.max_position_embeddings, dtype=torch.int64)
    mask[0, 9:] = 0
    inputs = {
        "input_ids": torch.randint(0, texts.vocab_size, mask.shape),
        "pixel_values": torch.randn(2, 3, images.image_size, images.image_size),
        "attention_mask": mask,
    }
    made = model(**inputs)
    return Case("", inputs, {name: made[name] for name in ["text_embeds", "image_embeds"]})


def halvable(pipeline: DiffusionPipeline) -> int:
    """Latents whose sides are multiples of this halve evenly from level to level."""
    return 2 ** (len(pipeline.unet.config.block_out_channels) - 1)


def text_parts(pipeline: DiffusionPipeline) -> list[str]:
    return [part for part in ["text_encoder", "text_encoder_2"] if getattr(pipeline, part, None) is not None]


# --- export -------------------------------------------------------------------------------------------


def export_pipeline(source: Path, out: Path, dtype: str) -> list[Case]:
    """Writes a diffusion pipeline. Diffusers respects `force_upcast` only for SDXL, and so does this."""
    pipeline = load_pipeline(source)
    cases = [*(text_case(pipeline, part) for part in text_parts(pipeline)), unet_case(pipeline), *vae_cases(pipeline)]
    vae_dtype = dtype
    if dtype == "fp16" and "XL" in type(pipeline).__name__ and pipeline.vae.config.force_upcast:
        print("the VAE stays in single precision because its values overflow in half precision (`force_upcast`)")
        vae_dtype = "fp32"
    elif dtype == "fp16":
        # In other pipelines it is a meaningless default, because of which `discl-pipe` would refuse the graphs.
        pipeline.vae.register_to_config(force_upcast=False)
    for part in [*text_parts(pipeline), "unet"]:
        getattr(pipeline, part).to(FLOATS[dtype])
    pipeline.vae.to(FLOATS[vae_dtype])
    # Traced with latents that do not halve evenly, diffusers' UNet measures each level. Otherwise the graph would
    # accept only multiples of 64 pixels (32 for SDXL base).
    sample_size = pipeline.unet.config.sample_size
    pipeline.unet.register_to_config(sample_size=halvable(pipeline) * 3 // 2)
    graphs = get_diffusion_models_for_export(pipeline, float_dtype=dtype)
    graphs |= {part: get_diffusion_models_for_export(pipeline, float_dtype=vae_dtype)[part] for part in VAE}
    export_models(graphs, out, output_names=[f"{part}/model.onnx" for part in graphs])
    pipeline.unet.register_to_config(sample_size=sample_size)
    for part, (module, _) in graphs.items():
        (module.save_config if part == "unet" or part in VAE else module.config.save_pretrained)(out / part)
    for part in ["scheduler", *(part.replace("text_encoder", "tokenizer") for part in text_parts(pipeline))]:
        getattr(pipeline, part).save_pretrained(out / part)
    pipeline.save_config(out)
    return cases


def export_clip(source: Path, out: Path, dtype: str) -> list[Case]:
    """Writes a CLIP with its tokenizer and preprocessing."""
    model = CLIPModel.from_pretrained(source, torch_dtype=torch.float32, use_safetensors=True).eval()
    cases = [clip_case(model)]
    model = model.half() if dtype == "fp16" else model
    onnx_export_from_model(model, out, task="zero-shot-image-classification", do_validation=False)
    CLIPProcessor.from_pretrained(source).save_pretrained(out)
    return cases


# --- checks -------------------------------------------------------------------------------------------


def missing(out: Path, cases: list[Case]) -> list[str]:
    """Files that `discl-pipe` needs and that are missing."""
    wanted = [out / case.graph / name for case in cases for name in ["model.onnx", "config.json"]]
    if cases[0].graph:
        wanted += [out / "model_index.json", out / "scheduler/scheduler_config.json"]
    else:
        wanted.append(out / "preprocessor_config.json")
    for case in [case for case in cases if "input_ids" in case.inputs]:
        folder = out / case.graph.replace("text_encoder", "tokenizer")
        vocabulary = ["tokenizer.json"] if (folder / "tokenizer.json").exists() else ["vocab.json", "merges.txt"]
        wanted += [folder / name for name in ["tokenizer_config.json", *vocabulary]]
    return [str(path) for path in wanted if not path.exists()]


def compare(out: Path, case: Case, dtype: str) -> list[tuple[str, str, float, float, bool]]:
    """Graph and output, precision, largest difference, also relative to the largest output, whether it is acceptable."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    file = out / case.graph / "model.onnx"
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    types = {port.name: port.type for port in session.get_inputs()}
    half = {name for name, kind in types.items() if kind == "tensor(float16)"}
    feeds = {name: case.inputs[name].numpy() for name in types}
    feeds = {name: value.astype(np.float16) if name in half else value for name, value in feeds.items()}
    kinds = {port.name: port.type for port in session.get_outputs()}
    rows = []
    for name in [name for name in kinds if name in case.expected]:
        expected, actual = case.expected[name].numpy(), session.run([name], feeds)[0].astype(np.float32)
        absolute = float(np.abs(actual - expected).max()) if actual.shape == expected.shape else float("inf")
        relative = absolute / float(np.abs(expected).max())
        precision = "fp16" if kinds[name] == "tensor(float16)" else "fp32"
        limit = TOLERANCES["fp32" if case.graph in VAE and precision == "fp32" else dtype]
        rows.append((f"{case.graph or 'clip'}.{name}", precision, absolute, relative, relative <= limit))
    return rows


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
    with torch.no_grad():
        try:
            source = fetch(arguments.source)
            export = export_pipeline if (source / "model_index.json").is_file() else export_clip
            cases = export(source, out, arguments.dtype)
        except (Unfit, OSError) as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
        absent = missing(out, cases)
        rows = [row for case in cases for row in compare(out, case, arguments.dtype)]
    print(f"{'output':<40}{'precision':>10}{'max abs':>10}{'max rel':>10}")
    for name, precision, absolute, relative, good in rows:
        print(f"{name:<40}{precision:>10}{absolute:>10.1e}{relative:>10.1e}{'' if good else '  too far from torch'}")
    for name in absent:
        print(f"error: `{name}` is missing", file=sys.stderr)
    print(licence(source))
    return int(bool(absent) or not all(good for *_, good in rows))


if __name__ == "__main__":
    sys.exit(main())
