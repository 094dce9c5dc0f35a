"""Pictures in folders, one for each class, as Keras's `image_dataset_from_directory` and torchvision's `ImageFolder`.

They are read in the order of their names, numbers by their value, whatever their class.
"""

import functools
import hashlib
import json
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
from PIL import Image

from fashion_mnist.config import DataConfig
from fashion_mnist.data.dataset import Arrays, check_classes, in_parts, set_aside
from fashion_mnist.data.decode import Look, look, no_bombs, read
from fashion_mnist.errors import UserError, progress, say
from fashion_mnist.files import complete

LARGEST_SIDE = 64  # pixels, unless data.side asks for more
MOST_NAMED = 100  # damaged files in one sentence
TRAIN, TEST = "train", "test"
OTHER_PARTS = {"training", "testing", "val", "valid", "validation", "dev"}

Item = TypeVar("Item")
Result = TypeVar("Result")


class Folder(NamedTuple):
    """The pictures that lie in a folder, in the order of their names."""

    place: Path
    class_names: tuple[str, ...]
    files: list[Path]
    labels: np.ndarray
    of_test: np.ndarray | None  # which files are for the test, bool (n,); None if the folder does not say

    @property
    def names(self) -> list[str]:
        return [file.relative_to(self.place).as_posix() for file in self.files]


def find(config: DataConfig) -> Folder:
    """Finds the classes and their pictures; raises UserError where there are none."""
    place = Path(str(config.dir)).expanduser()
    if not place.is_dir():
        raise UserError(f"there is no folder {place}; data.dir=FOLDER names one that holds a folder for each class.")
    below = subfolders(place)
    parts = [place]
    called = {name.lower(): folder for name, folder in below.items()}  # also Train and TEST, as some archives have them
    if {TRAIN, TEST} <= called.keys():
        parts = [called[TRAIN], called[TEST]]
        if more := sorted(name for name, folder in below.items() if folder not in parts):
            raise UserError(f"{place} holds {more[0]}/ beside train/ and test/: move its pictures into one of them.")
    elif called and called.keys() <= {TRAIN, TEST} | OTHER_PARTS:
        raise UserError(
            f"{place} holds {', '.join(sorted(below))}: call the parts train and test, with classes in both."
        )
    found = [pictures_of(part) for part in parts]
    if len(found) == 2 and (lonely := sorted(found[0].keys() ^ found[1].keys())):
        raise UserError(f"train/ and test/ in {place} must hold the same classes, and {lonely[0]!r} is in one of them.")
    class_names = in_order(list(found[0]), config.class_names)
    check_classes(class_names)
    entries = [
        (part, natural(name), label, file)
        for part, by_class in enumerate(found)
        for label, each in enumerate(class_names)
        for name, file in by_class[each]
    ]
    entries.sort(key=lambda entry: entry[:3])
    refuse_links_across((file, (part, label)) for part, _, label, file in entries)
    labels = np.array([label for *_, label, _ in entries], np.uint8 if len(class_names) <= 256 else np.uint16)
    of_test = np.array([part == 1 for part, *_ in entries]) if len(parts) == 2 else None
    return Folder(place, class_names, [file for *_, file in entries], labels, of_test)


def subfolders(place: Path) -> dict[str, Path]:
    """The folders in one, by the names that their classes get; what is hidden is not looked at."""
    found: dict[str, Path] = {}
    for folder in sorted(place.iterdir()):
        if folder.is_symlink() and not folder.exists():
            raise UserError(f"{folder} is a link that leads nowhere; remove it.")
        if folder.name[0] == "." or not folder.is_dir():
            continue
        name = unicodedata.normalize("NFC", folder.name)  # else accents on a Mac would be other letters than elsewhere
        if name in found:
            raise UserError(f"two folders in {place} have the name {name!r}; rename one.")
        refuse_links_back(place, [folder])
        found[name] = folder
    return found


