"""The one exception for input that a person can put right."""


class InputError(ValueError):
    """Something given to Luring cannot be used; the message says what, where, and what to do, in one sentence.

    The command line prints it and ends with exit code 2; any other exception is a fault of ours and keeps its traceback.
    """
