"""Comparing runs: what belongs together, what is left out and why, what the report says."""

import csv
import json
import re
import shutil
import sys
import time
import zlib
from collections.abc import Callable
from contextlib import chdir
from pathlib import Path

import matplotlib as mpl
import mlflow
import numpy as np
import pytest
from conftest import TINY, assert_one_sentence, needs_real_data, run_here
from mlflow.entities import Metric, Param

from fashion_mnist.cli import compose, quoted
from fashion_mnist.compare import compare
from fashion_mnist.comparison import page
from fashion_mnist.comparison.reading import decisive, of_folders, of_pipeline
from fashion_mnist.errors import UserError
from fashion_mnist.evaluate import evaluate
from fashion_mnist.evaluation.predictions import write_predictions
from fashion_mnist.files import write_metrics, write_table
from fashion_mnist.tracking.run import SKIPPED
from fashion_mnist.train import train

LABELS = (np.arange(500) % 10).astype(np.uint8)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, migrated_store: Path, tiny_data: Path) -> Path:
    """A folder with the runs of two variants and two seeds each, really trained."""
    folder = tmp_path_factory.mktemp("compared")
    shutil.copy(migrated_store, folder / "mlflow.db")
    jobs = ["-m", *TINY, f"data_root={tiny_data}", "model=linear,mlp", "seed=0,1", "tracking.experiment=lesson"]
    with chdir(folder):
        process = run_here(*jobs, step="main", MLFLOW_TRACKING_URI=f"sqlite:///{folder}/mlflow.db")
    assert process.returncode == 0, process.stderr
    return folder


@pytest.fixture
def lesson(store: Path, empty_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The current folder is empty, and the store is the one of `store`."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{store}/mlflow.db")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "lesson")
    mlflow.set_tracking_uri(f"sqlite:///{store}/mlflow.db")


def compared(*overrides: str) -> dict:
    compare(compose([quoted(override) for override in overrides], "compare"))
    return json.loads(Path("reports/comparison.json").read_text())


