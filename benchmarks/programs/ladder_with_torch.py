"""A step of the accuracy ladder in PyTorch, on the processor: the same network, recipe and images, by hand.

Everything is read from the composed preset; what this program cannot do, it refuses.
"""

import argparse
import json
import math
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch  # pyright: ignore[reportMissingImports]
import torch._dynamo  # pyright: ignore[reportMissingImports]  # the optimizer would import it while time counts
from torch import nn  # pyright: ignore[reportMissingImports]
from torch.nn import functional  # pyright: ignore[reportMissingImports]

MOMENTUM = 0.1  # of models.resnet's batch normalisation, in PyTorch's sense: the share of the new
EPSILON = 1e-3  # Keras's, of batch normalisation
# What is done here as in ours. Other keys must be off.
SAME = {
    "augment": {"flip", "shift", "test_time_flip"},
    "model": {"name", "_target_", "filters", "blocks", "activation", "dropout"},
    "optimizer": {"_target_", "learning_rate", "weight_decay", "beta_1", "beta_2", "epsilon"},
    "trainer": {"epochs", "batch_size", "schedule", "label_smoothing", "members", "precision", "resume"},
}
REQUIRED = {
    "model._target_": "fashion_mnist.models.resnet",
    "model.activation": "relu",
    "optimizer._target_": "keras.optimizers.AdamW",
    "trainer.schedule": "one_cycle",
    "trainer.members": 1,
}


def check(recipe: dict[str, Any]) -> None:
    """Ends the program where PyTorch would do something else than ours."""
    for section, known in SAME.items():
        for key, value in recipe[section].items():
            name = f"{section}.{key}"
            if value != REQUIRED.get(name, value) or (value and key not in known):
                sys.exit(
                    f"error: the side-by-side in PyTorch knows no {name}={value}; leave it out, or write it there."
                )


class Stage(nn.Module):
    """A convolution, batch normalisation and an activation, with pooling between the first two if wanted."""

    def __init__(self, inputs: int, outputs: int, activation: str, pooled: bool = False) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        self.pooled = pooled
        self.normalization = nn.BatchNorm2d(outputs, eps=EPSILON, momentum=MOMENTUM)
        self.activation = getattr(functional, activation)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        features = self.convolution(features)
        if self.pooled:
            features = functional.max_pool2d(features, 2)
        return self.activation(self.normalization(features))


class Residual(nn.Module):
    """Two convolutions beside nothing at all."""

    def __init__(self, filters: int, activation: str) -> None:
        super().__init__()
        self.branch = nn.Sequential(*(Stage(filters, filters, activation) for _ in range(2)))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return features + self.branch(features)


class ResNet(nn.Module):
    """fashion_mnist.models.resnet; takes uint8 (n, 28, 28) and gives scores, float32 (n, 10)."""

    def __init__(self, model: dict[str, Any], bfloat16: bool) -> None:
        super().__init__()
        self.bfloat16, layers, inputs, side = bfloat16, [], 1, 28
        for filters, blocks in zip(model["filters"], model["blocks"], strict=True):
            layers.append(Stage(inputs, filters, model["activation"], pooled=True))
            layers += [Residual(filters, model["activation"]) for _ in range(blocks)]
            inputs, side = filters, side // 2
        self.features = nn.Sequential(*layers)
        self.dropout = nn.Dropout(model["dropout"])
        self.scores = nn.Linear(inputs * side * side, 10)
        for layer in self.modules():
            if isinstance(layer, (nn.Conv2d, nn.Linear)):
                nn.init.xavier_uniform_(layer.weight)  # Keras's default; its biases are 0
        nn.init.zeros_(self.scores.bias)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        pixels = (images.unsqueeze(1).float() / 255).contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16, enabled=self.bfloat16):
            features = self.features(pixels)
        return self.scores(self.dropout(features.float().flatten(1)))  # exact, as ours


