"""Files are there as a whole, or not at all."""

from pathlib import Path

import pytest
from rich.cells import cell_len

from fashion_mnist import files
from fashion_mnist.errors import UserError

NOBODY = 2**22 + 1  # more than the number of any process on Linux


def test_what_a_killed_process_left_goes_and_what_another_machine_is_writing_stays(tmp_path: Path) -> None:
    left = tmp_path / f".{files.domain()}-{NOBODY}.model.keras"
    elsewhere = tmp_path / f".0a1b2c3d-{NOBODY}.model.keras"
    for file in (left, elsewhere):
        file.write_text("half of it")
    with files.complete(tmp_path / "model.keras") as partial:
        partial.write_text("all of it")
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted([elsewhere.name, "model.keras"])


def write_half(file: Path) -> None:
    with files.complete(file) as partial:
        partial.write_text("half of it")
        raise OSError("no space left")


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("Ankle boot", "Ankle boot"),
        ("a" * 18, "a" * 18),
        ("a" * 19, "a" * 17 + "…"),
        ("漢" * 9, "漢" * 9),
        ("漢" * 10, "漢" * 8 + "…"),
        ("漢字 and letters ever after", "漢字 and letters …"),
    ],
)
def test_a_name_gets_the_same_room_whatever_its_letters(name: str, shown: str) -> None:
    assert files.shorter(name) == shown
    assert cell_len(shown) <= files.LONGEST_NAME


def test_what_fails_halfway_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    file = tmp_path / "model.keras"
    file.write_text("before")
    with pytest.raises(UserError, match="cannot write"):
        write_half(file)
    assert [(each.name, each.read_text()) for each in tmp_path.iterdir()] == [("model.keras", "before")]
