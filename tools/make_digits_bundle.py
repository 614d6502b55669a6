"""Trains and exports `models/digits`: a latent diffusion model and a CLIP that together fit in 6 MB.

    pip install -r tools/requirements-bundle.txt
    python tools/make_digits_bundle.py train   --work WORK
    python tools/make_digits_bundle.py export  --work WORK
    python tools/make_digits_bundle.py goldens --work WORK --out tests/fixtures/diffusers/digits.json
    python tools/make_digits_bundle.py measure --out WORK/grid.png

For maintainers: the program and its tests need only the exported files. Everything is trained on
`data/digits_lt/pretraining.parquet` alone, with fixed seeds. Each stage stores its weights in WORK and is
skipped if they exist. It uses one thread, because at these sizes more threads are much slower.
"""

import argparse
import base64
import io
import json
import math
import os
import time
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path
from unittest import mock

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import onnx
import onnxruntime
import pyarrow.parquet as pq
import tokenizers
import torch
import torch.nn.functional as F
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    EulerDiscreteScheduler,
    StableDiffusionImg2ImgPipeline,
    UNet2DConditionModel,
)
from PIL import Image
from torch import Tensor, nn
from transformers import CLIPImageProcessorPil, CLIPTextConfig, CLIPTextModel, CLIPTokenizer

NAMES = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
PROMPT = "a photo of {}"
"""The prompt that half of the diffusion training and the measurements use."""
KINDS = ["{}", "the digit {}", "the number {}", "a digit {}", "a handwritten {}", "a handwritten digit {}"]
VIEWS = [
    "{}", "a photo of {}", "an image of {}", "a picture of {}", "a scan of {}", "a drawing of {}",
    "a small photo of {}", "a blurry photo of {}", "a clean photo of {}", "a close photo of {}",
]  # fmt: skip
TEMPLATES = [view.format(kind) for view in VIEWS for kind in KINDS]
LENGTH = 16
"""Tokens per prompt, with the start and the end token."""
SIDE = 32
"""Pixels per image side."""
WIDTH = 64
"""Size of the text features and of the CLIP embeddings."""
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)
"""The statistics of OpenAI's CLIP, so that preprocessing equals that of users' models."""
GUIDANCE_SCALE = 4.0
NOISE_SCHEDULE = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
    "timestep_spacing": "leading",
    "prediction_type": "epsilon",
}


# --- data ---------------------------------------------------------------------------------------------


def pngs(data: Path, part: str) -> tuple[list[bytes], list[int]]:
    """The PNG files and the labels (0..9) of one part of the data set."""
    rows = pq.read_table(data / f"{part}.parquet").to_pylist()
    return [row["image"]["bytes"] for row in rows], [row["label"] for row in rows]


def pixels(files: list[bytes]) -> Tensor:
    """Decoded images, f32 [n, 3, 32, 32], in 0..1."""
    images = [np.asarray(Image.open(io.BytesIO(file)).convert("RGB")) for file in files]
    return torch.tensor(np.stack(images)).permute(0, 3, 1, 2).float() / 255


def augment(images: Tensor, strength: float = 1.0) -> Tensor:
    """Images (0..1, black background) turned by up to 10 degrees, moved by 2 pixels, scaled by 10 percent."""
    n = len(images)
    angle, dx, dy, zoom = ((torch.rand(4, n) * 2 - 1) * strength).unbind()
    angle, zoom = angle * math.radians(10), 1 + 0.1 * zoom
    rows = torch.stack(
        [
            torch.stack([angle.cos() * zoom, -angle.sin() * zoom, dx * 4 / SIDE], 1),
            torch.stack([angle.sin() * zoom, angle.cos() * zoom, dy * 4 / SIDE], 1),
        ],
        1,
    )
    grid = F.affine_grid(rows, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, align_corners=False).clamp(0, 1)


# --- tokenizer ----------------------------------------------------------------------------------------