@pytest.mark.usefixtures("lesson")
def test_runs_that_differ_only_in_their_seed_are_one_group(tiny_data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = compared(f"data_root={tiny_data}")
    assert report["baseline"] == "mlp"
    groups = {group["name"]: group for group in report["groups"]}
    assert set(groups) == {"linear", "mlp"}
    assert groups["linear"]["seeds"] == ["0", "1"]
    assert not report["left_out"]
    values = [mlflow.get_run(run).data.metrics["test_accuracy"] for run in groups["linear"]["runs"]]
    assert groups["linear"]["metrics"]["test_accuracy"]["values"] == pytest.approx(values)
    assert groups["linear"]["metrics"]["test_accuracy"]["mean"] == pytest.approx(np.mean(values))
    assert groups["linear"]["costs"]["parameters"] == 7850
    sentence = groups["linear"]["verdict"]["sentence"].replace("`", "")
    assert sentence in " ".join(capsys.readouterr().out.split())


@pytest.mark.usefixtures("lesson")
def test_the_page_needs_no_network_and_shows_everything(tiny_data: Path) -> None:
    compared(f"data_root={tiny_data}")
    page = Path("reports/comparison.html").read_text()
    assert not re.search(r'(src|href)="(?!data:|#)', page)
    for name in ("differences", "pareto", "validation accuracy", "validation loss"):
        assert f'aria-label="{name}"' in page
    assert "synthetic garments (not Fashion-MNIST)" in page
    assert page.count("<img src=") >= 20
    assert "prefers-color-scheme: dark" in page
    assert "mathdefault" not in page  # labels in TeX, which nothing reads here
    first = {file.name: file.read_bytes() for file in Path("reports").iterdir()}
    compared(f"data_root={tiny_data}")
    assert {file.name: file.read_bytes() for file in Path("reports").iterdir()} == first


@pytest.mark.usefixtures("lesson")
def test_the_report_is_a_run_that_links_the_runs_it_compares(tiny_data: Path) -> None:
    report = compared(f"data_root={tiny_data}")
    (run, *_) = mlflow.search_runs(
        experiment_names=["lesson"], filter_string="tags.report = 'comparison'", output_format="list"
    )
    assert run.info.run_name == f"compare {', '.join(group['name'] for group in report['groups'])}"
    assert run.info.status == "FINISHED"
    for group in report["groups"]:
        for run_id in group["runs"]:
            assert f"#/experiments/{run.info.experiment_id}/runs/{run_id}" in run.data.tags["mlflow.note.content"]
    names = {entry.path for entry in mlflow.MlflowClient().list_artifacts(run.info.run_id)}
    assert names == {"comparison.json", "comparison.md", "comparison.html"}


@pytest.mark.usefixtures("lesson")
def test_runs_can_be_chosen_by_a_search_and_by_their_sweep(tiny_data: Path) -> None:
    one = compared("runs=tags.variant = 'mlp' and params.model.activation = 'relu'", f"data_root={tiny_data}")
    assert [group["name"] for group in one["groups"]] == ["mlp"]
    sweep = mlflow.search_runs(experiment_names=["lesson"], filter_string="tags.sweep = 'true'", output_format="list")
    assert len(compared(f"parent={sweep[0].info.run_id}", f"data_root={tiny_data}")["groups"]) == 2


def test_a_search_as_it_is_typed_into_a_shell(store: Path, empty_folder: Path, tiny_data: Path) -> None:
    process = run_here(
        "runs=tags.variant = 'mlp' and params.seed != '0'",
        f"data_root={tiny_data}",
        step="compare",
        MLFLOW_TRACKING_URI=f"sqlite:///{store}/mlflow.db",
        MLFLOW_EXPERIMENT_NAME="lesson",
    )
    assert process.returncode == 0, process.stderr
    assert "Only one group: nothing to compare mlp with;" in process.stdout


@pytest.mark.usefixtures("lesson")
def test_what_cannot_be_answered_is_said_in_a_sentence() -> None:
    Path("metrics/mine").mkdir(parents=True)
    Path("metrics/mine/train.json").write_text("<<<<<<< HEAD\n")
    first, *_ = of_pipeline()
    for overrides, words in (
        (["tracking.experiment=lessons"], "there is no experiment 'lessons'"),
        (["runs=tags.variant =="], "MLflow cannot search"),
        (["baseline=cnn"], "there is no baseline 'cnn' among what is compared; choose one of mlp, linear"),
        (["runs=tags.variant = 'resnet'"], "there is nothing to compare; train something first"),
        (["variants=[mlp]"], "metrics/mlp/train.json is missing"),
        (["variants=all"], f"metrics/{first}/train.json is missing; `dvc repro evaluate@{first}` makes it."),
        (
            ["variants=[mine]"],
            "metrics/mine/train.json is damaged; the main job (python -m fashion_mnist) makes it again",
        ),
    ):
        with pytest.raises(UserError, match=re.escape(words)):
            compared(*overrides)


def test_variants_are_those_that_the_pipeline_built_or_else_those_that_were_tried(
    empty_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, *_ = of_pipeline()

    def results(folder: str, accuracy: float) -> None:
        for part in ("train", "test"):
            write_metrics(Path(folder, f"metrics/{first}/{part}.json"), {f"{part}_accuracy": accuracy})
        write_table(Path(folder, f"plots/{first}/history.csv"), [{"epoch": 1, "val_accuracy": accuracy}])
        write_predictions(Path(folder, f"predictions/{first}/test.npz"), LABELS, np.eye(10, dtype=np.float32)[LABELS])

    for part in ("train", "test"):  # which git keeps, so that a fresh clone has them alone
        write_metrics(Path(f"metrics/{first}/{part}.json"), {f"{part}_accuracy": 0.25})
    with pytest.raises(UserError, match=re.escape(f"history.csv is missing; `dvc repro evaluate@{first}` makes it")):
        of_folders([first])
    with pytest.raises(UserError, match=re.escape("train.json is missing; the main job (python -m fashion_mnist)")):
        of_folders(["mine"])  # which is no variant of the pipeline
    results("outputs", 0.5)
    (tried,) = of_folders([first])
    assert tried.metrics["test_accuracy"] == 0.5
    assert tried.curves() == {"val_accuracy": [0.5]}
    assert "what lies in outputs/ is compared" in capsys.readouterr().err
    results(".", 0.75)
    (built,) = of_folders([first])
    assert built.metrics["test_accuracy"] == 0.75
    assert not capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["model=mlp"], ["there is no key 'model'"]),
        (["promote=perhaps"], ["promote", "perhaps"]),
        (["variants=mlp"], ["variants must be all, or a list of variants such as [mlp,cnn], got 'mlp'"]),
        (["baselin=mlp"], ["did you mean baseline?"]),
        (["-m", "baseline=mlp,cnn"], ["-m is for trainings"]),
        (["tracking.experiment=none"], ["there is no experiment 'none'", "choose one"]),
    ],
)
def test_mistakes_get_one_sentence(arguments: list[str], words: list[str], empty_folder: Path) -> None:
    assert_one_sentence(run_here(*arguments, step="compare"), *words)


