"""Puts results into tables and pictures of the README and of docs/, and into the comments at the top of conf/'s files.

    uv run python docs/results.py           # writes
    uv run python docs/results.py --check   # writes nothing; the exit code says whether everything is up to date

Read are `metrics/`, which `dvc repro` makes, and in `docs/` the study (`study/`, by `docs/study.py`), the tricks
(`tricks/`, by `docs/tricks.py`), the ladder (`ladder.json`, by `benchmarks/time_to_accuracy.py --json
docs/ladder.json`), accuracies over seeds (`accuracy.json`, by `benchmarks/accuracy.py --json docs/accuracy.json`) and
the faults (`faults.json`, by `pytest tests/faults tests/cluster --full`).
"""

import argparse
import json
import re
import sys
from pathlib import Path

import exercises
import ladder
import strengths
import tricks
import yaml
from tables import Accuracies, markdown, spread

from fashion_mnist.files import write_figure

ROOT = Path(__file__).parents[1]
# Preset, the write-up that it follows, what that claims, and the configurations that were trained over seeds.
PRESETS = (
    ("first_network", "000", "none", ["mlp experiment=first_network"]),
    ("beyond_hello_world", "001", "training ~0.83, test ~0.82, loss ~0.50", ["mlp experiment=beyond_hello_world"]),
    ("tensorboard", "002", "none", ["mlp experiment=tensorboard"]),
    ("tfds_ann", "003", "test 0.8264", ["mlp tfds experiment=tfds_ann"]),
    (
        "mlp_vs_cnn",
        "004",
        "the CNN is better",
        ["mlp experiment=first_network", "cnn_dropout experiment=all_images optimizer=adam trainer=default"],
    ),
)


def main() -> None:
    """Writes, or with --check compares."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 if anything is out of date")
    arguments = parser.parse_args()
    accuracies = json.loads((ROOT / "docs/accuracy.json").read_text())
    study = json.loads((ROOT / "docs/study/comparison.json").read_text())
    measured = ladder.steps_of(json.loads((ROOT / "docs/ladder.json").read_text())["turns"])
    changed = json.loads((ROOT / "docs/tricks/comparison.json").read_text())
    if (built := yaml.safe_load((ROOT / "conf/pipeline.yaml").read_text())["data"]) != study["dataset"]:
        sys.exit(f"error: the pipeline builds models of {built}, and the study is about {study['dataset']}.")
    tables = {
        ("README.md", "ladder"): markdown(ladder.HEADINGS, ladder.rows(measured)),
        ("README.md", "claims"): claims_table(accuracies),
        ("README.md", "results"): variants_table(ROOT, study),
        ("docs/results.md", "presets"): presets_table(accuracies),
        ("docs/tricks.md", "tricks"): markdown(tricks.HEADINGS, tricks.rows(changed, "ladder_91"), texts=2),
        ("docs/tricks.md", "longer"): markdown(tricks.HEADINGS, tricks.rows(changed, "longer"), texts=2),
        ("docs/tricks.md", "strengths"): strengths.table(accuracies, strengths.WIDE),
        ("docs/tricks.md", "augmentation"): strengths.table(accuracies, strengths.CNN),
        ("docs/faults.md", "faults"): faults_table(json.loads((ROOT / "docs/faults.json").read_text())),
    }
    texts = {ROOT / page: (ROOT / page).read_text() for page, _ in tables}
    for (page, name), table in tables.items():
        texts[ROOT / page] = between(texts[ROOT / page], name, table)
    texts[ROOT / "docs/exercises.md"] = exercises.page_of(accuracies)
    texts |= comments(study, measured)
    if arguments.check:
        stale = [file.name for file, text in texts.items() if not file.is_file() or file.read_text() != text]
        sys.exit(f"{', '.join(stale)} out of date: uv run python docs/results.py" if stale else 0)
    for file, text in texts.items():
        file.write_text(text)
    write_figure(exercises.picture_of(accuracies), ROOT / "docs/exercises.png")
    variants = [
        (group["name"], group["costs"]["training_seconds"], group["metrics"]["test_accuracy"]["mean"])
        for group in study["groups"]
        if group["name"] not in measured
    ]
    write_figure(ladder.picture_of(variants, processor_of(study), measured), ROOT / "docs/ladder.png")


def between(text: str, name: str, table: str) -> str:
    """The text with the table between the two comments that carry its name."""
    pattern = rf"(<!-- {name}: begin.*?-->\n).*?(<!-- {name}: end -->)"
    changed, count = re.subn(pattern, lambda found: f"{found[1]}{table}\n{found[2]}", text, flags=re.DOTALL)
    if count != 1:
        sys.exit(f"error: the comments around the table {name} are missing.")
    return changed


def faults_table(faults: dict[str, tuple[int, int]]) -> str:
    """Every fault that tests/faults/ drives, and how often it was survived."""
    rows = [f"| {fault} | {count:,} of {of:,} |" for fault, (count, of) in faults.items()]
    return "\n".join(["| fault | survived |", "| --- | ---: |", *rows])


def variants_table(root: Path, study: dict) -> str:
    """Every variant of the pipeline: what `dvc repro` got with seed 0, and what the study over seeds says of it."""
    groups = {group["name"]: group for group in study["groups"]}
    steps = {step["name"]: step for step in study["steps"]}
    rows = []
    for variant in yaml.safe_load((root / "conf/pipeline.yaml").read_text())["variants"]:
        if not (root / f"metrics/{variant}/test.json").is_file():
            sys.exit(f"error: metrics/{variant}/ is missing: uv run dvc repro evaluate@{variant}")
        train, test = (json.loads((root / f"metrics/{variant}/{part}.json").read_text()) for part in ("train", "test"))
        over_seeds = ["", "", "", ""]
        if group := groups.get(variant):
            values, seconds = group["metrics"]["test_accuracy"]["values"], group["costs"]["training_seconds"]
            over_seeds = [str(group["n"]), spread(values), f"{seconds:,.0f}", beside_its_parent(steps.get(variant))]
        rows.append([f"`{variant}`", f"{train['parameters']:,}", f"{test['test_accuracy']:.4f}", *over_seeds])
    seconds = f"s on {processor_of(study)}"
    headings = ["variant", "parameters", "seed 0", "n", "test accuracy", seconds, "points more than (95 %)"]
    return markdown(headings, rows)


def processor_of(study: dict) -> str:
    """On whose two cores the study was made."""
    return ladder.named(study["facts"].partition(", ")[0])


def beside_its_parent(step: dict | None) -> str:
    """What a variant's technique bought, in a few words."""
    if step is None:
        return ""
    value, low, high = (f"{100 * each:+z.1f}" for each in (step["difference"], *step["interval"]))
    said = f"{value} ({low} to {high})"
    return f"`{step['parent']}`: " + (f"**{said}**" if step["shown"] else f"{said}, not shown")