def make_tokenizer() -> CLIPTokenizer:
    """Byte-level BPE laid out as CLIP's: bytes, bytes that end a word, merges, start and end token."""
    draft = CLIPTokenizer().backend_tokenizer
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=700,
        min_frequency=2,
        end_of_word_suffix="</w>",
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(end_of_word_suffix="</w>"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = draft.normalizer, draft.pre_tokenizer
    tokenizer.train_from_iterator([template.format(name) for template in TEMPLATES for name in NAMES], trainer)
    merges = [tuple(merge) for merge in json.loads(tokenizer.to_str())["model"]["merges"]]
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    words = alphabet + [byte + "</w>" for byte in alphabet] + ["".join(merge) for merge in merges]
    words += ["<|startoftext|>", "<|endoftext|>"]
    vocabulary = {word: id for id, word in enumerate(words)}
    return CLIPTokenizer(vocabulary, merges, model_max_length=LENGTH)


def token_ids(tokenizer: CLIPTokenizer, texts: list[str]) -> Tensor:
    """Ids, int64 [n, 16], truncated and padded to the length of the text encoder."""
    return tokenizer(texts, padding="max_length", truncation=True, return_tensors="pt").input_ids


# --- models -------------------------------------------------------------------------------------------


def text_model(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """The text encoder that the diffusion model and the CLIP share."""
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        projection_dim=WIDTH,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=LENGTH,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        attn_implementation="eager",
    )
    return CLIPTextModel(config)


class Clip(nn.Module):
    """CLIP with a small convolutional image tower instead of the vision transformer."""

    def __init__(self, tokenizer: CLIPTokenizer) -> None:
        super().__init__()
        self.text = text_model(tokenizer)
        self.text_projection = nn.Linear(WIDTH, WIDTH, bias=False)
        layers: list[nn.Module] = []
        for before, after, stride in [(3, 32, 2), (32, 64, 2), (64, 96, 2), (96, 96, 1)]:
            layers += [nn.Conv2d(before, after, 3, stride, 1), nn.GroupNorm(8, after), nn.SiLU()]
        self.image = nn.Sequential(*layers, nn.AvgPool2d(2), nn.Flatten(), nn.Linear(96 * 4, WIDTH, bias=False))
        self.logit_scale = nn.Parameter(torch.tensor(10.0).log())

    def embed_text(self, ids: Tensor, mask: Tensor | None = None) -> Tensor:
        """Unit vectors, [n, 64]."""
        return F.normalize(self.text_projection(self.text(ids, attention_mask=mask).pooler_output), dim=-1)

    def embed_image(self, pixel_values: Tensor) -> Tensor:
        """Unit vectors, [n, 64], of normalized pixels."""
        return F.normalize(self.image(pixel_values), dim=-1)

    def forward(self, input_ids: Tensor, pixel_values: Tensor, attention_mask: Tensor) -> tuple[Tensor, ...]:
        text, image = self.embed_text(input_ids, attention_mask), self.embed_image(pixel_values)
        logits = self.logit_scale.exp() * image @ text.T
        return logits, logits.T, text, image


def normalise(images: Tensor) -> Tensor:
    """The CLIP's input for images in 0..1."""
    return (images - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)


def make_vae() -> AutoencoderKL:
    """32x32 images to 4x8x8 latents."""
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(16, 32, 48),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=8,
        sample_size=SIDE,
    )


def make_unet() -> UNet2DConditionModel:
    """The noise predictor over 4x8x8 latents."""
    return UNet2DConditionModel(
        sample_size=SIDE // 4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        block_out_channels=(48, 80),
        layers_per_block=1,
        attention_head_dim=8,
        cross_attention_dim=WIDTH,
        norm_num_groups=8,
    )


# --- training -----------------------------------------------------------------------------------------


def steps(module: nn.Module, count: int, rate: float, decay: float, loss: Callable[[int], Tensor]) -> nn.Module:
    """Runs `count` AdamW updates of `loss(step)` (cosine rate) and returns the moving average of the weights."""
    average = deepcopy(module).requires_grad_(False)
    optimizer = torch.optim.AdamW(module.parameters(), rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=count, pct_start=0.05)
    start, total = time.monotonic(), 0.0
    for step in range(count):
        optimizer.zero_grad()
        value = loss(step)
        value.backward()
        nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        keep = min(decay, (1 + step) / (10 + step))
        with torch.no_grad():
            torch._foreach_lerp_(list(average.parameters()), list(module.parameters()), 1 - keep)
        total += value.item()
        if (step + 1) % 100 == 0:
            print(f"  {step + 1}/{count} loss {total / 100:.5f}, {time.monotonic() - start:.0f} s", flush=True)
            total = 0.0
    return average.eval()


def train_clip(clip: Clip, images: Tensor, labels: Tensor, tokenizer: CLIPTokenizer) -> nn.Module:
    """Trains the CLIP to match texts with images, and to tell apart images of one class.

    The second part (two views of an image against the other images) keeps what is particular to an image in
    its embedding, so that the similarity of two images says more than whether they are of one class.
    """
    ids = torch.stack([token_ids(tokenizer, [t.format(name) for t in TEMPLATES]) for name in NAMES])

    def loss(_: int) -> Tensor:
        pick = torch.randint(len(images), (64,))
        views = [clip.embed_image(normalise(augment(images[pick]))) for _ in range(2)]
        classes = labels[pick]
        texts = clip.embed_text(ids[classes, torch.randint(len(TEMPLATES), (64,))])
        same = (classes[:, None] == classes).float()
        same = same / same.sum(1, keepdim=True)
        scale = clip.logit_scale.exp().clamp(max=20)
        contrast = torch.tensor(0.0)
        for view in views:
            logits = scale * view @ texts.T
            contrast = contrast + (F.cross_entropy(logits, same) + F.cross_entropy(logits.T, same)) / 4
        instance = F.cross_entropy(10 * views[0] @ views[1].T, torch.arange(64))
        return contrast + 0.1 * instance

    return steps(clip, 1500, 2e-3, 0.99, loss)