Add = Callable[..., str]


@pytest.fixture
def add(empty_folder: Path) -> Add:
    """Adds a run to the store as `train` and `evaluate` leave it, with made-up predictions."""
    client = mlflow.MlflowClient()
    experiment = client.create_experiment("test")

    def added(variant: str = "mlp", seed: int = 0, accuracy: float = 0.9, status: str = "FINISHED", **more: str) -> str:
        tags = {"variant": variant, "seed": str(seed), "dataset": "synthetic", "dataset_digest": "d", "git_commit": "c"}
        run = client.create_run(experiment, run_name=f"{variant} {seed}", tags={**tags, **more.pop("tags", {})})  # pyright: ignore
        run_id = run.info.run_id
        given = {key.replace("__", "."): value for key, value in more.items()}
        params = {"model.hidden": "[8]", "trainer.epochs": "2", "seed": str(seed), **given}
        client.log_batch(run_id, params=[Param(key, value) for key, value in params.items()])
        if accuracy:
            random = np.random.default_rng(zlib.crc32(repr((variant, seed, accuracy)).encode()))
            predicted = np.where(random.random(500) < accuracy, LABELS, (LABELS + 1) % 10)
            write_predictions(empty_folder / "test.npz", LABELS, np.eye(10, dtype=np.float32)[predicted])
            client.log_artifact(run_id, str(empty_folder / "test.npz"), "predictions")
            names = ("test_accuracy", "test_loss", "test_macro_f1", "test_calibration_error", "val_accuracy")
            now, right = int(time.time() * 1000), float((predicted == LABELS).mean())
            client.log_batch(run_id, metrics=[Metric(name, right, now, 0) for name in names])
        if status != "RUNNING":
            client.set_terminated(run_id, status)
        return run_id

    return added


def test_every_run_that_is_left_out_is_listed_with_the_reason(add: Add, empty_folder: Path) -> None:
    for seed in range(2):
        add(seed=seed)
    twin = add(seed=7, accuracy=0.8)
    again = add(seed=7, accuracy=0.85)
    reasons = {
        add(seed=2, status="RUNNING"): "not finished, but RUNNING",
        add(seed=3, status="FAILED"): "not finished, but FAILED",
        add(seed=4, accuracy=0): "it was not evaluated: python -m fashion_mnist.evaluate, with its settings",
        add(seed=5, tags={"dataset_digest": "e", "dataset": "fashion_mnist"}): "about other data: fashion_mnist (e)",
        twin: "a newer run has the same configuration and seed",
    }
    gone = add(seed=6)
    shutil.rmtree(Path(mlflow.get_run(gone).info.artifact_uri.removeprefix("file://")) / "predictions")  # pyright: ignore
    reasons[gone] = "its predictions are missing or damaged; evaluate its model, or train it, again"
    report = compared()
    left_out = {entry["run_id"]: entry["reason"] for entry in report["left_out"]}
    assert set(left_out) == set(reasons)
    for run_id, reason in reasons.items():
        assert reason in left_out[run_id]
    (group,) = report["groups"]
    assert group["seeds"] == ["0", "1", "7"]
    assert again in group["runs"]


def test_the_run_of_mlflow_run_becomes_the_report(add: Add, monkeypatch: pytest.MonkeyPatch) -> None:
    add()
    client = mlflow.MlflowClient()
    given = client.create_run("1").info.run_id
    client.log_param(given, "runs", "'params.seed = '\"'\"'0'\"'\"''")  # as `mlflow run -P` records it
    client.log_param(given, "baseline", "mlp")
    monkeypatch.setenv("MLFLOW_RUN_ID", given)
    compared("runs=params.seed = '0'", "baseline=mlp")
    run = client.get_run(given)
    assert (run.info.run_name, run.info.status) == ("compare mlp", "FINISHED")
    assert run.data.tags["compared"] == "1"


def test_groups_are_named_after_what_differs(add: Add, capsys: pytest.CaptureFixture[str]) -> None:
    for epochs in ("2", "20"):
        for seed in range(2):
            add(seed=seed, trainer__epochs=epochs, trainer__tensorboard=str(seed))
            add("linear", seed=seed, trainer__epochs=epochs, model__hidden="[]")
    names = {group["name"] for group in compared("baseline='linear epochs=2'")["groups"]}
    assert names == {"mlp epochs=2", "mlp epochs=20", "linear epochs=2", "linear epochs=20"}
    printed = capsys.readouterr().out
    assert re.search(r"variant\s+epochs\s+n\s+accuracy", printed), printed