def refuse_links_back(place: Path, folders: Iterable[Path]) -> None:
    """Refuses links that would put pictures of one class among those of another, or never end."""
    around = Path(os.path.realpath(place))
    for link in (folder for folder in folders if folder.is_symlink()):
        target = Path(os.path.realpath(link))
        if target.is_relative_to(around) or around.is_relative_to(target):
            raise UserError(f"{link} is a link to a folder of the same dataset, or around it; remove it.")


def refuse_links_across(placed: Iterable[tuple[Path, tuple[int, int]]]) -> None:
    """Refuses linked folders that put one picture into two classes, or into train/ and test/.

    With each file come the two. Files that are links themselves are as copies: DVC's cache, say, keeps equal ones once.
    """
    real_folder = functools.cache(os.path.realpath)
    seen: dict[str, tuple[Path, tuple[int, int]]] = {}
    for file, where in placed:
        real = f"{real_folder(file.parent)}/{file.name}"
        first, before = seen.setdefault(real, (file, where))
        if before != where:
            raise UserError(
                f"{first} and {file} are one picture, by a link: it cannot be in two classes, or in train/ and test/ "
                "at once; remove one of them."
            )


def pictures_of(place: Path) -> dict[str, list[tuple[str, Path]]]:
    """The pictures of each class, with their names below the folder of the class."""
    others = Counter(file.suffix or "no suffix" for file in place.iterdir() if file.is_file())
    found = {}
    for name, folder in subfolders(place).items():
        refuse_links_back(place, (Path(inner, each) for inner, folders, _ in os.walk(folder) for each in folders))
        files = sorted(visible(folder))
        found[name] = [(file.relative_to(folder).as_posix(), file) for file in files if is_picture(file)]
        others.update(file.suffix or "no suffix" for file in files if not is_picture(file))
    if empty := [name for name, files in found.items() if not files]:
        raise UserError(
            f"there are no pictures in {', '.join(f'{place / name}' for name in empty)}: remove what is no class."
        )
    if not found:
        raise UserError(f"there is no folder of pictures in {place}: a picture of a cat is {place}/cat/any-name.png.")
    if others:
        counts = ", ".join(f"{count} x {suffix}" for suffix, count in sorted(others.items()))
        say(f"left out in {place}, since they lie in no class, or no picture that can be read here ends so: {counts}.")
    return found


def in_order(found: list[str], wanted: Sequence[str] | None) -> tuple[str, ...]:
    """The classes in the order of their labels: by name, numbers by their value, or as `data.class_names` says."""
    if wanted is None:
        return tuple(sorted(found, key=natural))
    if sorted(wanted) != sorted(found):
        raise UserError(
            f"data.class_names must hold each of the folders once: {', '.join(sorted(found, key=natural))}."
        )
    return tuple(wanted)


def natural(name: str) -> list[Any]:
    """Sorts 2.png before 10.png."""
    return [int(part) if index % 2 else part for index, part in enumerate(re.split(r"([0-9]+)", name))]


def visible(folder: Path) -> Iterator[Path]:
    """The files that are not hidden in a folder and below, through links too, but in no folder twice."""
    seen = set()
    for place, folders, names in os.walk(folder, onerror=refuse_unreadable, followlinks=True):
        new = os.path.realpath(place) not in seen
        seen.add(os.path.realpath(place))
        folders[:] = [name for name in folders if new and name[0] != "."]
        yield from (Path(place, name) for name in names if new and name[0] != ".")


def refuse_unreadable(error: OSError) -> None:
    raise UserError(f"{error.filename} cannot be read ({error.strerror}).") from error


def is_picture(file: Path) -> bool:
    """Whether a file's name ends as that of a picture that can be read here. What never ends, as a pipe, is no file."""
    known = Image.registered_extensions().get(file.suffix.lower()) in Image.OPEN
    return known and (file.is_file() or file.is_symlink())  # and a link that leads nowhere is to be named


