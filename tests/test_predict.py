"""What is on a picture: files and folders, any size and background, any of our models."""

import json
from pathlib import Path

import numpy as np
import pytest
from conftest import TINY, assert_one_sentence, run_here
from PIL import ExifTags, Image, ImageOps

from fashion_mnist.cli import compose
from fashion_mnist.data import pictures
from fashion_mnist.errors import UserError
from fashion_mnist.predict import parse, trained


@pytest.fixture(scope="module")
def shoe(tmp_path_factory: pytest.TempPathFactory) -> np.ndarray:
    """Something light on black that is not symmetric, uint8 (28, 28)."""
    image = np.zeros((28, 28), dtype=np.uint8)
    image[10:20, 0:28] = 120
    image[4:12, 18:27] = 200
    return image


def test_an_image_of_the_dataset_passes_unchanged(shoe: np.ndarray, tmp_path: Path) -> None:
    Image.fromarray(shoe).save(tmp_path / "shoe.png")
    assert np.array_equal(pictures.read(tmp_path / "shoe.png"), shoe)


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P", "1", "CMYK"])
@pytest.mark.parametrize("size", [(1, 1), (28, 28), (40, 28), (300, 500), (7, 2000)])
def test_every_size_and_mode_gives_28_by_28_bytes(mode: str, size: tuple[int, int]) -> None:
    result = pictures.as_dataset(Image.new("L", size, 255).convert(mode))
    assert result.shape == (28, 28)
    assert result.dtype == np.uint8
    assert result.max() == 0  # nothing but background, which is dark


def test_a_photograph_is_seen_upright_however_the_camera_was_held(shoe: np.ndarray, tmp_path: Path) -> None:
    lying = Image.fromarray(shoe).transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6  # to be turned by 90 degrees, clockwise
    lying.save(tmp_path / "photo.png", exif=exif)
    assert np.array_equal(pictures.read(tmp_path / "photo.png"), shoe)


def test_sixteen_bits_of_grey_are_not_cut_off(shoe: np.ndarray, tmp_path: Path) -> None:
    Image.fromarray(shoe.astype(np.uint16) * 257).save(tmp_path / "scan.png")
    assert np.array_equal(pictures.read(tmp_path / "scan.png"), shoe)


def test_dark_on_light_becomes_light_on_dark(shoe: np.ndarray) -> None:
    picture = Image.fromarray(shoe)
    assert np.array_equal(pictures.as_dataset(ImageOps.invert(picture)), shoe)


def test_margins_and_size_do_not_matter(shoe: np.ndarray) -> None:
    large = Image.fromarray(shoe).resize((280, 280), Image.Resampling.NEAREST)
    photo = ImageOps.invert(ImageOps.expand(large, 100, 0))
    near = pictures.as_dataset(photo).astype(int)
    centred = np.roll(shoe, 2, axis=0)  # its rows 4 to 19 come into the middle
    assert np.abs(near - centred).mean() < 6


def test_what_is_transparent_is_background(shoe: np.ndarray) -> None:
    picture = Image.new("RGBA", (28, 28), (0, 0, 0, 0))
    picture.paste((0, 0, 0, 255), (5, 5, 20, 20))
    result = pictures.as_dataset(picture)
    assert result[0, 0] == 0
    assert result[10, 10] == 255


@pytest.mark.parametrize("content", [b"", b"no picture", b"\x89PNG\r\n\x1a\nbroken"])
def test_what_is_no_picture_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "shoe.png").write_bytes(content)
    with pytest.raises(UserError, match="cannot be read as a picture"):
        pictures.read(tmp_path / "shoe.png")


def test_options_may_stand_anywhere(tmp_path: Path) -> None:
    odd = tmp_path / "a=b.png"
    odd.touch()
    request = parse(["--json", "shoe.png", "model=cnn", str(odd), "--picture=out.png", "output_dir=/tmp/try"])
    assert request.places == [Path("shoe.png"), odd]
    assert request.overrides == ["model=cnn", "output_dir=/tmp/try"]
    assert (request.as_json, request.picture, request.model) == (True, Path("out.png"), None)
    assert parse(["shoe.png", "run=abc"]).model == "runs:/abc/model"
    assert parse(["shoe.png", "model=models:/shoes@champion"]).model == "models:/shoes@champion"


