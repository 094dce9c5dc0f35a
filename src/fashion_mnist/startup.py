"""The one place that imports TensorFlow first: late, since it takes seconds, and without what nobody here needs."""

import contextlib
import gc
import logging
import os
import sys
import tempfile
from collections.abc import Iterator


def import_tensorflow() -> None:
    """Imports TensorFlow; what its C++ side says meanwhile is shown only when the import fails.

    Those lines (which CPU features are on, that no GPU was found) are written before any log level applies to them.
    Keras imports scikit-learn where it finds it, for its wrappers, and with it half of SciPy; left out here, that saves
    a sixth of the time.
    """
    if "tensorflow" in sys.modules:
        return
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
            if sys.modules["sklearn"] is None:
                del sys.modules["sklearn"]
            os.dup2(standard_error, 2)
            os.close(standard_error)


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