def train_vae(vae: AutoencoderKL, images: Tensor) -> nn.Module:
    """Trains the VAE to reproduce images, and sets the factor that gives the latents a deviation of one."""

    def loss(_: int) -> Tensor:
        batch = augment(images[torch.randint(len(images), (16,))]) * 2 - 1
        posterior = vae.encode(batch).latent_dist
        error = F.mse_loss(vae.decode(posterior.sample()).sample, batch)
        divergence = 0.5 * (posterior.mean**2 + posterior.var - 1 - posterior.logvar).mean()
        return error + 2e-4 * divergence

    average = steps(vae, 1500, 2e-3, 0.99, loss)
    with torch.no_grad():
        deviation = average.encode(images * 2 - 1).latent_dist.mean.std().item()
    average.register_to_config(scaling_factor=round(1 / deviation, 5))
    return average


def train_unet(
    unet: UNet2DConditionModel,
    vae: AutoencoderKL,
    clip: Clip,
    images: Tensor,
    labels: Tensor,
    tokenizer: CLIPTokenizer,
    count: int,
) -> nn.Module:
    """Trains the UNet to predict noise, for a template text, the plain prompt, or (one in ten) no text."""
    prompts = [t.format(name) for name in NAMES for t in TEMPLATES] + [PROMPT.format(name) for name in NAMES] + [""]
    plain, empty = len(NAMES) * len(TEMPLATES), len(prompts) - 1
    signal = DDIMScheduler(**NOISE_SCHEDULE).alphas_cumprod
    ratio = signal / (1 - signal)
    weight = ratio.clamp(max=5) / ratio
    views = 24
    with torch.no_grad():
        texts = clip.text(token_ids(tokenizer, prompts)).last_hidden_state
        encoded = [
            vae.encode(augment(images, 0.7) * 2 - 1).latent_dist.parameters for _ in range(views)
        ]  # [views][images, 8, 8, 8]
    parameters = torch.stack(encoded)

    def loss(_: int) -> Tensor:
        n = 32
        pick = torch.randint(len(images), (n,))
        mean, logvar = parameters[torch.randint(views, (n,)), pick].chunk(2, 1)
        latents = (mean + torch.randn_like(mean) * (0.5 * logvar).exp()) * vae.config.scaling_factor
        prompt = labels[pick] * len(TEMPLATES) + torch.randint(len(TEMPLATES), (n,))
        prompt = torch.where(torch.rand(n) < 0.5, plain + labels[pick], prompt)
        prompt = torch.where(torch.rand(n) < 0.1, empty, prompt)
        t = torch.randint(1000, (n,))
        noise = torch.randn_like(latents)
        a = signal[t].view(n, 1, 1, 1)
        guess = unet(a.sqrt() * latents + (1 - a).sqrt() * noise, t, texts[prompt]).sample
        return (((guess - noise) ** 2).mean((1, 2, 3)) * weight[t]).mean()

    return steps(unet, count, 1e-3, 0.995, loss)


class Models:
    """The modules, with the weights that WORK has."""

    def __init__(self, work: Path) -> None:
        self.work = work
        self.tokenizer = make_tokenizer()
        torch.manual_seed(0)
        self.clip, self.vae, self.unet = Clip(self.tokenizer), make_vae(), make_unet()

    def stage(self, name: str, train: Callable[[], nn.Module] | None) -> None:
        """Loads the weights of a stage, or trains and stores them: f16 numbers in f32, as they are exported."""
        file = self.work / f"{name}.pt"
        if not file.exists():
            if train is None:
                raise FileNotFoundError(f"{file}: run `train` first")
            print(f"training {name}", flush=True)
            torch.manual_seed(1)
            start = time.monotonic()
            trained = train()
            kept = {"weights": trained.state_dict(), "seconds": time.monotonic() - start}
            if name == "vae":
                kept["scaling_factor"] = trained.config.scaling_factor
            torch.save(kept, file)
        kept = torch.load(file)
        print(f"{name}: trained in {kept['seconds']:.0f} s")
        module = getattr(self, name)
        module.load_state_dict({key: value.half().float() for key, value in kept["weights"].items()})
        module.eval().requires_grad_(False)
        if name == "vae":
            module.register_to_config(scaling_factor=kept["scaling_factor"])

    def load(self, data: Path | None = None, unet_steps: int = 0) -> "Models":
        """All stages in order; trains missing ones if `data` is given."""
        images, labels = torch.empty(0), torch.empty(0)
        if data:
            self.work.mkdir(parents=True, exist_ok=True)
            files, digits = pngs(data, "pretraining")
            images, labels = pixels(files), torch.tensor(digits)
        self.stage("clip", data and (lambda: train_clip(self.clip, images, labels, self.tokenizer)))
        self.stage("vae", data and (lambda: train_vae(self.vae, images)))
        self.stage(
            "unet",
            data and (lambda: train_unet(self.unet, self.vae, self.clip, images, labels, self.tokenizer, unet_steps)),
        )
        return self


