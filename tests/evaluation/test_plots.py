"""What a picture shows: read from the figure, before it becomes pixels."""

import warnings
from itertools import pairwise
from pathlib import Path

import matplotlib as mpl
import numpy as np

from fashion_mnist.data.dataset import CLASS_NAMES
from fashion_mnist.evaluation import plots
from fashion_mnist.files import shorter, write_figure

LABELS = (np.arange(200) % 10).astype(np.uint8)
IMAGES = np.zeros((200, 28, 28), dtype=np.uint8)


def titles(wrong: list[int]) -> list[tuple[str, str]]:
    """The titles and their colors, of a model that takes the images with these numbers for the next class."""
    predicted = LABELS.copy()
    predicted[wrong] = (predicted[wrong] + 1) % 10
    probabilities = np.eye(10, dtype=np.float32)[predicted]
    figure = plots.predictions(IMAGES, LABELS, probabilities, CLASS_NAMES, "title")
    return [(text.get_text(), str(text.get_color())) for text in figure.axes[0].texts]


def test_the_first_thirty_images_come_first_and_then_the_next_mistakes() -> None:
    shown = titles(wrong=[3, *range(100, 120)])
    assert len(shown) == 40
    assert shown[0] == ("T-shirt/top", plots.RIGHT)
    assert shown[3] == ("Coat\n(Dress)", plots.WRONG)
    assert {color for _, color in shown[30:]} == {plots.WRONG}
    assert shown[30][0] == "Trouser\n(T-shirt/top)"


def test_a_model_with_fewer_mistakes_shows_those_that_it_makes() -> None:
    assert len(titles(wrong=[50, 60])) == 32
    assert {color for _, color in titles(wrong=[])} == {plots.RIGHT}


def test_long_titles_do_not_run_into_their_neighbours() -> None:
    names = ["Bernese mountain dog", "Cardigan Welsh corgi", "soft-coated wheaten terrier", "漢字" * 6] * 3
    figure = plots.sheet(IMAGES, [f"{shorter(name)} 100%\n({shorter(name)})" for name in names[:10]])
    with warnings.catch_warnings(action="ignore"):  # letters that the font lacks
        figure.draw_without_rendering()
        places = [text.get_window_extent() for text in figure.axes[0].texts]
    assert all(left.x1 < right.x0 for left, right in pairwise(places))


def test_what_a_person_has_set_for_matplotlib_changes_no_picture(tmp_path: Path) -> None:
    def drawn() -> bytes:
        write_figure(plots.confusion_matrix(np.eye(10, dtype=int), CLASS_NAMES, "title"), tmp_path / "picture.png")
        return (tmp_path / "picture.png").read_bytes()

    before = drawn()
    with mpl.rc_context({"font.size": 20, "savefig.bbox": "tight"}):
        assert drawn() == before
