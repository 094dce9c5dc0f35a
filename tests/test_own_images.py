"""docs/your-own-images.md, typed: other people's pictures from the folder to the champion."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
import zipfile
from contextlib import chdir
from pathlib import Path

import mlflow
import numpy as np
import pytest
import yaml
from conftest import ROOT, TINY, all_runs, assert_one_sentence, run_here
from mlflow.entities import Run
from mlflow.models import Model
from PIL import Image
from sklearn.datasets import load_digits

from fashion_mnist.data.dataset import Card, intact_card
from fashion_mnist.evaluate import divided_anew
from fashion_mnist.training import saving

PAGE = (ROOT / "docs/your-own-images.md").read_text()
COMMANDS = [
    line.partition("   #")[0] for block in re.findall(r"(?ms)^```bash\n(.*?)^```", PAGE) for line in block.splitlines()
]
SETTINGS = [yaml.safe_load(block) for block in re.findall(r"(?ms)^```yaml\n(.*?)^```", PAGE)]
# Which do not end, or need a download.
ELSEWHERE = ("mlflow ui", "mlflow models serve", "mnist.load_data", "data=npz", "data=tfds")


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("own") / "clone"
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(folder)], check=True)
    return folder


def run(clone: Path, command: str) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("MLFLOW_", "FASHION_"))}
    environment["PYTHONPATH"] = str(clone / "src")
    words = shlex.split(command)
    words = words[2:] if words[:2] == ["uv", "run"] else words  # the environment is this one already
    return subprocess.run(words, cwd=clone, env=environment, capture_output=True, text=True, timeout=300)


def edit(file: Path, settings: dict[str, str]) -> None:
    """Sets keys as an editor does, and leaves comments alone."""
    text = file.read_text()
    for key, value in settings.items():
        text, count = re.subn(rf"(?m)^{key}: \S+", f"{key}: {value}", text)
        assert count == 1, key
    file.write_text(text)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_command_of_the_page_works(clone: Path) -> None:
    for command in COMMANDS:
        if any(each in command for each in ELSEWHERE):
            continue
        if "dvc repro" in command:  # the page has had its settings made by now
            edit(clone / "conf/data/digits.yaml", SETTINGS[0])
            edit(clone / "conf/pipeline.yaml", SETTINGS[1])
            lines = (clone / "conf/pipeline.yaml").read_text().splitlines(keepends=True)
            (clone / "conf/pipeline.yaml").write_text(
                "".join(line for line in lines if re.match(r"\S|  (linear|cnn):", line))
            )
            for kind in ("metrics", "plots"):  # as the page on a new variant says of those that are taken away
                shutil.rmtree(clone / kind, ignore_errors=True)
        done = run(clone, command)
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        if "promote" in command:
            assert "it is version 1 of models:/digits@champion." in " ".join(done.stdout.split())
        if "predict" in command:
            assert "│ 3 " in done.stdout
    report = json.loads((clone / "reports/pipeline/comparison.json").read_text())
    assert {group["name"] for group in report["groups"]} == {"linear", "cnn"}
    assert report["dataset"] == "digits"
    assert json.loads((clone / "metrics/cnn/test.json").read_text())["test_accuracy"] > 0.9
    champion = (
        "import mlflow, sys, numpy; from PIL import Image; image = numpy.asarray(Image.open(sys.argv[1]))[None]; "
    )
    champion += "print(mlflow.pyfunc.load_model('models:/digits@champion').predict(image)[0]['class'])"
    served = run(clone, shlex.join(["python", "-c", champion, "pictures/digits/7/0007.png"]))
    assert served.stdout.strip() == "7", served.stderr
    assert "Running" not in run(clone, "dvc repro").stdout
    shutil.copy(clone / "pictures/digits/3/0003.png", clone / "pictures/digits/3/9999.png")
    assert "Running stage 'train@cnn'" in run(clone, "dvc repro train@cnn").stdout


def draw_digits(folder: Path) -> Path:
    """Puts two hundred digits into folders of their own."""
    images, labels = load_digits(return_X_y=True)
    for index in range(200):
        file = folder / f"pictures/{labels[index]}/{index}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((images[index].reshape(8, 8) * 15).astype("uint8")).save(file)
    return folder / "pictures"


@pytest.fixture
def digits(empty_folder: Path) -> Path:
    """Digits in folders; the current folder is an empty one with an empty tracking store."""
    return draw_digits(empty_folder)


TRAINED = ("data=images", "data.dir=pictures", "model=cnn", "trainer.epochs=2", "trainer.batch_size=20")


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory, migrated_store: Path) -> Path:
    """The folder of a run that has learned such digits."""
    folder = tmp_path_factory.mktemp("learned")
    draw_digits(folder)
    shutil.copy(migrated_store, folder / "mlflow.db")
    with chdir(folder):
        done = run_here(*TRAINED, step="main", MLFLOW_TRACKING_URI=f"sqlite:///{folder}/mlflow.db")
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def model(learned: Path, empty_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same run's model beside the digits in an otherwise empty folder."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{learned}/mlflow.db")
    for part in ("pictures", "outputs/models"):
        shutil.copytree(learned / part, empty_folder / part)
    return empty_folder / "outputs/models/cnn/model.keras"


def run_of(folder: Path) -> Run:
    """The run that was first in a folder's store."""
    mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
    return min(all_runs(), key=lambda run: run.info.start_time)


