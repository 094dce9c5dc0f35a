"""Step by step: each variant beside the one that it builds on, what the technique bought, and what it cost."""

import re
from collections.abc import Mapping

import numpy as np
import pytest
from omegaconf import OmegaConf

from fashion_mnist.cli import compose, explain
from fashion_mnist.comparison import report, significance, trainings
from fashion_mnist.comparison.groups import Comparison, compare, difference_between
from fashion_mnist.comparison.page import as_html
from fashion_mnist.comparison.trainings import Training
from fashion_mnist.config import ROOT

IMAGES = 2_000
TESTED = trainings.Tested("synthetic", "", np.arange(IMAGES) % 10, np.zeros(IMAGES), np.zeros((IMAGES, 10), int))
DROPOUT = {"mlp_dropout": {"parent": "mlp_wide", "technique": "dropout"}}


def trained(
    variant: str, accuracy: float, seeds: int = 3, costs: Mapping[str, float] | None = None, **params: str
) -> list[Training]:
    """Trainings that each get the same images right, but for a few."""
    found = []
    for seed in range(seeds):
        right = np.arange(IMAGES) < round(accuracy * IMAGES) + seed
        metrics = {"test_accuracy": float(right.mean())} | {
            f"system/{key}": cost for key, cost in (costs or {}).items()
        }
        named = {"model": variant, **params}
        found.append(
            Training(
                f"{variant} {seed}", variant, {}, metrics, pytest.fail, dict, str(seed), named, "a" * 32, "1", right
            )
        )
        found[-1].counts = np.eye(10, dtype=int)
    return found


def compared(*groups: list[Training], steps: dict = DROPOUT) -> Comparison:
    return compare([each for group in groups for each in group], [], TESTED, None, steps)


def sentences(comparison: Comparison) -> list[str]:
    return [report.in_a_sentence(comparison, step) for step in comparison.steps]


def test_a_sentence_says_what_the_technique_bought_and_what_it_cost() -> None:
    wide = trained("mlp_wide", 0.88, costs={"training_seconds": 8.9, "parameters": 407_050})
    dropout = trained("mlp_dropout", 0.9, costs={"training_seconds": 9.1, "parameters": 407_050})
    (sentence,) = sentences(compared(wide, dropout))
    low, high = (f"{100 * end:+.1f}" for end in significance.difference(*rights(dropout, wide)).interval or ())
    assert sentence == (
        f"`mlp_dropout` beside `mlp_wide` (dropout): +2.0 points (95 % {low} to {high}), shown; "
        "9.1 s of training in place of 8.9; 407,050 parameters each."
    )


def rights(*groups: list[Training]) -> list[np.ndarray]:
    return [np.array([training.right for training in group]) for group in groups]


def test_a_loss_is_called_a_loss_and_what_is_not_shown_bought_nothing() -> None:
    wide = trained("mlp_wide", 0.88)
    (sentence,) = sentences(compared(wide, trained("mlp_dropout", 0.86)))
    assert "(dropout): -2.0 points (95 % -" in sentence
    assert sentence.endswith("), a loss that is shown.")
    (sentence,) = sentences(compared(wide, trained("mlp_dropout", 0.88)))
    assert "(dropout): it bought nothing that is shown, +0.0 points (95 % -" in sentence
    assert sentence.endswith(", corrected p = 1.00).")


def test_of_single_trainings_it_speaks_of_these_two_alone() -> None:
    wide = trained("mlp_wide", 0.88, seeds=3)
    (sentence,) = sentences(compared(wide, trained("mlp_dropout", 0.9, seeds=1)))
    assert sentence.endswith("(dropout): +2.0 points between these two trainings of seed 0 (McNemar), shown.")
    (sentence,) = sentences(compared(wide[2:], trained("mlp_dropout", 0.881, seeds=1)))
    assert (
        "it bought nothing that is shown, +0.0 points between these two trainings of seed 0 and of seed 2 (" in sentence
    )


def test_operations_stand_in_for_times_that_nobody_knows() -> None:
    wide = trained("mlp_wide", 0.88, costs={"flops_per_image": 0.8e6, "parameters": 407_050})
    dropout = trained("mlp_dropout", 0.9, costs={"flops_per_image": 1.6e6, "parameters": 407_050})
    (sentence,) = sentences(compared(wide, dropout))
    assert sentence.endswith("shown; 1.60 MFLOP an image in place of 0.80; 407,050 parameters each.")


def test_operations_are_told_beside_the_time_where_they_differ() -> None:
    wide = trained("mlp_wide", 0.88, costs={"flops_per_image": 18.55e6, "training_seconds": 217})
    mirrored = trained("mlp_dropout", 0.9, costs={"flops_per_image": 37.1e6, "training_seconds": 207.1})
    (sentence,) = sentences(compared(wide, mirrored))
    assert sentence.endswith("207.1 s of training in place of 217.0; 37.10 MFLOP an image in place of 18.55.")
    as_many = trained("mlp_dropout", 0.9, costs={"flops_per_image": 18.55e6, "training_seconds": 207.1})
    (sentence,) = sentences(compared(wide, as_many))
    assert sentence.endswith("shown; 207.1 s of training in place of 217.0.")


