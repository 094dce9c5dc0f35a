"""PyTorch on the processor: loops as its tutorials write them, and as quick as they get by hand."""

from collections.abc import Callable

import torch  # pyright: ignore[reportMissingImports]
from program import BATCH, Learned, Outcome, Task, main, repeat
from torch import nn  # pyright: ignore[reportMissingImports]
from torch.utils.data import DataLoader, TensorDataset  # pyright: ignore[reportMissingImports]


def tensors(task: Task) -> tuple[torch.Tensor, torch.Tensor]:
    """Images, float32 (n, 1, 28, 28) from 0 to 1, and labels, int64 (n,)."""
    return torch.from_numpy(task.images).unsqueeze(1).float() / 255, torch.from_numpy(task.labels).long()


def mlp() -> nn.Module:
    """The network of conf/model/mlp.yaml."""
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 10))


def cnn() -> nn.Module:
    """The network of conf/model/cnn.yaml."""
    return nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Dropout(0.5),
        nn.Linear(3136, 128),
        nn.ReLU(),
        nn.Linear(128, 10),
    )


def data_loader(task: Task) -> Outcome:
    """The usual loop: a `DataLoader` that collects every batch image by image, and Adam as it comes."""
    torch.manual_seed(0)
    model, criterion = mlp(), nn.CrossEntropyLoss()
    optimizer = torch.optim.Adam(model.parameters())
    loader = DataLoader(TensorDataset(*tensors(task)), batch_size=BATCH, shuffle=True)

    def epoch() -> Learned:
        total, right = torch.zeros(()), torch.zeros((), dtype=torch.int64)
        for images, labels in loader:
            outputs = model(images)
            loss = criterion(outputs, labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.detach()
            right += (outputs.argmax(1) == labels).sum()
        return Learned(float(total) / len(loader), int(right) / (len(loader) * BATCH))

    return repeat(task, epoch, torch.get_num_threads())


def by_hand(
    task: Task, network: Callable[[], nn.Module], bfloat16: bool = False, channels_last: bool = False
) -> Outcome:
    """A loop without a `DataLoader`: batches are indexed out of one tensor, and Adam is a single kernel.

    Args:
        task: what to train on.
        network: makes what to train.
        bfloat16: runs the network under autocast.
        channels_last: stores images and kernels with the channels innermost.
    """
    layout = torch.channels_last if channels_last else torch.contiguous_format
    torch.manual_seed(0)
    model, criterion = network().to(memory_format=layout), nn.CrossEntropyLoss()
    optimizer = torch.optim.Adam(model.parameters(), fused=True)
    all_images, all_labels = tensors(task)
    all_images = all_images.contiguous(memory_format=layout)

    def epoch() -> Learned:
        total, right = torch.zeros(()), torch.zeros((), dtype=torch.int64)
        for chosen in torch.randperm(len(all_labels)).split(BATCH):
            images, labels = all_images[chosen], all_labels[chosen]
            with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
                outputs = model(images)
                loss = criterion(outputs, labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.detach()
            right += (outputs.argmax(1) == labels).sum()
        return Learned(float(total) / task.steps, int(right) / len(all_labels))

    return repeat(task, epoch, torch.get_num_threads())


if __name__ == "__main__":
    main(
        {
            "data_loader": data_loader,
            "by_hand": lambda task: by_hand(task, mlp),
            "cnn": lambda task: by_hand(task, cnn),
            "cnn_channels_last": lambda task: by_hand(task, cnn, channels_last=True),
            "cnn_bfloat16": lambda task: by_hand(task, cnn, bfloat16=True),
            "cnn_bfloat16_channels_last": lambda task: by_hand(task, cnn, bfloat16=True, channels_last=True),
        },
        packages=("torch",),
    )
