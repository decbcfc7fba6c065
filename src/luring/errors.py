"""The one exception for input that a person can put right, and what others say of themselves."""


class InputError(ValueError):
    """Something given to Luring cannot be used; the message says what, where, and what to do, in one sentence.

    The command line prints it and ends with exit code 2; any other exception is a fault of ours and keeps its traceback.
    """


def first_line(error: BaseException) -> str:
    """The first line of what an error says, or its name where it says nothing."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