def test_chance_is_corrected_for_over_the_steps_alone() -> None:
    steps = {**DROPOUT, "mlp_wide": {"parent": "mlp", "technique": "more neurons"}}
    comparison = compared(
        trained("mlp", 0.88),
        trained("mlp_wide", 0.882),
        trained("mlp_dropout", 0.885),
        trained("cnn", 0.9),
        steps=steps,
    )
    alone = [difference_between(step.group, step.parent).p for step in comparison.steps]
    assert [step.verdict.p for step in comparison.steps] == pytest.approx(significance.holm(alone))
    assert [step.group.variant for step in comparison.steps] == list(steps)


def test_a_parent_that_is_not_compared_makes_no_step() -> None:
    comparison = compared(trained("mlp", 0.88), trained("mlp_dropout", 0.9))
    assert not comparison.steps
    assert report.as_json(comparison)["steps"] == []
    assert "Step by step" not in report.as_markdown(comparison) + as_html(comparison, None)


def test_of_several_groups_those_pair_up_that_agree_in_what_tells_them_apart() -> None:
    wide = [trained("mlp_wide", 0.88, epochs=epochs) for epochs in ("2", "20")]
    dropout = [trained("mlp_dropout", 0.89, epochs=epochs) for epochs in ("2", "20", "200")]
    pairs = {step.group.name: step.parent.name for step in compared(*wide, *dropout).steps}
    assert pairs == {"mlp_dropout epochs=2": "mlp_wide epochs=2", "mlp_dropout epochs=20": "mlp_wide epochs=20"}
    pairs = {step.group.name: step.parent.name for step in compared(*wide, dropout[1]).steps}
    assert pairs == {"mlp_dropout": "mlp_wide epochs=20"}
    assert not compared(*wide, dropout[2]).steps


def test_a_variant_that_names_itself_makes_no_step() -> None:
    assert not compared(trained("mlp", 0.9), steps={"mlp": {"parent": "mlp", "technique": "nothing"}}).steps


def test_the_only_groups_of_two_variants_pair_up_whatever_they_differ_in() -> None:
    (step,) = compared(trained("mlp_wide", 0.88, epochs="2"), trained("mlp_dropout", 0.9, epochs="20")).steps
    assert (step.group.name, step.parent.name) == ("mlp_dropout", "mlp_wide")


def test_the_page_shows_each_below_its_parent() -> None:
    steps = {
        "mlp_deep": {"parent": "mlp", "technique": "another layer"},
        "mlp_wide": {"parent": "mlp", "technique": "more neurons"},
        **DROPOUT,
    }
    variants = ("mlp_dropout", "mlp_wide", "mlp_deep", "mlp", "cnn")
    comparison = compared(*(trained(variant, 0.9) for variant in variants), steps=steps)
    table = as_html(comparison, None).partition("<h2>Step by step")[2].partition("</table>")[0]
    told = re.findall(r'<td class="text"(?: style="padding-left: (\S+)rem")?>(?:└ )?(\w+)</td>', table)
    assert told == [("", "mlp"), ("1.5", "mlp_deep"), ("1.5", "mlp_wide"), ("2.5", "mlp_dropout")]
    assert table.count("<svg") == len(steps)


def test_steps_for_which_a_description_in_mlflow_has_no_room_are_left_to_the_report() -> None:
    groups = trained("mlp_wide", 0.88), trained("mlp_dropout", 0.9)
    assert "beside" in report.as_note(compared(*groups), "1")
    long = {"mlp_dropout": {"parent": "mlp_wide", "technique": "dropout " * 1_000}}
    assert "beside" not in report.as_note(compared(*groups, steps=long), "1")


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ("steps=mlp", "steps: Cannot assign str to Dict[str, Any]."),
        ("steps.mlp_wide=mlp", "steps.mlp_wide must be of the form {parent: VARIANT, technique: WORDS}, got 'mlp'."),
        ("steps.mlp_wide.parent=null", "steps.mlp_wide must be of the form {parent: VARIANT, technique: WORDS}"),
        ("steps.mlp_wide.technique=7", "steps.mlp_wide must be of the form {parent: VARIANT, technique: WORDS}"),
        ("++steps.mine.parent=cnn", "steps.mine must be of the form {parent: VARIANT, technique: WORDS}"),
        ("steps.mine.parent=cnn", "a further step needs a +, such as '+steps.mine={parent: cnn, technique: my idea}'."),
    ],
)
def test_steps_that_nobody_can_mean_are_refused_in_one_sentence(typed: str, words: str) -> None:
    with pytest.raises(Exception) as caught:  # noqa: PT011
        compose([typed], "compare")
    assert words in str(explain(caught.value, "compare"))


def test_steps_can_be_added_changed_and_taken_away() -> None:
    steps = compose(
        ["+steps.mine={parent: cnn, technique: my idea}", "steps.mlp_l2.parent=mlp", "~steps.mlp_wide"], "compare"
    ).steps
    assert steps["mine"] == {"parent": "cnn", "technique": "my idea"}
    assert steps["mlp_l2"]["parent"] == "mlp"
    assert "mlp_wide" not in steps


def test_the_pipeline_compares_anew_when_the_steps_change() -> None:
    (keys,) = [each["conf/compare.yaml"] for each in stage_params() if "conf/compare.yaml" in each]
    assert "steps" in keys


def stage_params() -> list[dict]:
    return OmegaConf.to_container(OmegaConf.load(ROOT / "dvc.yaml"))["stages"]["compare"]["params"]  # pyright: ignore
