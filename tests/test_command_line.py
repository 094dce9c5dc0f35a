"""What people type: keys in either notation, help that teaches, and mistakes answered in one sentence."""

import os
import re
import shutil
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from conftest import ROOT, assert_one_sentence, run_here, run_step
from hypothesis import given
from hypothesis import strategies as st

from fashion_mnist import checks, cli, help
from fashion_mnist.checks import known_keys
from fashion_mnist.cli import FLAGS, as_overrides, compose
from fashion_mnist.errors import UserError

KEYS = st.from_regex(r"[a-z_]+(\.[a-z_]+)?", fullmatch=True).filter(lambda key: f"--{key}" not in FLAGS)
VALUES = st.from_regex(r"[a-z0-9/\[][a-z0-9_.,\]\[]*", fullmatch=True)


@given(st.lists(st.tuples(KEYS, VALUES, st.sampled_from(["key=value", "--key=value", "--key value"]))))
def test_every_notation_means_the_same(pairs: list[tuple[str, str, str]]) -> None:
    typed, expected = [], []
    for key, value, notation in pairs:
        typed += notation.replace("key", key, 1).replace("value", value, 1).split(" ")
        expected.append(f"{key}={value}")
    assert as_overrides(typed) == expected


def test_two_dashes_alone_say_nothing() -> None:
    assert as_overrides(["-m", "--", "seed=3", "--model", "cnn"]) == ["-m", "seed=3", "model=cnn"]


def test_flags_may_stand_between_overrides() -> None:
    assert as_overrides(["seed=3", "--cfg", "job", "--model", "cnn", "-m"]) == [
        "--cfg",
        "job",
        "-m",
        "seed=3",
        "model=cnn",
    ]


@pytest.mark.parametrize("arguments", [["--cfg", "job"], ["--multirun", "seed=0,1"], ["-m", "seed=0,1"], ["--help"]])
def test_flags_of_hydra_stay_as_they_are(arguments: list[str]) -> None:
    assert as_overrides(arguments) == arguments


def test_a_parameter_called_run_is_not_the_flag_of_hydra() -> None:
    assert as_overrides(["--run", "0123abc"]) == as_overrides(["--run=0123abc"]) == ["run=0123abc"]


def test_negative_numbers_are_values() -> None:
    assert as_overrides(["--seed", "-1"]) == ["seed=-1"]


def test_an_option_without_value_is_refused() -> None:
    with pytest.raises(UserError, match="--seed needs a value"):
        as_overrides(["--seed"])


@pytest.mark.parametrize("step", ["main", "fetch", "train", "evaluate", "search"])
def test_help_teaches_every_group_and_key(step: str, empty_folder: Path) -> None:
    process = run_step("--help", step=step)
    assert process.returncode == 0
    assert "usage: python -m fashion_mnist" in process.stdout
    assert "cnn" in process.stdout
    shown = set(process.stdout.split())
    assert set(known_keys()) - {"data.source"} <= shown


