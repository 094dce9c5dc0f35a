"""Errors, as people are told them: one sentence with the way out, and an exit code."""

import contextlib
import errno
import os
import re
import signal
import sys
import tempfile
from collections.abc import Iterator

from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf.errors import OmegaConfBaseException

from fashion_mnist.checks import unknown_key
from fashion_mnist.errors import UserError


@contextlib.contextmanager
def explained(primary: str = "config") -> Iterator[None]:
    """Ends the process with one sentence where something fails that the user can mend; else the traceback is shown.

    Args:
        primary: the file of conf/ that says which keys there are.
    """
    as_it_is = os.environ.get("HYDRA_FULL_ERROR", "0") not in ("", "0")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # schedulers ask for an end by it, as people by Ctrl-C
    try:
        yield
    except KeyboardInterrupt as error:
        print(f"\nInterrupted{': ' if str(error) else '.'}{error}", file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        if as_it_is or (message := explain(error, primary)) is None:
            raise
        print(f"error: {message}", file=sys.stderr)
        sys.exit(1)


def explain(error: BaseException, primary: str = "config") -> str | None:
    """The sentence for an error that the user can mend; None for a defect of ours, which deserves its traceback."""
    match error:
        case UserError():
            return str(error)
        case MissingConfigException(options=list() as options):
            group, _, choice = (error.missing_cfg_file or "").rpartition("/")
            return f"{group} has no option '{choice}'; choose one of {', '.join(options)}."
        case OverrideParseException():
            key, equals, _ = error.override.partition("=")
            if not equals:
                return f"'{key}' has no value: write {key}=VALUE; --help lists the keys."
            return f"cannot read '{error.override}'; values with special characters need quotes: \"{key}='...'\"."
        case HydraException() if found := re.search(r"Could not override '([^']+)'", str(error)):
            return str(unknown_key(found[1], primary))
        case HydraException() if found := re.search(r"Ambiguous value for argument '([^=]+)=([^']+)'", str(error)):
            key, values = found.groups()
            as_list = f"write {key}=[{values}] for a list, or " if "." in key else ""
            return f"{key} got several values: {as_list}add -m for a sweep over them."
        case HydraException():
            return " ".join(str(error).split())
        case ValueError() if "Config group override" in str(error):
            return "a group such as model or data takes the name of one of its options; --help lists them."
        case OmegaConfBaseException():
            return f"{error.full_key or 'the configuration'}: {str(error).splitlines()[0]}."
        case OSError(errno=errno.ENOSPC | errno.EDQUOT):
            place = f"the disk of the results, or that of temporary files in {tempfile.gettempdir()}"
            return f"No space left on device: {place}; make room, and start the same command again."
        case OSError(filename=str() as filename):
            return f"cannot use {filename}: {error.strerror}."
        case Exception() if type(error).__name__ == "MlflowException":  # known by name: its import takes seconds
            return f"MLflow refuses: {str(error).splitlines()[0].partition(' (Caused by')[0]}"
    return None