# --- export -------------------------------------------------------------------------------------------


class Graph(nn.Module):
    """The exported part of a module: the tensors that `run(module, *inputs)` returns."""

    def __init__(self, module: nn.Module, run: Callable[..., Tensor | tuple[Tensor, ...]]) -> None:
        super().__init__()
        self.module, self.run = module, run

    def forward(self, *inputs: Tensor) -> Tensor | tuple[Tensor, ...]:
        return self.run(self.module, *inputs)


def store_as_f16(graph: onnx.GraphProto) -> None:
    """Halves the file: f32 weights that are f16 numbers anyway are stored so, and cast back at load.

    The runtime folds the casts, so the computation stays f32 and the results stay bit-identical.
    """
    casts = []
    for initializer in graph.initializer:
        if initializer.data_type != onnx.TensorProto.FLOAT:
            continue
        values = onnx.numpy_helper.to_array(initializer)
        half = values.astype(np.float16)
        if values.size < 64 or not np.array_equal(half.astype(np.float32), values):
            continue
        name = initializer.name
        initializer.CopyFrom(onnx.numpy_helper.from_array(half, f"{name}.f16"))
        casts.append(onnx.helper.make_node("Cast", [f"{name}.f16"], [name], to=onnx.TensorProto.FLOAT))
    nodes = casts + list(graph.node)
    del graph.node[:]
    graph.node.extend(nodes)


def export_graph(module: nn.Module, file: Path, inputs: dict[str, tuple[Tensor, dict[int, str]]],
                 outputs: dict[str, dict[int, str]]) -> None:  # fmt: skip
    """Writes `module` as ONNX and compares it with torch at batch size 2 (the largest difference is printed)."""
    file.parent.mkdir(parents=True, exist_ok=True)
    arguments = tuple(tensor for tensor, _ in inputs.values())
    torch.onnx.export(
        module.eval(),
        arguments,
        file,
        dynamo=False,
        opset_version=17,
        input_names=list(inputs),
        output_names=list(outputs),
        dynamic_axes={name: axes for name, (_, axes) in inputs.items()} | outputs,
    )
    model = onnx.load(file)
    for node in model.graph.node:
        node.ClearField("doc_string")
    store_as_f16(model.graph)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, file)
    feed = {name: torch.cat([tensor, tensor.flip(-1)]) for name, (tensor, _) in inputs.items()}
    expected = module(*feed.values())
    expected = expected if isinstance(expected, tuple) else (expected,)
    actual = session(file).run(None, {name: tensor.numpy() for name, tensor in feed.items()})
    difference = max(np.abs(a - e.numpy()).max() for a, e in zip(actual, expected, strict=True))
    print(f"{file}: {file.stat().st_size} bytes, within {difference:.1e} of torch")


def write_json(file: Path, value: object) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(value, indent=2) + "\n")


def diffusers_config(module: AutoencoderKL | UNet2DConditionModel) -> dict:
    """The configuration as diffusers saves it, without its bookkeeping."""
    config = {key: value for key, value in module.config.items() if not key.startswith("_")}
    return {"_class_name": type(module).__name__, "_diffusers_version": "0.42.1", **dict(sorted(config.items()))}


