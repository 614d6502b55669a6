"""Fine-tunes CLIP on images and captions (FLYP) along a curriculum, and gives an adaptive one the feedback it needs.

    pip install torch torchvision transformers deltalake pyarrow pillow
    discl-pipe run pipelines/iwildcam.toml
    python examples/pytorch/finetune_clip.py lake/iwildcam runs/iwildcam --source data/iwildcam_v2.0 \\
        --pipeline pipelines/iwildcam.toml [-- --set KEY=VALUE ...]

As the paper does: both towers, the contrastive loss over each batch, AdamW with a warm-up and a cosine, and a head that
the captions make. For an epoch that waits, it measures the spectrum validation set before and after training on the
probe, submits RUN/feedback.parquet with `discl-pipe feedback`, and calls `discl-pipe run`; arguments after `--` are
passed to both. Killed and started again, it continues at its last checkpoint, RUN/last.pt; RUN/best.pt has the best
weights on the split `validation`. The last line of stdout is JSON: their scores on each split that exists.
"""

import argparse
import math
import subprocess
import sys

import torch
import training
from loader import ResumableSampler, Rows
from torch import nn
from torchvision.transforms import InterpolationMode, v2
from transformers import AutoConfig, AutoTokenizer, CLIPConfig, CLIPModel

MEAN, DEVIATION = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]  # of CLIP
SMALL = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 3, "num_attention_heads": 4, "patch_size": 4}


def transforms(size: int) -> tuple[v2.Transform, v2.Transform]:
    """Of training, and of evaluation."""
    numbers = [v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, DEVIATION)]
    crop = v2.RandomResizedCrop(size, (0.9, 1), interpolation=InterpolationMode.BICUBIC)
    plain = [v2.Resize(size, InterpolationMode.BICUBIC), v2.CenterCrop(size)]
    return v2.Compose([crop, *numbers]), v2.Compose([*plain, *numbers])


def build(known: argparse.Namespace) -> CLIPModel:
    """The model; or a small one with random weights that reads the same tokens and images, to try this program."""
    if not known.scratch:
        return CLIPModel.from_pretrained(known.model)
    like = AutoConfig.from_pretrained(known.model)
    vision = {**SMALL, "image_size": like.vision_config.image_size}
    return CLIPModel(CLIPConfig(text_config=like.text_config.to_dict(), vision_config=vision, projection_dim=64))