def test_of_many_groups_the_plot_names_the_best(add: Add) -> None:
    """To keep hundreds of names apart would take hours."""
    count = 2 * page.MOST_CURVES + 3
    for number in range(count):  # most are better than the one before, and cost more
        run = add(f"variant_{number}", accuracy=0.3 + number / 40)
        mlflow.MlflowClient().log_metric(run, "system/parameters", 1000 + number)
    best = compared()["groups"][0]["name"]
    plot = Path("reports/comparison.html").read_text().partition('aria-label="pareto"')[2].partition("</svg>")[0]
    named = set(re.findall(r">(variant_\d+)<", plot))
    assert best in named
    assert len(named) <= 2 * page.MOST_CURVES < count


def test_parameters_are_the_same_however_they_were_typed(add: Add) -> None:
    add(seed=0, model__hidden="[16, 8]", optimizer__learning_rate="0.001", trainer__mirrored="False", model__l2="0.0")
    add(seed=1, model__hidden="'[16,8]'", optimizer__learning_rate="1e-3", trainer__mirrored="false", model__l2="0")
    (group,) = compared()["groups"]
    assert group["seeds"] == ["0", "1"]


def test_options_that_mlflow_run_was_told_make_no_group_of_their_own(add: Add) -> None:
    add(seed=0, model="mlp", trainer="default", augment="none", data="synthetic")  # as `mlflow run -P` records them
    add(seed=1)
    (group,) = compared()["groups"]
    assert (group["name"], group["seeds"]) == ("mlp", ["0", "1"])


def test_a_precision_that_was_left_to_the_machine_counts_as_what_it_came_to(add: Add) -> None:
    run_id = add(seed=0, trainer__precision="auto")
    mlflow.MlflowClient().log_text(run_id, "trainer: {precision: float32}", "config.yaml")
    add(seed=1, trainer__precision="float32")
    (group,) = compared()["groups"]
    assert group["seeds"] == ["0", "1"]


def test_a_sweep_is_compared_with_what_had_made_its_jobs_needless(add: Add) -> None:
    needless, _ = add("linear", 0), add("linear", 1)
    client = mlflow.MlflowClient()
    place = mlflow.get_run(needless).info.experiment_id
    sweep = client.create_run(place, tags={"sweep": "true", f"{SKIPPED}{needless}": "linear"}).info.run_id
    own = add("mlp", 0, tags={"mlflow.parentRunId": sweep})
    report = compared(f"parent={sweep}")
    assert sorted(run for group in report["groups"] for run in group["runs"]) == sorted([needless, own])
    with pytest.raises(UserError, match="there is no sweep parent=nobody"):
        compared("parent=nobody")


def test_nobodys_own_matplotlibrc_changes_the_page(add: Add) -> None:
    for seed in range(2):
        add("mlp", seed)
        add("cnn", seed, 0.95)
    compared()
    first = Path("reports/comparison.html").read_bytes()
    with mpl.rc_context({"text.usetex": True, "font.size": 20, "axes.grid": True}):
        compared()
    assert Path("reports/comparison.html").read_bytes() == first


def test_an_interruption_makes_no_group_of_its_own(add: Add) -> None:
    add(seed=0, trainer__resume="never")
    add(seed=1)
    (group,) = compared()["groups"]
    assert group["seeds"] == ["0", "1"]


def test_a_group_of_trainings_with_different_code_is_pointed_out(add: Add, capsys: pytest.CaptureFixture) -> None:
    for variant, codes in {"mlp": "ab", "cnn": "aa"}.items():
        for seed, code in enumerate(codes):
            add(variant, seed, tags={"code_digest": code})
    compared()
    assert "The code changed between the trainings of mlp (" in " ".join(capsys.readouterr().out.split())


def test_code_and_machines_that_differ_between_groups_are_pointed_out(add: Add) -> None:
    of_code = "The code differs between groups (tag code_digest): a difference in accuracy may come from that."
    of_machine = "The machine differs between groups (tag device): a difference in seconds may come from that."
    for seed in range(2):
        add("mlp", seed, tags={"code_digest": "a", "device": "CPU"})
        add("linear", seed, tags={"code_digest": "b", "device": "CPU"})
        add("cnn", seed, tags={"code_digest": "a", "device": "GPU"})
    for without, told in (("cnn", [True, False]), ("linear", [False, True])):
        compared(f"runs=tags.variant != '{without}'")
        for file in ("comparison.md", "comparison.html"):
            content = Path("reports", file).read_text()
            assert [of_code in content, of_machine in content] == told


