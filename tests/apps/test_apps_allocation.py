"""Memory that is freed is used again."""

import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys
import numpy as np
from worldmodel.apps.allocation import keep_freed_memory

def page_faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        np.ones(2_000_000)  # 16 MB
        np.ones(8_000_000)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

if sys.argv[1] == "kept":
    keep_freed_memory()
page_faults()
print(page_faults())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere memory is kept as the C library likes")
def test_large_arrays_get_the_memory_of_earlier_ones():
    def faults(how):
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, how], capture_output=True, text=True, check=True
        )
        return int(done.stdout)

    assert faults("kept") < 0.1 * faults("as it is")