def test_keys_may_come_as_mlflow_hands_them_over() -> None:
    request = parse(["shoe.png", "--model", "cnn", "--output_dir=/tmp/try", "--trainer.epochs", "3"])
    assert request.places == [Path("shoe.png")]
    assert request.overrides == ["model=cnn", "output_dir=/tmp/try", "trainer.epochs=3"]
    assert parse(["shoe.png", "--run", "abc"]).model == "runs:/abc/model"


WRONG = [
    ([], "name at least one picture: python -m"),
    (["--verbose", "shoe.png"], "name at least one picture beside verbose=shoe.png"),
    (["shoe.png", "--verbose"], "--verbose needs a value"),
    (["shoe.png", "-m"], "there is no option -m"),
    (["shoe.png", "--picture"], "--picture: expected one argument"),
]


@pytest.mark.parametrize(("arguments", "words"), WRONG, ids=[" ".join(arguments) for arguments, _ in WRONG])
def test_a_wrong_command_line_is_refused(arguments: list[str], words: str) -> None:
    with pytest.raises(UserError, match=words):
        parse(arguments)


def test_the_model_is_the_one_tried_last_or_else_the_one_that_the_pipeline_built(empty_folder: Path) -> None:
    built, tried = Path("models/cnn/model.keras"), Path("outputs/models/cnn/model.keras")
    for file in (built, tried):
        file.parent.mkdir(parents=True)
        file.touch()
    assert trained(compose(["model=cnn"])) == tried
    assert trained(compose(["model=cnn", "output_dir=."])) == built
    tried.unlink()
    assert trained(compose(["model=cnn"])) == built


def test_a_folder_is_told_picture_by_picture(shoe: np.ndarray, tiny_data: Path, empty_folder: Path) -> None:
    assert run_here(*TINY, f"data_root={tiny_data}", "trainer.epochs=1").returncode == 0
    folder = empty_folder / "pictures/more"
    folder.mkdir(parents=True)
    for number in range(300):  # more than one batch
        Image.fromarray(np.roll(shoe, number, axis=1)).save(folder / f"{number:03}.png")
    (folder / "broken.jpg").write_bytes(b"no picture")
    (folder / "notes.txt").write_text("no picture either")
    process = run_here("pictures", "model.name=mlp", "--json", "--picture", "seen.png", step="predict")
    told = [json.loads(line) for line in process.stdout.splitlines()]
    assert len(told) == 300
    assert told[0]["picture"].endswith("000.png")
    assert told[0]["class"] == told[0]["top"][0]["class"]
    assert 0 < sum(entry["probability"] for entry in told[0]["top"]) <= 1.000001
    assert len(told[0]["probabilities"]) == 10
    assert sum(told[0]["probabilities"].values()) == pytest.approx(1, abs=1e-5)
    assert "broken.jpg" in process.stderr
    assert process.returncode == 1
    assert (empty_folder / "seen.png").stat().st_size > 5_000


def test_the_model_of_a_run_says_the_same_as_its_file(shoe: np.ndarray, tiny_data: Path, empty_folder: Path) -> None:
    trained = run_here(*TINY, f"data_root={tiny_data}", "trainer.epochs=1")
    run_id = trained.stdout.split("MLflow run ")[1].split()[0]
    Image.fromarray(shoe).save("shoe.png")
    answers = [run_here("shoe.png", "--json", choice, step="predict") for choice in ("model=mlp", f"run={run_id}")]
    assert [answer.returncode for answer in answers] == [0, 0], answers[1].stderr
    assert answers[0].stdout == answers[1].stdout


def test_without_a_model_or_picture_the_way_out_is_named(empty_folder: Path, shoe: np.ndarray) -> None:
    Image.fromarray(shoe).save("shoe.png")
    assert_one_sentence(
        run_here("shoe.png", step="predict"), "outputs/models/mlp/model.keras or models/mlp/model.keras", "python -m"
    )
    assert_one_sentence(run_here("shoe.png", "run=" + "0" * 32, step="predict"), "MLflow has no model")
    missing = run_here("shoe.jpg", step="predict")
    assert (missing.returncode, missing.stdout) == (1, "")