def save_tokenizer(folder: Path) -> None:
    """The files of transformers 5 and its predecessors, from a new tokenizer that neither pads nor truncates."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = make_tokenizer()
    tokenizer.save_pretrained(folder)
    tokenizer.backend_tokenizer.model.save(str(folder))
    special = {"bos_token": "<|startoftext|>"}
    special |= {f"{name}_token": "<|endoftext|>" for name in ["eos", "pad", "unk"]}
    write_json(folder / "special_tokens_map.json", special)


def export(models: Models, bundle: Path) -> None:
    """The folder that `optimum-cli export onnx` writes for Stable Diffusion 1.x, and one for the CLIP."""
    torch.manual_seed(2)
    latents, images = torch.randn(1, 4, 8, 8), torch.randn(1, 3, SIDE, SIDE)
    hidden, ids = torch.randn(1, LENGTH, WIDTH), token_ids(models.tokenizer, [PROMPT.format("five")])
    clip, vae, unet = models.clip, models.vae, models.unet
    area = {0: "batch", 2: "height", 3: "width"}
    latent_area = {0: "batch", 2: "latent_height", 3: "latent_width"}
    tokens = {0: "batch", 1: "sequence"}
    export_graph(
        Graph(unet, lambda unet, sample, t, hidden: unet(sample, t, hidden).sample),
        bundle / "unet/model.onnx",
        {
            "sample": (latents, area),
            "timestep": (torch.tensor([501.0]), {0: "batch"}),
            "encoder_hidden_states": (hidden, tokens),
        },
        {"out_sample": area},
    )
    export_graph(
        Graph(vae, lambda vae, sample: vae.encode(sample).latent_dist.parameters),
        bundle / "vae_encoder/model.onnx",
        {"sample": (images, area)},
        {"latent_parameters": latent_area},
    )
    export_graph(
        Graph(vae, lambda vae, latents: vae.decode(latents).sample),
        bundle / "vae_decoder/model.onnx",
        {"latent_sample": (latents, latent_area)},
        {"sample": area},
    )
    export_graph(
        Graph(clip.text, lambda text, ids: tuple(text(ids)[:2])),
        bundle / "text_encoder/model.onnx",
        {"input_ids": (ids, tokens)},
        {"last_hidden_state": tokens, "pooler_output": {0: "batch"}},
    )
    text_tokens = {0: "text_batch", 1: "sequence"}
    export_graph(
        clip,
        bundle / "clip/model.onnx",
        {
            "input_ids": (ids, text_tokens),
            "pixel_values": (images, {0: "image_batch"}),
            "attention_mask": (torch.ones_like(ids), text_tokens),
        },
        {
            "logits_per_image": {0: "image_batch", 1: "text_batch"},
            "logits_per_text": {0: "text_batch", 1: "image_batch"},
            "text_embeds": {0: "text_batch"},
            "image_embeds": {0: "image_batch"},
        },
    )
    for part in ["vae_encoder", "vae_decoder"]:
        write_json(bundle / part / "config.json", diffusers_config(vae))
    write_json(bundle / "unet/config.json", diffusers_config(unet))
    text = {key: value for key, value in clip.text.config.to_diff_dict().items() if not key.startswith("_")}
    text |= {"architectures": ["CLIPTextModel"], "hidden_act": "quick_gelu", "vocab_size": len(models.tokenizer)}
    write_json(bundle / "text_encoder/config.json", text)
    write_json(
        bundle / "clip/config.json",
        {
            "architectures": ["CLIPModel"],
            "model_type": "clip",
            "projection_dim": WIDTH,
            "logit_scale_init_value": 2.6592,
            "text_config": text,
            "vision_config": {
                "model_type": "clip_vision_model",
                "image_size": SIDE,
                "num_channels": 3,
                "projection_dim": WIDTH,
            },
        },
    )
    image_processor().save_pretrained(bundle / "clip")
    DDIMScheduler(**NOISE_SCHEDULE).save_pretrained(bundle / "scheduler")
    for folder in ["tokenizer", "clip"]:
        save_tokenizer(bundle / folder)
    write_json(
        bundle / "model_index.json",
        {
            "_class_name": "StableDiffusionPipeline",
            "_diffusers_version": "0.42.1",
            "feature_extractor": [None, None],
            "image_encoder": [None, None],
            "requires_safety_checker": False,
            "safety_checker": [None, None],
            "scheduler": ["diffusers", "DDIMScheduler"],
            "text_encoder": ["transformers", "CLIPTextModel"],
            "tokenizer": ["transformers", "CLIPTokenizer"],
            "unet": ["diffusers", "UNet2DConditionModel"],
            "vae": ["diffusers", "AutoencoderKL"],
        },
    )
    print(f"{bundle}: {sum(f.stat().st_size for f in bundle.rglob('*') if f.is_file())} bytes in all")


def image_processor() -> CLIPImageProcessorPil:
    """The preprocessing of the CLIP: 32 pixels, OpenAI's statistics."""
    size = {"height": SIDE, "width": SIDE}
    return CLIPImageProcessorPil(size={"shortest_edge": SIDE}, crop_size=size, image_mean=MEAN, image_std=STD)


# --- goldens ------------------------------------------------------------------------------------------