def digest_of(folder: Folder, remembered: Path) -> str:
    """Stands for names and contents of all files.

    They are not read again while their sizes and times are those that the file `remembered` keeps.
    """

    def state(file: Path) -> list[int]:
        with suppress(OSError):
            about = file.stat()
            return [about.st_size, about.st_mtime_ns, about.st_ctime_ns, about.st_ino]
        return []

    def content(file: Path) -> str:
        with suppress(OSError):
            return hashlib.sha256(file.read_bytes()).hexdigest()
        return ""

    states = short_digest([str(folder.place.absolute()), folder.names, [state(file) for file in folder.files]])
    with suppress(OSError, ValueError, KeyError, TypeError):
        known = json.loads(remembered.read_text(encoding="utf-8"))
        if known["states"] == states:
            return str(known["digest"])
    digest = short_digest([folder.names, for_each(content, folder.files, "comparing")])
    with complete(remembered) as partial:
        partial.write_text(json.dumps({"states": states, "digest": digest}), encoding="utf-8")
    return digest


def short_digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]


def image_arrays(folder: Folder, config: DataConfig) -> Arrays:
    """Reads all pictures into the four arrays of a dataset.

    Raises:
        UserError: some cannot be read, all of which are named; or a class has too few for what is asked for.
    """
    for_test(folder, config)  # what cannot be divided need not be read
    with no_bombs():
        looks = for_each(unless_damaged(look), folder.files, "looking")
        shape = shape_of([each for each in looks if isinstance(each, Look)], config)
        images = np.zeros((len(folder.files), *shape), np.uint8)

        def read_into(index: int) -> None:
            if isinstance(error := looks[index], UserError):
                raise error
            images[index] = read(folder.files[index], shape)

        done = for_each(unless_damaged(read_into), range(len(folder.files)), "reading")
    if errors := [each for each in done if isinstance(each, UserError)]:
        named = "; ".join(str(error).rstrip(".") for error in errors[:MOST_NAMED])
        more = f"; and {len(errors) - MOST_NAMED} more" if len(errors) > MOST_NAMED else ""
        told = f"{len(errors)} of {len(done)} pictures in {folder.place} cannot be read: {named}{more}"
        if not config.skip_damaged:
            raise UserError(f"{told}; mend or remove them, or leave them out with data.skip_damaged=true.")
        say(f"{told}. They are left out.")
        good = np.array([each is None for each in done])
        of_test = None if folder.of_test is None else folder.of_test[good]
        images, folder = images[good], folder._replace(labels=folder.labels[good], of_test=of_test)
    return in_parts(images, folder.labels, for_test(folder, config))


def for_test(folder: Folder, config: DataConfig) -> np.ndarray:
    """Which of the files are for the test, bool (n,)."""
    if folder.of_test is not None:
        return folder.of_test
    return set_aside(folder.labels, config.test, "data.test", folder.class_names, config.drawing_seed, of_each=True)


def shape_of(looks: Sequence[Look], config: DataConfig) -> tuple[int, ...]:
    """Height and width of all images, and 3 for colours, as configured, or as the files are."""
    sizes = Counter(each.side for each in looks)
    frequent = max(sizes, key=lambda side: (sizes[side], -side), default=LARGEST_SIDE)
    side = config.side or max(4, min(frequent, LARGEST_SIDE))
    channels = config.channels or (1 if all(each.grey for each in looks) else 3)
    return (side, side) if channels == 1 else (side, side, 3)


def unless_damaged(work: Callable[[Item], Result]) -> Callable[[Item], "Result | UserError"]:
    """The same work, which gives the error instead of raising it."""

    def attempt(item: Item) -> "Result | UserError":
        try:
            return work(item)
        except UserError as error:
            return error

    return attempt


def for_each(work: Callable[[Item], Result], items: Sequence[Item], description: str) -> list[Result]:
    """What is done with each item, in their order, on all cores: Pillow lets others work while it decodes."""
    with ThreadPoolExecutor() as pool:
        futures = [pool.submit(work, item) for item in items]
        try:
            return [future.result() for future in progress(futures, description)]
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
