"""The one place that imports TensorFlow first: late, since it takes seconds, and without what nobody here needs."""

import contextlib
import gc
import logging
import os
import platform
import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

ONEDNN = "TF_ENABLE_ONEDNN_OPTS"
CPUINFO = Path("/proc/cpuinfo")  # of Linux
told: dict[str, str] = {}  # by `orders`, when TensorFlow was imported


def import_tensorflow() -> None:
    """Imports TensorFlow; what its C++ side says meanwhile is shown only when the import fails.

    Those lines (which CPU features are on, that no GPU was found) are written before any log level applies to them.
    Keras imports scikit-learn where it finds it, for its wrappers, and with it half of SciPy; left out here, that saves
    a sixth of the time.
    """
    if "tensorflow" in sys.modules:
        return
    told.update(orders())
    os.environ.update(told)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ["KERAS_BACKEND"] = "tensorflow"
    os.environ.pop("TF_USE_LEGACY_KERAS", None)
    logging.getLogger("tensorflow").setLevel(logging.ERROR)  # a sweep builds many models, and it warns of that
    logging.getLogger("absl").setLevel(logging.WARNING)
    sys.stderr.flush()
    standard_error = os.dup(2)
    with tempfile.TemporaryFile() as chatter:
        os.dup2(chatter.fileno(), 2)
        sys.modules.setdefault("sklearn", None)  # seems not installed  # pyright: ignore[reportArgumentType]
        try:
            with importing():
                import keras
                import tensorflow  # noqa: F401
            keras.config.set_floatx("float32")  # and so on: what a person's keras.json may have changed
            keras.config.set_epsilon(1e-7)
            keras.config.set_image_data_format("channels_last")
        except BaseException:
            chatter.seek(0)
            os.write(standard_error, chatter.read())
            raise
        finally:
            for order in told:  # which TensorFlow has read; a child, perhaps of older code, decides for itself
                del os.environ[order]
            if sys.modules["sklearn"] is None:
                del sys.modules["sklearn"]
            os.dup2(standard_error, 2)
            os.close(standard_error)


def cpuinfo(file: Path = CPUINFO) -> str:
    """What Linux says of the processor; nothing elsewhere."""
    return file.read_text(encoding="utf-8") if file.is_file() else ""


def orders(file: Path = CPUINFO) -> dict[str, str]:
    """What TensorFlow is told of how to calculate, as variables of the environment, where that does not say it itself.

    oneDNN's kernels are on: they make convolutions faster (docs/speed.md), and TensorFlow leaves them off where the
    processor has no instructions for neural networks, as AMD's before Zen 4 and Intel's before Cascade Lake
    (`DefaultOneDnnPolicy` in https://github.com/tensorflow/tensorflow/blob/v2.21.0/tensorflow/core/util/port.cc).
    """
    if "tensorflow" in sys.modules:
        return told
    if ONEDNN in os.environ:
        return {}
    known = cpuinfo(file) if platform.machine() == "x86_64" else ""
    if not re.search(r"\bavx2\b", known) or re.search(r"\b(avx512_vnni|avx512_bf16|avx_vnni|amx_\w+)\b", known):
        return {}
    return {ONEDNN: "1"}


@contextlib.contextmanager
def importing() -> Iterator[None]:
    """Makes large imports, and the end of the program, faster by a fifth each.

    Importing makes hundreds of thousands of objects, none of which is garbage, and the collector would look through
    all of them again and again; frozen, it leaves them alone for good.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