TEXTS = [
    "", "five", "a photo of five", "A PHOTO OF FIVE", "a photo of the digit seven", "  two \t spaces\n", "!!!",
    "it's we'll o'clock", "na\u00efve caf\u00e9 d\u00e9j\u00e0", "cafe\u0301", "42 digits, 3.14!", "five\U0001f642nine",
    "\U0001f469\u200d\U0001f469\u200d\U0001f467", "\u6570\u5b57\u306e\u4e94", "Stra\u00dfe \u00c7A \u0130stanbul",
    "a_b-c/d\\e", "<|endoftext|>", "photo<|startoftext|>of", "supercalifragilistic",
    "one two three four five six seven eight nine zero one two three four five six seven eight",
]  # fmt: skip
"""Texts for the tokenizers: empty, long, accents, emoji, upper case, special tokens, white space."""


def numbers(values: Tensor | np.ndarray) -> list[float]:
    """A flat list, seven significant digits each."""
    return [float(f"{value:.7g}") for value in np.asarray(values, dtype=np.float32).ravel().tolist()]


def run_diffusers(
    models: Models, scheduler: DDIMScheduler | EulerDiscreteScheduler, strength: float, source: Image.Image,
    posterior: Tensor, noise: Tensor,
) -> dict:  # fmt: skip
    """One run of diffusers' own pipeline; only its two random draws are replaced by the given ones."""
    pipeline = StableDiffusionImg2ImgPipeline(
        models.vae,
        models.clip.text,
        models.tokenizer,
        models.unet,
        scheduler,
        None,
        None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    after: list[Tensor] = []
    first: list[Tensor] = []

    def keep(_pipeline: object, _step: int, _timestep: object, tensors: dict) -> dict:
        after.append(tensors["latents"])
        return tensors

    def prepare(*arguments: object, **named: object) -> Tensor:
        first.append(StableDiffusionImg2ImgPipeline.prepare_latents(pipeline, *arguments, **named))
        return first[0]

    here = "diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion_img2img.randn_tensor"
    with (
        mock.patch(here, lambda *_, **__: noise),
        mock.patch("diffusers.models.autoencoders.vae.randn_tensor", lambda *_, **__: posterior),
        mock.patch.object(pipeline, "prepare_latents", prepare),
    ):
        image = pipeline(
            prompt=PROMPT.format("five"), negative_prompt="", image=source, strength=strength, num_inference_steps=10,
            guidance_scale=GUIDANCE_SCALE, callback_on_step_end=keep,
        ).images[0]  # fmt: skip
    timesteps = scheduler.timesteps[-len(after) :]
    return {
        "strength": strength,
        "timesteps": timesteps.tolist(),
        "initial": numbers(first[0]),
        "after_step": [numbers(latents) for latents in after],
        "image_rgb": base64.b64encode(np.asarray(image).tobytes()).decode(),
    }


def goldens(models: Models, bundle: Path, data: Path, file: Path) -> None:
    """What diffusers and transformers compute with the bundle's weights, for tests that have neither."""
    sources, labels = pngs(data, "train")
    png = sources[labels.index(5)]
    source = Image.open(io.BytesIO(png)).convert("RGB")
    random = np.random.RandomState(0)
    posterior, noise = (torch.tensor(random.randn(1, 4, 8, 8), dtype=torch.float32) for _ in range(2))
    distribution = models.vae.encode(pixels([png]) * 2 - 1).latent_dist
    z0 = (distribution.mean + distribution.std * posterior) * models.vae.config.scaling_factor
    tokenizer = CLIPTokenizer.from_pretrained(bundle / "tokenizer")
    raw = tokenizers.Tokenizer.from_file(str(bundle / "tokenizer/tokenizer.json"))
    for text in TEXTS:
        assert tokenizer(text).input_ids == raw.encode(text).ids == models.tokenizer(text).input_ids, text
    prompts = ["", PROMPT.format("five")]
    texts = [PROMPT.format("five"), PROMPT.format("nine"), "A handwritten digit THREE"]
    pixel_values = CLIPImageProcessorPil.from_pretrained(bundle / "clip")(source, return_tensors="pt").pixel_values
    cases = []
    for name, kind in [("ddim", DDIMScheduler), ("euler", EulerDiscreteScheduler)]:
        for strength in [1.0, 0.7, 0.5, 0.1]:
            scheduler = kind.from_pretrained(bundle / "scheduler")
            case = run_diffusers(models, scheduler, strength, source, posterior, noise)
            cases.append({"scheduler": name, **case})
    golden = {
        "made_by": "tools/make_digits_bundle.py: diffusers 0.42.1 StableDiffusionImg2ImgPipeline, transformers 5.23.0 "
        "CLIPTokenizer and CLIPImageProcessor; torch 2.15.0, f32, the weights of models/digits",
        "num_inference_steps": 10,
        "guidance_scale": GUIDANCE_SCALE,
        "prompt": prompts[1],
        "negative_prompt": prompts[0],
        "prompt_embeds": numbers(models.clip.text(token_ids(tokenizer, prompts[1:])).last_hidden_state),
        "negative_prompt_embeds": numbers(models.clip.text(token_ids(tokenizer, prompts[:1])).last_hidden_state),
        "source_png": base64.b64encode(png).decode(),
        "scaling_factor": models.vae.config.scaling_factor,
        "posterior_mean": numbers(distribution.mean),
        "posterior_logvar": numbers(distribution.logvar),
        "posterior_noise": numbers(posterior),
        "noise": numbers(noise),
        "z0": numbers(z0),
        "cases": cases,
        "tokens": [{"text": text, "ids": token_ids(tokenizer, [text])[0].tolist()} for text in TEXTS],
        "clip": {
            "texts": texts,
            "text_embeds": [numbers(embed) for embed in models.clip.embed_text(token_ids(tokenizer, texts))],
            "image_embeds": numbers(models.clip.embed_image(pixel_values)),
            "pixel_values_first_50": numbers(pixel_values.flatten()[:50]),
        },
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(golden, ensure_ascii=False, separators=(",", ":")) + "\n")
    print(f"{file}: {file.stat().st_size} bytes")


# --- measurement --------------------------------------------------------------------------------------


def session(file: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])


