"""The one place that imports TensorFlow first: late, since it takes seconds, and without its start-up chatter."""

import logging
import os
import sys
import tempfile


def import_tensorflow() -> None:
    """Imports TensorFlow; what its C++ side says meanwhile is shown only when the import fails.

    Those lines (which CPU features are on, that no GPU was found) are written before any log level applies to them.
    """
    if "tensorflow" in sys.modules:
        return
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    logging.getLogger("tensorflow").setLevel(logging.ERROR)  # a sweep builds many models, and it warns of that
    logging.getLogger("absl").setLevel(logging.WARNING)
    sys.stderr.flush()
    standard_error = os.dup(2)
    with tempfile.TemporaryFile() as chatter:
        os.dup2(chatter.fileno(), 2)
        try:
            import tensorflow  # noqa: F401
        except BaseException:
            chatter.seek(0)
            os.write(standard_error, chatter.read())
            raise
        finally:
            os.dup2(standard_error, 2)
            os.close(standard_error)
