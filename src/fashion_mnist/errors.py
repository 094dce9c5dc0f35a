"""The one error that users meet."""


class UserError(Exception):
    """Something that the user can mend; the message is one sentence that says what is wrong and the way out."""


class SourceUnavailableError(UserError):
    """No source of the dataset could be reached; `data=auto` falls back on this error and on no other."""