class Bundle:
    """The exported graphs, run by ONNX Runtime; arrays in, arrays out."""

    def __init__(self, folder: Path) -> None:
        self.sessions = {file.parent.name: session(file) for file in sorted(folder.glob("*/model.onnx"))}
        self.tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer")
        self.scheduler = DDIMScheduler.from_pretrained(folder / "scheduler")
        self.scaling = json.loads((folder / "vae_encoder/config.json").read_text())["scaling_factor"]
        self.evaluations, self.seconds = 0, 0.0

    def run(self, graph: str, **inputs: np.ndarray) -> list[np.ndarray]:
        return self.sessions[graph].run(None, inputs)

    def ids(self, texts: list[str]) -> np.ndarray:
        return token_ids(self.tokenizer, texts).numpy()

    def embed(self, images: np.ndarray, texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
        """CLIP embeddings of images (u8 [n, 3, 32, 32]) and of texts."""
        values = normalise(torch.tensor(images).float() / 255).numpy()
        ids = self.ids(texts)
        mask = np.cumsum(ids == self.tokenizer.eos_token_id, 1) <= 1
        _, _, text, image = self.run("clip", input_ids=ids, pixel_values=values, attention_mask=mask.astype(np.int64))
        return image, text

    def reconstruct(self, images: np.ndarray) -> np.ndarray:
        """Images (u8) through the VAE, without noise."""
        (parameters,) = self.run("vae_encoder", sample=images.astype(np.float32) / 127.5 - 1)
        return self.decode(parameters[:, :4])

    def decode(self, latents: np.ndarray) -> np.ndarray:
        (sample,) = self.run("vae_decoder", latent_sample=latents)
        return np.rint((sample / 2 + 0.5).clip(0, 1) * 255).astype(np.uint8)

    def spectrum(self, images: np.ndarray, prompts: list[str], image_guidance: int, timesteps: int,
                 random: np.random.RandomState) -> np.ndarray:  # fmt: skip
        """Images (u8) changed by the diffusion model; `image_guidance` is in percent, 100 would be a copy."""
        (parameters,) = self.run("vae_encoder", sample=images.astype(np.float32) / 127.5 - 1)
        mean, logvar = np.split(parameters, 2, 1)
        z0 = (mean + np.exp(0.5 * logvar) * random.randn(*mean.shape)) * self.scaling
        self.scheduler.set_timesteps(timesteps)
        run = self.scheduler.timesteps[timesteps - timesteps * (100 - image_guidance) // 100 :]
        noise = torch.tensor(random.randn(*mean.shape), dtype=torch.float32)
        latents = self.scheduler.add_noise(torch.tensor(z0, dtype=torch.float32), noise, run[:1])
        hidden = self.run("text_encoder", input_ids=self.ids([""] * len(prompts) + prompts))[0]
        for t in run:
            both = torch.cat([latents, latents]).numpy()
            start = time.monotonic()
            (guess,) = self.run(
                "unet", sample=both, timestep=np.full(len(both), t, np.float32), encoder_hidden_states=hidden
            )
            self.seconds += time.monotonic() - start
            self.evaluations += len(both)
            free, bound = torch.tensor(guess).chunk(2)
            latents = self.scheduler.step(free + GUIDANCE_SCALE * (bound - free), t, latents).prev_sample
        return self.decode(latents.numpy() / np.float32(self.scaling))


def batches(count: int, size: int) -> Iterator[slice]:
    return (slice(start, start + size) for start in range(0, count, size))


def measure(bundle: Bundle, data: Path, grid: Path, timesteps: int, seeds: int) -> None:
    """Prints the qualities that the bundle's README states and draws a contact sheet."""
    levels = [90, 70, 50, 30, 10, 0]
    test, test_labels = pngs(data, "test")
    images = (pixels(test) * 255).round().to(torch.uint8).numpy()
    error = (bundle.reconstruct(images).astype(np.float32) - images) ** 2
    psnr = 10 * np.log10(255**2 / error.mean((1, 2, 3)))
    print(f"VAE on test: PSNR mean {psnr.mean():.1f} dB, minimum {psnr.min():.1f} dB")
    embeds, texts = bundle.embed(images, [PROMPT.format(name) for name in NAMES])
    cosines, labels = embeds @ texts.T, np.array(test_labels)
    own = cosines[np.arange(len(labels)), labels]
    print(f"CLIP on test: zero-shot {(cosines.argmax(1) == labels).mean():.4f}, cosine to the own class "
          f"{own.mean():.3f}, to others {(cosines.sum() - own.sum()) / (9 * len(own)):.3f}")  # fmt: skip
    pairs = embeds @ embeds.T
    same = (labels[:, None] == labels) & ~np.eye(len(labels), dtype=bool)
    between = pairs[labels[:, None] != labels].mean()
    print(f"  image-image cosine within a class {pairs[same].mean():.3f}, between {between:.3f}")

    train, train_labels = pngs(data, "train")
    hard = [row for digit in (5, 9, 8) for row, label in enumerate(train_labels) if label == digit]
    sources = (pixels([train[row] for row in hard]) * 255).round().to(torch.uint8).numpy()
    digits = np.array([train_labels[row] for row in hard])
    source_embeds, _ = bundle.embed(sources, [""])
    print(f"sources: {len(hard)}, text cosine {(source_embeds * texts[digits]).sum(1).mean():.3f}")
    thresholds = [percent / 100 for percent in range(50, 100, 5)]
    print(f"level  n  text_cos  (sd)  image_cos  zero-shot  accepted at {thresholds}")
    columns = [sources]
    repeated, repeated_digits = np.repeat(sources, seeds, 0), np.repeat(digits, seeds)
    for level in levels:
        random = np.random.RandomState(level)
        made = np.concatenate(
            [
                bundle.spectrum(
                    repeated[part], [PROMPT.format(NAMES[d]) for d in repeated_digits[part]], level, timesteps, random
                )
                for part in batches(len(repeated), 32)
            ]
        )
        made_embeds, _ = bundle.embed(made, [""])
        text = (made_embeds * texts[repeated_digits]).sum(1)
        image = (made_embeds * np.repeat(source_embeds, seeds, 0)).sum(1)
        right = ((made_embeds @ texts.T).argmax(1) == repeated_digits).mean()
        accepted = " ".join(f"{(text >= t).mean():.2f}" for t in thresholds)
        print(
            f"{level:5} {len(made):4} {text.mean():.4f} ({text.std():.3f}) {image.mean():.4f} {right:.3f}  {accepted}",
            flush=True,
        )
        columns.append(made[::seeds])
    print(f"UNet: {bundle.evaluations / bundle.seconds:.0f} evaluations/s on one thread")
    sheet = np.concatenate([np.concatenate(list(column), 1) for column in columns], 2).transpose(1, 2, 0)
    Image.fromarray(sheet).resize((sheet.shape[1] * 3, sheet.shape[0] * 3), Image.Resampling.NEAREST).save(grid)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["train", "export", "goldens", "measure"])
    parser.add_argument("--out", type=Path, help="goldens: the JSON; measure: the contact sheet (PNG)")
    parser.add_argument("--work", type=Path, help="folder for the trained weights")
    parser.add_argument("--bundle", type=Path, default=Path("models/digits"))
    parser.add_argument("--data", type=Path, default=Path("data/digits_lt"))
    parser.add_argument("--unet-steps", type=int, default=5000)
    parser.add_argument("--timesteps", type=int, default=25, help="measure: timesteps of the scheduler")
    parser.add_argument("--seeds", type=int, default=20, help="measure: images per source and level")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    match arguments.what:
        case "train":
            Models(arguments.work).load(arguments.data, arguments.unet_steps)
        case "export":
            export(Models(arguments.work).load(), arguments.bundle)
        case "goldens":
            with torch.no_grad():
                goldens(Models(arguments.work).load(), arguments.bundle, arguments.data, arguments.out)
        case "measure":
            measure(Bundle(arguments.bundle), arguments.data, arguments.out, arguments.timesteps, arguments.seeds)


if __name__ == "__main__":
    main()
