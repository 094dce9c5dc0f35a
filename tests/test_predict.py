"""What is on a picture: files and folders, any size and background, any of our models."""

import json
from pathlib import Path

import numpy as np
import pytest
from conftest import TINY, assert_one_sentence, run_here
from PIL import Image

from fashion_mnist.cli import compose
from fashion_mnist.data.dataset import CLASS_NAMES
from fashion_mnist.errors import UserError
from fashion_mnist.predict import parse, show, trained


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
    (["shoe.png", "--picture", "seen.txt"], "a picture is drawn as a .png file"),
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


def test_who_names_a_search_is_not_told_to_begin_it(empty_folder: Path) -> None:
    with pytest.raises(UserError, match=r"python -m fashion_mnist experiment=search_mlp hydra\.mode=RUN$"):
        trained(compose(["experiment=search_mlp"]))


def test_a_folder_is_told_picture_by_picture(
    shoe: np.ndarray, tiny_data: Path, empty_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fashion_mnist.data.dataset.images_at_once", lambda shape: 100)
    assert run_here(*TINY, f"data_root={tiny_data}", "trainer.epochs=1").returncode == 0
    folder = empty_folder / "pictures/more"
    folder.mkdir(parents=True)
    for number in range(300):  # three batches
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


def test_long_names_of_pictures_stay_apart(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    folder = "a" * 70
    files = [Path(f"{folder}/{name}/sale[new].png") for name in ("one", "two")]
    show(files, np.eye(10)[:2], CLASS_NAMES, False, "model")
    told = "".join(line.split("│")[1].strip() for line in capsys.readouterr().out.splitlines() if line.startswith("│"))
    assert told == "".join(str(file) for file in files)


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
