"""Freed memory kept for the next step: on a CPU much of a training step would go into asking the system for it again."""

import ctypes
import sys

# glibc's malloc.h.
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4


def keep_freed_memory() -> bool:
    """Have glibc's malloc keep what is freed, and serve large tensors from it, for as long as the process lives.

    It changes the whole process: the command line does it, the library never does.

    Returns:
        Whether there was a glibc to tell.
    """
    if sys.platform != "linux":
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:
        return False
    settings = ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, 2**31 - 1), (M_TOP_PAD, 2**28))
    return sum(mallopt(name, value) for name, value in settings) == len(settings)
