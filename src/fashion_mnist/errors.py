"""What users are told when something is not as it should be."""

import sys


class UserError(Exception):
    """Something that the user can mend; the message is one sentence that says what is wrong and the way out."""


class SourceUnavailableError(UserError):
    """No source of the dataset could be reached; `data=auto` falls back on this error and on no other."""


def say(sentence: str) -> None:
    """Tells what is going on, apart from results, which go to stdout."""
    print(sentence, file=sys.stderr)