def augmented(images: torch.Tensor, flip: bool, shift: int) -> torch.Tensor:
    """Mirrored and moved, each image by itself; uint8 (n, 28, 28)."""
    count, height, width = images.shape
    if flip:
        images = torch.where(torch.rand(count, 1, 1) < 0.5, images.flip(2), images)
    if shift:
        rows = torch.arange(height) + torch.randint(2 * shift + 1, (count, 1))
        columns = torch.arange(width) + torch.randint(2 * shift + 1, (count, 1))
        padded = functional.pad(images, (shift,) * 4)
        images = padded[torch.arange(count)[:, None, None], rows[:, :, None], columns[:, None, :]]
    return images


def one_cycle(step: int, steps: int, highest: float) -> float:
    """The step size, as training.build.optimizer_of shapes it: a straight rise, and half a cosine down to zero."""
    rise = max(1, round(0.3 * steps))
    if step < rise:
        return highest / 25 + (highest - highest / 25) * step / rise
    return highest * (1 + math.cos(math.pi * (step - rise) / max(1, steps - rise))) / 2


def train(model: ResNet, images: torch.Tensor, labels: torch.Tensor, recipe: dict[str, Any], compiled: bool) -> None:
    """Trains the model to the end, batch by batch; the last batch of an epoch takes what is left, as ours does."""
    augment, trainer, adam = recipe["augment"], recipe["trainer"], recipe["optimizer"]
    betas = (adam["beta_1"], adam["beta_2"])
    optimizer = torch.optim.AdamW(
        model.parameters(), betas=betas, eps=adam["epsilon"], weight_decay=adam["weight_decay"], fused=True
    )
    criterion = nn.CrossEntropyLoss(label_smoothing=trainer["label_smoothing"])

    def loss_of(images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return criterion(model(images), labels)

    quick = torch.compile(loss_of, dynamic=False) if compiled else loss_of
    size = trainer["batch_size"]
    steps, step = trainer["epochs"] * math.ceil(len(labels) / size), 0
    for epoch in range(1, trainer["epochs"] + 1):
        start, total = time.perf_counter(), torch.zeros(())
        for chosen in torch.randperm(len(labels)).split(size):
            optimizer.param_groups[0]["lr"] = one_cycle(step, steps, adam["learning_rate"])
            changed = augmented(images[chosen], augment["flip"], augment["shift"])
            # The last batch has another shape, which is not worth another compilation.
            loss = (quick if len(chosen) == size else loss_of)(changed, labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.detach() * len(chosen)
            step += 1
        print(f"epoch {epoch}: loss {float(total) / len(labels):.4f}, {time.perf_counter() - start:.1f} s", flush=True)


@torch.no_grad()
def accuracy(model: ResNet, images: torch.Tensor, labels: torch.Tensor, mirrored: bool) -> float:
    """The share of images whose class is predicted, with the mirror image's probabilities added if wanted."""
    model.eval()
    right = 0
    for batch, truth in zip(images.split(1000), labels.split(1000), strict=True):
        probabilities = model(batch).softmax(1)
        if mirrored:
            probabilities += model(batch.flip(2)).softmax(1)
        right += int((probabilities.argmax(1) == truth).sum())
    return right / len(labels)


def main() -> None:
    """Trains, evaluates once, and prints what came of it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="holds recipe.json, and images and labels as .npy files")
    parser.add_argument("seed", type=int)
    parser.add_argument("--compiled", action="store_true", help="with torch.compile")
    arguments = parser.parse_args()
    recipe = json.loads((arguments.folder / "recipe.json").read_text())
    check(recipe)
    torch.manual_seed(arguments.seed)
    model = ResNet(recipe["model"], recipe["trainer"]["precision"] == "bfloat16").to(memory_format=torch.channels_last)

    def read(part: str) -> torch.Tensor:
        return torch.from_numpy(np.load(arguments.folder / f"{part}.npy"))

    start = time.perf_counter()
    train(model, read("train_images"), read("train_labels").long(), recipe, arguments.compiled)
    seconds = time.perf_counter() - start
    mirrored = recipe["augment"]["test_time_flip"]
    told = {
        "seconds": seconds,
        "test_accuracy": accuracy(model, read("test_images"), read("test_labels").long(), mirrored),
        # As Keras counts, with the averages of batch normalisation.
        "parameters": sum(value.numel() for value in model.state_dict().values() if value.dim()),
        "threads": torch.get_num_threads(),
        "version": version("torch"),
    }
    print(json.dumps(told))


if __name__ == "__main__":
    main()
