"""What is freed stays with the process, once the command line has asked for it."""

import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="glibc is Linux's")

CODE = """
import resource
from luring.heap import keep_freed_memory
assert {keep} is False or keep_freed_memory()
import numpy as np
size = 40_000_000
np.ones(size, np.uint8)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    np.ones(size, np.uint8)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(keep):
    """Pages that the system had to hand over again for twenty large arrays, one after the other."""
    done = subprocess.run([sys.executable, "-c", CODE.format(keep=keep)], capture_output=True, text=True, check=True)
    return int(done.stdout)


def test_large_arrays_take_the_place_of_freed_ones():
    assert faults(keep=True) < faults(keep=False) / 10