def test_a_run_says_what_it_learned_from_and_is_made_again(learned: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(learned)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{learned}/mlflow.db")
    run = run_of(learned)
    assert run.data.params["data.name"] == run.data.tags["dataset"] == "pictures"
    assert "on pictures" in run.data.tags["mlflow.note.content"]
    assert re.search(r"Test accuracy 0\.\d+, macro F1 0\.\d+, loss", run.data.tags["mlflow.note.content"])
    assert run.inputs is not None
    (data,) = run.inputs.dataset_inputs
    profile = json.loads(data.dataset.profile or "")
    assert profile["class_names"] == [str(label) for label in range(10)]
    assert profile["features_shape"] == [160, 8, 8]
    signature = Model.load(f"runs:/{run.info.run_id}/model").signature
    assert signature is not None
    assert [entry.shape for schema in (signature.inputs, signature.outputs) for entry in schema] == [
        (-1, 8, 8),
        (-1, 10),
    ]
    again = run_here(f"run={run.info.run_id}", step="reproduce")
    assert again.returncode == 0, again.stdout + again.stderr
    Path("pictures/3/3.png").rename("3.png")
    changed = run_here(f"run={run.info.run_id}", "check_only=true", step="reproduce")
    Path("3.png").rename("pictures/3/3.png")
    assert changed.returncode == 4
    assert re.search(r"data .*differs", changed.stdout)


def test_predict_needs_neither_the_pictures_nor_a_key(learned: Path, model: Path) -> None:
    shutil.move("pictures", "elsewhere")
    files = sorted(Path("elsewhere/7").glob("*.png"))[:5]
    told = []
    for words in (["model=cnn"], [f"run={run_of(learned).info.run_id}"]):
        answered = run_here(*map(str, files), *words, "--json", step="predict")
        assert answered.returncode == 0, answered.stderr
        told.append([json.loads(line)["probabilities"] for line in answered.stdout.splitlines()])
    assert told[0] == told[1]
    pixels = np.array([np.asarray(Image.open(file)) for file in files])
    assert list(told[0][0]) == [str(label) for label in range(10)]
    assert [list(row.values()) for row in told[0]] == pytest.approx(np.asarray(saving.load(model)(pixels)), abs=1e-5)


@pytest.mark.usefixtures("model")
def test_a_model_is_not_judged_on_classes_that_it_has_not_learned(tiny_data: Path) -> None:
    names = ",".join(reversed([str(label) for label in range(10)]))
    other = run_here(*TRAINED, f"data.class_names=[{names}]", step="evaluate")
    assert other.returncode == 1
    assert "is a model of pictures, with other images or classes than pictures has" in other.stderr
    garments = run_here(*TINY, f"data_root={tiny_data}", "model=cnn", step="evaluate")
    assert_one_sentence(garments, "is a model of pictures, with other images or classes than synthetic garments")
    assert run_here(*TRAINED, step="evaluate").returncode == 0


@pytest.mark.usefixtures("model")
def test_a_model_is_not_judged_on_images_that_it_may_have_learned() -> None:
    again = run_here(*TRAINED, "data.drawing_seed=1", step="evaluate")
    assert again.returncode == 1
    assert "was trained on another division of pictures: images that it is to be tested on" in again.stderr
    assert run_here(*TRAINED, "data.drawing_seed=1", "data.name=others", step="evaluate").returncode == 0


def test_a_model_may_be_judged_on_more_test_images_where_it_has_learned_the_same() -> None:
    files = {f"{part}_{what}.npy": {"sha256": part} for part in ("train", "test") for what in ("images", "labels")}
    learned, more = (Card("pictures", "", "", ("a", "b"), each) for each in (files, files | {"test_images.npy": {}}))
    assert not divided_anew(learned, more)
    assert divided_anew(learned, Card("pictures", "", "", ("a", "b"), more.files | {"train_images.npy": {}}))


@pytest.mark.parametrize(
    "card", [b"{", b"[]", b'{"name": "x"}', b'{"name":"x","source":"","license":"","class_names":[],"files":{}}',
             b'{"name":"x","source":"","license":"","class_names":["a"],"files":{"train_images.npy":{"shape":[1,99999,99999]}}}']
)  # fmt: skip
def test_a_card_that_is_none_is_refused_before_a_picture_is_read(
    card: bytes, empty_folder: Path, tiny_data: Path
) -> None:
    with zipfile.ZipFile("model.keras", "w") as archive:
        archive.writestr("dataset.json", card)
    Path("outputs/models/cnn").mkdir(parents=True)
    Path("model.keras").rename("outputs/models/cnn/model.keras")
    Image.new("L", (8, 8)).save("picture.png")
    assert_one_sentence(run_here("picture.png", "model=cnn", step="predict"), "train it again")
    evaluated = run_here(*TINY, f"data_root={tiny_data}", "model=cnn", step="evaluate")
    assert_one_sentence(evaluated, "train it again")


@pytest.mark.slow
def test_a_search_tests_its_winner(digits: Path) -> None:
    pytest.importorskip("optuna")
    command = [*TRAINED, "hydra/sweeper=optuna", "hydra.sweeper.trials=2", "hydra.sweeper.confirm=1"]
    done = run_here("-m", *command, "optimizer.learning_rate=tag(log,interval(1e-4,1e-1))", step="main")
    assert done.returncode == 0, done.stderr
    assert sum("test_accuracy" in run.data.metrics and "trial" in run.data.tags for run in all_runs()) == 1


@pytest.mark.slow
def test_a_training_of_ones_own_images_that_is_killed_goes_on(digits: Path) -> None:
    command = [sys.executable, "-m", "fashion_mnist.train", *TRAINED[:3], "trainer.epochs=60", "trainer.batch_size=20"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not list(Path("checkpoints").glob("cnn*.npz")):
        assert process.poll() is None
        time.sleep(0.05)
    process.kill()
    process.wait()
    finished = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    assert "it goes on after epoch" in finished.stderr
    killed = Path("outputs/models/cnn/model.keras").read_bytes()
    subprocess.run([*command, "output_dir=whole"], capture_output=True, check=True, timeout=120)
    assert Path("whole/models/cnn/model.keras").read_bytes() == killed


@pytest.mark.slow
def test_a_preparation_that_is_killed_leaves_no_half_dataset(digits: Path) -> None:
    command = [sys.executable, "-m", "fashion_mnist.fetch", *TRAINED[:2]]
    whole = Path("data/pictures/dataset.json")
    for milliseconds in range(100, 2100, 200):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(milliseconds / 1000)
        process.kill()
        process.wait()
        assert whole.is_file() == Path("data/pictures").is_dir()
    subprocess.run(command, check=True, timeout=60)
    assert intact_card(Path("data/pictures")) is not None
    assert sorted(file.name for file in Path("data").iterdir()) == [".pictures.json", "pictures"]