def test_what_goes_with_another_parameter_is_not_in_the_name(add: Add) -> None:
    add(optimizer="adam", optimizer__beta_1="0.9")
    add(optimizer="sgd", optimizer__momentum="0.9")
    assert {group["name"] for group in compared()["groups"]} == {"mlp optimizer=adam", "mlp optimizer=sgd"}


def test_runs_from_before_a_key_existed_belong_to_those_with_its_default(add: Add) -> None:
    add(seed=0)
    add(seed=1, trainer__class_weight="None", trainer__members="1", augment__cutout="0")
    add(seed=0, trainer__members="3")
    assert {group["name"]: group["n"] for group in compared()["groups"]} == {"mlp members=1": 2, "mlp members=3": 1}


def test_runs_from_before_an_argument_of_the_model_existed_are_a_group_of_their_own(add: Add) -> None:
    add()
    add(model__l2="0.0")
    assert {group["name"] for group in compared()["groups"]} == {"mlp l2=unset", "mlp l2=0"}


def test_a_run_without_parameters_is_left_out_though_there_are_defaults() -> None:
    assert decisive({"seed": "0"}) == {}


@pytest.mark.parametrize("key", ["trainer__label_smoothing", "model__l2"])
def test_losses_of_other_kinds_are_not_to_be_compared(add: Add, key: str) -> None:
    client = mlflow.MlflowClient()
    for seed, value in enumerate(("0.0", "0.0", "0.1")):
        client.log_metric(add(seed=seed, **{key: value}), "val_loss", 0.5)
    warning = "Do not compare the heights: the losses contain smoothed labels or a penalty on weights"
    compared("runs=params.seed != '2'")
    assert warning not in Path("reports/comparison.html").read_text()
    compared()
    caption = Path("reports/comparison.html").read_text().partition('aria-label="validation loss"')[2]
    assert warning in caption.partition("</figure>")[0]


def test_a_p_is_never_0(add: Add) -> None:
    for seed in range(2):
        add("mlp", seed, 0.3)
        add("cnn", seed, 0.95)
    (verdict,) = [group["verdict"] for group in compared()["groups"] if "verdict" in group]
    assert all(0 < p < 1e-6 for p in verdict["p_mcnemar_holm"])


def test_a_difference_beyond_chance_is_shown_and_chance_is_not(add: Add) -> None:
    for seed in range(5):
        add("mlp", seed, 0.80)
        add("mlp_wide", seed, 0.801)
        add("cnn", seed, 0.95)
    verdicts = {group["name"]: group.get("verdict") for group in compared()["groups"]}
    assert verdicts["mlp"] is None
    assert re.fullmatch(
        r"`cnn` beats `mlp` by 1\d\.\d points \(95 % \d+\.\d to \d+\.\d\)\.", verdicts["cnn"]["sentence"]
    )
    assert verdicts["cnn"]["shown"]
    assert len(verdicts["cnn"]["p_mcnemar_holm"]) == 5
    assert "McNemar: 5 of 5 pairs differ." in Path("reports/comparison.md").read_text()
    assert "no difference shown with n = 5" in verdicts["mlp_wide"]["sentence"]
    assert "80 % power" in verdicts["mlp_wide"]["sentence"] or "more than 50 seeds" in verdicts["mlp_wide"]["sentence"]


def test_one_training_each_is_no_verdict_on_variants(add: Add) -> None:
    add("mlp", 0, 0.8)
    add("cnn", 0, 0.95)
    report = compared()
    (verdict,) = [group["verdict"] for group in report["groups"] if "verdict" in group]
    assert verdict["interval"] is None
    assert verdict["sentence"].startswith("This training of `cnn` with seed 0 is")
    assert "Where n = 1, another seed may say otherwise" in Path("reports/comparison.md").read_text()


def test_single_trainings_are_compared_with_the_same_seed(add: Add) -> None:
    for seed in range(3):
        add("mlp", seed, 0.8)
    add("cnn", 2, 0.95)
    (verdict,) = [group["verdict"] for group in compared()["groups"] if "verdict" in group]
    assert "`cnn` with seed 2 is" in verdict["sentence"]
    assert "`mlp` with seed 2." in verdict["sentence"]


