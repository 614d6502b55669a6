"""diffusers' own img2img pipeline on PyTorch, on the CPU, with the same weights.

    OMP_NUM_THREADS=N python torch_diffusers.py JOBS [--mode steady] [--threads N] [--batch 1] [--check]

With `--batch 1` images are generated one at a time, scored immediately, and again for as long as they score too low;
with more, images of equal strength share calls, and what failed is the next round. Weights are read out of the ONNX
graphs; `--check` first proves that what torch computes with them is what the graphs compute. The CLIP runs on ONNX
Runtime: no library has a model for its image tower, and it takes a few percent of the time.
"""

import json
import os
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np
import onnx
import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    EulerDiscreteScheduler,
    StableDiffusionImg2ImgPipeline,
    UNet2DConditionModel,
)
from PIL import Image
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

import peer
from jobs import Work, read
from onnx_models import Clip, Diffusion, Sessions
from peer import Order, Result

SCHEDULERS = {"ddim": DDIMScheduler, "euler": EulerDiscreteScheduler}


def weights_in(folder: Path) -> dict[str, torch.Tensor]:
    """The weights of a graph under the module's names for them.

    Most kept their names, and equal ones are there once. What was folded lost its name, but is known by the node that
    uses it: a matrix is the transposed weight of a linear layer, a factor and a summand are those of a group norm.
    """
    graph = onnx.load(folder / "model.onnx").graph
    arrays = {tensor.name.removesuffix(".f16"): onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    arrays = {name: array.astype(np.float32) for name, array in arrays.items() if array.dtype.kind == "f"}
    same = [node for node in graph.node if node.op_type == "Identity" and node.input[0] in arrays]
    arrays |= {node.output[0]: arrays[node.input[0]] for node in same}
    weights = {name.removeprefix("module."): array for name, array in arrays.items() if not name.startswith("onnx::")}
    for node in graph.node:
        folded = [arrays[name] for name in node.input if name.startswith("onnx::") and name in arrays]
        if not folded or node.op_type in ["Cast", "Identity"]:
            continue
        scope = node.name.removeprefix("/").removeprefix("module/").rpartition("/")[0].replace("/", ".")
        match node.op_type:
            case "MatMul":
                weights[f"{scope}.weight"] = folded[0].T
            case "Mul":
                weights[f"{scope}.weight"] = folded[0].ravel()
            case "Add":
                weights[f"{scope}.bias"] = folded[0].ravel()
            case other:
                raise ValueError(f"{folder}: no rule for the weights of {other} {node.name}")
    return {name: torch.tensor(np.ascontiguousarray(array)) for name, array in weights.items()}


def fill(module: nn.Module, weights: dict[str, torch.Tensor]) -> None:
    """Loads weights into a module; each must exist and have the right shape."""
    wanted = module.state_dict().keys()
    module.load_state_dict({name: weights[name] for name in wanted})
    module.eval().requires_grad_(False)


def from_graphs(bundle: Path, scheduler: str) -> StableDiffusionImg2ImgPipeline:
    """diffusers' pipeline with the weights of a bundle."""
    text = CLIPTextModel(CLIPTextConfig(**json.loads((bundle / "text_encoder/config.json").read_text())))
    unet = UNet2DConditionModel.from_config(json.loads((bundle / "unet/config.json").read_text()))
    vae = AutoencoderKL.from_config(json.loads((bundle / "vae_decoder/config.json").read_text()))
    fill(text, weights_in(bundle / "text_encoder"))
    fill(unet, weights_in(bundle / "unet"))
    fill(vae, weights_in(bundle / "vae_encoder") | weights_in(bundle / "vae_decoder"))
    pipeline = StableDiffusionImg2ImgPipeline(
        vae,
        text,
        CLIPTokenizer.from_pretrained(bundle / "tokenizer"),
        unet,
        SCHEDULERS[scheduler].from_pretrained(bundle / "scheduler"),
        None,
        None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@torch.no_grad()
def check(bundle: Path, scheduler: str) -> None:
    """Compares each module with its graph, on random numbers."""
    torch.manual_seed(0)
    pipeline = from_graphs(bundle, scheduler)
    graphs = Diffusion(Sessions(1, spin=False), bundle).graphs
    side, length, width = 8, pipeline.tokenizer.model_max_length, pipeline.text_encoder.config.hidden_size
    pixels = side * 2 ** (len(pipeline.vae.config.block_out_channels) - 1)
    latents, image = torch.randn(1, 4, side, side), torch.randn(1, 3, pixels, pixels)
    ids, hidden, timestep = torch.arange(length)[None], torch.randn(1, length, width), torch.tensor([501.0])
    cases = {
        "text_encoder": (pipeline.text_encoder(ids)[0], {"input_ids": ids}),
        "vae_encoder": (pipeline.vae.encode(image).latent_dist.parameters, {"sample": image}),
        "vae_decoder": (pipeline.vae.decode(latents).sample, {"latent_sample": latents}),
        "unet": (
            pipeline.unet(latents, timestep, hidden).sample,
            {"sample": latents, "timestep": timestep, "encoder_hidden_states": hidden},
        ),
    }
    for part, (expected, inputs) in cases.items():
        output = graphs[part].run(None, {name: value.numpy() for name, value in inputs.items()})[0]
        difference = float(np.abs(output - expected.numpy()).max())
        if difference > 1e-3:
            raise ValueError(f"{bundle}: the weights of {part} were read wrongly, it is off by {difference}")


class Diffusers:
    """The pipeline, for one image or several of one strength."""

    def __init__(self, work: Work) -> None:
        self.work, self.settings = work, work.settings
        bundle = Path(self.settings.diffusion)
        self.pipeline = from_graphs(bundle, self.settings.scheduler)
        self.clip = Clip(Sessions(1, spin=False), Path(self.settings.clip))

    def make(self, orders: list[Order]) -> list[Image.Image]:
        jobs = [order.job for order in orders]
        generators = [torch.Generator().manual_seed(order.job.noise_seed(order.attempt)) for order in orders]
        return self.pipeline(
            prompt=[job.prompt for job in jobs],
            negative_prompt=[self.settings.negative_prompt] * len(jobs),
            image=[self.work.sources[job.source].open() for job in jobs],
            strength=(100 - jobs[0].image_guidance) / 100,
            num_inference_steps=self.settings.timesteps,
            guidance_scale=self.settings.guidance_scale,
            generator=generators,
        ).images

    def score(self, orders: list[Order], images: list[Image.Image]) -> list[float]:
        texts = self.clip.embed_texts([order.job.filter_prompt for order in orders])
        made = self.clip.embed_images(images)
        _to_source = (made * self.clip.embed_images([self.work.sources[o.job.source].open() for o in orders])).sum(1)
        return (made * texts).sum(1).tolist()

    def figures(self) -> dict[str, float]:
        return {}


def main() -> None:
    parser = peer.parser(__doc__)
    parser.add_argument("--batch", type=int, default=1, help="samples in one call of the pipeline")
    parser.add_argument("--check", action="store_true", help="first compare the modules with the graphs")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.check:
        settings = read(arguments.jobs).settings
        check(Path(settings.diffusion), settings.scheduler)
    steady = arguments.mode == "steady"

    def run(work: Work, maker: Diffusers) -> Result:
        if arguments.batch == 1:
            return peer.one_by_one(work, maker, steady)
        return peer.in_rounds(work, maker, steady, arguments.batch)

    peer.measure(arguments, Diffusers, run)


if __name__ == "__main__":
    main()
