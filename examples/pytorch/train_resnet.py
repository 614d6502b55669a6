"""Trains a ResNet along a curriculum for a long tail, as the paper does: Adam, and a cosine over all batches.

    pip install torch torchvision deltalake pyarrow pillow
    discl-pipe run pipelines/imagenet_lt.toml
    python examples/pytorch/train_resnet.py lake/imagenet_lt runs/imagenet_lt --source data/imagenet

Killed and started again, it continues at the next batch of its last checkpoint, RUN/last.pt. RUN/best.pt has the
weights of the epoch that is best on the split `validation`, or of the last epoch if there is none. The last line of
stdout is JSON: the scores of these weights on each split that exists.
"""

import argparse
import math

import torch
import training
from loader import Rows
from torch import nn
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet
from torchvision.transforms import v2

DEPTHS = {
    10: (BasicBlock, [1, 1, 1, 1]),
    18: (BasicBlock, [2, 2, 2, 2]),
    34: (BasicBlock, [3, 4, 6, 3]),
    50: (Bottleneck, [3, 4, 6, 3]),
}
MEAN, DEVIATION = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


def transforms(size: int, augment: bool) -> tuple[v2.Transform, v2.Transform]:
    """Of training, and of evaluation."""
    numbers = [v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, DEVIATION)]
    photo = [v2.RandomResizedCrop(size), v2.RandomHorizontalFlip(), v2.ColorJitter(0.4, 0.4, 0.4, 0)]
    plain = [v2.Resize(size * 256 // 224), v2.CenterCrop(size)]
    return v2.Compose([*(photo if augment else plain), *numbers]), v2.Compose([*plain, *numbers])


class ResnetTrainer(training.Trainer):
    score = "accuracy"

    def __init__(self, known: argparse.Namespace) -> None:
        super().__init__(known)
        block, layers = DEPTHS[known.depth]
        self.model = ResNet(block, layers, num_classes=len(self.classes))
        if known.weights:
            self.model.load_state_dict(training.load(known.weights, "cpu"))
        self.model.to(self.device, memory_format=torch.channels_last)
        self.optimizer = torch.optim.Adam(self.model.parameters(), known.lr, weight_decay=1e-5)
        self.augmented, self.plain = transforms(known.size, not known.plain)
        # Balanced softmax: in training only, the logarithm of a class's images is added to its logit.
        images = torch.tensor([max(found.images, 1) for found in self.classes], device=self.device).log()
        self.prior = images if known.loss == "balanced_softmax" else torch.zeros_like(images)
        self.resume()

    def logits(self, images: torch.Tensor) -> torch.Tensor:
        images = images.to(self.device, memory_format=torch.channels_last, non_blocking=True)
        with self.half:
            return self.model(images).float()

    def train_epoch(self, epoch: int) -> None:
        rows, known = self.data.epoch(epoch), self.known
        self.sampler.set_epoch(epoch, len(rows))
        views = training.Views(rows, self.classes, self.augmented, known.seed, epoch)
        self.model.train()
        for images, labels in self.batches(views, self.sampler):
            loss = nn.functional.cross_entropy(self.logits(images) + self.prior, labels.to(self.device))
            share = (epoch + self.sampler.position / len(rows)) / self.epochs
            self.step(loss, known.lr * (1 + math.cos(math.pi * share)) / 2)
            self.sampler.advance(len(labels))
            if self.numbers["steps"] % known.save_every == 0:
                self.save()

    @torch.no_grad()
    def evaluate(self, rows: Rows) -> dict[str, float]:
        self.model.eval()
        views = training.Views(rows, self.classes, self.plain)
        found = [(labels, self.logits(images).argmax(1).cpu()) for images, labels in self.batches(views)]
        return training.scores(*map(torch.cat, zip(*found, strict=True)), self.classes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    training.arguments(parser)
    parser.add_argument("--depth", type=int, choices=DEPTHS, default=10)
    parser.add_argument("--weights", help="initial weights of this network; the paper fine-tunes a trained one")
    parser.add_argument("--loss", choices=["cross_entropy", "balanced_softmax"], default="cross_entropy")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--size", type=int, default=224, help="of the square that the network sees, in pixels")
    parser.add_argument("--plain", action="store_true", help="no augmentation: for digits, text or other symbols")
    ResnetTrainer(parser.parse_args()).run()


if __name__ == "__main__":
    main()
