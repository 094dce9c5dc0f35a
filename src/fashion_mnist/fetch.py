"""Gets the dataset: checks it, and prepares arrays that can be memory-mapped, a card and a sheet of samples.

Nothing is done when the prepared dataset is already there, unharmed.
"""

from fashion_mnist.cli import main
from fashion_mnist.config import Config
from fashion_mnist.data.prepare import prepare
from fashion_mnist.tracking import store


def fetch(config: Config) -> None:
    """Prepares the configured dataset in `data_root`, and says where it lies."""
    dataset = prepare(config.data, config.data_root)
    card = dataset.card
    counts = " + ".join(f"{card.files[f'{split}_labels.npy']['shape'][0]:,} {split}" for split in ("train", "test"))
    summary = f"{card.title}: {counts} images in {dataset.folder} (digest {card.digest})."
    print(summary)
    store.label_step(config.tracking, f"fetch {card.name}", summary)


if __name__ == "__main__":
    main(fetch)