class ClipTrainer(training.Trainer):
    score = "macro_f1"

    def __init__(self, known: argparse.Namespace, arguments: list[str]) -> None:
        super().__init__(known)
        self.arguments = arguments
        self.model = build(known).to(self.device)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), known.lr, weight_decay=0.2)
        self.augmented, self.plain = transforms(self.model.config.vision_config.image_size)
        captions = [caption for found in self.classes for caption in found.captions]
        tokenizer = AutoTokenizer.from_pretrained(known.model)
        tokens = tokenizer(captions, padding=True, truncation=True, return_tensors="pt")
        by_class = (len(self.classes), len(captions) // len(self.classes))  # every class has as many captions
        self.tokens = {
            name: tokens[name].unflatten(0, by_class).to(self.device) for name in ("input_ids", "attention_mask")
        }
        self.resume()

    def loss(self, images: torch.Tensor, labels: torch.Tensor, captions: torch.Tensor) -> torch.Tensor:
        """Each image belongs to its own caption among those of the batch, and each caption to its own image."""
        texts = {name: tokens[labels, captions] for name, tokens in self.tokens.items()}
        with self.half:
            logits = self.model(pixel_values=images.to(self.device), **texts).logits_per_image.float()
        pairs = torch.arange(len(labels), device=self.device)
        return (nn.functional.cross_entropy(logits, pairs) + nn.functional.cross_entropy(logits.T, pairs)) / 2

    def train_on(self, rows: Rows, epoch: int, sampler: ResumableSampler, probe: bool = False) -> None:
        """Trains on the rows that the sampler has left. Each takes its class's captions in turn, epoch by epoch."""
        known = self.known
        views = training.Views(rows, self.classes, self.augmented, known.seed, epoch, probe)
        self.model.train()
        for images, labels in self.batches(views, sampler):
            captions = (epoch + sampler.position + torch.arange(len(labels))) % self.tokens["input_ids"].shape[1]
            loss = self.loss(images, labels.to(self.device), captions.to(self.device))
            warm = min(1.0, (self.numbers["steps"] + 1) / known.warmup)
            share = (epoch + sampler.position / len(rows)) / (self.epochs + 1)
            self.step(loss, known.lr * warm * (1 + math.cos(math.pi * share)) / 2)
            self.model.logit_scale.data.clamp_(max=math.log(100))
            sampler.advance(len(labels))
            if not probe and self.numbers["steps"] % known.save_every == 0:
                self.save()

    @torch.no_grad()
    def probabilities(self, rows: Rows) -> tuple[torch.Tensor, torch.Tensor]:
        """The class of each row, and the probability of every class by the head that the captions make."""
        self.model.eval()
        texts, found = [], []
        for tokens in zip(*(tokens.split(self.known.batch) for tokens in self.tokens.values()), strict=True):
            with self.half:
                flat = {name: part.flatten(0, 1) for name, part in zip(self.tokens, tokens, strict=True)}
                features = embedded(self.model.get_text_features(**flat))
            texts.append(features.unflatten(0, tokens[0].shape[:2]).mean(1))
        head = nn.functional.normalize(torch.cat(texts), dim=-1) * self.model.logit_scale.exp()
        for images, labels in self.batches(training.Views(rows, self.classes, self.plain)):
            with self.half:
                features = embedded(self.model.get_image_features(pixel_values=images.to(self.device)))
            found.append((labels, (features @ head.T).softmax(1).cpu()))
        truth, probabilities = map(torch.cat, zip(*found, strict=True))
        return truth, probabilities

    def evaluate(self, rows: Rows) -> dict[str, float]:
        truth, probabilities = self.probabilities(rows)
        return training.scores(truth, probabilities.argmax(1), self.classes)

    def measure(self) -> list[float]:
        """The probability of its own class for each row of the spectrum validation set."""
        truth, probabilities = self.probabilities(self.data.validation())
        return probabilities[torch.arange(len(truth)), truth].tolist()

    def submit_feedback(self, epoch: int) -> None:
        """Gives the pipeline what it waits for, and has it compute the epoch. What was measured is saved before it is
        submitted, and submitting it twice changes nothing, so this may be interrupted anywhere."""
        known, file = self.known, self.known.run / "feedback.parquet"
        if known.pipeline is None:
            raise SystemExit(f"epoch {epoch} is not there yet: name the pipeline that computes it with --pipeline")
        if self.numbers["probed"] < epoch:
            before, probe, sampler = self.measure(), self.data.probe(epoch), ResumableSampler()
            sampler.set_epoch(0, len(probe))
            self.train_on(probe, epoch, sampler, probe=True)
            known.run.mkdir(parents=True, exist_ok=True)
            self.data.write_feedback(file, epoch, before, self.measure())
            self.numbers["probed"] = epoch
            self.save()
        for command in (["feedback", known.pipeline, file], ["run", known.pipeline]):
            subprocess.run([known.program, *command, *self.arguments], check=True, stdout=sys.stderr)

    def final(self, weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Between the weights that training began with and these: the paper's weight ensemble (WiSE-FT)."""
        torch.manual_seed(self.known.seed)
        first = build(self.known).to(self.device).state_dict()
        return {name: first[name].lerp(weights[name], self.known.ensemble) for name in weights}

    def train_epoch(self, epoch: int) -> None:
        if self.data.awaits(epoch):
            self.submit_feedback(epoch)
        rows = self.data.epoch(epoch)
        self.sampler.set_epoch(epoch, len(rows))
        self.train_on(rows, epoch, self.sampler)


def embedded(features: torch.Tensor | object) -> torch.Tensor:
    """Embeddings of length 1; transformers 5 wraps them."""
    return nn.functional.normalize(getattr(features, "pooler_output", features).float(), dim=-1)


def main() -> None:
    own, arguments = sys.argv[1:], []
    if "--" in own:
        own, arguments = own[: own.index("--")], own[own.index("--") + 1 :]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    training.arguments(parser)
    parser.add_argument("--model", default="openai/clip-vit-base-patch16", help="of the Hugging Face hub, or a folder")
    parser.add_argument("--scratch", action="store_true", help="a small model with random weights, to try this program")
    parser.add_argument("--pipeline", help="the pipeline's TOML file, if its curriculum is adaptive")
    parser.add_argument("--program", default="discl-pipe")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--lr", type=float, default=1e-5)
    parser.add_argument("--ensemble", type=float, default=1, help="share of the trained weights in the final ones")
    parser.add_argument("--warmup", type=int, default=500, help="steps until the learning rate is reached")
    ClipTrainer(parser.parse_args(own), arguments).run()


if __name__ == "__main__":
    main()
