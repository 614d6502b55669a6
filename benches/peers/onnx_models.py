"""A bundle's graphs and its CLIP on ONNX Runtime, on the CPU; arrays in, arrays out.

No script: the peers use it.
"""

import json
import threading
import time
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image
from transformers import CLIPTokenizer

from schedulers import Scheduler


class Sessions:
    """Loads graphs with one set of options, and counts the seconds in which they run, summed over threads."""

    def __init__(self, threads: int, spin: bool) -> None:
        self.options = onnxruntime.SessionOptions()
        self.options.intra_op_num_threads = threads
        self.options.inter_op_num_threads = 1
        self.options.add_session_config_entry("session.intra_op.allow_spinning", str(int(spin)))
        self.seconds = 0.0
        self.lock = threading.Lock()

    def load(self, folder: Path) -> onnxruntime.InferenceSession:
        return onnxruntime.InferenceSession(folder / "model.onnx", self.options, providers=["CPUExecutionProvider"])

    def run(self, session: onnxruntime.InferenceSession, output: str, inputs: dict[str, np.ndarray]) -> np.ndarray:
        start = time.perf_counter()
        (value,) = session.run([output], inputs)
        with self.lock:
            self.seconds += time.perf_counter() - start
        return value


class Diffusion:
    """The diffusion model."""

    def __init__(self, sessions: Sessions, bundle: Path) -> None:
        parts = ["text_encoder", "vae_encoder", "unet", "vae_decoder"]
        self.sessions = sessions
        self.graphs = {part: sessions.load(bundle / part) for part in parts}
        self.tokenizer = CLIPTokenizer.from_pretrained(bundle / "tokenizer")
        vae = json.loads((bundle / "vae_decoder/config.json").read_text())
        self.scale = np.float32(vae["scaling_factor"])
        self.pixels_per_latent = 2 ** (len(vae["block_out_channels"]) - 1)

    def encode_prompts(self, texts: list[str]) -> np.ndarray:
        """Hidden states, [n, length, width]."""
        tokens = self.tokenizer(texts, padding="max_length", truncation=True, return_tensors="np")
        ids = {"input_ids": tokens.input_ids.astype(np.int64)}
        return self.sessions.run(self.graphs["text_encoder"], "last_hidden_state", ids)

    def encode_image(self, image: Image.Image) -> tuple[np.ndarray, np.ndarray]:
        """Mean and deviation of a source's latents, [channels, height, width]."""
        sides = [side // self.pixels_per_latent * self.pixels_per_latent for side in image.size]
        whole = np.asarray(image.resize(sides, Image.Resampling.LANCZOS), np.float32)
        sample = (whole / 127.5 - 1).transpose(2, 0, 1)[None]
        moments = self.sessions.run(self.graphs["vae_encoder"], "latent_parameters", {"sample": sample})[0]
        mean, log_variance = np.split(moments, 2)
        return mean, np.exp(0.5 * log_variance.clip(-30, 20))

    def denoise(self, scheduler: Scheduler, latents: np.ndarray, first: int, prompts: np.ndarray,
                negative: np.ndarray, guidance_scale: float) -> np.ndarray:  # fmt: skip
        """Runs the timesteps from number `first` on, for samples of one strength, each with its prompt."""
        guided = guidance_scale > 1
        hidden = np.concatenate([np.repeat(negative, len(latents), 0), prompts]) if guided else prompts
        for index in range(first, len(scheduler.timesteps)):
            sample = scheduler.model_input(latents, index)
            if guided:
                sample = np.concatenate([sample, sample])
            timestep = np.full(len(sample), scheduler.timesteps[index], np.float32)
            inputs = {"sample": sample, "timestep": timestep, "encoder_hidden_states": hidden}
            noise = self.sessions.run(self.graphs["unet"], "out_sample", inputs)
            if guided:
                without, noise = np.split(noise, 2)
                noise = without + np.float32(guidance_scale) * (noise - without)
            latents = scheduler.step(latents, noise, index)
        return latents

    def decode(self, latents: np.ndarray) -> list[Image.Image]:
        """Images from the UNet's final latents."""
        inputs = {"latent_sample": latents / self.scale}
        planes = self.sessions.run(self.graphs["vae_decoder"], "sample", inputs)
        pixels = np.rint((planes / 2 + 0.5).clip(0, 1) * 255).astype(np.uint8).transpose(0, 2, 3, 1)
        return [Image.fromarray(image) for image in pixels]


class Clip:
    """The CLIP; embeddings are unit vectors."""

    def __init__(self, sessions: Sessions, folder: Path) -> None:
        self.sessions = sessions
        self.graph = sessions.load(folder)
        self.tokenizer = CLIPTokenizer.from_pretrained(folder)
        config = json.loads((folder / "preprocessor_config.json").read_text())
        self.edge, self.crop = config["size"]["shortest_edge"], config["crop_size"]["height"]
        self.mean, self.std = (np.array(config[key], np.float32) for key in ["image_mean", "image_std"])

    def embed_texts(self, texts: list[str]) -> np.ndarray:
        """Embeddings of texts, [n, width]."""
        return self.run("text_embeds", texts, np.zeros((1, 3, self.crop, self.crop), np.float32))

    def embed_images(self, images: list[Image.Image]) -> np.ndarray:
        """Embeddings of images, [n, width]."""
        return self.run("image_embeds", [""], np.stack([self.prepare(image) for image in images]))

    def prepare(self, image: Image.Image) -> np.ndarray:
        """Resized, cropped and normalized, [3, height, width]."""
        factor = self.edge / min(image.size)
        image = image.resize([round(side * factor) for side in image.size], Image.Resampling.BICUBIC)
        left, top = ((side - self.crop) // 2 for side in image.size)
        pixels = np.asarray(image.crop((left, top, left + self.crop, top + self.crop)), np.float32)
        return ((pixels / 255 - self.mean) / self.std).transpose(2, 0, 1)

    def run(self, output: str, texts: list[str], pixels: np.ndarray) -> np.ndarray:
        tokens = self.tokenizer(texts, padding="max_length", truncation=True, return_tensors="np")
        ids, mask = tokens.input_ids.astype(np.int64), tokens.attention_mask.astype(np.int64)
        inputs = {"input_ids": ids, "attention_mask": mask, "pixel_values": pixels}
        return self.sessions.run(self.graph, output, inputs)