def test_every_form_of_the_report_tells_what_a_technique_bought(add: Add, capsys: pytest.CaptureFixture[str]) -> None:
    for seed in range(3):
        add("mlp", seed, 0.8)
        add("mlp_wide", seed, 0.9)
    (step,) = compared()["steps"]
    assert (step["name"], step["parent"], step["shown"]) == ("mlp_wide", "mlp", True)
    technique = compose([], "compare").steps["mlp_wide"]["technique"]
    assert step["sentence"].startswith(f"`mlp_wide` beside `mlp` ({technique}): +")
    assert step["sentence"] in Path("reports/comparison.md").read_text()
    assert step["sentence"].replace("`", "") in re.sub("</?code>", "", Path("reports/comparison.html").read_text())
    assert step["sentence"].replace("`", "") in " ".join(capsys.readouterr().out.split())
    (run,) = mlflow.search_runs(
        search_all_experiments=True, filter_string="tags.report = 'comparison'", output_format="list"
    )
    assert step["sentence"] in run.data.tags["mlflow.note.content"]
    assert compared("steps=null")["steps"] == []
    assert "Step by step" not in Path("reports/comparison.html").read_text()


def test_an_older_run_stands_in_for_one_that_cannot_be_read(add: Add) -> None:
    older, newer = add(), add(accuracy=0.91)
    shutil.rmtree(Path(mlflow.get_run(newer).info.artifact_uri.removeprefix("file://")) / "predictions")  # pyright: ignore
    report = compared()
    assert report["groups"][0]["runs"] == [older]
    assert [entry["run_id"] for entry in report["left_out"]] == [newer]


def test_images_are_left_away_where_they_are_not_the_ones_of_the_runs(
    add: Add, tiny_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    add()
    compared(f"data_root={tiny_data}")
    assert "The report shows no images" in capsys.readouterr().err
    assert "<img" not in Path("reports/comparison.html").read_text()


def test_models_of_drawn_garments_are_never_promoted(add: Add, capsys: pytest.CaptureFixture[str]) -> None:
    for seed in range(2):
        add(seed=seed)
    compared("promote=true")
    assert "Nothing was promoted: these are models of synthetic garments (not Fashion-MNIST)" in capsys.readouterr().out
    assert not mlflow.MlflowClient().search_registered_models()


@pytest.mark.slow
def test_results_of_drawn_garments_are_not_taken_for_the_pipelines(tiny: Callable, tiny_data: Path) -> None:
    config = tiny("trainer.epochs=1")
    train(config)
    evaluate(config)
    with pytest.raises(UserError, match=r"What variants=\.\.\. names must be of Fashion-MNIST: `dvc repro`"):
        compared("variants=[mlp]", f"data_root={tiny_data}")
    assert not Path("reports").exists()


@needs_real_data
@pytest.mark.slow
def test_what_the_pipeline_has_built_is_compared_without_a_store(empty_folder: Path) -> None:
    for variant in ("linear", "mlp"):
        config = compose([f"model={variant}", "trainer.epochs=1"])
        train(config)
        evaluate(config)
    report = compared("variants=[linear,mlp]")
    with Path("reports/curves.csv").open(newline="") as opened:
        assert [(row["variant"], row["epoch"]) for row in csv.DictReader(opened)] == [("linear", "1"), ("mlp", "1")]
    assert [group["n"] for group in report["groups"]] == [1, 1]
    assert "Heights compare only where no loss contains" in Path("reports/comparison.html").read_text()
    assert "runs" not in report["facts"]
    assert not any(group["runs"] for group in report["groups"])
    assert all({"parameters", "flops_per_image"} <= set(group["costs"]) for group in report["groups"])


def test_a_comparison_that_was_killed_leaves_no_orphan(add: Add, monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in range(2):
        add(seed=seed)
    client = mlflow.MlflowClient()
    with monkeypatch.context() as patch:
        patch.setattr(mlflow.MlflowClient, "log_artifact", lambda *_: sys.exit("killed"))
        with pytest.raises(SystemExit, match="killed"):
            compared()
    reports = "tags.report = 'comparison'"
    places = [place.experiment_id for place in client.search_experiments()]
    assert [run.info.status for run in client.search_runs(places, reports)] == ["RUNNING"]
    compared()
    assert sorted(run.info.status for run in client.search_runs(places, reports)) == ["FINISHED", "KILLED"]
