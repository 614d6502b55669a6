"""Two small classifiers with one interface: a multilayer perceptron in PyTorch, and softmax regression in numpy."""

from typing import Protocol

import numpy as np


class Model(Protocol):
    """What the training loop needs."""

    def step(self, pixels: np.ndarray, labels: np.ndarray) -> None:
        """Trains on a batch: [rows, features] from 0 to 1, and class numbers."""

    def probabilities(self, pixels: np.ndarray) -> np.ndarray:
        """The probability of every class: [rows, classes]."""


class SoftmaxRegression:
    """Plain gradient descent, in case PyTorch is not installed."""

    def __init__(self, features: int, classes: int, seed: int) -> None:
        self.weights = np.random.default_rng(seed).normal(0, 0.01, (features, classes))
        self.bias = np.zeros(classes)

    def step(self, pixels: np.ndarray, labels: np.ndarray) -> None:
        error = self.probabilities(pixels)
        error[np.arange(len(labels)), labels] -= 1
        self.weights -= 0.5 * pixels.T @ error / len(labels)
        self.bias -= 0.5 * error.mean(0)

    def probabilities(self, pixels: np.ndarray) -> np.ndarray:
        logits = pixels @ self.weights + self.bias
        powers = np.exp(logits - logits.max(1, keepdims=True))
        return powers / powers.sum(1, keepdims=True)


class Perceptron:
    """One hidden layer of 64 units, trained with Adam."""

    def __init__(self, features: int, classes: int, seed: int) -> None:
        import torch

        torch.manual_seed(seed)
        self.torch = torch
        layers = [torch.nn.Linear(features, 64), torch.nn.ReLU(), torch.nn.Linear(64, classes)]
        self.network = torch.nn.Sequential(*layers)
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=1e-3)

    def step(self, pixels: np.ndarray, labels: np.ndarray) -> None:
        logits = self.network(self.torch.from_numpy(pixels))
        loss = self.torch.nn.functional.cross_entropy(logits, self.torch.from_numpy(labels))
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()

    def probabilities(self, pixels: np.ndarray) -> np.ndarray:
        with self.torch.no_grad():
            return self.network(self.torch.from_numpy(pixels)).softmax(1).numpy()


MODELS = {"pytorch": Perceptron, "numpy": SoftmaxRegression}