def comments(study: dict, measured: ladder.Ladder) -> dict[Path, str]:
    """The files of the variants and of the ladder's steps, each with what it reaches in its second line."""
    said = {}
    for group in study["groups"]:
        if group["name"] not in measured:
            seconds = group["costs"]["training_seconds"]
            time = f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.1f} min"
            accuracy = group["metrics"]["test_accuracy"]["mean"]
            where = f"two cores of {processor_of(study)}"
            line = f"Trains in {time} on {where}, and reaches a test accuracy of {accuracy:.3f}"
            said[ROOT / f"conf/model/{group['name']}.yaml"] = f"{line} (n = {group['n']})."
    for step, programs in measured.items():
        said[ROOT / f"conf/experiment/{step}.yaml"] = ladder.comment_on(programs[ladder.OURS])
    texts = {}
    for file, line in said.items():
        if file.is_file():  # a variant that was studied may have gone
            first, _, rest = file.read_text().split("\n", 2)
            texts[file] = f"{first}\n# {line}\n{rest}"
    return texts


def presets_table(accuracies: Accuracies) -> str:
    """What the tutorials claim, beside what their settings give here."""
    rows = []
    for preset, source, claim, names in PRESETS:
        for name in names:
            metrics = accuracies[name]["metrics"]
            what = f"`{preset}`" + (f", `{name.split()[0]}`" if len(names) > 1 else "")
            epochs = len(accuracies[name]["history"]["loss"])
            counts = [str(epochs), str(len(metrics["test_accuracy"]))]
            values = [spread(metrics[key]) for key in ("accuracy", "test_accuracy", "test_loss")]
            rows.append([what, source, claim, *counts, *values])
    headings = [
        "`experiment=`",
        "tutorial",
        "their claim",
        "epochs",
        "n",
        "training accuracy",
        "test accuracy",
        "test loss",
    ]
    return markdown(headings, rows, texts=3)


def claims_table(accuracies: Accuracies) -> str:
    """The tutorials' claims of a test accuracy, beside what their settings give here."""
    rows = []
    for preset, _, claim, names in PRESETS:
        for name in names if claim != "none" else ():
            values = accuracies[name]["metrics"]["test_accuracy"]
            what = f"`{preset}`" + (f", `{name.split()[0]}`" if len(names) > 1 else "")
            rows.append([what, claim, spread(values), str(len(values))])
    return markdown(["`experiment=`", "their claim", "test accuracy here", "n"], rows, texts=2)


if __name__ == "__main__":
    main()