def test_help_is_whole_after_dvc_has_rewritten_the_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`dvc exp run -S` writes a file of conf/ anew: lists are no longer indented, null is nothing, comments go."""
    apply_overrides = pytest.importorskip("dvc.utils.hydra").apply_overrides
    shutil.copytree(ROOT / "conf", tmp_path / "conf")
    for file, override in (("config", "seed=4"), ("model/mlp", "hidden=[256,64]"), ("trainer/default", "patience=3")):
        apply_overrides(tmp_path / f"conf/{file}.yaml", [override])
    for module in (cli, checks, help):
        monkeypatch.setattr(module, "CONF", tmp_path / "conf")
    shown = help.help_text("__main__", str(cli.__file__), "config")
    assert set(known_keys()) - {"data.source"} <= set(shown.split())
    assert "mlp (default) | cnn | cnn_augmented" in shown
    assert re.search(r"seed +4 ", shown)
    assert re.search(r"model.hidden +\[256, 64\] ", shown)
    assert compose([]).seed == 4


REFUSED = [
    (["-m", "seed=interval(0,1)"], ["a sweep takes single values: -m seed=VALUE,VALUE"]),
    (["-m", "seed=range(5,1)"], ["seed: this range is empty"]),
    (["-m", "seed=range(0,5,0)"], ["seed: the step of a range is not 0"]),
    (["-m", "trainer.epochs=glob(*)"], ["a sweep takes single values"]),
    (["model=resnet1000"], ["model has no option 'resnet1000'", "linear, mlp, mlp_deep"]),
    (["data=digits"], ["auto, fashion_mnist, images, npz, synthetic"]),
    (["data=/mnt/data"], ["data has no option '/mnt/data'", "auto, fashion_mnist", "data.dir=/mnt/data"]),
    (["~model"], ["model is missing: conf/config.yaml must have it"]),
    (["~model.name"], ["model.name is missing", "~model.name cannot take it away"]),
    (["~model._target_"], ["model._target_ is missing"]),
    (["~optimizer._target_"], ["optimizer._target_ is missing"]),
    (["~trainer.epochs"], ["trainer.epochs is missing"]),
    (["~seed"], ["seed is missing"]),
    (["+experiment=quick"], ["experiment is chosen already: leave the + out"]),
    (["+model=cnn"], ["model is chosen already"]),
    (["+experiment.seed=3"], ["experiment takes the name of one of its options"]),
    (["experiment=quik"], ["quick"]),
    (
        ["experiment=ladder_91", "optimizer=adam"],
        ["ladder_91.yaml", "'weight_decay'", "'~optimizer.weight_decay' takes it away"],
    ),
    (["trainer.epochs=many"], ["trainer.epochs", "many", "Integer"]),
    (["trainer.epochs=2.5"], ["trainer.epochs"]),
    (["trainer.epochs=null"], ["trainer.epochs"]),
    (["trainer.epochs=0"], ["trainer.epochs must be at least 1"]),
    (["trainer.batch_size=0"], ["trainer.batch_size must be at least 1"]),
    (["data.validation=1.5"], ["data.validation must be a whole number of images, or a share of them below 1"]),
    (["data.validation=-1"], ["data.validation"]),
    (["data.timeout=0"], ["data.timeout must be above 0"]),
    (["seed=-1"], ["seed must be at least 0"]),
    (["optimizer.learning_rate=0"], ["optimizer.learning_rate must be above 0"]),
    (["optimizer.learning_rate=fast"], ["optimizer.learning_rate must be a number"]),
    (["optimizer.beta_1=1.5"], ["optimizer.beta_1"]),
    (["model.hidden=128"], ["model.hidden must be a list such as [128]"]),
    (["model.hidden=[128,0]"], ["model.hidden[1] must be at least 1"]),
    (["model.hidden=[wide]"], ["model.hidden[0] must be a whole number"]),
    (["model.activation=rulu"], ["model.activation must be one of relu"]),
    (["model.name=../up"], ["model.name must be a name"]),
    (["model=cnn", "model.kernel_size=0"], ["model.kernel_size"]),
    (["trainer.epoch=3"], ["no key 'trainer.epoch'", "did you mean trainer.epochs?"]),
    (["--modle", "cnn"], ["did you mean model?"]),
    (["xyzzy=1"], ["no key 'xyzzy'", "--help"]),
    (["--seed"], ["--seed needs a value"]),
    (["seed=1,2"], ["add -m for a sweep"]),
    (["model=mlp,cnn"], ["add -m for a sweep"]),
    (["model=[mlp,cnn]"], ["model takes one option", "-m"]),
    (["model=null"], ["takes the name of one of its options"]),
    (["trainer=5"], ["takes the name of one of its options"]),
    (["+trainer.epoch=3"], ["did you mean trainer.epochs?"]),
    (["++model.hiden=3"], ["did you mean model.hidden?"]),
    (["model.kernel_size=5"], ["model has no key 'kernel_size'", "model=cnn"]),
    (["epochs"], ["'epochs' has no value"]),
    (["trainer.batch_size=100000"], ["trainer.batch_size must be at least 1 and below 60001"]),
    (["tracking.timeout=1e10"], ["tracking.timeout must be above 0 and at most 3600"]),
    (["model.hidden=[128"], ["cannot read 'model.hidden=[128'"]),
    (["data.dir=~/fashion"], ["cannot read 'data.dir=~/fashion'", "quotes"]),
    (["-m", "model=mlp,resnet1000"], ["model has no option 'resnet1000'"]),
    (["-m", "seed=0,-1"], ["seed must be at least 0"]),
]


@pytest.mark.parametrize(("arguments", "words"), REFUSED, ids=[" ".join(arguments) for arguments, _ in REFUSED])
def test_a_mistake_is_answered_in_one_sentence(arguments: list[str], words: list[str], empty_folder: Path) -> None:
    assert_one_sentence(run_here(*arguments), *words)
    assert [path.name for path in empty_folder.iterdir()] == ["mlflow.db"]


@pytest.mark.parametrize("argument", ["--help", "trainer.epochs=0", "model=nothing"])
def test_help_and_configuration_errors_import_nothing_heavy(argument: str, empty_folder: Path) -> None:
    command = [sys.executable, "-X", "importtime", "-m", "fashion_mnist.train", argument]
    imported = subprocess.run(command, capture_output=True, text=True, check=False).stderr
    modules = {line.rpartition("|")[2].strip().partition(".")[0] for line in imported.splitlines() if "|" in line}
    assert "hydra" in modules
    assert not modules & {"tensorflow", "keras", "mlflow", "matplotlib"}


def test_the_full_error_is_there_for_those_who_ask(empty_folder: Path) -> None:
    process = run_step("trainer.epochs=0", HYDRA_FULL_ERROR="1")
    assert "Traceback" in process.stderr


def test_programs_that_a_step_starts_show_no_traceback_that_nobody_asked_for(empty_folder: Path) -> None:
    """Hydra is asked for the full error meanwhile, in the environment."""
    job = """
        import os
        from fashion_mnist.cli import main
        main(lambda config: print("HYDRA_FULL_ERROR", os.environ.get("HYDRA_FULL_ERROR")))
    """
    Path("job.py").write_text(textwrap.dedent(job))
    for environment, printed in (({}, "None"), ({"HYDRA_FULL_ERROR": "1"}, "1")):
        process = subprocess.run(
            [sys.executable, "job.py"], capture_output=True, text=True, env={**os.environ, **environment}
        )
        assert process.stdout.strip() == f"HYDRA_FULL_ERROR {printed}", process.stderr


def test_a_folder_may_be_named_from_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    config = compose(["output_dir='~/try'", "data_root='~/data'"])
    assert (config.output_dir, config.data_root) == ("/home/somebody/try", "/home/somebody/data")


def test_the_resolvers_of_hydra_may_be_used(empty_folder: Path) -> None:
    config = compose(["output_dir=${hydra:runtime.output_dir}", "seed=${hydra:job.num}", "tracking.run_name=${now:%Y}"])
    assert (config.output_dir, config.seed) == ("outputs", 0)  # as the checks before a job take it
    assert (config.tracking.run_name or "").isdigit()
    process = run_here("seed=${hydra:job.nothing}")
    assert_one_sentence(process, "seed")


def test_a_missing_folder_of_data_is_named(empty_folder: Path) -> None:
    assert_one_sentence(run_here(FASHION_MNIST_DIR="/no/such/folder"), "/no/such/folder", "train-images-idx3-ubyte.gz")


def test_unreachable_mirrors_are_reported_within_20_seconds(empty_folder: Path) -> None:
    start = time.monotonic()
    process = run_step("data.dir=null", "data.mirrors=[http://127.0.0.1:9,http://10.255.255.1]", KERAS_HOME="/nowhere")
    assert time.monotonic() - start < 20
    assert_one_sentence(process, "data=auto", "FASHION_MNIST_DIR")


def test_an_unreachable_tracking_server_is_reported_before_training(empty_folder: Path) -> None:
    start = time.monotonic()
    process = run_here("data=synthetic", MLFLOW_TRACKING_URI="http://127.0.0.1:9")
    assert_one_sentence(process, "http://127.0.0.1:9", "tracking.uri=sqlite:///mlflow.db")
    assert time.monotonic() - start < 5
    assert not (empty_folder / "data").exists()


def test_a_tracking_database_that_is_none_is_refused(empty_folder: Path) -> None:
    (empty_folder / "mlflow.db").write_text("not a database")
    process = run_here("data=synthetic", "data.train_images=100", "data.validation=0")
    assert_one_sentence(process, "mlflow.db is not a tracking database", "tracking.uri")


@pytest.mark.parametrize("uri", ["sqlite://", "sqlite:////no/such/folder/mlflow.db", "http://[::1"])
def test_a_store_that_cannot_be_used_is_refused_before_training(uri: str, empty_folder: Path) -> None:
    assert_one_sentence(run_here("data=synthetic", f"tracking.uri='{uri}'"), "tracking")
    assert not (empty_folder / "data").exists()


def test_mlflow_run_decides_where_its_run_is_kept(empty_folder: Path) -> None:
    process = run_here("data=synthetic", "tracking.experiment=lesson-1", MLFLOW_RUN_ID="0" * 32)
    assert_one_sentence(process, "--experiment-name", "MLFLOW_TRACKING_URI")


def test_the_file_store_that_mlflow_gave_up_is_refused_with_the_way_out(empty_folder: Path) -> None:
    assert_one_sentence(run_here("data=synthetic", MLFLOW_TRACKING_URI="./mlruns"), "tracking.uri=sqlite:///mlflow.db")


def test_a_folder_that_cannot_be_written_is_named(empty_folder: Path) -> None:
    (empty_folder / "file").touch()
    process = run_here("data=synthetic", "data.train_images=100", "data.validation=10", "data_root=file/below")
    assert_one_sentence(process, "file/below", "data_root=")


def test_too_much_validation_is_refused_before_training(empty_folder: Path) -> None:
    process = run_here("data=synthetic", "data.train_images=100", "data.validation=100")
    assert_one_sentence(process, "data.validation=100", "nothing")


def test_evaluation_without_a_model_says_how_to_train_one(empty_folder: Path) -> None:
    process = run_here("data=synthetic", "data.train_images=100", "model=mlp_wide", step="evaluate")
    assert_one_sentence(process, "outputs/models/mlp_wide/model.keras", "python -m fashion_mnist.train data=synthetic")


def test_a_preset_that_is_a_search_is_no_search_for_those_who_fetch_or_evaluate(empty_folder: Path) -> None:
    preset = ["data=synthetic", "data.train_images=100", "data.test_images=10", "experiment=search_mlp"]
    fetched = run_here(*preset, "data.validation=10", step="fetch")
    assert fetched.returncode == 0, fetched.stderr
    assert "100 train + 10 test images" in fetched.stdout
    assert_one_sentence(run_here(*preset, step="evaluate"), "no model in outputs/models/mlp/model.keras")
    assert_one_sentence(run_here("-m", *preset, step="fetch"), "a search is made of trainings, and fetch makes none")
    assert {path.name for path in empty_folder.iterdir()} <= {
        "mlflow.db",
        "data",
        "outputs",
    }  # no checkpoints/search.db


def test_several_datasets_are_fetched_where_that_is_asked_for(empty_folder: Path) -> None:
    several = ["-m", "data=synthetic", "data.train_images=100", "data.test_images=10,20", "data.validation=10"]
    fetched = run_here(*several, step="fetch")
    assert fetched.returncode == 0, fetched.stderr
    assert fetched.stdout.count("100 train + ") == 2


NOT_TYPED = ("defaults", "_target_", "_recursive_", "hydra", "params", "trial")  # for files, and for Hydra itself


def test_every_key_of_conf_carries_a_comment_with_the_command_that_sets_it() -> None:
    for file in (ROOT / "conf").rglob("*.yaml"):
        group = "".join(f"{part}." for part in file.relative_to(ROOT / "conf").parts[:-1])
        if file.parent.name == "experiment" or file.name == "pipeline.yaml":  # which Hydra does not read
            continue
        for line in file.read_text().splitlines():
            key = line.partition(":")[0]
            if line and not line.startswith((" ", "#", "-")) and key not in NOT_TYPED:
                of_option = (group, key) == ("data.", "source")  # which the option's name sets
                assert of_option or re.search(rf"{group}{key}[.\w]*=", line), f"{file.name}: {line}"


OPTIONS = sorted(
    f"{file.parent.relative_to(ROOT / 'conf').as_posix()}={file.stem}" for file in (ROOT / "conf").rglob("*/*.yaml")
)


@pytest.mark.parametrize("option", OPTIONS)
def test_every_option_composes(option: str) -> None:
    assert compose([option]).overrides == [option]
