"""DDIM (eta 0) and Euler on numpy arrays, as diffusers' schedulers of these names with "leading" timesteps.

No script: `released.py` and `batched.py` use it.
"""

import json
from pathlib import Path
from typing import Protocol

import numpy as np


class Scheduler(Protocol):
    """A schedule of timesteps; `index` counts them from the noisiest."""

    timesteps: np.ndarray

    def add_noise(self, latents: np.ndarray, noise: np.ndarray, index: int) -> np.ndarray:
        """Latents before timestep `index`."""

    def model_input(self, latents: np.ndarray, index: int) -> np.ndarray:
        """What the UNet takes at timestep `index`."""

    def step(self, latents: np.ndarray, noise: np.ndarray, index: int) -> np.ndarray:
        """Latents after timestep `index`, given the noise that the UNet sees in them."""


def signal_shares(config: dict) -> np.ndarray:
    """Cumulative products of 1 - beta, f64, one for each training timestep."""
    start, end, count = config["beta_start"], config["beta_end"], config["num_train_timesteps"]
    match config["beta_schedule"]:
        case "linear":
            betas = np.linspace(start, end, count)
        case "scaled_linear":
            betas = np.linspace(start**0.5, end**0.5, count) ** 2
        case other:
            raise ValueError(f"beta_schedule {other} is not supported here")
    return np.cumprod(1 - betas)


class Ddim:
    def __init__(self, config: dict, timesteps: np.ndarray) -> None:
        shares = signal_shares(config)
        gap = config["num_train_timesteps"] // len(timesteps)
        last = 1.0 if config["set_alpha_to_one"] else shares[0]
        self.timesteps = timesteps
        self.now = shares[timesteps].astype(np.float32)
        after = [shares[t - gap] if t >= gap else last for t in timesteps]
        self.after = np.array(after, np.float32)

    def add_noise(self, latents: np.ndarray, noise: np.ndarray, index: int) -> np.ndarray:
        share = self.now[index]
        return np.sqrt(share) * latents + np.sqrt(1 - share) * noise

    def model_input(self, latents: np.ndarray, index: int) -> np.ndarray:
        return latents

    def step(self, latents: np.ndarray, noise: np.ndarray, index: int) -> np.ndarray:
        now, after = self.now[index], self.after[index]
        image = (latents - np.sqrt(1 - now) * noise) / np.sqrt(now)
        return np.sqrt(after) * image + np.sqrt(1 - after) * noise


class Euler:
    def __init__(self, config: dict, timesteps: np.ndarray) -> None:
        shares = signal_shares(config)[timesteps]
        self.timesteps = timesteps
        self.sigmas = np.append(np.sqrt((1 - shares) / shares), 0).astype(np.float32)

    def add_noise(self, latents: np.ndarray, noise: np.ndarray, index: int) -> np.ndarray:
        return latents + self.sigmas[index] * noise

    def model_input(self, latents: np.ndarray, index: int) -> np.ndarray:
        return latents / np.sqrt(self.sigmas[index] ** 2 + 1)

    def step(self, latents: np.ndarray, noise: np.ndarray, index: int) -> np.ndarray:
        return latents + (self.sigmas[index + 1] - self.sigmas[index]) * noise


def scheduler(bundle: Path, name: str, count: int) -> Scheduler:
    """The named scheduler with a model's configuration and `count` timesteps."""
    config = json.loads((bundle / "scheduler/scheduler_config.json").read_text())
    expected = {"timestep_spacing": "leading", "prediction_type": "epsilon", "clip_sample": False}
    for key, value in expected.items():
        if config.get(key) != value:
            raise ValueError(f"scheduler_config.json: {key} is {config.get(key)}, only {value} is supported here")
    gap = config["num_train_timesteps"] // count
    timesteps = np.arange(count)[::-1] * gap + config["steps_offset"]
    return {"ddim": Ddim, "euler": Euler}[name](config, timesteps)
